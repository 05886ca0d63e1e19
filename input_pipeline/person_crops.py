"""Person crops: the region around each person, stored once as raw pixels.

Reading them costs no decoding, which is most of the work of the usual way. What
is stored is all that any augmentation of `config.augment` can show of a person:
image pixels as they are, or, of a person that fills many more pixels than the
network's input, averaged down to `data.crop_density` stored pixels per pixel of
the unaugmented crop.
"""

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging
from jaxtyping import Bool, Float, Int, UInt8
from ml_collections import ConfigDict

from input_pipeline import augment
from input_pipeline.builders import NumberedRecords, Record
from input_pipeline.decode import decode_windows
from input_pipeline.people import People
from input_pipeline.store import ImageStore, open_store
from tokenpose_jax import geometry
from tokenpose_jax.crops import aligned_zeros, warp
from tokenpose_jax.skeletons import Skeleton

MARGIN = 3  # image pixels around what an augmentation can show


@dataclasses.dataclass(frozen=True)
class Regions:
  """What is stored of n people.

  Attributes:
    window: (n, 4) int32 y, x, height, width of the part of each image.
    stored_hw: (n, 2) int32 its size as stored.
  """

  window: Int[np.ndarray, "n 4"]
  stored_hw: Int[np.ndarray, "n 2"]

  @property
  def affine(self) -> Float[np.ndarray, "n 2 3"]:
    """Image pixels to stored pixels."""
    # Of images that cannot be read nothing is stored: any map will do.
    stored, shown = np.maximum(self.stored_hw, 1), self.window[:, 2:]
    zoom = (stored / np.maximum(shown, 1))[:, ::-1]
    corner = self.window[:, 1::-1]
    affine = np.zeros((len(zoom), 2, 3))
    affine[:, 0, 0], affine[:, 1, 1] = zoom.T
    affine[:, :, 2] = (0.5 - corner) * zoom - 0.5
    return affine


def regions(
  people: People,
  sizes: Int[np.ndarray, "n 2"],
  config: ConfigDict,
  skeleton: Skeleton,
) -> Regions:
  """What any augmentation can show of people.

  Args:
    people: whose crops.
    sizes: (N, 2) height and width of each person's image, pixels.
    config: of the run.
    skeleton: for the halves of the body.
  """
  settings, input_hw = config.augment, config.model.input_hw
  low, high = augment.reach(people.center, people.scale, input_hw, settings)
  if settings.half_body_probability > 0 and skeleton.upper_body:
    enough = people.visible.sum(1) > settings.half_body_min_keypoints
    for i in np.flatnonzero(enough):
      for upper in (True, False):
        half = augment.half_body(
          people.keypoints[i], people.visible[i], upper, input_hw, skeleton
        )
        if half is not None:
          ends = augment.reach(half[0][None], half[1][None], input_hw, settings)
          low[i] = np.minimum(low[i], ends[0][0])
          high[i] = np.maximum(high[i], ends[1][0])
  limit = sizes[:, ::-1]
  # At least one pixel, even for people outside the image.
  low = np.floor(low).astype(np.int64) - MARGIN
  low = np.maximum(np.minimum(low, limit - 1), 0)
  high = np.ceil(high).astype(np.int64) + MARGIN + 1
  high = np.minimum(np.maximum(high, low + 1), limit)
  window = np.concatenate([low[:, ::-1], (high - low)[:, ::-1]], 1)
  density = people.scale[:, 0] * geometry.SCALE_UNIT / input_hw[1]
  zoom = np.minimum(1, config.data.crop_density / density)[:, None]
  stored = np.ceil(window[:, 2:] * zoom)
  return Regions(window.astype(np.int32), stored.astype(np.int32))


@dataclasses.dataclass(kw_only=True)
class PersonCropsConfig(tfds.core.BuilderConfig):
  """Whose regions, from which images."""

  store: ImageStore = dataclasses.field(repr=False)
  image: np.ndarray = dataclasses.field(repr=False)
  regions: Regions = dataclasses.field(repr=False)


class PersonCrops(NumberedRecords):
  """The regions around the people of a split, as raw RGB pixels.

  The config's name carries a hash of all that decides what is stored, so that
  other annotations, another input size or stronger augmentation are prepared
  again, next to what was there.
  """

  VERSION = tfds.core.Version("1.0.0")

  def __init__(
    self,
    name: str,
    store: ImageStore,
    image: Int[np.ndarray, " n"],
    regions: Regions,
    data_dir: str = "",
  ):
    """Describes the crops.

    Args:
      name: of the split.
      store: the images.
      image: (N,) index of each person's image in the store.
      regions: of the people.
      data_dir: where to prepare them; "": TFDS's own directory.
    """
    digest = hashlib.sha256()
    for part in (image, regions.window, regions.stored_hw):
      digest.update(np.ascontiguousarray(part, np.int32).tobytes())
    config = PersonCropsConfig(
      name=f"{name}-{digest.hexdigest()[:16]}",
      store=store,
      image=image,
      regions=regions,
    )
    super().__init__(config=config, data_dir=data_dir or None)

  def _info(self) -> tfds.core.DatasetInfo:
    features = tfds.features.FeaturesDict(
      {
        "height": np.int32,
        "width": np.int32,
        "pixels": tfds.features.Tensor(
          shape=(None,), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES
        ),
      }
    )
    return self.described(features, "Regions around people, as raw RGB pixels.")

  @property
  def count(self) -> int:
    """Of the people."""
    return len(self.builder_config.image)

  def begin(self) -> None:
    """Says what is going to be written."""
    logging.info(
      "storing the regions of %d people in %s", self.count, self.data_path
    )

  def examples(self, numbers: range) -> Iterator[tuple[int, dict[str, Any]]]:
    """The regions of some people.

    Args:
      numbers: of them.
    """
    config = self.builder_config
    for number in numbers:
      pixels = _region(
        config.store.read(int(config.image[number])),
        config.regions.window[number],
        config.regions.stored_hw[number],
      )
      height, width, _ = pixels.shape
      yield (
        number,
        {"height": height, "width": width, "pixels": pixels.ravel()},
      )

  def record_of(self, example: tf.train.Example) -> Record:
    """The pixels of a record."""
    fields = example.features.feature
    height, width = (
      fields[name].int64_list.value[0] for name in ("height", "width")
    )
    return Record(fields["pixels"].bytes_list.value[0], height, width)


def _region(
  encoded: bytes, window: np.ndarray, stored_hw: np.ndarray
) -> UInt8[np.ndarray, "h w 3"]:
  """A region's pixels; none of an image that cannot be read."""
  if not window[2:].all():
    return np.zeros((0, 0, 3), np.uint8)
  (found,) = decode_windows([encoded], window[None])
  if isinstance(found, tf.errors.OpError):
    return np.zeros((0, 0, 3), np.uint8)
  pixels, (x0, y0) = found
  y, x, rows, columns = window
  pixels = pixels[y - y0 : y - y0 + rows, x - x0 : x - x0 + columns]
  height, width = map(int, stored_hw)
  if pixels.size and pixels.shape[:2] != (height, width):
    pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
  return np.ascontiguousarray(pixels)


def open_person_crops(
  name: str,
  store: ImageStore,
  people: People,
  config: ConfigDict,
  skeleton: Skeleton,
) -> "PersonCropReader":
  """Opens the person crops of a split; prepares them first if needed.

  Args:
    name: of the split.
    store: its images.
    people: whose crops.
    config: of the run.
    skeleton: for the halves of the body.
  """
  shown = regions(people, store.sizes[people.image], config, skeleton)
  builder = PersonCrops(
    f"{name}-{store.identity}",
    store,
    people.image,
    shown,
    config.data.prepared_dir,
  )
  names = [store.names[i] for i in people.image]
  return PersonCropReader(
    open_store(builder, names), geometry.invert(shown.affine)
  )


class PersonCropReader:
  """Reads crops of people from their person crops."""

  def __init__(self, store: ImageStore, to_image: Float[np.ndarray, "n 2 3"]):
    """Opens nothing.

    Args:
      store: the person crops.
      to_image: (N, 2, 3) stored pixels to pixels of each person's image.
    """
    self._store = store
    self._to_image = to_image
    cv2.setNumThreads(1)  # tf.data already runs this in parallel.

  @property
  def stored_bytes(self) -> int:
    """Of all people together."""
    return 3 * int(self._store.sizes.astype(np.int64).prod(1).sum())

  def read(
    self,
    people: Int[np.ndarray, " m"],
    affine: Float[np.ndarray, "m 2 3"],
    output_hw: tuple[int, int],
  ) -> tuple[UInt8[np.ndarray, "m h w 3"], Bool[np.ndarray, " m"]]:
    """Some crops.

    Args:
      people: (M,) indices of people.
      affine: (M, 2, 3) pixels of each person's image to crop pixels.
      output_hw: crop size, pixels.

    Returns:
      the crops, RGB, and whose image could be read; zeros where not.
    """
    crops = aligned_zeros((len(people), *output_hw, 3))
    affine = geometry.compose(affine, self._to_image[people])
    sizes = self._store.sizes[people]
    windows = geometry.source_window(affine, output_hw, sizes)
    for i, (y, x, rows, columns) in enumerate(windows.tolist()):
      width = int(sizes[i, 1])
      raw = self._store.read(int(people[i]), y * width * 3, rows * width * 3)
      pixels = np.frombuffer(raw, np.uint8).reshape(rows, width, 3)
      warp(pixels[:, x : x + columns], (x, y), affine[i], crops[i])
    return crops, sizes[:, 1] > 0
