"""OKS-NMS: keeps the best of the detections of one person.

Of one image's detections, hard or soft, as in the original implementation
(reference 5.4); and of all images at once, with the same result in about a
hundredth of the time of a loop over pairs (benchmarks/evaluation.py).
"""

import itertools

import numpy as np

from tokenpose_jax.metrics import oks
from tokenpose_jax.metrics.oks import Numbers, oks_matrix

# Soft OKS-NMS keeps no more than COCO evaluates in an image.
_SOFT_LIMIT = 20


def oks_nms(
  keypoints: Numbers,
  scores: Numbers,
  areas: Numbers,
  sigmas: Numbers,
  threshold: float = 0.9,
  visible: Numbers | None = None,
) -> np.ndarray:
  """Non-maximum suppression by OKS among one image's detections.

  Greedy from the highest score: a detection whose OKS with a kept one is
  above the threshold is dropped (reference 5.4). Among equal scores the first
  goes first.

  Args:
    keypoints: (N, K, 2 or more) x, y in pixels; what follows is ignored.
    scores: (N,).
    areas: (N,) square pixels.
    sigmas: (K,) per-keypoint constants.
    threshold: OKS, 0 to 1.
    visible: (N, K) bool, the keypoints by which a detection may be dropped;
      None: all.

  Returns:
    (M,) int64 indices of the kept detections, in order of falling score.

  Raises:
    ValueError: the shapes do not fit together.
  """
  order = _falling(scores, len(np.asarray(keypoints)))
  alike = oks_matrix(keypoints, areas, sigmas, visible) > threshold
  dropped = np.zeros(len(order), bool)
  kept = []
  for index in order.tolist():
    if not dropped[index]:
      kept.append(index)
      dropped |= alike[index]
  return np.array(kept, np.int64)


def soft_oks_nms(
  keypoints: Numbers,
  scores: Numbers,
  areas: Numbers,
  sigmas: Numbers,
  threshold: float = 0.9,
  visible: Numbers | None = None,
) -> np.ndarray:
  """Like `oks_nms`, but demotes instead of dropping (reference 5.4).

  Takes the best detection, multiplies the scores of the others by
  exp(-OKS^2 / threshold), and so on until 20 are taken. The new scores only
  decide the order.

  Args:
    keypoints: as for `oks_nms`.
    scores: as for `oks_nms`.
    areas: as for `oks_nms`.
    sigmas: as for `oks_nms`.
    threshold: as for `oks_nms`.
    visible: as for `oks_nms`.

  Raises:
    ValueError: the shapes do not fit together.

  Returns:
    (M,) int64 indices, M at most 20, in the order in which they were taken.
  """
  left = _falling(scores, len(np.asarray(keypoints)))
  fading = np.array(scores, np.float64)
  decay = np.exp(
    -(oks_matrix(keypoints, areas, sigmas, visible) ** 2) / threshold
  )
  kept: list[int] = []
  while len(left) and len(kept) < _SOFT_LIMIT:
    best, left = left[0], left[1:]
    kept.append(int(best))
    fading[left] *= decay[best, left]
    left = left[np.argsort(-fading[left], kind="stable")]
  return np.array(kept, np.int64)


def oks_nms_by_image(
  images: Numbers,
  keypoints: Numbers,
  scores: Numbers,
  areas: Numbers,
  sigmas: Numbers,
  threshold: float = 0.9,
) -> np.ndarray:
  """`oks_nms` of every image, all images at once.

  In round r the r-th best detection of every image, if it is still there,
  drops those like it. That OKS exceeds the threshold is first asked of a few
  keypoints, which rules out most pairs; the others decide by all.

  Args:
    images: (N,) integers, equal for detections of the same image.
    keypoints: as for `oks_nms`.
    scores: as for `oks_nms`.
    areas: as for `oks_nms`.
    sigmas: as for `oks_nms`.
    threshold: as for `oks_nms`.

  Returns:
    (N,) bool, which detections are kept.

  Raises:
    ValueError: the shapes do not fit together.
  """
  points, area, sigma = oks.checked(keypoints, areas, sigmas)
  k = len(sigma)
  order, image, rounds = _rounds(images, scores)
  area = area[order] + np.spacing(1)  # As in `oks.oks`.
  unit = 1 / (2 * sigma * np.sqrt(2))
  # The rest of the keypoints can add no more than 1 each.
  few = np.unique(np.linspace(0, k - 1, min(k, int(k * (1 - threshold)) + 2)))
  few = few.astype(int)
  bound = k * threshold - (k - len(few)) - 1e-9
  x, y = (
    np.ascontiguousarray((points[:, few, axis] * unit[few])[order].T)
    for axis in (0, 1)
  )
  kept = np.ones(len(order), bool)
  for this, rest in itertools.pairwise(rounds):
    # Pairs of a kept detection of this round with a later one of its image.
    judge = this + image[rest:]
    later = np.flatnonzero(kept[rest:] & kept[judge])
    a, b = judge[later], rest + later
    factor = -2 / (area[a] + area[b])
    square = (x[:, b] - x[:, a]) ** 2
    square += (y[:, b] - y[:, a]) ** 2
    near = np.flatnonzero(np.exp(square * factor).sum(axis=0) > bound)
    a, b = a[near], b[near]
    offset = (points[order[a], :, :2] - points[order[b], :, :2]) * unit[:, None]
    square = (offset**2).sum(axis=-1)
    similarity = np.exp(square * factor[near, None]).mean(axis=-1)
    kept[b[similarity > threshold]] = False
  result = np.empty(len(order), bool)
  result[order] = kept
  return result


def soft_oks_nms_by_image(
  images: Numbers,
  keypoints: Numbers,
  scores: Numbers,
  areas: Numbers,
  sigmas: Numbers,
  threshold: float = 0.9,
) -> np.ndarray:
  """`soft_oks_nms` of every image.

  Args:
    images: (N,) integers, equal for detections of the same image.
    keypoints: as for `oks_nms`.
    scores: as for `oks_nms`.
    areas: as for `oks_nms`.
    sigmas: as for `oks_nms`.
    threshold: as for `oks_nms`.

  Returns:
    (N,) bool, which detections are kept.

  Raises:
    ValueError: the shapes do not fit together.
  """
  ids, points = np.asarray(images), np.asarray(keypoints)
  score, area = np.asarray(scores), np.asarray(areas)
  order = np.argsort(ids, kind="stable")
  edges = np.flatnonzero(np.diff(ids[order])) + 1
  kept = np.zeros(len(ids), bool)
  for members in np.split(order, edges):
    fields = (points[members], score[members], area[members])
    kept[members[soft_oks_nms(*fields, sigmas, threshold)]] = True
  return kept


def _rounds(
  images: Numbers, scores: Numbers
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Detections by their rank in their image, the fullest images first.

  Returns:
    order (N,), the place of each one's image (N,), and where each rank begins,
    and the end.
  """
  ids = np.asarray(images)
  by_image = np.lexsort((-np.asarray(scores, np.float64), ids))
  ids = ids[by_image]
  first = np.flatnonzero(np.diff(ids, prepend=ids[:1] - 1))
  count = np.diff(first, append=len(ids))
  place = np.empty(len(count), np.int64)
  place[np.argsort(-count, kind="stable")] = np.arange(len(count))
  image = np.repeat(place, count)
  rank = np.arange(len(ids)) - np.repeat(first, count)
  by_rank = np.lexsort((image, rank))
  rounds = np.concatenate([[0], np.cumsum(np.bincount(rank))])
  return by_image[by_rank], image[by_rank], rounds


def _falling(scores: Numbers, number: int) -> np.ndarray:
  """(N,) indices by falling score; of equal ones the first comes first."""
  scores = np.asarray(scores, np.float64)
  if scores.shape != (number,):
    raise ValueError(
      f"scores has the shape {scores.shape}, expected ({number},)"
    )
  return np.argsort(-scores, kind="stable")
