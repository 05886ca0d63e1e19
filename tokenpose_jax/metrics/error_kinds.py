"""What kind of errors a network makes, keypoint by keypoint.

After Ronchi and Perona (ICCV 2017): a keypoint's similarity is its term in
OKS, exp(-d^2 / (2 (2 sigma)^2 area)). Above 0.85 it is good, from 0.5 on a
jitter. Below, it is an inversion where it lies on the opposite side's keypoint
of the same person, a swap where it lies on the same or the opposite keypoint of
another person, and a miss where it lies on nothing; the most similar decides.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from tokenpose_jax.metrics import coco, mpii
from tokenpose_jax.models.doubt import Doubt
from tokenpose_jax.skeletons import Skeleton

KINDS = ("good", "jitter", "inversion", "swap", "miss")
GOOD, RIGHT = 0.85, 0.5  # keypoint similarities
VISIBLE = 2  # as COCO labels it
# Minimum OKS for a detection to count as that person, as in that paper.
FOUND = 0.1
PCK_BOUNDS = (0.05, 0.1, 0.2)  # of the longer side of a person's box
HEAD_GOOD, HEAD_RIGHT = 0.1, 0.5  # the same for MPII, head lengths

Kinds = Int[np.ndarray, "m k"]


class Errors(NamedTuple):
  """The errors of an evaluation.

  Attributes:
    tables: of the report, JSON types: keypoints, errors, people.
    detection: (F,) which detection each of the F people found is.
    labeled: (F, K) which keypoints of theirs are annotated.
    visible: (F, K) which of these as visible; None where nobody says.
    similarity: (F, K) to the annotated place, of use where labeled; right
      from `RIGHT` on.
    distance: (F, K) from the annotated place, image pixels, likewise.
  """

  tables: dict[str, Any]
  detection: Int[np.ndarray, " f"]
  labeled: Bool[np.ndarray, "f k"]
  visible: Bool[np.ndarray, "f k"] | None
  similarity: Float[np.ndarray, "f k"]
  distance: Float[np.ndarray, "f k"]


def details(
  errors: Errors,
  intervals: dict[str, tuple[float, float]],
  replicates: int,
  peaks: Float[np.ndarray, "n k"],
  doubt: Doubt | None = None,
) -> dict[str, Any]:
  """What the report says besides the metrics, JSON types.

  Args:
    errors: as returned by `coco_errors` or `mpii_errors`.
    intervals: of the metrics by name.
    replicates: that they are made of.
    peaks: (N, K) heatmap maxima of what `errors.detection` counts.
    doubt: of the same, image pixels.
  """
  found, labeled = errors.detection, errors.labeled
  similarity = errors.similarity[labeled]
  maxima = peaks[found][labeled]
  tables = {
    "intervals": intervals,
    "replicates": replicates,
    **errors.tables,
    "calibration": calibration(maxima, similarity >= RIGHT),
  }
  if doubt is None:
    return tables
  presence, visibility, quality, expected = (
    np.asarray(values)[found] for values in doubt
  )
  score = presence * quality
  tables["doubt"] = {
    "maximum": calibration(maxima, similarity),
    "similarity": calibration(quality[labeled], similarity),
    "presence": calibration(presence.ravel(), labeled.ravel())
    | {"auroc": auroc(presence[labeled], presence[~labeled])},
    "score": calibration(
      score.ravel(), np.where(labeled, errors.similarity, 0).ravel()
    ),
    "error": {
      "expected": _mean(expected[labeled]),
      "found": _mean(errors.distance[labeled]),
    },
  }
  if errors.visible is not None:
    seen, visibility = errors.visible[labeled], visibility[labeled]
    tables["doubt"]["visibility"] = calibration(visibility, seen) | {
      "auroc": auroc(visibility[seen], visibility[~seen])
    }
  return tables


def coco_errors(matched: coco.Matched, skeleton: Skeleton) -> Errors:
  """Errors of a COCO evaluation.

  Detections are matched with people from OKS 0.1 on.

  Args:
    matched: as returned by `coco.match`.
    skeleton: of its keypoints.
  """
  people = [
    (place, person)
    for place, person in enumerate(matched.dataset["annotations"])
    if not person["iscrowd"] and person["num_keypoints"] > 0
  ]
  row = {place: number for number, (place, _) in enumerate(people)}
  k = skeleton.num_keypoints

  def keypoints(entries: Sequence[dict]) -> np.ndarray:
    flat = [entry["keypoints"] for entry in entries]
    return np.array(flat, np.float64).reshape(-1, k, 3)

  truth = keypoints([person for _, person in people])
  found = keypoints(matched.detections)
  pairs = matched.pairs(FOUND)
  detection = np.full(len(people), -1)
  for d, p in pairs:
    if p in row:
      detection[row[p]] = d
  is_found = detection >= 0
  place = np.zeros((len(people), k, 2))
  place[is_found] = found[detection[is_found], :, :2]
  labeled = truth[..., 2] > 0
  area = np.array([person["area"] for _, person in people], np.float64)
  image = np.array([person["image_id"] for _, person in people])
  kinds, own = classify(
    place, truth[..., :2], labeled, area, image, matched.sigmas, skeleton
  )
  side = np.array([max(person["bbox"][2:]) for _, person in people])
  distance = np.linalg.norm(place - truth[..., :2], axis=2)
  # People without a detection count as wrong in PCK and as 0 in similarity.
  share = distance / np.maximum(side, 1e-9).reshape(-1, 1)
  share[~is_found] = np.inf
  own[~is_found] = 0
  columns = {
    "similarity": np.where(labeled, own, np.nan),
    **{
      f"PCK@{bound}": np.where(labeled, share <= bound, np.nan)
      for bound in PCK_BOUNDS
    },
  }
  shown = labeled & is_found[:, None]
  tables = {
    "keypoints": _by_keypoint(columns, skeleton),
    "errors": _count(kinds, shown, skeleton),
    "people": {
      "labelled": len(people),
      "found": int(is_found.sum()),
      "detections": len(matched.detections),
      "detections_of_nobody": len(matched.detections) - len(pairs),
    },
  }
  return Errors(
    tables,
    detection[is_found],
    labeled[is_found],
    truth[is_found, :, 2] == VISIBLE,
    own[is_found],
    distance[is_found],
  )


def classify(
  predicted: Float[np.ndarray, "m k 2"],
  truth: Float[np.ndarray, "m k 2"],
  labeled: Bool[np.ndarray, "m k"],
  area: Float[np.ndarray, " m"],
  image: np.ndarray,
  sigmas: Float[np.ndarray, " k"],
  skeleton: Skeleton,
) -> tuple[Kinds, Float[np.ndarray, "m k"]]:
  """The kind of every keypoint of M people, and its similarity to its own.

  Args:
    predicted: (M, K, 2) image pixels.
    truth: (M, K, 2) image pixels.
    labeled: (M, K) which are in the truth.
    area: (M,) square pixels.
    image: (M,) which image each person is in.
    sigmas: (K,) OKS constants.
    skeleton: of the keypoints.

  Returns:
    indices into KINDS (M, K), of use where labeled; similarities (M, K).
  """
  mirror = skeleton.flip_permutation
  paired = mirror != np.arange(len(mirror))

  def similarity(
    points: np.ndarray,
    person: np.ndarray,
    order: np.ndarray,
    sigma: np.ndarray,
  ) -> np.ndarray:
    """Of (P, K, 2) points to the keypoints `order` of people (P,)."""
    square = ((points - truth[person][:, order]) ** 2).sum(-1)
    scale = np.maximum(area[person], np.spacing(1))[:, None]
    value = np.exp(-square / (2 * (2 * sigma) ** 2 * scale))
    return np.where(labeled[person][:, order], value, 0.0)

  everyone = np.arange(len(predicted))
  same = np.arange(len(mirror))
  own = similarity(predicted, everyone, same, sigmas)
  inverted = similarity(predicted, everyone, mirror, sigmas[mirror]) * paired
  swapped = np.zeros_like(own)
  for a, b in _in_one_image(image):
    for order in (same, mirror):
      other = similarity(predicted[a], b, order, sigmas[order])
      swapped[a] = np.maximum(swapped[a], other)
  kinds = np.full(own.shape, KINDS.index("miss"))
  kinds[swapped >= RIGHT] = KINDS.index("swap")
  kinds[(inverted >= RIGHT) & (inverted >= swapped)] = KINDS.index("inversion")
  kinds[own >= RIGHT] = KINDS.index("jitter")
  kinds[own >= GOOD] = KINDS.index("good")
  return kinds, own


def mpii_errors(
  predictions: Float[np.ndarray, "n 16 2"],
  ground_truth: Mapping[str, np.ndarray],
  skeleton: Skeleton,
  valid: Bool[np.ndarray, " n"],
) -> Errors:
  """Errors by head lengths: good to 0.1, right (jitter) to 0.5.

  An inversion lies within 0.5 of the opposite side's joint; swaps cannot be
  recognized, because MPII's validation set lists one person at a time.

  Args:
    predictions: (N, 16, 2) image pixels.
    ground_truth: as for `mpii.distances`, prepared arrays.
    skeleton: MPII's.
    valid: (N,) False where the image could not be read, which counts as wrong
      in the tables alone.
  """
  distance = mpii.distances(predictions, ground_truth)
  order = skeleton.flip_permutation
  mirrored = {
    **ground_truth,
    "keypoints": np.asarray(ground_truth["keypoints"])[:, order],
    "visible": np.asarray(ground_truth["visible"])[:, order],
  }
  opposite = mpii.distances(predictions, mirrored)
  opposite[:, order == np.arange(len(order))] = np.nan
  labeled = np.isfinite(distance)
  kinds = np.full(distance.shape, KINDS.index("miss"))
  kinds[opposite <= HEAD_RIGHT] = KINDS.index("inversion")
  kinds[distance <= HEAD_RIGHT] = KINDS.index("jitter")
  kinds[distance <= HEAD_GOOD] = KINDS.index("good")
  columns = {
    f"PCKh@{bound}": np.where(labeled, distance <= bound, np.nan)
    for bound in (HEAD_GOOD, HEAD_RIGHT)
  }
  tables = {
    "keypoints": _by_keypoint(columns, skeleton),
    "errors": _count(kinds, labeled, skeleton),
    "people": {"labelled": len(distance), "found": len(distance)},
  }
  points = np.asarray(ground_truth["keypoints"])
  pixels = np.linalg.norm(predictions - points, axis=2)
  similarity = RIGHT ** ((distance / HEAD_RIGHT) ** 2)
  return Errors(
    tables,
    np.flatnonzero(valid),
    labeled[valid],
    None,
    similarity[valid],
    pixels[valid],
  )


def calibration(
  scores: Float[np.ndarray, " n"],
  truth: Shaped[np.ndarray, " n"],
  bins: int = 10,
) -> dict[str, Any]:
  """How often what scores so much is true, or the mean of what it is.

  Returns:
    bins: number, mean score and mean truth of each tenth of 0 to 1 (scores
    beyond count in the last and first); error: the expected calibration error
    (Guo et al., ICML 2017), 0 to 1; -1 without scores.
  """
  place = np.clip((scores * bins).astype(int), 0, bins - 1)
  rows = []
  for number in range(bins):
    here = place == number
    count = int(here.sum())
    rows.append(
      {
        "from": number / bins,
        "count": count,
        "score": float(scores[here].mean()) if count else -1.0,
        "right": float(truth[here].mean()) if count else -1.0,
      }
    )
  gap = sum(row["count"] * abs(row["score"] - row["right"]) for row in rows)
  return {"bins": rows, "error": gap / len(scores) if len(scores) else -1.0}


def auroc(
  positive: Float[np.ndarray, " p"], negative: Float[np.ndarray, " n"]
) -> float:
  """Area under the ROC curve: how often a positive scores higher.

  Args:
    positive: scores of those that are.
    negative: scores of those that are not.

  Returns:
    0 to 1, equal scores counting one half; -1 where one of the two is empty.
  """
  if not len(positive) or not len(negative):
    return -1.0
  order = np.sort(negative)
  below = np.searchsorted(order, positive, "left")
  upto = np.searchsorted(order, positive, "right")
  return float((below + upto).mean() / (2 * len(negative)))


def _mean(values: Float[np.ndarray, " n"]) -> float:
  """-1 where there is nothing."""
  return float(values.mean()) if len(values) else -1.0


def _in_one_image(image: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
  """All ordered pairs of different people of an image.

  In groups (first, second) in which nobody is first twice.
  """
  order = np.argsort(image, kind="stable")
  ids = image[order]
  pairs = []
  for offset in range(1, len(order)):
    near = np.flatnonzero(ids[offset:] == ids[:-offset])
    if not len(near):
      break
    a, b = order[near], order[near + offset]
    pairs += [(a, b), (b, a)]
  return pairs


def _by_keypoint(
  columns: dict[str, np.ndarray], skeleton: Skeleton
) -> list[dict[str, Any]]:
  """Means of columns (M, K) by keypoint; NaN is left out."""
  rows = []
  for k, name in enumerate(skeleton.keypoints):
    row: dict[str, Any] = {"name": name}
    for label, values in columns.items():
      known = values[:, k][np.isfinite(values[:, k])]
      row["labelled"] = len(known)
      row[label] = float(known.mean()) if len(known) else -1.0
    rows.append(row)
  return rows


def _count(
  kinds: Kinds, shown: Bool[np.ndarray, "m k"], skeleton: Skeleton
) -> dict[str, Any]:
  """How many keypoints are of each kind: in all, and by keypoint."""
  counts = {
    name: np.bincount(kinds[:, k][shown[:, k]], minlength=len(KINDS))
    for k, name in enumerate(skeleton.keypoints)
  }
  total = np.sum([*counts.values()], axis=0)
  return {
    "all": dict(zip(KINDS, total.tolist(), strict=True)),
    "by_keypoint": {
      name: dict(zip(KINDS, row.tolist(), strict=True))
      for name, row in counts.items()
    },
  }
