"""From people to batches of NumPy arrays, through tf.data.

One function per split composes the steps visibly: position -> person and
augmentation -> crop -> batch.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float, Int, UInt8
from ml_collections import ConfigDict

from input_pipeline import augment, datasets, mixing, pixels, sampling
from input_pipeline.datasets import Split
from input_pipeline.image_crops import ImageCropReader
from input_pipeline.people import People
from input_pipeline.person_crops import open_person_crops
from tokenpose_jax import geometry
from tokenpose_jax.crops import aligned_zeros
from tokenpose_jax.data import EvalBatch, EvalData, TrainBatch, TrainData
from tokenpose_jax.errors import InputError
from tokenpose_jax.metrics.benchmark import Boxes
from tokenpose_jax.skeletons import Skeleton

CHUNK = 32  # examples that one call into Python makes, at most


@runtime_checkable
class CropReader(Protocol):
  """Reads crops of the people of a split."""

  def read(
    self,
    people: Int[np.ndarray, " m"],
    affine: Float[np.ndarray, "m 2 3"],
    output_hw: tuple[int, int],
  ) -> tuple[UInt8[np.ndarray, "m h w 3"], Bool[np.ndarray, " m"]]:
    """Crops (M, H, W, 3) RGB, and whose image could be read.

    Args:
      people: (M,) indices of people.
      affine: (M, 2, 3) pixels of each person's image to crop pixels.
      output_hw: crop size, pixels.
    """


@dataclasses.dataclass(frozen=True, eq=False)
class TrainSet:
  """A data set that is trained on.

  Attributes:
    config: of the run, whose `data` is of this set.
    split: of the data.
    people: of the split; every person appears once per epoch of theirs.
    reader: of their crops.
    weight: people of it for each of `data.train_split`.
  """

  config: ConfigDict
  split: Split
  people: People
  reader: CropReader
  weight: Fraction = Fraction(1)

  @functools.cached_property
  def reach(self) -> Float[np.ndarray, "people k"]:
    """At which distance a place's similarity is 0.5, image pixels."""
    return self.split.dataset.reach(self.people, self.split.skeleton)


def train_data(
  config: ConfigDict, skeleton: Skeleton, slots: Int[np.ndarray, " b"]
) -> TrainData:
  """What training reads; prepared on disk first if needed.

  Args:
    config: resolved.
    skeleton: of the data.
    slots: the slots of the global batch that this process loads, ascending.

  Raises:
    InputError: the data cannot be used.
  """
  others = mixing.others(config.data.mix)
  first, *more = sets = [
    _opened(config, skeleton),
    *(_other(config, skeleton, other) for other in others),
  ]
  identity = _identity(first)
  if more:
    identity["mix"] = [
      {**_identity(one), "weight": str(one.weight)} for one in more
    ]
  mix = mixing.Mix([one.weight for one in more])

  def image_ids(step: int) -> list[int]:
    batch_size = config.train.batch_size
    positions = step * batch_size + np.arange(batch_size)
    which, places = mix.at(positions)
    ids = np.zeros(batch_size, np.int64)
    for number, one in enumerate(sets):
      here = which == number
      people = _people_at(config, one.people, places[here])
      ids[here] = one.people.image_id[people]
    return ids.tolist()

  return TrainData(
    batches=lambda first: train_batches(sets, slots=slots, first_step=first),
    people=round(len(first.people) * mix.total),
    identity=identity,
    image_ids=image_ids,
  )


def _opened(config: ConfigDict, skeleton: Skeleton) -> TrainSet:
  """The training split of a config."""
  split = datasets.prepare(config.data, config.data.train_split, skeleton)
  people = datasets.people(split, config)
  one = TrainSet(config, split, people, train_reader(config, split, people))
  unknown = int(np.isnan(one.reach).any(1).sum())
  if config.model.doubt and unknown:
    raise InputError(
      f"{config.data.dir}: model.doubt needs the sizes of heads, and {unknown}"
      f" of {len(people)} people have none; put MPII's release .mat there"
    )
  return one


def _other(
  config: ConfigDict, skeleton: Skeleton, other: mixing.Other
) -> TrainSet:
  """A set of `data.mix`."""
  own = ConfigDict(config)
  own.data.name, own.data.dir = other.name, other.folder
  own.data.train_split = other.split
  try:
    one = _opened(own, skeleton)
  except InputError as error:
    raise InputError(
      f"data.mix, {other.name}:{other.folder}:{other.split}: {error}"
    ) from None
  return dataclasses.replace(one, weight=other.weight)


def _identity(one: TrainSet) -> dict[str, Any]:
  """What must not change between a checkpoint and its resumption."""
  identity = {
    "annotations_sha256": one.split.annotations.sha256,
    "people": len(one.people),
  }
  if one.config.data.person_crops:
    identity["crop_density"] = one.config.data.crop_density
  return identity


def _people_at(
  config: ConfigDict, people: People, places: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
  """The indices of the people at places of the set's order (sampling.py)."""
  chosen = [
    sampling.person_at(config.seed, place, len(people))
    for place in places.tolist()
  ]
  return np.array(chosen, np.int64)


def eval_data(
  config: ConfigDict, skeleton: Skeleton, slots: Int[np.ndarray, " b"]
) -> EvalData:
  """What an evaluation reads; prepared on disk first if needed.

  Args:
    config: resolved.
    skeleton: of the data.
    slots: the slots of the global batch that this process loads, ascending.

  Raises:
    InputError: the data cannot be used.
  """
  source = config.eval.boxes
  split = datasets.prepare(config.data, config.data.eval_split, skeleton)
  people = datasets.people(split, config, boxes=source)
  image_ids, facts = None, {}
  if count := config.eval.max_images:
    people = people.first_images(count)
    images = split.annotations.content["images"][:count]
    image_ids = [image["id"] for image in images]
  if source != "gt":
    facts = split.dataset.detection_facts(source, split.annotations, image_ids)
  reader = ImageCropReader(split.store, people.image)
  return EvalData(
    batches=lambda: eval_batches(config, people, reader, slots=slots),
    boxes=Boxes(
      image_id=people.image_id,
      category_id=people.category_id,
      score=people.score,
      area=people.area,
    ),
    benchmark=split.dataset.benchmark(
      split.annotations, people, skeleton, config, image_ids
    ),
    source=source,
    source_facts=facts,
  )


def train_reader(
  config: ConfigDict, split: Split, people: People
) -> CropReader:
  """Reads training crops: from images, or as `data.person_crops` asks.

  Args:
    config: of the run.
    split: the training split.
    people: of the split.
  """
  if not config.data.person_crops:
    return ImageCropReader(split.store, people.image)
  return open_person_crops(
    config.data.train_split,
    split.store,
    people,
    config,
    split.skeleton,
  )


def train_batches(
  sets: Sequence[TrainSet],
  *,
  slots: Int[np.ndarray, " b"],
  first_step: int = 0,
) -> Iterator[TrainBatch]:
  """The endless batches of a training run, from any step on.

  Args:
    sets: that of `data.train_split`, then those of `data.mix`.
    slots: the slots of the global batch that this process loads, ascending.
    first_step: where to begin; nothing before it is read.
  """
  config = sets[0].config
  mix = mixing.Mix([one.weight for one in sets[1:]])

  def examples(positions: Int[np.ndarray, " n"]) -> dict[str, np.ndarray]:
    which, places = mix.at(positions)
    found: dict[str, np.ndarray] = {}
    for number, one in enumerate(sets):
      here = np.flatnonzero(which == number)
      if len(here) == len(which):
        return _examples(one, positions, places)
      if len(here):
        part = _examples(one, positions[here], places[here])
        for name, values in part.items():
          if name not in found:
            shape = (len(which), *values.shape[1:])
            image = values.dtype == np.uint8
            found[name] = (
              aligned_zeros(shape) if image else np.zeros(shape, values.dtype)
            )
          found[name][here] = values
    return found

  steps = (first_step, np.iinfo(np.int64).max)
  batches = _batches(
    examples, steps, config.train.batch_size, slots, config.data.workers
  )
  return cast(Iterator[TrainBatch], batches)


def _examples(
  one: TrainSet,
  positions: Int[np.ndarray, " n"],
  places: Int[np.ndarray, " n"],
) -> dict[str, np.ndarray]:
  """The people of a set at these positions of the run and places of its own."""
  people, input_hw = one.people, tuple(one.config.model.input_hw)
  chosen, crops = training_crops(
    one.config, one.split, people, positions, places
  )
  images, good = one.reader.read(chosen, crops.affine, input_hw)
  seed, settings = one.config.seed, one.config.augment
  if settings.color or settings.cover_probability:
    pixels.augment(images, sampling.pixel_draws_at(seed, positions), settings)
  row = chosen[:, None]
  enlarged = np.sqrt(np.abs(np.linalg.det(crops.affine[:, :, :2])))[:, None]
  return {
    "image": images,
    "keypoints": crops.keypoints,
    "visible": crops.visible,
    "hidden": people.hidden[row, crops.order],
    "reach": (one.reach[row, crops.order] * enlarged).astype(np.float32),
    "mask": good.astype(np.float32),
  }


def training_crops(
  config: ConfigDict,
  split: Split,
  people: People,
  positions: Int[np.ndarray, " n"],
  places: Int[np.ndarray, " n"] | None = None,
) -> tuple[Int[np.ndarray, " n"], augment.Crops]:
  """The people at these positions and their augmented crops.

  Args:
    config: of the run.
    split: the training split.
    people: of the split.
    positions: (n,) in the endless sequence of the run (sampling.py).
    places: (n,) in the set's own sequence; None: the same, of one set alone.

  Returns:
    (n,) indices of people, and the crops.
  """
  chosen = _people_at(config, people, positions if places is None else places)
  return chosen, augment.augmented_crops(
    people.center[chosen],
    people.scale[chosen],
    people.keypoints[chosen],
    people.visible[chosen],
    input_hw=tuple(config.model.input_hw),
    image_width=split.widths[people.image[chosen]],
    draws=sampling.draws_at(config.seed, positions),
    settings=config.augment,
    skeleton=split.skeleton,
  )


def eval_batches(
  config: ConfigDict,
  people: People,
  reader: CropReader,
  *,
  slots: Int[np.ndarray, " b"],
) -> Iterator[EvalBatch]:
  """One pass over people in their order; the last batch is padded.

  Args:
    config: of the run.
    people: of the split.
    reader: of their crops.
    slots: the slots of the global batch that this process loads, ascending.
  """
  input_hw = tuple(config.model.input_hw)

  def examples(positions: Int[np.ndarray, " n"]) -> dict[str, np.ndarray]:
    index = np.minimum(positions, len(people) - 1)
    affine = geometry.crop_affine(
      people.center[index], people.scale[index], 0.0, input_hw
    )
    images = aligned_zeros((len(index), *input_hw, 3))
    good = positions < len(people)
    images[good], good[good] = reader.read(index[good], affine[good], input_hw)
    return {
      "image": images,
      "crop_to_image": geometry.invert(affine).astype(np.float32),
      "index": index.astype(np.int32),
      "mask": good.astype(np.float32),
    }

  batch_size = config.eval.batch_size
  steps = (0, -(-len(people) // batch_size))
  batches = _batches(examples, steps, batch_size, slots, config.data.workers)
  return cast(Iterator[EvalBatch], batches)


def _batches(
  examples: Callable[[np.ndarray], dict[str, np.ndarray]],
  steps: tuple[int, int],
  batch_size: int,
  slots: Int[np.ndarray, " b"],
  workers: int,
) -> Iterator[dict[str, np.ndarray]]:
  """Positions -> examples in parallel -> batches, in order.

  Each call makes a chunk of a batch: calls from TensorFlow into Python cost
  about as much as a small warp.

  Args:
    examples: positions (n,) -> the arrays of n examples.
    steps: the first and one past the last.
    batch_size: of the global batch.
    slots: of the global batch that are made here.
    workers: threads; 0: tf.data decides.
  """
  count = len(slots)
  chunk = max(n for n in range(1, CHUNK + 1) if count % n == 0)
  sample = examples(steps[0] * batch_size + slots[:1].astype(np.int64))
  names = list(sample)

  def call(positions: tf.Tensor) -> tuple[tf.Tensor, ...]:
    tensors = tf.numpy_function(
      lambda p: tuple(examples(p).values()),
      [positions],
      [sample[name].dtype for name in names],
      stateful=False,
    )
    for tensor, name in zip(tensors, names, strict=True):
      tensor.set_shape((chunk, *sample[name].shape[1:]))
    return tuple(tensors)

  places = tf.reshape(tf.constant(slots, tf.int64), (-1, chunk))
  batches = (
    tf.data.Dataset.range(*steps)
    .map(lambda step: step * batch_size + places)
    .unbatch()
    .map(
      call,
      num_parallel_calls=workers or tf.data.AUTOTUNE,
      deterministic=True,
    )
  )
  if chunk < count:
    batches = batches.batch(count // chunk, drop_remainder=True)
  batches = batches.prefetch(tf.data.AUTOTUNE)
  # A generator, so that leaving the loop ends the readers' threads.
  for arrays in batches.as_numpy_iterator():
    yield {
      name: array.reshape(count, *sample[name].shape[1:])
      for name, array in zip(names, arrays, strict=True)
    }
