"""Keypoints of a video, smooth: the One-Euro filter (Casiez et al., CHI 2012).

A low-pass filter whose cutoff rises with the speed: still people do not
tremble, fast ones do not lag.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Float, Int

_KEPT = 2.0  # seconds that a person may be gone
_SURE = 0.3  # keypoints that score less move their estimate less


@dataclasses.dataclass
class _State:
  """A person at a time."""

  keypoints: Float[np.ndarray, "k 2"]
  velocity: Float[np.ndarray, "k 2"]
  time: float


class Smoother:
  """One filter for each person and keypoint.

  Speeds are measured in sizes of the person (the diagonal of the keypoints'
  extent), so that the distance to the camera does not matter.
  """

  def __init__(
    self, *, min_cutoff: float = 1.0, beta: float = 8.0, d_cutoff: float = 1.0
  ):
    """Knows nobody yet.

    Args:
      min_cutoff: of still keypoints, Hz; lower is smoother.
      beta: Hz that the cutoff rises for each size of the person a second.
      d_cutoff: of the speed itself, Hz.
    """
    self._min_cutoff, self._beta = min_cutoff, beta
    self._d_cutoff = d_cutoff
    self._people: dict[int, _State] = {}

  def __call__(
    self,
    ids: Int[np.ndarray, " n"],
    keypoints: Float[np.ndarray, "n k 2"],
    scores: Float[np.ndarray, "n k"],
    time: float,
  ) -> Float[np.ndarray, "n k 2"]:
    """The keypoints of a frame, smooth.

    Args:
      ids: (N,) of the people; below 0: nobody, left as they are.
      keypoints: (N, K, 2) pixels.
      scores: (N, K).
      time: of the frame, seconds; later than the one before.
    """
    smooth = keypoints.astype(np.float64)
    for n, number in enumerate(ids.tolist()):
      if number >= 0 and np.isfinite(keypoints[n]).all():
        smooth[n] = self._person(number, smooth[n], scores[n], time)
    gone = [i for i, s in self._people.items() if time - s.time > _KEPT]
    for number in gone:
      del self._people[number]
    return smooth

  def _person(
    self,
    number: int,
    keypoints: Float[np.ndarray, "k 2"],
    scores: Float[np.ndarray, " k"],
    time: float,
  ) -> Float[np.ndarray, "k 2"]:
    state = self._people.get(number)
    if state is None or not 0 < time - state.time <= _KEPT:
      still = np.zeros_like(keypoints)
      self._people[number] = _State(keypoints, still, time)
      return keypoints
    seconds = time - state.time
    size = max(float(np.hypot(*np.ptp(keypoints, axis=0))), 1.0)
    sure = np.clip(scores / _SURE, 0, 1)[:, None]
    speed = (keypoints - state.keypoints) / seconds
    velocity = state.velocity + _weight(self._d_cutoff, seconds) * sure * (
      speed - state.velocity
    )
    sizes = np.hypot(*velocity.T)[:, None] / size
    cutoff = self._min_cutoff + self._beta * sizes
    weight = _weight(cutoff, seconds) * sure
    smooth = state.keypoints + weight * (keypoints - state.keypoints)
    self._people[number] = _State(smooth, velocity, time)
    return smooth


def _weight(cutoff: Any, seconds: float) -> Any:
  """Of a new value in a low-pass filter of the first order."""
  ratio = 2 * math.pi * cutoff * seconds
  return ratio / (ratio + 1)
