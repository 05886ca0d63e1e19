"""The MPII benchmark: PCKh over the annotated people."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from tokenpose_jax.metrics import bootstrap, error_kinds, mpii
from tokenpose_jax.metrics.benchmark import (
  Column,
  Judgment,
  Measured,
  Predictions,
)
from tokenpose_jax.skeletons import Skeleton

# Stands in for the keypoints of a person whose image could not be read: all of
# them count as wrong.
_NOWHERE = -1e6


@dataclasses.dataclass(frozen=True, eq=False)
class MpiiPckh:
  """PCKh of predictions (`metrics.benchmark.Benchmark`).

  Attributes:
    ground_truth: in the order of the boxes: keypoints (N, 16, 2) image pixels,
      visible (N, 16), head_boxes (N, 4) x1, y1, x2, y2.
    skeleton: MPII's.
    image_count: images that are measured.
  """

  ground_truth: Mapping[str, np.ndarray]
  skeleton: Skeleton
  image_count: int

  headline = "Mean"
  columns = tuple(Column(name, 1.0, 2) for name in mpii.FIGURES)

  def measure(self, predictions: Predictions) -> Measured:
    """PCKh, and every person's keypoints as COCO results."""
    distance = mpii.distances(self._points(predictions), self.ground_truth)
    boxes, scores = predictions.boxes, predictions.scores
    flat = np.concatenate([predictions.keypoints, scores[..., None]], axis=2)
    columns = (
      *(boxes.image_id, boxes.category_id),
      *(flat.reshape(len(flat), -1), predictions.peaks.mean(1)),
    )
    names = ("image_id", "category_id", "keypoints", "score")
    results = [
      dict(zip(names, row, strict=True))
      for row in zip(*(c.tolist() for c in columns), strict=True)
    ]
    return Measured(mpii.figures(distance), results, distance)

  def details(
    self, measured: Measured, predictions: Predictions, replicates: int
  ) -> dict[str, Any]:
    """Errors by kind, calibration and bootstrap intervals."""
    errors = error_kinds.mpii_errors(
      self._points(predictions),
      self.ground_truth,
      self.skeleton,
      predictions.valid,
    )
    intervals = (
      bootstrap.pckh_intervals(
        measured.evidence, predictions.boxes.image_id, replicates
      )
      if replicates
      else {}
    )
    return error_kinds.details(
      errors, intervals, replicates, predictions.peaks, predictions.doubt
    )

  def judge(
    self,
    index: int,
    image_id: int,
    crop_to_image: Float[np.ndarray, "2 3"],
    crop_hw: tuple[int, int],
    keypoints: Float[np.ndarray, "k 2"],
  ) -> Judgment | None:
    """The box's own person; quality is the share of joints that are right."""
    del image_id, crop_to_image, crop_hw
    row = {
      name: np.asarray(values)[index : index + 1]
      for name, values in self.ground_truth.items()
    }
    labeled = row["visible"][0] > 0
    if not labeled.any():
      return None
    distance = mpii.distances(keypoints[None], row)[0][labeled]
    right = float((distance <= error_kinds.HEAD_RIGHT).mean())
    return Judgment(row["keypoints"][0], labeled, right)

  def format_table(self, metrics: Mapping[str, float]) -> str:
    """The metrics as a small table for terminals."""
    return mpii.format_table(metrics)

  def _points(self, predictions: Predictions) -> Float[np.ndarray, "n k 2"]:
    valid = predictions.valid[:, None, None]
    return np.where(valid, predictions.keypoints, _NOWHERE)
