"""The COCO keypoint benchmark: rescoring, OKS-NMS, AP and AR."""

import collections
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from tokenpose_jax import geometry, skeletons
from tokenpose_jax.metrics import bootstrap, coco, error_kinds, oks
from tokenpose_jax.metrics.benchmark import (
  Column,
  Judgment,
  Measured,
  Predictions,
)
from tokenpose_jax.metrics.coco_plain import ORIGINAL_ID, Plain
from tokenpose_jax.skeletons import Skeleton

# A person matches a box if their centers are closer than this fraction of the
# crop's size.
_NEAR = 0.25


class _Person(NamedTuple):
  """An annotated person, image pixels."""

  center: Float[np.ndarray, " 2"]
  keypoints: Float[np.ndarray, "k 2"]
  labeled: Bool[np.ndarray, " k"]
  area: float


class _Evidence(NamedTuple):
  """Who was matched with whom, and the box of each detection."""

  matched: coco.Matched
  boxes: Int[np.ndarray, " d"]


@dataclasses.dataclass(frozen=True, eq=False)
class CocoKeypoints:
  """OKS AP of predictions (`metrics.benchmark.Benchmark`).

  Attributes:
    annotations: COCO's dict, made plain (`coco_plain`).
    skeleton: of the annotations; without sigmas: the default ones.
    image_ids: the images that are measured; None: all of the annotations.
    min_keypoint_score: keypoints that score higher enter the rescoring.
    nms_threshold: OKS of OKS-NMS; 1: none.
    nms_soft: soft OKS-NMS in place of the hard one.
  """

  annotations: Mapping[str, Any]
  skeleton: Skeleton
  image_ids: Sequence[int] | None = None
  min_keypoint_score: float = 0.2
  nms_threshold: float = 0.9
  nms_soft: bool = False

  headline = "AP"
  columns = tuple(Column(name, 100.0, 1) for name in coco.FIGURES)

  def __post_init__(self) -> None:
    if self.skeleton.sigmas is None:
      skeleton = skeletons.with_sigmas(self.skeleton)
      object.__setattr__(self, "skeleton", skeleton)

  @property
  def image_count(self) -> int:
    """Images that are measured."""
    chosen = self.image_ids
    return len(self.annotations["images"] if chosen is None else chosen)

  def measure(self, predictions: Predictions) -> Measured:
    """The ten COCO metrics; boxes of unreadable images have no result."""
    valid = predictions.valid
    boxes = predictions.boxes
    results, places = coco.results_and_places(
      boxes.image_id[valid],
      predictions.keypoints[valid],
      predictions.peaks[valid],  # A person's score is of the maxima.
      boxes.score[valid],
      boxes.area[valid],
      self._sigmas,
      min_keypoint_score=self.min_keypoint_score,
      nms_threshold=self.nms_threshold,
      soft=self.nms_soft,
      category_ids=boxes.category_id[valid],
    )
    matched = coco.match(
      Plain(dict(self.annotations), ()),
      results,
      sigmas=self._sigmas,
      image_ids=self.image_ids,
    )
    evidence = _Evidence(matched, np.flatnonzero(valid)[places])
    results = self._with_own_ids(results)
    if predictions.doubt is not None:
      results = [
        _with_doubt(result, predictions, place)
        for result, place in zip(results, evidence.boxes.tolist(), strict=True)
      ]
    return Measured(matched.figures, results, evidence)

  def details(
    self, measured: Measured, predictions: Predictions, replicates: int
  ) -> dict[str, Any]:
    """Errors by kind, calibration, intervals, figures by category."""
    matched, boxes = measured.evidence
    errors = error_kinds.coco_errors(matched, self.skeleton)
    # Detections are boxes without those that NMS left out.
    errors = errors._replace(detection=boxes[errors.detection])
    intervals = (
      bootstrap.coco_intervals(matched, replicates) if replicates else {}
    )
    return {
      **error_kinds.details(
        errors, intervals, replicates, predictions.peaks, predictions.doubt
      ),
      "categories": self._categories(matched),
    }

  def judge(
    self,
    index: int,
    image_id: int,
    crop_to_image: Float[np.ndarray, "2 3"],
    crop_hw: tuple[int, int],
    keypoints: Float[np.ndarray, "k 2"],
  ) -> Judgment | None:
    """The annotated person nearest to the crop's center; quality is OKS."""
    del index
    people = self._people.get(image_id, [])
    if not people:
      return None
    size = np.array(crop_hw[::-1])
    center = crop_to_image[:, :2] @ ((size - 1) / 2) + crop_to_image[:, 2]
    away = [np.linalg.norm(person.center - center) for person in people]
    if min(away) > _NEAR * np.linalg.norm(crop_to_image[:, :2] @ size):
      return None
    person = people[int(np.argmin(away))]
    similarity = oks.oks(
      keypoints,
      person.keypoints,
      person.area,
      person.area,
      self._sigmas,
      person.labeled,
    )
    return Judgment(person.keypoints, person.labeled, float(similarity))

  def format_table(self, metrics: Mapping[str, float]) -> str:
    """The metrics as a small table for terminals."""
    return coco.format_table(metrics)

  @property
  def _sigmas(self) -> tuple[float, ...]:
    sigmas = self.skeleton.sigmas
    assert sigmas is not None  # __post_init__ saw to it.
    return sigmas

  def _categories(self, matched: coco.Matched) -> list[dict[str, Any]]:
    """A row for each category; none where there is only one."""
    figures = matched.by_category()
    if len(figures) < 2:
      return []
    names = {c["id"]: c.get("name") for c in self.annotations["categories"]}
    people = collections.Counter(
      entry["category_id"]
      for entry in matched.dataset["annotations"]
      if entry["num_keypoints"] and not entry["iscrowd"]
    )
    return [
      {"name": str(names[one] or one), "people": people[one], **values}
      for one, values in figures.items()
    ]

  def _with_own_ids(self, results: list[dict]) -> list[dict]:
    """The results with the ids of the annotation file."""
    images, categories = (
      {
        e["id"]: e[ORIGINAL_ID]
        for e in self.annotations[name]
        if ORIGINAL_ID in e
      }
      for name in ("images", "categories")
    )
    if not images and not categories:
      return results
    return [
      {
        **result,
        "image_id": images.get(result["image_id"], result["image_id"]),
        "category_id": categories.get(
          result["category_id"], result["category_id"]
        ),
      }
      for result in results
    ]

  @functools.cached_property
  def _people(self) -> dict[int, list[_Person]]:
    """The people with labeled keypoints by image; crowds left out."""
    people: dict[int, list[_Person]] = {}
    for entry in self.annotations["annotations"]:
      points = np.array(entry["keypoints"], np.float64).reshape(-1, 3)
      labeled = points[:, 2] > 0
      if entry.get("iscrowd") or not labeled.any():
        continue
      center = geometry.box_center(np.array(entry["bbox"], np.float64))
      person = _Person(center, points[:, :2], labeled, float(entry["area"]))
      people.setdefault(entry["image_id"], []).append(person)
    return people


def _with_doubt(
  result: dict[str, Any], predictions: Predictions, place: int
) -> dict[str, Any]:
  """A result with the scores of `model.doubt`, and what they are made of."""
  keypoints = list(result["keypoints"])
  keypoints[2::3] = predictions.scores[place].astype(float).tolist()
  doubt = predictions.doubt
  told = {
    name: np.round(np.asarray(values)[place].astype(float), 4).tolist()
    for name, values in (doubt._asdict() if doubt else {}).items()
  }
  return {**result, "keypoints": keypoints, "doubt": told}
