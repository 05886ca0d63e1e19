"""Who is who in a video, and where to look in the next frame."""

import dataclasses

import numpy as np
import scipy.optimize
from jaxtyping import Float, Int

from tokenpose_jax import skeletons
from tokenpose_jax.metrics.nms import oks_nms
from tokenpose_jax.metrics.oks import oks
from tokenpose_jax.skeletons import Skeleton

# Keypoints that score less do not say where a person is.
MIN_SCORE = 0.2
# The box of the next frame over the extent of the keypoints, which end at the
# ankles and the eyes; and room to move.
_MARGIN = 0.15
_SAME = 0.7  # OKS above which two poses are one person


@dataclasses.dataclass
class _Track:
  """A person as last seen."""

  number: int
  keypoints: Float[np.ndarray, "k 2"]
  scores: Float[np.ndarray, " k"]
  box: Float[np.ndarray, " 4"]
  velocity: Float[np.ndarray, " 2"]
  missed: int = 0


class Tracker:
  """Gives people ids that they keep from frame to frame.

  People and tracks, moved on by their velocity, are paired so that the sum of
  their similarities is greatest (the mean of OKS and of the boxes' IoU).
  """

  def __init__(
    self,
    skeleton: Skeleton,
    *,
    min_similarity: float = 0.15,
    most_missed: int = 25,
  ):
    """Follows nobody yet.

    Args:
      skeleton: of the people.
      min_similarity: below, a person is somebody else.
      most_missed: frames that a person may be gone.
    """
    self._sigmas = skeletons.with_sigmas(skeleton).sigmas
    self._min_similarity = min_similarity
    self._most_missed = most_missed
    self._tracks: list[_Track] = []
    self._next = 0

  def update(
    self,
    keypoints: Float[np.ndarray, "n k 2"],
    scores: Float[np.ndarray, "n k"],
    boxes: Float[np.ndarray, "n 4"],
  ) -> Int[np.ndarray, " n"]:
    """The ids of the people of the next frame.

    Args:
      keypoints: (N, K, 2) pixels.
      scores: (N, K).
      boxes: (N, 4) x, y, w, h in pixels.

    Returns:
      (N,) ids from 0; -1: a person without keypoints (NaN).
    """
    ids = np.full(len(boxes), -1)
    people = np.flatnonzero(np.isfinite(keypoints).all((1, 2)))
    alike = self._similarity(keypoints[people], scores[people], boxes[people])
    rows, columns = scipy.optimize.linear_sum_assignment(-alike)
    seen = set()
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
      if alike[row, column] >= self._min_similarity:
        person, track = people[row], self._tracks[column]
        _move(track, keypoints[person], scores[person], boxes[person])
        ids[person] = track.number
        seen.add(track.number)
    for track in self._tracks:
      track.missed += track.number not in seen
    self._tracks = [t for t in self._tracks if t.missed <= self._most_missed]
    for person in people[ids[people] < 0].tolist():
      self._tracks.append(
        _Track(
          self._next,
          keypoints[person],
          scores[person],
          boxes[person],
          np.zeros(2),
        )
      )
      ids[person] = self._next
      self._next += 1
    return ids

  def _similarity(
    self,
    keypoints: Float[np.ndarray, "n k 2"],
    scores: Float[np.ndarray, "n k"],
    boxes: Float[np.ndarray, "n 4"],
  ) -> Float[np.ndarray, "n m"]:
    """(people, tracks), from 0 to 1."""
    if not self._tracks:
      return np.zeros((len(boxes), 0))
    moved = [t.velocity * (t.missed + 1) for t in self._tracks]
    their_points = np.stack(
      [t.keypoints + m for t, m in zip(self._tracks, moved, strict=True)]
    )
    their_boxes = np.stack([t.box for t in self._tracks])
    their_boxes[:, :2] += moved
    their_scores = np.stack([t.scores for t in self._tracks])
    poses = oks(
      keypoints[:, None],
      their_points,
      boxes[:, None, 2:].prod(-1),
      their_boxes[:, 2:].prod(-1),
      self._sigmas or (),
      (scores[:, None] > MIN_SCORE) & (their_scores > MIN_SCORE),
    )
    return (poses + _iou(boxes, their_boxes)) / 2


def _move(
  track: _Track,
  keypoints: Float[np.ndarray, "k 2"],
  scores: Float[np.ndarray, " k"],
  box: Float[np.ndarray, " 4"],
) -> None:
  """A track where its person was found."""
  centers = [b[:2] + b[2:] / 2 for b in (track.box, box)]
  now = (centers[1] - centers[0]) / (track.missed + 1)
  # A tenth of it: boxes of detectors jump by more than people walk.
  track.velocity = 0.9 * track.velocity + 0.1 * now
  track.keypoints, track.scores, track.box = keypoints, scores, box
  track.missed = 0


def _iou(
  one: Float[np.ndarray, "n 4"], other: Float[np.ndarray, "m 4"]
) -> Float[np.ndarray, "n m"]:
  """Intersection over union of boxes x, y, w, h."""
  low = np.maximum(one[:, None, :2], other[:, :2])
  high = np.minimum(
    one[:, None, :2] + one[:, None, 2:], other[:, :2] + other[:, 2:]
  )
  both = np.maximum(high - low, 0).prod(-1)
  area = one[:, None, 2:].prod(-1) + other[:, 2:].prod(-1) - both
  return both / np.maximum(area, 1e-9)


def boxes_of(
  keypoints: Float[np.ndarray, "n k 2"],
  scores: Float[np.ndarray, "n k"],
  skeleton: Skeleton,
) -> tuple[Float[np.ndarray, "m 4"], Int[np.ndarray, " m"]]:
  """Where to look for the people of a frame in the next one.

  People whose keypoints score too little are given up; of two on one pose the
  better one stays.

  Args:
    keypoints: (N, K, 2) pixels.
    scores: (N, K).
    skeleton: of the people.

  Returns:
    boxes (M, 4) x, y, w, h in pixels, and the indices (M,) of their people.
  """
  shown = (scores > MIN_SCORE) & np.isfinite(keypoints).all(-1)
  people = np.flatnonzero(shown.sum(1) >= min(3, keypoints.shape[1]))
  boxes = []
  for person in people.tolist():
    points = keypoints[person][shown[person]]
    low, high = points.min(0), points.max(0)
    # A person seen from the side is thin, but no line.
    size = np.maximum(high - low, (high - low).max() / 4)
    corner = (low + high) / 2 - size * (0.5 + _MARGIN)
    boxes.append(np.concatenate([corner, size * (1 + 2 * _MARGIN)]))
  found = np.array(boxes).reshape(-1, 4)
  if not len(found):
    return found, people
  kept = np.sort(
    oks_nms(
      np.nan_to_num(keypoints[people]),
      scores[people].mean(1),
      found[:, 2:].prod(1),
      skeletons.with_sigmas(skeleton).sigmas or (),
      _SAME,
    )
  )
  return found[kept], people[kept]
