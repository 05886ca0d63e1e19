"""Predictions to look at, picked while the evaluation runs.

Crops exist only during the run, so each is kept or dropped immediately: memory
does not grow with the number of boxes.
"""

import dataclasses
import heapq
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from tokenpose_jax import visualize
from tokenpose_jax.metrics.benchmark import Benchmark, Boxes, Judgment
from tokenpose_jax.skeletons import Skeleton


@dataclasses.dataclass(frozen=True)
class Picture:
  """A crop with its prediction and the truth, crop pixels.

  Attributes:
    index: of the box.
    image_id: of the box.
    quality: 0 to 1, the benchmark's.
    score: mean keypoint score times box score.
    crop: (h, w, 3) RGB.
    predicted: (K, 2).
    scores: (K,) heatmap maxima.
    truth: (K, 2).
    labeled: (K,) which of the truth are annotated.
  """

  index: int
  image_id: int
  quality: float
  score: float
  crop: UInt8[np.ndarray, "h w 3"]
  predicted: Float[np.ndarray, "k 2"]
  scores: Float[np.ndarray, " k"]
  truth: Float[np.ndarray, "k 2"]
  labeled: Bool[np.ndarray, " k"]


@dataclasses.dataclass(frozen=True)
class Drawing:
  """A picture as it is written.

  Attributes:
    kind: "best" or "worst".
    jpeg: the encoded image.
    caption: JSON types.
  """

  kind: str
  jpeg: bytes
  caption: dict[str, Any]


class Gallery:
  """The best, the worst and a sample of the predictions shown to it."""

  def __init__(
    self, benchmark: Benchmark, boxes: Boxes, *, size: int, sample: int
  ):
    """Makes an empty gallery.

    Args:
      benchmark: judges the predictions.
      boxes: of the evaluation.
      size: how many of the best, and of the worst, to keep.
      sample: how many people, evenly spread, to keep for the contact sheet.
    """
    self._benchmark = benchmark
    self._boxes = boxes
    self._size = size
    self._best: list[tuple[float, int, Picture]] = []
    self._worst: list[tuple[float, int, Picture]] = []
    self._wanted = set(_spread(sample, len(boxes)))
    self._sample: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

  def add(
    self,
    index: int,
    crop: UInt8[np.ndarray, "h w 3"],
    crop_to_image: Float[np.ndarray, "2 3"],
    *,
    keypoints: Float[np.ndarray, "k 2"],
    crop_keypoints: Float[np.ndarray, "k 2"],
    scores: Float[np.ndarray, " k"],
  ) -> None:
    """Looks at a prediction.

    Args:
      index: of its box.
      crop: (h, w, 3) RGB.
      crop_to_image: (2, 3) crop pixels to image pixels.
      keypoints: (K, 2) image pixels.
      crop_keypoints: (K, 2) crop pixels.
      scores: (K,) heatmap maxima.
    """
    if index in self._wanted:
      self._wanted.discard(index)
      self._sample.append((crop.copy(), crop_keypoints, scores))
    if not self._size:
      return
    judgment = self._benchmark.judge(
      index,
      int(self._boxes.image_id[index]),
      crop_to_image,
      (crop.shape[0], crop.shape[1]),
      keypoints,
    )
    if judgment is None:
      return
    labeled = int(judgment.labeled.sum())
    score = float(scores.mean() * self._boxes.score[index])
    quality = judgment.quality
    # With few keypoints a perfect score is easy; confident mistakes rank worst.
    good = quality if 2 * labeled >= len(scores) else -1.0
    bad = (1 - quality) * score if labeled >= 3 else -1.0
    for heap, value in ((self._best, good), (self._worst, bad)):
      full = len(heap) == self._size
      if value < 0 or (full and value <= heap[0][0]):
        continue
      picture = Picture(
        index=index,
        image_id=int(self._boxes.image_id[index]),
        quality=quality,
        score=score,
        crop=crop.copy(),
        predicted=crop_keypoints,
        scores=scores,
        truth=_in_crop(judgment, crop_to_image),
        labeled=judgment.labeled,
      )
      push = heapq.heapreplace if full else heapq.heappush
      push(heap, (value, -index, picture))

  def best(self) -> list[Picture]:
    """From the best on."""
    return [picture for _, _, picture in sorted(self._best, reverse=True)]

  def worst(self) -> list[Picture]:
    """From the worst on: by (1 - quality) times score."""
    return [picture for _, _, picture in sorted(self._worst, reverse=True)]

  def draw(
    self, skeleton: Skeleton, min_keypoint_score: float
  ) -> Iterator[Drawing]:
    """The best and the worst as files.

    Args:
      skeleton: of the keypoints.
      min_keypoint_score: keypoints that score higher are drawn.
    """
    for kind, pictures in (("best", self.best()), ("worst", self.worst())):
      for rank, picture in enumerate(pictures):
        drawn = visualize.draw_comparison(
          picture.crop,
          picture.predicted,
          picture.scores > min_keypoint_score,
          picture.truth,
          picture.labeled,
          skeleton,
        )
        caption = {
          "file": f"{kind}_{rank:02d}.jpg",
          "image_id": picture.image_id,
          "box": picture.index,
          "quality": round(picture.quality, 4),
          "score": round(picture.score, 4),
        }
        yield Drawing(kind, visualize.encode_jpeg(drawn), caption)

  def contact_sheet(
    self, skeleton: Skeleton, min_keypoint_score: float
  ) -> UInt8[np.ndarray, "h w 3"] | None:
    """The sample on one picture; None where there is none.

    Args:
      skeleton: of the keypoints.
      min_keypoint_score: keypoints that score higher are drawn.
    """
    if not self._sample:
      return None
    crops, keypoints, scores = map(np.stack, zip(*self._sample, strict=True))
    return visualize.contact_sheet(
      crops, keypoints, scores > min_keypoint_score, skeleton
    )


def _spread(count: int, total: int) -> list[int]:
  """At most `count` indices, evenly spread over `total`."""
  places = np.linspace(0, total - 1, min(count, total))
  return np.unique(places.astype(int)).tolist()


def _in_crop(
  judgment: Judgment, crop_to_image: Float[np.ndarray, "2 3"]
) -> Float[np.ndarray, "k 2"]:
  """The person's keypoints in crop pixels."""
  linear = crop_to_image[:, :2].astype(np.float64)
  offset = judgment.keypoints - crop_to_image[:, 2]
  return np.linalg.solve(linear, offset.T).T
