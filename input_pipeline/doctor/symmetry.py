"""Do the keypoints of a flip pair mirror each other in the data?

Left and right are alike: over many people, a keypoint is as far from the others
as its partner is from theirs, whatever the others are called. This needs no
names and no direction that people face.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from input_pipeline.doctor.findings import ERROR, WARNING, Finding, Kind
from tokenpose_jax.coco_skeletons import name_pairs
from tokenpose_jax.skeletons import Skeleton

NO_MIRROR = Kind(
  ERROR,
  "flip pairs that do not mirror each other",
  "a mirrored image would be labeled wrongly; correct flip_pairs, or the order"
  " of the keypoints",
)
ONE_SIDED = Kind(
  WARNING,
  "left and right differ",
  "fine where all people do the same; else compare the order of the names with"
  " the contact sheet",
)
UNPAIRED = Kind(
  WARNING,
  "keypoints look like left and right, but are no flip pair",
  "if they are, name them in flip_pairs",
)

MOST = 5000  # people; more say nothing new
_ENOUGH = 20  # people who have both keypoints, for a distance
_FARTHEST = 3.0  # box sizes from its center; what is further is a slip
# Limits of `unlike`. Partners of COCO, MPII and LSP have at most 0.02, and in
# samples of n people 0.02 + 0.8 / sqrt(n); most others have more than 0.2.
_DIFFERENT = 0.1
_ALIKE = 0.04
_NOISE = 1.0  # over the root of the people
_LEVEL = 0.05  # partners are as high as each other, on average


class Likeness(NamedTuple):
  """What is known of each two of K keypoints.

  Attributes:
    unlike: how much their distances from the other keypoints differ, of 1;
      NaN where there are too few.
    drop: the mean difference of their heights, over their mean distance.
    people: that this is known from.
  """

  unlike: Float[np.ndarray, "k k"]
  drop: Float[np.ndarray, "k k"]
  people: Int[np.ndarray, "k k"]


def findings(
  keypoints: Float[np.ndarray, "n k 2"],
  visible: Float[np.ndarray, "n k"],
  boxes: Float[np.ndarray, "n 4"],
  skeleton: Skeleton,
  split: str,
) -> list[Finding]:
  """Flip pairs that are none in the data, and what may be one.

  Args:
    keypoints: (n, k, 2) image pixels.
    visible: (n, k) above 0 where labeled.
    boxes: (n, 4) x, y, w, h, image pixels; with an area.
    skeleton: of the people.
    split: of the data.
  """
  known = likeness(keypoints, visible, boxes)
  return [
    *_not_mirrored(known, skeleton, split),
    *_unpaired(known, skeleton, split),
  ]


def likeness(
  keypoints: Float[np.ndarray, "n k 2"],
  visible: Float[np.ndarray, "n k"],
  boxes: Float[np.ndarray, "n 4"],
) -> Likeness:
  """Measures how alike keypoints are, as partners are.

  Args:
    keypoints: (n, k, 2) image pixels.
    visible: (n, k) above 0 where labeled.
    boxes: (n, 4) x, y, w, h, image pixels; with an area.
  """
  chosen = slice(None, None, -(-len(boxes) // MOST) or 1)
  boxes, labeled = boxes[chosen], visible[chosen] > 0
  center = boxes[:, None, :2] + boxes[:, None, 2:] / 2
  size = np.sqrt(boxes[:, 2:]).prod(1)[:, None, None]
  with np.errstate(over="ignore"):
    places = (keypoints[chosen] - center) / size
  places = np.where(
    labeled[..., None], np.clip(places, -_FARTHEST, _FARTHEST), 0.0
  )
  people = labeled.T.astype(int) @ labeled.astype(int)
  distance = np.full(people.shape, np.nan)
  drop = np.full(people.shape, np.nan)
  for i, both in enumerate(people):
    apart = places - places[:, i : i + 1]
    weight = labeled * labeled[:, i : i + 1]
    total = np.maximum(both, 1)
    length = (np.hypot(*np.moveaxis(apart, -1, 0)) * weight).sum(0) / total
    height = np.abs((apart[..., 1] * weight).sum(0) / total)
    distance[i] = np.where(both >= _ENOUGH, length, np.nan)
    drop[i] = height / np.maximum(distance[i], 1e-9)
  unlike, count = _compared(distance, people)
  return Likeness(unlike, drop, count)


def _compared(
  distance: Float[np.ndarray, "k k"], people: Int[np.ndarray, "k k"]
) -> tuple[Float[np.ndarray, "k k"], Int[np.ndarray, "k k"]]:
  """Distances from the others, in order of size, of each two keypoints."""
  k = len(distance)
  unlike = np.full((k, k), np.nan)
  count = np.zeros((k, k), int)
  for i in range(k):
    for j in range(i):
      others = np.isfinite(distance[i] + distance[j])
      others[[i, j]] = False
      if others.sum() < max(1, (k - 2) / 2):
        continue
      a, b = (np.sort(distance[n, others]) for n in (i, j))
      unlike[i, j] = np.abs(a - b).sum() / max((a + b).sum() / 2, 1e-9)
      count[i, j] = np.median(np.minimum(people[i], people[j])[others])
  return np.fmax(unlike, unlike.T), count + count.T


def _not_mirrored(
  known: Likeness, skeleton: Skeleton, split: str
) -> list[Finding]:
  """Names that say left and right may be right where the data is one-sided."""
  noise = _NOISE / np.sqrt(np.maximum(known.people, 1))
  wrong = [
    (i, j)
    for i, j in skeleton.flip_pairs
    if known.unlike[i, j] > _DIFFERENT + noise[i, j]
  ]
  most = 2 * len(wrong) > len(skeleton.flip_pairs)
  named = {frozenset(pair) for pair in name_pairs(skeleton.keypoints)}
  return [
    Finding(
      ONE_SIDED if {i, j} in named and not most else NO_MIRROR,
      split,
      _names(skeleton, i, j),
      f"their distances from the others differ by {known.unlike[i, j]:.0%} in"
      f" {known.people[i, j]} people",
    )
    for i, j in wrong
  ]


def _unpaired(known: Likeness, skeleton: Skeleton, split: str) -> list[Finding]:
  """Each other's nearest likeness, and as high."""
  paired = {i for pair in skeleton.flip_pairs for i in pair}
  # Of those that the names show, `people.check_names` speaks.
  paired |= {i for pair in name_pairs(skeleton.keypoints) for i in pair}
  unlike = np.where(np.isnan(known.unlike), np.inf, known.unlike)
  nearest = unlike.argmin(1)
  noise = _NOISE / np.sqrt(np.maximum(known.people, 1))
  return [
    Finding(UNPAIRED, split, _names(skeleton, i, j))
    for j, i in enumerate(nearest.tolist())
    if i < j and nearest[i] == j and not {i, j} & paired
    if unlike[i, j] < _ALIKE
    if known.drop[i, j] < _LEVEL + noise[i, j]
  ]


def _names(skeleton: Skeleton, i: int, j: int) -> str:
  return f"{skeleton.keypoints[i]} and {skeleton.keypoints[j]}"
