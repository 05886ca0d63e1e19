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
from jaxtyping import Bool, Int

from input_pipeline.builders import SPLIT, NumberedRecords, Record
from input_pipeline.files import reason, replace, unwritable
from input_pipeline.missing_files import shown
from input_pipeline.parts import prepare
from tokenpose_jax.errors import InputError

INDEX = "images.npy"
COLUMNS = 6  # file, offset, length; height, width, whether it is whole


def open_store(builder: NumberedRecords, names: list[str]) -> "ImageStore":
  """Opens the records of a builder; prepares and indexes them first if needed.

  Args:
    builder: whose records hold an image each.
    names: of the images, for messages, one per record.

  Raises:
    InputError: image files are missing, or the prepared data is damaged or has
      another number of images.
  """
  prepare(builder)
  path = str(builder.data_path)
  advice = "delete that folder and start again"
  try:
    files = [str(file) for file in builder.info.splits[SPLIT].filepaths]
    table = _read_index(os.path.join(path, INDEX))
    if table is None:
      table = _write_index(os.path.join(path, INDEX), files, builder.record_of)
    lengths = [tf.io.gfile.stat(file).length for file in files]
  except (KeyError, OSError, tf.errors.OpError) as error:
    raise InputError(
      f"prepared data in {path} is damaged ({reason(error)}); {advice}"
    ) from None
  if len(table) != len(names):
    raise InputError(
      f"prepared data in {path} holds {len(table)} images, {len(names)} are"
      f" expected; {advice}"
    )
  shard, offset, length = table[:, :3].T
  if (offset + length > np.array(lengths)[shard]).any():
    raise InputError(f"prepared data in {path} is cut off; {advice}")
  return ImageStore(path, names, files, table[:, :5], table[:, 5] == 0)


class ImageStore:
  """Random access to the encoded images of a prepared split.

  Attributes:
    names: the images' names for messages, in the order of the records.
    path: the folder of the prepared data.
    identity: of the images: what their builder calls them.
    sizes: (n, 2) int32 height and width of each image, 0 where it cannot be
      read.
    cut_off: (n,) whether only the upper part of each can be read.
  """

  def __init__(
    self,
    path: str,
    names: list[str],
    files: list[str],
    table: Int[np.ndarray, "n 5"],
    cut_off: Bool[np.ndarray, " n"] | None = None,
  ):
    """Opens the files.

    Args:
      path: the folder of the prepared data.
      names: of the images.
      files: the TFRecord files.
      table: of each image: index of its file, offset and length in bytes,
        height and width in pixels.
      cut_off: whether only the upper part of each can be read; None: of none.
    """
    self.path, self.names = path, names
    self.identity = epath.Path(path).parent.name
    self._shard, self._offset, self._length = table[:, :3].T
    self.sizes = table[:, 3:].astype(np.int32)
    none = np.zeros(len(table), bool)
    self.cut_off = none if cut_off is None else cut_off
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

  def is_named(self, number: int) -> bool:
    """Whether an image has been logged as unreadable."""
    return number in self._unreadable

  def warn_unreadable(self, number: int, why: str) -> None:
    """Logs, once, that an image cannot be read.

    Args:
      number: index of the image.
      why: it cannot.
    """
    with self._lock:
      new = number not in self._unreadable
      self._unreadable.add(number)
    if new:
      logging.warning(
        "cannot read the image %s, its people are skipped: %s",
        shown(self.names[number]),
        why,
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


def _read_index(path: str) -> Int[np.ndarray, "n 6"] | None:
  """The index; None if it is not there, damaged or of an earlier form."""
  if not tf.io.gfile.exists(path):
    return None
  with tf.io.gfile.GFile(path, "rb") as file:
    content = file.read()
  try:
    table = np.load(io.BytesIO(content), allow_pickle=False)
  except (ValueError, EOFError):
    return None
  if table.dtype != np.int64 or table.ndim != 2 or table.shape[1] != COLUMNS:
    return None
  return table


def _write_index(
  path: str,
  files: list[str],
  record_of: Callable[[tf.train.Example], Record],
) -> Int[np.ndarray, "n 6"]:
  """Finds each image's place in the TFRecord files, and its size.

  A record is its length (8 bytes), a checksum (4), the data, a checksum (4).
  """
  rows = []
  for number, name in enumerate(files):
    offset = 0
    for record in tf.data.TFRecordDataset(name).as_numpy_iterator():
      example = tf.train.Example.FromString(record)
      image, *facts = record_of(example)
      place = offset + 12 + record.index(image)
      rows.append((number, place, len(image), *facts))
      offset += 12 + len(record) + 4
  table = np.array(rows, np.int64).reshape(-1, COLUMNS)
  buffer = io.BytesIO()
  np.save(buffer, table)
  try:
    replace(path, buffer.getvalue())  # Another run may do the same.
  except (OSError, tf.errors.OpError) as error:
    raise unwritable("data.prepared_dir", path, error) from None
  logging.info("indexed %d images in %s", len(table), os.path.dirname(path))
  return table
