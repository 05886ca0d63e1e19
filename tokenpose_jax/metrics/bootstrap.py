"""How far a metric would move with other images: bootstrap intervals.

Images are resampled with replacement and the metric is recomputed; the middle
95 % of many such values are the interval (Efron, 1979). For COCO nothing is
evaluated again: detections keep their matches, since an image is
drawn as a whole, and only count as often as their image was drawn. Precision
and recall are then sums of these weights over detections sorted once.
"""

import concurrent.futures
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from tokenpose_jax.metrics import coco, mpii

REPLICATES = 1000
LEVEL = 0.95

CHUNK = 500_000  # weights held at a time, of detections times replicates


def draws(
  images: int, replicates: int, seed: int = 0
) -> Int[np.ndarray, "r i"]:
  """How often each image is drawn: (replicates, images) int32."""
  rng = np.random.Generator(np.random.PCG64(seed))
  counts = np.empty((replicates, images), np.int32)
  for row in counts:
    row[:] = np.bincount(rng.integers(0, images, images), minlength=images)
  return counts


def interval(values: Float[np.ndarray, " r"]) -> tuple[float, float]:
  """The middle `LEVEL` of the replicates' values; those below 0 are undefined.

  Returns:
    (low, high), or (-1, -1) where none is defined.
  """
  values = values[values >= 0]
  if not len(values):
    return -1.0, -1.0
  tail = (1 - LEVEL) / 2
  low, high = np.quantile(values, [tail, 1 - tail])
  return float(low), float(high)


def pckh_intervals(
  distance: Float[np.ndarray, "n 16"],
  images: Int[np.ndarray, " n"],
  replicates: int = REPLICATES,
  seed: int = 0,
) -> dict[str, tuple[float, float]]:
  """Intervals of the metrics of `mpii.figures` over images.

  Args:
    distance: (N, 16) as returned by `mpii.distances`.
    images: (N,) of each person.
    replicates: how many draws.
    seed: of the draws.
  """
  _, place = np.unique(images, return_inverse=True)
  weights = draws(int(place.max(initial=-1)) + 1, replicates, seed)
  rows = [mpii.figures(distance, row[place].astype(float)) for row in weights]
  return {
    name: interval(np.array([row[name] for row in rows]))
    for name in mpii.FIGURES
  }


def coco_intervals(
  matched: coco.Matched, replicates: int = REPLICATES, seed: int = 0
) -> dict[str, tuple[float, float]]:
  """Intervals of the ten COCO metrics over images.

  Args:
    matched: as returned by `coco.match`.
    replicates: how many draws.
    seed: of the draws.
  """
  weights = draws(len(matched.dataset["images"]), replicates, seed)
  values = coco_replicates(matched, weights)
  return {name: interval(column) for name, column in values.items()}


def coco_replicates(
  matched: coco.Matched, weights: Int[np.ndarray, "r i"]
) -> dict[str, Float[np.ndarray, " r"]]:
  """The ten metrics where images count as often as the weights say.

  Args:
    matched: as returned by `coco.match`.
    weights: (R, I) of the images in the order of their ids; all 1: the metrics
      themselves.
  """
  params = matched.evaluation.params
  recalls = np.asarray(params.rec_thrs)
  shape = (len(params.iou_thrs), len(recalls))
  areas = len(params.area_rng)
  cells = list(_cells(matched))
  widest = max([len(cell.image) for cell in cells], default=1)
  step = max(1, CHUNK // max(1, widest))
  figures: dict[str, list[float]] = {name: [] for name in coco.FIGURES}
  parts = [weights[i : i + step] for i in range(0, len(weights), step)]
  with concurrent.futures.ThreadPoolExecutor() as pool:
    found_of = pool.map(
      lambda some: [_curves(cell, some, recalls) for cell in cells], parts
    )
  for some, curves in zip(parts, found_of, strict=True):
    # As in pycocotools' tables: (T, R, K, A, 1) and (T, K, A, 1).
    for row in range(len(some)):
      precision = np.stack([p[row] for p, _ in curves], axis=-1)
      recall = np.stack([r[row] for _, r in curves], axis=-1)
      found = coco.summarize(
        precision.reshape(*shape, -1, areas, 1),
        recall.reshape(shape[0], -1, areas, 1),
      )
      for name, value in found.items():
        figures[name].append(value)
  return {name: np.array(values) for name, values in figures.items()}


@dataclasses.dataclass(frozen=True)
class _Cell:
  """The matches of one category and area range; detections by falling score.

  Attributes:
    image: (D,) the index of each detection's image.
    right: (T, D) at each OKS threshold.
    wrong: (T, D) likewise; neither: ignored.
    people: (I,) in each image that count.
  """

  image: Int[np.ndarray, " d"]
  right: Bool[np.ndarray, "t d"]
  wrong: Bool[np.ndarray, "t d"]
  people: Int[np.ndarray, " i"]


def _cells(matched: coco.Matched) -> Iterator[_Cell]:
  """By category, then by area range."""
  params = matched.evaluation.params
  ids = sorted(image["id"] for image in matched.dataset["images"])
  place = {image: number for number, image in enumerate(ids)}
  groups: dict[tuple, list[dict[str, Any]]] = {
    (category["id"], *area): []
    for category in sorted(matched.dataset["categories"], key=lambda c: c["id"])
    for area in params.area_rng
  }
  for found in matched.evaluation.eval_imgs:
    if found is not None:
      groups[found["category_id"], *found["aRng"]].append(found)
  thresholds = len(params.iou_thrs)
  for group in groups.values():
    group.sort(key=lambda one: one["image_id"])
    people = np.zeros(len(ids), np.int64)
    images, scores = [], []
    matches: list[np.ndarray] = []
    ignored: list[np.ndarray] = []
    for one in group:
      number = place[one["image_id"]]
      people[number] = one["gtIgnore"].count(False)
      count = len(one["dtScores"])
      images.append(np.full(count, number))
      scores.append(np.array(one["dtScores"], np.float64))
      shape = (thresholds, count)
      matches.append(np.array(one["dtMatched"], bool).reshape(shape))
      ignored.append(np.array(one["dtIgnore"], bool).reshape(shape))
    if not group:
      empty = np.zeros((thresholds, 0), bool)
      yield _Cell(np.zeros(0, np.int64), empty, empty, people)
      continue
    order = np.argsort(-np.concatenate(scores), kind="stable")
    # Those that are ignored at every threshold play no part.
    never = np.concatenate(ignored, axis=1)
    order = order[np.flatnonzero(~np.all(never, axis=0)[order])]
    match = np.concatenate(matches, axis=1)[:, order]
    counted = np.logical_not(never[:, order])
    yield _Cell(
      image=np.concatenate(images)[order],
      right=match & counted,
      wrong=~match & counted,
      people=people,
    )


def _curves(
  cell: _Cell, weights: Int[np.ndarray, "r i"], recalls: Float[np.ndarray, " q"]
) -> tuple[Float[np.ndarray, "r t q"], Float[np.ndarray, "r t"]]:
  """Precision at the recalls, and the last recall; -1 without people."""
  total = weights @ cell.people
  # Precision falls only where something wrong comes, so that its envelope is
  # decided at the right detections. What comes before them is summed once for
  # all thresholds; the few that are ignored at this one are taken off.
  weight = weights[:, cell.image]
  seen = np.cumsum(weight, axis=1, dtype=np.int32)
  shape = (len(weights), len(cell.right))
  precision = np.zeros((*shape, len(recalls)))
  recall = np.zeros(shape)
  for t, (right, wrong) in enumerate(zip(cell.right, cell.wrong, strict=True)):
    at = np.flatnonzero(right)
    if not len(at):
      continue
    ignored = np.flatnonzero(~(right | wrong))
    passed = np.zeros((len(weights), len(ignored) + 1), np.int32)
    np.cumsum(weight[:, ignored], axis=1, out=passed[:, 1:])
    before = np.searchsorted(ignored, at)
    true = np.cumsum(weight[:, at], axis=1, dtype=np.int32)
    false = seen[:, at] - passed[:, before] - true
    found = true / np.maximum(total, 1)[:, None]
    # The formulas of pycocotools, to its last digit.
    exact = true / (false + true + np.spacing(1))
    envelope = np.maximum.accumulate(exact[:, ::-1], axis=1)[:, ::-1]
    recall[:, t] = found[:, -1]
    for row in range(len(weights)):
      place = np.searchsorted(found[row], recalls, side="left")
      reached = place < len(at)
      precision[row, t, reached] = envelope[row, place[reached]]
  nobody = total == 0
  precision[nobody], recall[nobody] = -1, -1
  return precision, recall
