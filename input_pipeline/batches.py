"""From a config to batches of NumPy arrays, through tf.data.

One function per split composes the steps visibly: position -> person and
augmentation -> crop -> batch.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from input_pipeline import annotations as annotations_lib
from input_pipeline import augment, mpii, order
from input_pipeline.annotations import Annotations, People
from input_pipeline.crops import CropReader, black
from input_pipeline.images import CocoKeypoints, ImageStore, MpiiHumanPose
from input_pipeline.person_crops import PersonCropReader
from input_pipeline.synthetic import folder as synthetic_folder
from tokenpose_jax import geometry, skeletons
from tokenpose_jax.errors import InputError
from tokenpose_jax.skeletons import Skeleton

Batch = dict[str, np.ndarray]

DATASETS = ("coco", "mpii", "synthetic")
FROM_ANNOTATIONS = "annotations"
CHUNK = 32  # examples that one call into Python makes, at most


@dataclasses.dataclass(frozen=True)
class Split:
  """A prepared split: annotations in memory, images on disk."""

  annotations: Annotations
  store: ImageStore

  @functools.cached_property
  def reader(self) -> CropReader:
    """One for all passes, so that a bad image is named once."""
    return CropReader(self.store)

  @functools.cached_property
  def widths(self) -> np.ndarray:
    """(n,) int64 of the images: the file's, else the annotations'."""
    named = [i.get("width", 0) for i in self.annotations.content["images"]]
    found = self.store.sizes[:, 1]
    return np.where(found > 0, found, np.array(named, np.int64))


def skeleton_file(config: Any, workdir: str, split: str) -> str:
  """What `data.skeleton` means, as a name or file for `skeletons.get`.

  "annotations" is what the annotation file of that split says, which is written
  to WORKDIR/skeleton.json.
  """
  if config.data.skeleton != FROM_ANNOTATIONS:
    return config.data.skeleton
  found = annotations_lib.skeleton_of(config.data.dir, split)
  path = os.path.join(workdir, "skeleton.json")
  tf.io.gfile.makedirs(workdir)
  # Of several processes each writes the same.
  partial = f"{path}.{os.getpid()}"
  with tf.io.gfile.GFile(partial, "w") as file:
    file.write(json.dumps(found.to_dict(), indent=2))
  tf.io.gfile.rename(partial, path, overwrite=True)
  return path


def prepare(config: Any, split: str) -> Split:
  """Prepares a split of `config.data`, where that has not been done."""
  data = config.data
  skeleton = skeletons.get(data.skeleton)
  if data.name not in DATASETS:
    raise InputError(
      f"data.name is {data.name!r}; allowed: {', '.join(DATASETS)}"
    )
  if data.name == "synthetic":
    synthetic_folder.write_coco_folder(
      data.dir,
      seed=data.synthetic_seed,
      train_people=data.synthetic_train_people,
      test_people=data.synthetic_test_people,
    )
  is_mpii = data.name == "mpii"
  read = mpii.read if is_mpii else annotations_lib.read
  images = MpiiHumanPose if is_mpii else CocoKeypoints
  annotations = read(data.dir, split, skeleton)
  builder = images(data.dir, split, annotations, data.prepared_dir)
  names = [i["file_name"] for i in annotations.content["images"]]
  store = ImageStore(builder, names)
  _require_sizes(annotations, store)
  return Split(annotations, store)


def _require_sizes(annotations: Annotations, store: ImageStore) -> None:
  """Raises InputError where an image is not as large as its annotations say."""
  wrong = [
    (image, size)
    for image, size in zip(
      annotations.content["images"], store.sizes.tolist(), strict=True
    )
    if "width" in image
    and size[0]
    and size != [image["height"], image["width"]]
  ]
  if wrong:
    image, (height, width) = wrong[0]
    raise InputError(
      f"{annotations.path}: {image['file_name']} is {width}x{height} pixels,"
      f" annotated as {image['width']}x{image['height']} ({len(wrong)} such);"
      " resized or turned images need their annotations changed alike (see"
      " python -m input_pipeline.doctor)"
    )


def people(config: Any, split: Split, *, boxes: str = "gt") -> People:
  """The people, or the detector boxes, of a split.

  Args:
    boxes: "gt" or the path of a detector-box file.
  """
  skeleton = skeletons.get(config.data.skeleton)
  if config.data.name == "mpii":
    if boxes != "gt":
      raise InputError("eval.boxes: MPII is evaluated on its own boxes, gt")
    return mpii.people(split.annotations)
  options = (skeleton, config.model, config.data.padding)
  if boxes == "gt":
    found = annotations_lib.annotated_people(split.annotations, *options)
  else:
    found = annotations_lib.detected_people(
      boxes, split.annotations, *options, config.eval.box_score
    )
  return found


def ground_truth(config: Any, people: People) -> dict[str, np.ndarray] | None:
  """What PCKh compares MPII's people with; None for COCO folders.

  keypoints (N, 16, 2) image pixels, visible (N, 16), head_boxes (N, 4).

  Raises:
    InputError: someone's head box is not known.
  """
  if config.data.name != "mpii":
    return None
  lacking = int(np.isnan(people.head_box).any(1).sum())
  if lacking:
    raise InputError(
      f"{config.data.dir}: {lacking} of {len(people)} people of the split"
      f" {config.data.eval_split} have no head box, which PCKh needs; put"
      f" annot/gt_{config.data.eval_split}.mat or MPII's release .mat there"
    )
  return {
    "keypoints": people.keypoints,
    "visible": people.visible,
    "head_boxes": people.head_box,
  }


def prepare_crops(
  config: Any, split: Split, people: People, name: str
) -> PersonCropReader | None:
  """Prepares the person crops of a split, where `data.person_crops` asks."""
  if not config.data.person_crops:
    return None
  skeleton = skeletons.get(config.data.skeleton)
  return PersonCropReader(
    name, split.annotations, split.store, people, config, skeleton
  )


def train_batches(
  config: Any,
  split: Split,
  people: People,
  *,
  slots: np.ndarray,
  first_step: int = 0,
  reader: PersonCropReader | None = None,
) -> Iterator[Batch]:
  """The endless batches of a training run, from any step on.

  Args:
    people: of the split; everyone comes once an epoch.
    slots: the slots of the global batch that this process loads, ascending.
    first_step: where to begin; nothing before it is read.
    reader: of prepared crops of `people`; None: crops come from the images.

  Yields:
    image (b, H, W, 3) uint8 RGB, keypoints (b, K, 2) float32 crop pixels,
    visible (b, K) float32, mask (b,) float32: 0 where the image could not be
    read, which keeps its slot.
  """
  skeleton = skeletons.get(config.data.skeleton)
  input_hw = tuple(config.model.input_hw)

  def examples(positions: np.ndarray) -> Batch:
    chosen, crops = training_crops(config, split, people, positions, skeleton)
    if reader is None:
      pixels, good = split.reader.read(
        people.image[chosen], crops.affine, input_hw
      )
    else:
      pixels, good = reader.read(chosen, crops.affine, input_hw)
    return {
      "image": pixels,
      "keypoints": crops.keypoints,
      "visible": crops.visible,
      "mask": good.astype(np.float32),
    }

  steps = (first_step, np.iinfo(np.int64).max)
  return _batches(examples, steps, config.train.batch_size, slots, config)


def training_crops(
  config: Any,
  split: Split,
  people: People,
  positions: np.ndarray,
  skeleton: Skeleton,
) -> tuple[np.ndarray, augment.Crops]:
  """Who is seen at these positions, and how.

  Returns:
    (n,) numbers of people, and the crops.
  """
  chosen = np.array(
    [order.person_at(config.seed, p, len(people)) for p in positions.tolist()]
  )
  return chosen, augment.augmented_crops(
    people.center[chosen],
    people.scale[chosen],
    people.keypoints[chosen],
    people.visible[chosen],
    input_hw=config.model.input_hw,
    image_width=split.widths[people.image[chosen]],
    draws=order.draws_at(config.seed, positions),
    settings=config.augment,
    skeleton=skeleton,
  )


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

  def examples(positions: np.ndarray) -> Batch:
    person = np.minimum(positions, len(people) - 1)
    affine = geometry.crop_affine(
      people.center[person], people.scale[person], 0.0, input_hw
    )
    pixels = black((len(person), *input_hw, 3))
    good = positions < len(people)
    pixels[good], good[good] = split.reader.read(
      people.image[person[good]], affine[good], input_hw
    )
    return {
      "image": pixels,
      "crop_to_image": geometry.invert(affine).astype(np.float32),
      "index": person.astype(np.int32),
      "mask": good.astype(np.float32),
    }

  batch_size = config.eval.batch_size
  steps = (0, -(-len(people) // batch_size))
  return _batches(examples, steps, batch_size, slots, config)


def _batches(
  examples: Callable[[np.ndarray], Batch],
  steps: tuple[int, int],
  batch_size: int,
  slots: np.ndarray,
  config: Any,
) -> Iterator[Batch]:
  """Positions -> examples in parallel -> batches, in order.

  Each call makes a chunk of a batch: calls from TensorFlow into Python cost
  about as much as a small warp.

  Args:
    examples: positions (n,) -> the arrays of n examples.
    steps: the first and one past the last.
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
      num_parallel_calls=config.data.workers or tf.data.AUTOTUNE,
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
