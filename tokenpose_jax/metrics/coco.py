"""COCO keypoint evaluation: detections in, the ten AP and AR metrics out.

They come from hotcoco, a Rust port of pycocotools whose values are bit for bit
the same and take a fraction of the time. What it would silently ignore (missing
fields, keypoints of another skeleton) is an error here.
"""

import dataclasses
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import hotcoco
import numpy as np
from jaxtyping import Float, Int

from tokenpose_jax import skeletons
from tokenpose_jax.errors import InputError
from tokenpose_jax.metrics import coco_files, nms, oks
from tokenpose_jax.metrics.coco_plain import Plain
from tokenpose_jax.metrics.oks import Numbers

# In pycocotools' order.
FIGURES = (
  *("AP", "AP50", "AP75", "APM", "APL"),
  *("AR", "AR50", "AR75", "ARM", "ARL"),
)

# Where the five AP, and the five AR, lie in pycocotools' tables: which of the
# OKS thresholds .50, .55 ... .95, and which of all, medium and large people.
_CELLS = (
  (slice(None), 0),
  (slice(0, 1), 0),
  (slice(5, 6), 0),
  (slice(None), 1),
  (slice(None), 2),
)


def evaluate(
  annotations: str | os.PathLike | Mapping[str, Any],
  results: str | os.PathLike | Sequence[Any],
  *,
  sigmas: Numbers | None = None,
  image_ids: Iterable[Hashable] | None = None,
) -> dict[str, float]:
  """The ten COCO keypoint metrics, as pycocotools gives them (reference 5.5).

  The results count as they are: no rescoring, no NMS. The 20 best detections
  of an image are looked at. Crowds and people without labeled keypoints
  neither help nor hurt; results of a category that the annotations do not
  list are passed over.

  Deliberately unlike pycocotools: annotation ids play no part, because it
  takes a match with the id 0 for a miss and confuses ids that repeat; other
  tools' spellings are made plain (`coco_plain`, docs/data.md), so that what is
  absent is counted or assumed; and a `num_keypoints` of 0 everywhere, where
  keypoints are labeled, is counted, too.

  Args:
    annotations: a COCO annotation file, or what it holds. Each annotation
      has image_id, bbox (x, y, w, h in pixels) and keypoints (3K numbers: x,
      y, visibility); category_id, area (square pixels), iscrowd and
      num_keypoints where they are known.
    results: a COCO results file, or the list that it holds. Each result has
      image_id, category_id, score and keypoints (3K numbers: x, y, score).
    sigmas: (K,) OKS constants, `Skeleton.sigmas`; None: COCO's 17.
    image_ids: evaluate these images alone; None: all.

  Returns:
    Metrics by the names in FIGURES, from 0 to 1; -1 where there is no ground
    truth to measure by.

  Raises:
    InputError: a file is missing or not JSON, a field is missing, a number is
      not finite, a keypoint count differs from K, or an image is unknown.
  """
  return match(annotations, results, sigmas=sigmas, image_ids=image_ids).figures


@dataclasses.dataclass(frozen=True)
class Matched:
  """An evaluation, and what it was made from.

  Attributes:
    figures: what `evaluate` returns.
    dataset: the ground truth as it was read: images, categories, annotations
      whose ids count from 1.
    detections: as they were read; hotcoco's ids of them count from 1.
    sigmas: (K,).
    evaluation: hotcoco's, evaluated and accumulated.
  """

  figures: dict[str, float]
  dataset: dict[str, Any]
  detections: list[dict[str, Any]]
  sigmas: np.ndarray
  evaluation: hotcoco.COCOeval

  def pairs(self, threshold: float) -> list[tuple[int, int]]:
    """Who was matched with whom at another OKS threshold, as COCO matches.

    Returns:
      places of (detection, annotation), also of crowds and of people without
      labeled keypoints.
    """
    again = hotcoco.COCOeval(
      self.evaluation.coco_gt, self.evaluation.coco_dt, "keypoints"
    )
    again.params.kpt_oks_sigmas = self.sigmas.tolist()
    again.params.iou_thrs = [threshold]
    again.params.area_rng = again.params.area_rng[:1]
    again.params.area_rng_lbl = again.params.area_rng_lbl[:1]
    again.evaluate()
    return [
      (detection - 1, person - 1)
      for image in again.eval_imgs
      if image is not None
      for detection, person, matched in zip(
        image["dtIds"],
        image["dtMatches"][0],
        image["dtMatched"][0],
        strict=True,
      )
      if matched
    ]

  def by_category(self) -> dict[int, dict[str, float]]:
    """The figures of each category that has people to measure by, by its id."""
    tables = self.evaluation.eval
    assert tables is not None  # match() has filled it.
    figures = {}
    for place, category in enumerate(self.evaluation.params.cat_ids):
      of = slice(place, place + 1)
      one = summarize(tables["precision"][:, :, of], tables["recall"][:, of])
      if one["AP"] >= 0:
        figures[category] = one
    return figures


def match(
  annotations: str | os.PathLike | Mapping[str, Any] | Plain,
  results: str | os.PathLike | Sequence[Any],
  *,
  sigmas: Numbers | None = None,
  image_ids: Iterable[Hashable] | None = None,
) -> Matched:
  """`evaluate`, with the matches of detections and people.

  Args:
    annotations: as for `evaluate`, or made plain; then ids are the plain ones.
    results: as for `evaluate`.
    sigmas: as for `evaluate`.
    image_ids: as for `evaluate`.

  Raises:
    InputError: as `evaluate`.
  """
  constants = _checked_sigmas(sigmas)
  dataset, detections = coco_files.read(
    annotations, results, len(constants), image_ids
  )
  ground_truth = hotcoco.COCO(dataset)
  evaluation = hotcoco.COCOeval(
    ground_truth, ground_truth.load_res(detections), "keypoints"
  )
  evaluation.params.kpt_oks_sigmas = constants.tolist()
  evaluation.evaluate()
  evaluation.accumulate()
  tables = evaluation.eval
  assert tables is not None  # accumulate() has just filled it.
  figures = summarize(tables["precision"], tables["recall"])
  return Matched(figures, dataset, detections, constants, evaluation)


def detections_to_results(
  image_ids: Numbers,
  keypoints: Numbers,
  keypoint_scores: Numbers,
  box_scores: Numbers,
  areas: Numbers,
  sigmas: Numbers,
  *,
  min_keypoint_score: float = 0.2,
  nms_threshold: float | None = 0.9,
  soft: bool = False,
  category_ids: Numbers = 1,
) -> list[dict[str, Any]]:
  """Turns the network's detections into COCO results (reference 5.4, 5.5).

  Rescores every detection, then applies OKS-NMS in each image.

  Args:
    image_ids: (N,) integers or strings, in any order.
    keypoints: (N, K, 2) x, y in image pixels.
    keypoint_scores: (N, K) heatmap maxima.
    box_scores: (N,) the person detector's scores.
    areas: (N,) of the enlarged boxes, square pixels (reference 5.4).
    sigmas: (K,) OKS constants, `Skeleton.sigmas`.
    min_keypoint_score: keypoints that score higher count in the rescoring.
    nms_threshold: OKS of OKS-NMS; None, or 1 and above: no NMS.
    soft: soft OKS-NMS, which keeps 20 an image (nms.py), not the hard one.
    category_ids: (N,) integers, or one for all. NMS is within a category.

  Returns:
    Results that `json.dumps` takes. Images in order of first appearance, in
    each image by falling score.

  Raises:
    ValueError: the shapes do not fit together, or a number is not finite.
  """
  results, _ = results_and_places(
    image_ids,
    keypoints,
    keypoint_scores,
    box_scores,
    areas,
    sigmas,
    min_keypoint_score=min_keypoint_score,
    nms_threshold=nms_threshold,
    soft=soft,
    category_ids=category_ids,
  )
  return results


def results_and_places(
  image_ids: Numbers,
  keypoints: Numbers,
  keypoint_scores: Numbers,
  box_scores: Numbers,
  areas: Numbers,
  sigmas: Numbers,
  *,
  min_keypoint_score: float,
  nms_threshold: float | None,
  soft: bool,
  category_ids: Numbers,
) -> tuple[list[dict[str, Any]], Int[np.ndarray, " d"]]:
  """`detections_to_results`, and which of the N each result is.

  Args:
    image_ids: as for `detections_to_results`, like the others.
    keypoints: likewise.
    keypoint_scores: likewise.
    box_scores: likewise.
    areas: likewise.
    sigmas: likewise.
    min_keypoint_score: likewise.
    nms_threshold: likewise.
    soft: likewise.
    category_ids: likewise.

  Raises:
    ValueError: likewise.
  """
  ids = np.asarray(image_ids)
  if len(ids) == 0:
    return [], np.zeros(0, int)
  points = np.asarray(keypoints, np.float64)
  point_scores = np.asarray(keypoint_scores, np.float64)
  area = np.asarray(areas, np.float64)
  if (
    point_scores.shape[:1] != ids.shape
    or points.shape != (*point_scores.shape, 2)
    or area.shape != ids.shape
  ):
    raise ValueError(
      f"image_ids {ids.shape}, keypoints {points.shape}, keypoint_scores"
      f" {point_scores.shape} and areas {area.shape} do not fit; expected"
      " (N,), (N, K, 2), (N, K) and (N,)"
    )
  scores = oks.rescore(box_scores, point_scores, min_keypoint_score)
  flat = np.concatenate([points, point_scores[..., None]], axis=2)
  flat = flat.reshape(len(ids), -1)
  finite = np.isfinite(flat).all(axis=1) & np.isfinite(scores + area)
  if not finite.all():
    index = int(np.argmin(finite))
    raise ValueError(
      f"detection {index} (image_id {ids[index]!r}) has NaN or infinite"
      " keypoints, scores or area"
    )

  _, first, group = np.unique(ids, return_index=True, return_inverse=True)
  appearance = first[group]
  # By image, within it by falling score, among equals as given.
  order = np.lexsort((-scores, appearance))
  categories = np.broadcast_to(np.asarray(category_ids), ids.shape)
  if nms_threshold is not None and nms_threshold < 1:
    _, kind = np.unique(categories, return_inverse=True)
    rivals = appearance * (kind.max() + 1) + kind
    fields = (points, scores, area, sigmas, nms_threshold)
    suppress = nms.soft_oks_nms_by_image if soft else nms.oks_nms_by_image
    order = order[suppress(rivals, *fields)[order]]
  columns = (ids[order], categories[order], flat[order], scores[order])
  names = ("image_id", "category_id", "keypoints", "score")
  results = [
    dict(zip(names, row, strict=True))
    for row in zip(*(c.tolist() for c in columns), strict=True)
  ]
  return results, order


def format_table(figures: Mapping[str, float], title: str = "") -> str:
  """The ten metrics as a small table for terminals.

  Args:
    figures: what `evaluate` returns.
    title: a first line; none if empty.

  Returns:
    Lines without a final newline: three decimals, "-" where nothing could be
    measured.
  """
  cells = ["-" if figures[f] < 0 else f"{figures[f]:.3f}" for f in FIGURES]
  rows = [
    ("", "all", ".50", ".75", "medium", "large"),
    ("AP", *cells[:5]),
    ("AR", *cells[5:]),
  ]
  lines = [
    f"{name:<4}" + "".join(f"{cell:>8}" for cell in row) for name, *row in rows
  ]
  return "\n".join([title, *lines] if title else lines)


def summarize(
  precision: Float[np.ndarray, "t r c a 1"],
  recall: Float[np.ndarray, "t c a 1"],
) -> dict[str, float]:
  """The metrics that pycocotools reads off its tables.

  Args:
    precision: at OKS thresholds, recalls, categories and areas.
    recall: at OKS thresholds, categories and areas.
  """
  values = []
  for table in (precision, recall):
    for thresholds, people in _CELLS:
      cells = table[thresholds][..., people, 0]
      cells = cells[cells > -1]
      values.append(float(cells.mean()) if cells.size else -1.0)
  return dict(zip(FIGURES, values, strict=True))


def _checked_sigmas(sigmas: Numbers | None) -> np.ndarray:
  """(K,) float64, COCO's if None."""
  if sigmas is None:
    sigmas = skeletons.COCO_17.sigmas
  constants = np.asarray(sigmas, np.float64)
  if constants.ndim != 1 or not np.all((constants > 0) & (constants < np.inf)):
    raise InputError(
      f"sigmas: expected K positive numbers, got {constants.tolist()}"
    )
  return constants
