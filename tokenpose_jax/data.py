"""What passes between the rooms: batches and the data of a run.

Shapes are said here once. B is a batch, b the part of it that this process
loads, N the boxes of an evaluation, K keypoints, H x W the crop.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Float, Int, UInt8

from tokenpose_jax.metrics.benchmark import Benchmark, Boxes


class TrainBatch(TypedDict):
  """People to train on.

  Attributes:
    image: (b, H, W, 3) RGB crops.
    keypoints: (b, K, 2) x, y in crop pixels.
    visible: (b, K) 1 where labeled, else 0.
    hidden: (b, K) 1 where labeled as hidden, else 0.
    reach: (b, K) distance from the truth at which a place's similarity is 0.5,
      crop pixels: its term in OKS; half a head length (MPII).
    mask: (b,) 0 where the image could not be read, which keeps its slot.
  """

  image: UInt8[np.ndarray, "b h w 3"]
  keypoints: Float[np.ndarray, "b k 2"]
  visible: Float[np.ndarray, "b k"]
  hidden: Float[np.ndarray, "b k"]
  reach: Float[np.ndarray, "b k"]
  mask: Float[np.ndarray, " b"]


class EvalBatch(TypedDict):
  """Boxes to evaluate.

  Attributes:
    image: (b, H, W, 3) RGB crops.
    crop_to_image: (b, 2, 3) float32, crop pixels to image pixels.
    index: (b,) int32 of the box.
    mask: (b,) 0 for padding and unreadable images.
  """

  image: UInt8[np.ndarray, "b h w 3"]
  crop_to_image: Float[np.ndarray, "b 2 3"]
  index: Int[np.ndarray, " b"]
  mask: Float[np.ndarray, " b"]


@dataclasses.dataclass(frozen=True)
class TrainData:
  """What training reads.

  Attributes:
    batches: makes the endless batches from a step on.
    people: in an epoch.
    identity: what must not change between a checkpoint and its resumption,
      JSON types.
    image_ids: of the people in the whole batch of a step.
  """

  batches: Callable[[int], Iterator[TrainBatch]]
  people: int
  identity: Mapping[str, Any]
  image_ids: Callable[[int], Sequence[int]] = lambda step: ()


@dataclasses.dataclass(frozen=True)
class EvalData:
  """What an evaluation reads.

  Attributes:
    batches: makes one pass over the boxes.
    boxes: the N boxes.
    benchmark: what measures the predictions.
    source: where the boxes are from: "gt" or the path of the detector-box
      file.
    source_facts: of that file, for the report, JSON types.
  """

  batches: Callable[[], Iterable[EvalBatch]]
  boxes: Boxes
  benchmark: Benchmark
  source: str = "gt"
  source_facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
