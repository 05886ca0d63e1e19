"""Best and worst predictions, picked while the evaluation runs.

Crops are at hand only then; of each, what matters is kept or forgotten at once,
so that memory does not grow with the number of boxes.
"""

import dataclasses
import heapq
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from tokenpose_jax.metrics import mpii, oks
from tokenpose_jax.skeletons import Skeleton

# A person is a box's if its centre is not further from the crop's than this
# share of the crop's sides.
_NEAR = 0.25


@dataclasses.dataclass(frozen=True)
class Picture:
  """A crop with what was found in it and what is true, crop pixels.

  Attributes:
    quality: OKS, or for MPII the share of joints within half a head length.
  """

  index: int
  image_id: int
  quality: float
  score: float
  crop: UInt8[np.ndarray, "h w 3"]
  found: Float[np.ndarray, "k 2"]
  scores: Float[np.ndarray, "k"]
  truth: Float[np.ndarray, "k 2"]
  labelled: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Person:
  center: np.ndarray
  keypoints: np.ndarray
  labelled: np.ndarray
  area: float


class Gallery:
  """The best and the worst of the predictions that were shown to it."""

  def __init__(self, data: Any, skeleton: Skeleton, size: int):
    """Of an `evaluate.EvalData`, `size` of each."""
    self._data = data
    self._sigmas = skeleton.sigmas or ()
    self._size = size
    self._best: list[tuple[float, int, Picture]] = []
    self._worst: list[tuple[float, int, Picture]] = []
    self._people: dict[Any, list[_Person]] = {}
    if size and data.ground_truth is None:
      for entry in data.annotations["annotations"]:
        self._take(entry)

  def _take(self, entry: dict[str, Any]) -> None:
    points = np.array(entry["keypoints"], np.float64).reshape(-1, 3)
    if entry.get("iscrowd") or not (points[:, 2] > 0).any():
      return
    x, y, w, h = entry["bbox"]
    person = _Person(
      center=np.array([x + (w - 1) / 2, y + (h - 1) / 2]),
      keypoints=points[:, :2],
      labelled=points[:, 2] > 0,
      area=entry["area"],
    )
    self._people.setdefault(entry["image_id"], []).append(person)

  def add(
    self,
    index: int,
    crop: UInt8[np.ndarray, "h w 3"],
    crop_to_image: Float[np.ndarray, "2 3"],
    keypoints: Float[np.ndarray, "k 2"],
    crop_keypoints: Float[np.ndarray, "k 2"],
    scores: Float[np.ndarray, "k"],
  ) -> None:
    """Looks at box `index`, whose keypoints are in image and crop pixels."""
    if not self._size:
      return
    person, quality = self._judge(index, crop, crop_to_image, keypoints)
    if person is None:
      return
    labelled = int(person.labelled.sum())
    score = float(scores.mean() * self._data.score[index])
    # Few keypoints are easily all right; being sure and wrong is the worst.
    good = quality if 2 * labelled >= len(scores) else -1.0
    bad = (1 - quality) * score if labelled >= 3 else -1.0
    for heap, value in ((self._best, good), (self._worst, bad)):
      full = len(heap) == self._size
      if value < 0 or (full and value <= heap[0][0]):
        continue
      linear = crop_to_image[:, :2].astype(np.float64)
      offset = person.keypoints - crop_to_image[:, 2]
      picture = Picture(
        index=index,
        image_id=int(self._data.image_id[index]),
        quality=quality,
        score=score,
        crop=crop.copy(),
        found=crop_keypoints,
        scores=scores,
        truth=np.linalg.solve(linear, offset.T).T,
        labelled=person.labelled,
      )
      push = heapq.heapreplace if full else heapq.heappush
      push(heap, (value, -index, picture))

  def _judge(
    self, index: int, crop: np.ndarray, crop_to_image: np.ndarray, keypoints
  ) -> tuple[_Person | None, float]:
    """Who is meant by the box, and how well it was done, 0 to 1."""
    truth = self._data.ground_truth
    if truth is not None:
      row = {
        name: np.asarray(v)[index : index + 1] for name, v in truth.items()
      }
      labelled = row["visible"][0] > 0
      if not labelled.any():
        return None, 0.0
      distance = mpii.distances(keypoints[None], row)[0][labelled]
      person = _Person(np.zeros(2), row["keypoints"][0], labelled, 0.0)
      return person, float((distance <= 0.5).mean())
    people = self._people.get(self._data.image_id[index], [])
    if not people:
      return None, 0.0
    size = np.array(crop.shape[1::-1])
    center = crop_to_image[:, :2] @ ((size - 1) / 2) + crop_to_image[:, 2]
    away = [np.linalg.norm(person.center - center) for person in people]
    person = people[int(np.argmin(away))]
    reach = _NEAR * np.linalg.norm(crop_to_image[:, :2] @ size)
    if min(away) > reach:
      return None, 0.0
    similarity = oks.oks(
      keypoints,
      person.keypoints,
      person.area,
      person.area,
      self._sigmas,
      person.labelled,
    )
    return person, float(similarity)

  def best(self) -> list[Picture]:
    """From the best on."""
    return [picture for _, _, picture in sorted(self._best, reverse=True)]

  def worst(self) -> list[Picture]:
    """From the worst on: by (1 - quality) times score."""
    return [picture for _, _, picture in sorted(self._worst, reverse=True)]
