"""What a benchmark reads and answers.

`metrics.coco_keypoints.CocoKeypoints` (OKS AP) and `metrics.mpii_pckh.MpiiPckh`
are the two of them. To add one: a class with these members in a file of its
own, made in the data set's `benchmark` (input_pipeline/datasets.py).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from tokenpose_jax.models.doubt import Doubt


@dataclasses.dataclass(frozen=True)
class Boxes:
  """The N boxes of an evaluation.

  Attributes:
    image_id: (N,) integers.
    category_id: (N,) integers, of the annotation or the detection.
    score: (N,) of the person detector; 1 for annotated boxes.
    area: (N,) of the padded boxes, square pixels.
  """

  image_id: Int[np.ndarray, " n"]
  category_id: Int[np.ndarray, " n"]
  score: Float[np.ndarray, " n"]
  area: Float[np.ndarray, " n"]

  def __len__(self) -> int:
    return len(self.image_id)


@dataclasses.dataclass(frozen=True)
class Predictions:
  """What the network predicts in N boxes.

  Attributes:
    boxes: the N boxes.
    keypoints: (N, K, 2) x, y in image pixels.
    scores: (N, K) how sure they are: `peaks`, or `Doubt.scores`.
    peaks: (N, K) heatmap maxima.
    valid: (N,) False where the image could not be read.
    doubt: of the keypoints, image pixels; None without `model.doubt`.
  """

  boxes: Boxes
  keypoints: Float[np.ndarray, "n k 2"]
  scores: Float[np.ndarray, "n k"]
  peaks: Float[np.ndarray, "n k"]
  valid: Bool[np.ndarray, " n"]
  doubt: Doubt | None = None


class Column(NamedTuple):
  """How a metric is printed.

  Attributes:
    name: of the metric.
    factor: what its value is multiplied by.
    decimals: that are printed.
  """

  name: str
  factor: float
  decimals: int


@dataclasses.dataclass(frozen=True)
class Measured:
  """An evaluation's outcome.

  Attributes:
    metrics: by name; below 0: not defined.
    results: COCO results, JSON types.
    evidence: what `Benchmark.details` starts from; private to the benchmark.
  """

  metrics: dict[str, float]
  results: list[dict[str, Any]]
  evidence: Any


class Judgment(NamedTuple):
  """The annotated person behind a box and the prediction's quality.

  Attributes:
    keypoints: (K, 2) of the person, image pixels.
    labeled: (K,) which of them are annotated.
    quality: 0 to 1.
  """

  keypoints: Float[np.ndarray, "k 2"]
  labeled: Bool[np.ndarray, " k"]
  quality: float


@runtime_checkable
class Benchmark(Protocol):
  """Measures predictions against a data set's truth."""

  @property
  def headline(self) -> str:
    """The metric that decides which checkpoint is best; higher is better."""

  @property
  def columns(self) -> tuple[Column, ...]:
    """The metrics, in the order of the report."""

  @property
  def image_count(self) -> int:
    """Images that are measured."""

  def measure(self, predictions: Predictions) -> Measured:
    """The metrics and the results to write down."""

  def details(
    self, measured: Measured, predictions: Predictions, replicates: int
  ) -> dict[str, Any]:
    """What the report says besides the metrics, JSON types.

    Args:
      measured: as returned by `measure`.
      predictions: as given to `measure`.
      replicates: of the bootstrap intervals; 0: none.

    Returns:
      intervals (by metric), keypoints, errors, people, calibration and doubt
      (error_kinds.py); categories, where there are several.
    """

  def judge(
    self,
    index: int,
    image_id: int,
    crop_to_image: Float[np.ndarray, "2 3"],
    crop_hw: tuple[int, int],
    keypoints: Float[np.ndarray, "k 2"],
  ) -> Judgment | None:
    """The person behind a box and how well it was predicted; None: nobody.

    Args:
      index: of the box.
      image_id: of the box.
      crop_to_image: (2, 3) crop pixels to image pixels.
      crop_hw: size of the crop, pixels.
      keypoints: (K, 2) the prediction, image pixels.
    """

  def format_table(self, metrics: Mapping[str, float]) -> str:
    """The metrics as a small table for terminals."""
