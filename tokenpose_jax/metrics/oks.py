"""Object keypoint similarity (OKS): what it is, and what it weeds out.

OKS says how far two people's keypoints agree, from 0 to 1. Here it compares
detections with each other, to drop those that show the same person twice;
against ground truth it is computed in `coco.evaluate`. Source: the COCO
site's keypoint evaluation page; SPEC.md 5.4.
"""

import numpy as np
from numpy.typing import ArrayLike

# Distances held in memory at a time, 8 bytes each and a few copies of them.
_CHUNK = 2**20

# Soft OKS-NMS keeps no more than COCO evaluates in an image.
_SOFT_LIMIT = 20


def oks(
  a_keypoints: ArrayLike,
  b_keypoints: ArrayLike,
  a_area: ArrayLike,
  b_area: ArrayLike,
  sigmas: ArrayLike,
  visible: ArrayLike | None = None,
) -> np.ndarray:
  """OKS of detections a with detections b (SPEC.md 5.4).

  The mean over the keypoints of exp(-d^2 / (2 (2 sigma)^2 area)), where d is
  their distance and area the mean of the two areas. Leading dimensions
  broadcast: (N, 1, K, 2) with (M, K, 2) gives (N, M).

  Args:
    a_keypoints: (..., K, 2 or more) x, y in pixels; what follows is ignored.
    b_keypoints: (..., K, 2 or more), likewise.
    a_area: (...) square pixels.
    b_area: (...) square pixels.
    sigmas: (K,) per-keypoint constants, `Skeleton.sigmas`.
    visible: (..., K) bool, which keypoints count; None: all. Where none
      does, OKS is 0.

  Returns:
    (...) float64, from 0 to 1.
  """
  a = np.asarray(a_keypoints, np.float64)
  b = np.asarray(b_keypoints, np.float64)
  total_area = np.asarray(a_area, np.float64) + np.asarray(b_area, np.float64)
  area = total_area / 2 + np.spacing(1)  # Never 0, as in the original.
  square = (a[..., 0] - b[..., 0]) ** 2 + (a[..., 1] - b[..., 1]) ** 2
  variance = (2 * np.asarray(sigmas, np.float64)) ** 2
  similarity = np.exp(-square / variance / area[..., None] / 2)
  if visible is None:
    return similarity.mean(axis=-1)
  count = np.sum(visible, axis=-1)
  return (similarity * visible).sum(axis=-1) / np.maximum(count, 1)


def oks_matrix(
  keypoints: ArrayLike,
  areas: ArrayLike,
  sigmas: ArrayLike,
  visible: ArrayLike | None = None,
) -> np.ndarray:
  """OKS of every detection with every other (SPEC.md 5.4).

  Args:
    keypoints: (N, K, 2 or more) x, y in pixels; what follows is ignored.
    areas: (N,) square pixels.
    sigmas: (K,) per-keypoint constants.
    visible: (N, K) bool: of each pair, only keypoints that are visible in
      the second detection count, as in the original. None: all.

  Returns:
    (N, N) float64. Symmetric unless `visible` is given.

  Raises:
    ValueError: the shapes do not fit together.
  """
  keypoints, areas, sigmas = _checked(keypoints, areas, sigmas)
  if visible is not None:
    visible = np.asarray(visible, bool)
    if visible.shape != keypoints.shape[:2]:
      raise ValueError(
        f"visible has the shape {visible.shape}, expected (N, K) ="
        f" {keypoints.shape[:2]}"
      )
  number = len(keypoints)
  matrix = np.empty((number, number))
  step = max(1, _CHUNK // max(1, number * len(sigmas)))
  for start in range(0, number, step):
    rows = slice(start, start + step)
    matrix[rows] = oks(
      keypoints[rows, None],
      keypoints,
      areas[rows, None],
      areas,
      sigmas,
      visible,
    )
  return matrix


def rescore(
  box_scores: ArrayLike,
  keypoint_scores: ArrayLike,
  visibility_threshold: float = 0.2,
) -> np.ndarray:
  """A detection's score: its box's times its visible keypoints' mean.

  Args:
    box_scores: (N,) the person detector's scores.
    keypoint_scores: (N, K) heatmap maxima.
    visibility_threshold: only keypoints that score higher count (SPEC.md 5.4:
      0.2).

  Returns:
    (N,) float64; 0 where no keypoint counts.

  Raises:
    ValueError: the shapes do not fit together.
  """
  box_scores = np.asarray(box_scores, np.float64)
  keypoint_scores = np.asarray(keypoint_scores, np.float64)
  if keypoint_scores.ndim != 2 or box_scores.shape != keypoint_scores.shape[:1]:
    raise ValueError(
      f"box_scores {box_scores.shape} and keypoint_scores"
      f" {keypoint_scores.shape} do not fit; expected (N,) and (N, K)"
    )
  visible = keypoint_scores > visibility_threshold
  total = np.sum(keypoint_scores * visible, axis=1)
  return box_scores * total / np.maximum(visible.sum(axis=1), 1)


def oks_nms(
  keypoints: ArrayLike,
  scores: ArrayLike,
  areas: ArrayLike,
  sigmas: ArrayLike,
  threshold: float = 0.9,
  visible: ArrayLike | None = None,
) -> np.ndarray:
  """Non-maximum suppression by OKS among one image's detections.

  Greedy from the highest score: a detection whose OKS with a kept one is
  above the threshold is dropped (SPEC.md 5.4). Among equal scores the first
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
  keypoints: ArrayLike,
  scores: ArrayLike,
  areas: ArrayLike,
  sigmas: ArrayLike,
  threshold: float = 0.9,
  visible: ArrayLike | None = None,
) -> np.ndarray:
  """Like `oks_nms`, but demotes instead of dropping (SPEC.md 5.4).

  Takes the best detection, multiplies the scores of the others by
  exp(-OKS^2 / threshold), and so on until 20 are taken. The new scores only
  decide the order.

  Args, errors: as `oks_nms`.

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


def _falling(scores: ArrayLike, number: int) -> np.ndarray:
  """(N,) indices by falling score; of equal ones the first comes first."""
  scores = np.asarray(scores, np.float64)
  if scores.shape != (number,):
    raise ValueError(
      f"scores has the shape {scores.shape}, expected ({number},)"
    )
  return np.argsort(-scores, kind="stable")


def _checked(
  keypoints: ArrayLike, areas: ArrayLike, sigmas: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The three as float64, or a ValueError that says which does not fit."""
  keypoints = np.asarray(keypoints, np.float64)
  areas = np.asarray(areas, np.float64)
  sigmas = np.asarray(sigmas, np.float64)
  if keypoints.ndim != 3 or keypoints.shape[2] < 2:
    raise ValueError(
      f"keypoints has the shape {keypoints.shape}, expected (N, K, 2 or more)"
    )
  if areas.shape != keypoints.shape[:1]:
    raise ValueError(
      f"areas has the shape {areas.shape}, expected (N,) ="
      f" {keypoints.shape[:1]}"
    )
  if sigmas.shape != keypoints.shape[1:2]:
    raise ValueError(
      f"sigmas has the shape {sigmas.shape}, expected (K,) ="
      f" {keypoints.shape[1:2]}"
    )
  return keypoints, areas, sigmas
