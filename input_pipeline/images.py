"""The TFDS builders of COCO and MPII folders, and random access to images.

A builder copies the encoded images, as they are, into TFDS's TFRecord files; an
index of their places beside them gives random access, which TFRecord has not by
itself and which, unlike ArrayRecord's, works on every file system of
TensorFlow.
"""

import contextlib
import dataclasses
import io
import os
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging

from input_pipeline.annotations import Annotations
from tokenpose_jax.errors import InputError

SPLIT = "images"  # Each split of a folder is a TFDS config with this one.
INDEX = "images.npy"
JPEG = b"\xff\xd8"  # its first marker


@dataclasses.dataclass(kw_only=True)
class ImagesConfig(tfds.core.BuilderConfig):
  """Which images of which folder."""

  folder: str
  images: list[dict[str, Any]] = dataclasses.field(repr=False)


class CocoKeypoints(tfds.core.GeneratorBasedBuilder):
  """The images of one split of a COCO keypoint folder.

  The config's name carries the annotation file's hash, so that a changed file
  is prepared anew, beside what was there.
  """

  VERSION = tfds.core.Version("1.0.0")

  def __init__(
    self, folder: str, split: str, annotations: Annotations, data_dir: str = ""
  ):
    """Args: the folder, its split, its annotations, and where to prepare."""
    config = ImagesConfig(
      name=f"{split}-{annotations.sha256[:16]}",
      folder=self.folder(folder, split),
      images=annotations.content["images"],
    )
    super().__init__(config=config, data_dir=data_dir or None)

  @staticmethod
  def folder(folder: str, split: str) -> str:
    """`SPLIT` or `images/SPLIT`, whichever exists."""
    candidates = [
      os.path.join(folder, split),
      os.path.join(folder, "images", split),
    ]
    for candidate in candidates:
      if tf.io.gfile.isdir(candidate):
        return candidate
    return candidates[0]

  def _info(self) -> tfds.core.DatasetInfo:
    features = tfds.features.FeaturesDict(
      {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "image_id": np.int64,
        "file_name": tfds.features.Text(),
      }
    )
    return self.dataset_info_from_configs(
      features=features,
      description="The images of a keypoint folder, as they are.",
      # Records in the order of the annotation file's images.
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    del dl_manager  # Nothing is downloaded.
    config = self.builder_config
    _require_files(config.folder, [i["file_name"] for i in config.images])
    number = len(config.images)
    logging.info("copying %d images to %s", number, self.data_path)
    return {SPLIT: self._generate_examples()}

  def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
    config = self.builder_config
    for number, image in enumerate(config.images):
      path = os.path.join(config.folder, image["file_name"])
      yield (
        number,
        {
          "image": path,
          "image_id": image["id"],
          "file_name": image["file_name"],
        },
      )

  def image_of(self, example: tf.train.Example) -> tuple[bytes, int, int]:
    """The encoded image of a record, its height and width."""
    encoded = example.features.feature["image"].bytes_list.value[0]
    return encoded, *image_size(encoded)


class MpiiHumanPose(CocoKeypoints):
  """The images of the people of one split of an MPII folder."""

  @staticmethod
  def folder(folder: str, split: str) -> str:
    """MPII keeps the images of all splits together."""
    return os.path.join(folder, "images")


class ImageStore:
  """Random access to the encoded images of a prepared split.

  Attributes:
    names: the images' names for messages, in the order of the records.
    path: the folder of the prepared data.
    sizes: (n, 2) int32 height and width of each image as its header has them,
      0 where there is no readable one.
  """

  def __init__(self, builder: Any, names: list[str]):
    """Prepares the builder's records, one per name, where not yet done.

    Args:
      builder: of TFDS, with a method `image_of` that finds the image, its
        height and its width in a record.
      names: of the images, for messages.
    """
    self.names = names
    self.path = str(builder.data_path)
    if not builder.is_prepared():
      _prepare(builder)
    files = [str(file) for file in builder.info.splits[SPLIT].filepaths]
    index = os.path.join(self.path, INDEX)
    if not tf.io.gfile.exists(index):
      _write_index(index, files, builder.image_of)
    with tf.io.gfile.GFile(index, "rb") as file:
      table = np.load(io.BytesIO(file.read()))
    if len(table) != len(names):
      raise InputError(
        f"prepared data in {self.path} holds {len(table)} images,"
        f" {len(names)} are expected; delete that folder and start again"
      )
    self._shard, self._offset, self._length = table[:, :3].T
    self.sizes = table[:, 3:].astype(np.int32)
    self._files = [_File(file) for file in files]

  def read(self, number: int, start: int = 0, length: int = -1) -> bytes:
    """The image at that place, or that many bytes of it from `start` on."""
    length = int(self._length[number]) if length < 0 else length
    file = self._files[self._shard[number]]
    return file.read(int(self._offset[number]) + start, length)


class _File:
  """Reads parts of a file, from any thread."""

  def __init__(self, path: str):
    self._path = path
    self._descriptor = None
    # TensorFlow's file systems open a file anew for each part, which costs
    # more than a warp; a local file stays open.
    if os.path.exists(path):
      self._descriptor = os.open(path, os.O_RDONLY)
      weakref.finalize(self, os.close, self._descriptor)

  def read(self, offset: int, length: int) -> bytes:
    if self._descriptor is not None:
      return os.pread(self._descriptor, length, offset)
    with tf.io.gfile.GFile(self._path, "rb") as file:
      file.seek(offset)
      return file.read(length)


def _prepare(builder: tfds.core.GeneratorBasedBuilder) -> None:
  if not sys.stderr.isatty():
    tfds.disable_progress_bar()
  # TFDS prints to standard output what the builders log.
  with contextlib.redirect_stdout(io.StringIO()):
    builder.download_and_prepare(
      download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )


def _require_files(folder: str, names: list[str]) -> None:
  gfile = tf.io.gfile
  if not gfile.isdir(folder):
    raise InputError(
      f"data.dir: the image folder {folder} does not exist (nor images/ above"
      " it); put the images of that split there"
    )
  missing = [n for n in names if not gfile.exists(os.path.join(folder, n))]
  if missing:
    raise InputError(
      f"{folder} lacks {len(missing)} of the {len(names)} images of its"
      f" annotation file, first {missing[0]}"
    )


def _write_index(
  path: str,
  files: list[str],
  image_of: Callable[[tf.train.Example], tuple[bytes, int, int]],
) -> None:
  """Finds each image's place in the TFRecord files, and its size.

  A record is its length (8 bytes), a checksum (4), the data, a checksum (4).
  """
  table = []
  for number, name in enumerate(files):
    offset = 0
    for record in tf.data.TFRecordDataset(name).as_numpy_iterator():
      example = tf.train.Example.FromString(record)
      image, height, width = image_of(example)
      place = offset + 12 + record.index(image)
      table.append((number, place, len(image), height, width))
      offset += 12 + len(record) + 4
  buffer = io.BytesIO()
  np.save(buffer, np.array(table, np.int64).reshape(-1, 5))
  with tf.io.gfile.GFile(path + ".partial", "wb") as file:
    file.write(buffer.getvalue())
  tf.io.gfile.rename(path + ".partial", path, overwrite=True)
  logging.info("indexed %d images in %s", len(table), os.path.dirname(path))


def image_size(encoded: bytes) -> tuple[int, int]:
  """Height and width of an encoded image, (0, 0) where it is none."""
  try:
    if encoded.startswith(JPEG):
      height, width, _ = tf.io.extract_jpeg_shape(encoded).numpy()
    else:
      height, width, _ = tf.io.decode_image(
        encoded, channels=3, expand_animations=False
      ).shape
  except tf.errors.OpError:
    return 0, 0
  return int(height), int(width)


def read_pixels(path: str) -> np.ndarray | None:
  """A whole image file, (H, W, 3) uint8 RGB; None where it is none."""
  try:
    with tf.io.gfile.GFile(path, "rb") as file:
      return tf.io.decode_image(
        file.read(), channels=3, expand_animations=False
      ).numpy()
  except tf.errors.OpError:
    return None
