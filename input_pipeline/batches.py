"""From a config to batches of NumPy arrays, through tf.data.

One function per split composes the steps visibly: position -> person and
augmentation -> crop -> batch.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from input_pipeline import annotations as annotations_lib
from input_pipeline import augment, order
from input_pipeline.annotations import Annotations, People
from input_pipeline.coco import CocoKeypoints, ImageStore, SyntheticPeople
from input_pipeline.crops import CropReader
from tokenpose_jax import geometry, skeletons
from tokenpose_jax.errors import InputError

Batch = dict[str, np.ndarray]

DATASETS = ("coco", "synthetic")


@dataclasses.dataclass(frozen=True)
class Split:
  """A prepared split: annotations in memory, images on disk."""

  annotations: Annotations
  store: ImageStore

  @functools.cached_property
  def reader(self) -> CropReader:
    """One for all passes, so that a bad image is named once."""
    return CropReader(self.store)


def prepare(config: Any, split: str) -> Split:
  """Prepares a split of `config.data`, where that has not been done."""
  data = config.data
  skeleton = skeletons.get(data.skeleton)
  builder: CocoKeypoints
  if data.name == "coco":
    annotations = annotations_lib.read(data.dir, split, skeleton)
    builder = CocoKeypoints(data.dir, split, annotations, data.prepared_dir)
  elif data.name == "synthetic":
    builder = SyntheticPeople(
      data.dir,
      split,
      seed=data.synthetic_seed,
      train_people=data.synthetic_train_people,
      test_people=data.synthetic_test_people,
      skeleton=skeleton,
      data_dir=data.prepared_dir,
    )
  else:
    raise InputError(
      f"data.name is {data.name!r}; allowed: {', '.join(DATASETS)}"
    )
  return Split(builder.builder_config.annotations, ImageStore(builder))


def people(config: Any, split: Split, *, boxes: str = "gt") -> People:
  """The people, or the detector boxes, of a split.

  Args:
    boxes: "gt" or the path of a detector-box file.
  """
  skeleton = skeletons.get(config.data.skeleton)
  options = (skeleton, config.model, config.data.padding)
  if boxes == "gt":
    found = annotations_lib.annotated_people(split.annotations, *options)
  else:
    found = annotations_lib.detected_people(
      boxes, split.annotations, *options, config.eval.box_score
    )
  return found


def train_batches(
  config: Any,
  split: Split,
  people: People,
  *,
  slots: np.ndarray,
  first_step: int = 0,
) -> Iterator[Batch]:
  """The endless batches of a training run, from any step on.

  Args:
    slots: the slots of the global batch that this process loads, ascending.
    first_step: where to begin; nothing before it is read.

  Yields:
    image (b, H, W, 3) uint8 RGB, keypoints (b, K, 2) float32 crop pixels,
    visible (b, K) float32, mask (b,) float32: 0 where the image could not be
    read, which keeps its slot.
  """
  skeleton = skeletons.get(config.data.skeleton)
  input_hw = tuple(config.model.input_hw)
  widths = [i["width"] for i in split.annotations.content["images"]]

  def example(position: int) -> Batch:
    person = order.person_at(config.seed, position, len(people))
    image = int(people.image[person])
    crop = augment.augmented_crop(
      people.center[person],
      people.scale[person],
      people.keypoints[person],
      people.visible[person],
      input_hw=input_hw,
      image_width=widths[image],
      draws=order.draws_at(config.seed, position),
      settings=config.augment,
      skeleton=skeleton,
    )
    pixels, good = split.reader.read(image, crop.affine, input_hw)
    return {
      "image": pixels,
      "keypoints": crop.keypoints,
      "visible": crop.visible,
      "mask": np.asarray(good, np.float32),
    }

  steps = (first_step, np.iinfo(np.int64).max)
  return _batches(example, steps, config.train.batch_size, slots, config)


def eval_batches(
  config: Any, split: Split, people: People, *, slots: np.ndarray
) -> Iterator[Batch]:
  """One pass over people in their order; the last batch is padded.

  Yields:
    image (b, H, W, 3) uint8 RGB, crop_to_image (b, 2, 3) float32, index (b,)
    int32 into `people`, mask (b,) float32: 0 for padding and for images that
    could not be read.
  """
  input_hw = tuple(config.model.input_hw)

  def example(position: int) -> Batch:
    person = min(position, len(people) - 1)
    affine = geometry.crop_affine(
      people.center[person], people.scale[person], 0.0, input_hw
    )
    if position < len(people):
      pixels, good = split.reader.read(
        int(people.image[person]), affine, input_hw
      )
    else:
      pixels, good = np.zeros((*input_hw, 3), np.uint8), False
    return {
      "image": pixels,
      "crop_to_image": geometry.invert(affine).astype(np.float32),
      "index": np.asarray(person, np.int32),
      "mask": np.asarray(good, np.float32),
    }

  batch_size = config.eval.batch_size
  steps = (0, -(-len(people) // batch_size))
  return _batches(example, steps, batch_size, slots, config)


def _batches(
  example: Callable[[int], Batch],
  steps: tuple[int, int],
  batch_size: int,
  slots: np.ndarray,
  config: Any,
) -> Iterator[Batch]:
  """Positions -> examples in parallel -> batches, in order.

  Args:
    steps: the first and one past the last.
  """
  sample = example(steps[0] * batch_size + int(slots[0]))
  names = list(sample)

  def call(position: tf.Tensor) -> dict[str, tf.Tensor]:
    tensors = tf.numpy_function(
      lambda p: tuple(example(int(p)).values()),
      [position],
      [sample[name].dtype for name in names],
      stateful=False,
    )
    for tensor, name in zip(tensors, names, strict=True):
      tensor.set_shape(sample[name].shape)
    return dict(zip(names, tensors, strict=True))

  slots = tf.constant(slots, tf.int64)
  positions = (
    tf.data.Dataset.range(*steps)
    .map(lambda step: step * batch_size + slots)
    .unbatch()
  )
  examples = positions.map(
    call,
    num_parallel_calls=config.data.workers or tf.data.AUTOTUNE,
    deterministic=True,
  )
  batches = examples.batch(len(slots), drop_remainder=True)
  # A generator, so that leaving the loop ends the readers' threads.
  yield from batches.prefetch(tf.data.AUTOTUNE).as_numpy_iterator()
