"""From predictions to figures, results and what the report says of them."""

import dataclasses
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from tokenpose_jax.metrics import bootstrap, coco, errors, mpii
from tokenpose_jax.skeletons import Skeleton


@dataclasses.dataclass(frozen=True)
class Measured:
  """An evaluation's outcome.

  Attributes:
    figures: by name, coco.FIGURES or mpii.FIGURES.
    results: COCO results.
    table: the figures for a terminal.
    details: for the report, JSON types; empty where not asked for.
  """

  figures: dict[str, float]
  results: list[dict[str, Any]]
  table: str
  details: dict[str, Any]


def measure(
  settings: ConfigDict,
  skeleton: Skeleton,
  data: Any,
  found: Any,
  *,
  details: bool,
) -> Measured:
  """Rescores, suppresses, measures: COCO's figures, or MPII's.

  Args:
    settings: config.eval; data: `evaluate.EvalData`; found: its `Predictions`.
  """
  call = _coco if data.ground_truth is None else _mpii
  return call(settings, skeleton, data, found, details)


def _coco(settings, skeleton, data, found, details) -> Measured:
  results = coco.detections_to_results(
    data.image_id[found.valid],
    found.keypoints[found.valid],
    found.scores[found.valid],
    data.score[found.valid],
    data.area[found.valid],
    skeleton.sigmas,
    visibility_threshold=settings.keypoint_score,
    oks_threshold=settings.nms_oks,
    soft=settings.nms_soft,
  )
  matched = coco.match(
    data.annotations,
    results,
    sigmas=skeleton.sigmas,
    image_ids=data.image_ids,
  )
  more = {}
  if details:
    tables, scores, right = errors.coco_errors(matched, skeleton)
    more = _details(tables, scores, right, settings.bootstrap)
    if settings.bootstrap:
      more["intervals"] = bootstrap.coco_intervals(matched, settings.bootstrap)
  figures = matched.figures
  return Measured(figures, results, coco.format_table(figures), more)


def _mpii(settings, skeleton, data, found, details) -> Measured:
  """A person whose image could not be read has all keypoints wrong."""
  points = np.where(found.valid[:, None, None], found.keypoints, -1e6)
  distance = mpii.distances(points, data.ground_truth)
  figures = mpii.figures(distance)
  flat = np.concatenate([found.keypoints, found.scores[..., None]], axis=2)
  columns = (data.image_id, flat.reshape(len(flat), -1), found.scores.mean(1))
  results = [
    {"image_id": image, "category_id": 1, "keypoints": row, "score": score}
    for image, row, score in zip(*(c.tolist() for c in columns), strict=True)
  ]
  more = {}
  if details:
    tables, scores, right = errors.mpii_errors(
      points, found.scores, data.ground_truth, skeleton
    )
    more = _details(tables, scores, right, settings.bootstrap)
    if settings.bootstrap:
      more["intervals"] = bootstrap.pckh_intervals(
        distance, data.image_id, settings.bootstrap
      )
  return Measured(figures, results, mpii.format_table(figures), more)


def _details(tables, scores, right, replicates: int) -> dict[str, Any]:
  return {
    "intervals": {},
    "replicates": replicates,
    **tables,
    "calibration": errors.calibration(scores, right),
  }
