"""Random access to encoded images in TFRecord files.

An index of the images' places in TFDS's TFRecord files gives random access,
which TFRecord lacks by itself and which, unlike ArrayRecord's, works on every
file system of TensorFlow.
"""

import io
import os
import threading
import weakref
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from absl import logging
from etils import epath
from jaxtyping import Int

from input_pipeline.builders import SPLIT, RecordBuilder, prepare
from tokenpose_jax.errors import InputError

INDEX = "images.npy"


def open_store(builder: RecordBuilder, names: list[str]) -> "ImageStore":
  """Opens the records of a builder; prepares and indexes them first if needed.

  Args:
    builder: whose records hold an image each.
    names: of the images, for messages, one per record.

  Raises:
    InputError: image files are missing, or the prepared data has another
      number of images.
  """
  prepare(builder)
  path = str(builder.data_path)
  files = [str(file) for file in builder.info.splits[SPLIT].filepaths]
  index = os.path.join(path, INDEX)
  if not tf.io.gfile.exists(index):
    _write_index(index, files, builder.image_of)
  with tf.io.gfile.GFile(index, "rb") as file:
    table = np.load(io.BytesIO(file.read()))
  if len(table) != len(names):
    raise InputError(
      f"prepared data in {path} holds {len(table)} images, {len(names)} are"
      " expected; delete that folder and start again"
    )
  return ImageStore(path, names, files, table)


class ImageStore:
  """Random access to the encoded images of a prepared split.

  Attributes:
    names: the images' names for messages, in the order of the records.
    path: the folder of the prepared data.
    identity: of the images: what their builder calls them.
    sizes: (n, 2) int32 height and width of each image as its header has them,
      0 where there is no readable one.
  """

  def __init__(
    self,
    path: str,
    names: list[str],
    files: list[str],
    table: Int[np.ndarray, "n 5"],
  ):
    """Opens the files.

    Args:
      path: the folder of the prepared data.
      names: of the images.
      files: the TFRecord files.
      table: of each image: index of its file, offset and length in bytes,
        height and width in pixels.
    """
    self.path, self.names = path, names
    self.identity = epath.Path(path).parent.name
    self._shard, self._offset, self._length = table[:, :3].T
    self.sizes = table[:, 3:].astype(np.int32)
    self._files = [_File(file) for file in files]
    self._unreadable: set[int] = set()
    self._lock = threading.Lock()

  def read(self, number: int, start: int = 0, length: int = -1) -> bytes:
    """An image's bytes.

    Args:
      number: index of the image.
      start: first byte.
      length: number of bytes; -1: all.
    """
    length = int(self._length[number]) if length < 0 else length
    file = self._files[self._shard[number]]
    return file.read(int(self._offset[number]) + start, length)

  def warn_unreadable(self, number: int, reason: str) -> None:
    """Logs, once, that an image cannot be read.

    Args:
      number: index of the image.
      reason: why.
    """
    with self._lock:
      new = number not in self._unreadable
      self._unreadable.add(number)
    if new:
      logging.warning(
        "cannot read the image %s, its people are skipped: %s",
        self.names[number],
        reason,
      )


class _File:
  """Reads parts of a file, from any thread."""

  def __init__(self, path: str):
    self._path = path
    self._descriptor = None
    # TensorFlow's file systems open a file again for each part, which costs
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
  partial = f"{path}.{os.getpid()}"  # Another run may do the same.
  with tf.io.gfile.GFile(partial, "wb") as file:
    file.write(buffer.getvalue())
  tf.io.gfile.rename(partial, path, overwrite=True)
  logging.info("indexed %d images in %s", len(table), os.path.dirname(path))
