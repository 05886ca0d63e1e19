"""Preparing a data set part by part, so that a kill costs one part.

Parts lie in `incomplete.parts`, under the names that TFDS gives its files. When
all are there, and what TFDS notes of a data set, the folder is renamed. On a
remote file system, where folders cannot be renamed at once, they lie in their
final place, and the note comes last.
"""

import contextlib
import os
import socket
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging

from input_pipeline import files, image_files, leftovers, locks
from input_pipeline.builders import SMALLEST, SPLIT, NumberedRecords, ranges
from tokenpose_jax import progress

_INFO = "dataset_info.json"  # what TFDS knows a prepared data set by
_AROUND = 16  # bytes around each record of a TFRecord file


def prepare(builder: NumberedRecords, smallest: int = SMALLEST) -> None:
  """Writes a builder's records, unless that has been done.

  Args:
    builder: whose records.
    smallest: number of records of a part.

  Raises:
    InputError: images are missing, or the records cannot be written.
  """
  path = str(builder.data_path)
  if _is_there(path):
    return
  home = os.path.dirname(path)
  remote = image_files.is_remote(path)
  folder = path if remote else os.path.join(home, leftovers.PARTS)

  def wait() -> None:
    logging.info("another run is preparing %s: waiting for it", path)

  try:
    leftovers.remove(os.path.dirname(home), os.path.basename(home))
    tf.io.gfile.makedirs(home)
    with locks.held(os.path.join(home, leftovers.LOCK), wait) as alone:
      if not _is_there(path):
        _write(builder, folder, ranges(builder.count, smallest), alone)
        if not remote:
          tf.io.gfile.rename(folder, path)
  except (OSError, tf.errors.OpError) as error:
    # Where there are no locks, another run may have been faster.
    if not _is_there(path):
      raise files.unwritable("data.prepared_dir", path, error) from None
    if not remote:
      with contextlib.suppress(OSError, tf.errors.OpError):
        tf.io.gfile.rmtree(folder)
  builder.info.read_from_directory(path)


def _is_there(path: str) -> bool:
  """Is there a prepared data set, whole or damaged?"""
  last = _INFO if image_files.is_remote(path) else ""
  return tf.io.gfile.exists(os.path.join(path, last))


def _write(
  builder: NumberedRecords, folder: str, parts: list[range], alone: bool
) -> None:
  """Writes the parts that are not there yet, and what belongs to them.

  Args:
    builder: whose records.
    folder: of the parts.
    parts: the numbers of the records of each.
    alone: nobody else does the same.
  """
  gfile = tf.io.gfile
  builder.begin()
  gfile.makedirs(folder)
  template = tfds.core.ShardedFileTemplate(
    dataset_name=builder.name,
    data_dir=builder.data_path,
    split=SPLIT,
    filetype_suffix="tfrecord",
  )
  names = [
    template.sharded_filepath(shard_index=n, num_shards=len(parts)).name
    for n in range(len(parts))
  ]
  there = set(gfile.listdir(folder))
  if alone:
    for name in there - set(names):
      files.remove(os.path.join(folder, name))
  bar = progress.bar(builder.count, "preparing", "image")
  if done := len(there & set(names)):
    logging.info("going on: %d of %d parts are there", done, len(parts))
  for name, numbers in zip(names, parts, strict=True):
    if name not in there:
      _write_part(builder, os.path.join(folder, name), numbers, bar)
    else:
      bar.update(len(numbers))
  bar.close()
  lengths = [len(numbers) for numbers in parts]
  sizes = [gfile.stat(os.path.join(folder, name)).length for name in names]
  split = tfds.core.SplitInfo(
    name=SPLIT,
    shard_lengths=lengths,
    num_bytes=sum(sizes) - _AROUND * sum(lengths),
    filename_template=template,
  )
  builder.info.set_splits(tfds.core.SplitDict([split]))
  builder.finish(folder)
  builder.info.write_to_directory(folder)
  for name in gfile.listdir(folder):
    files.settle(os.path.join(folder, name))


def _write_part(
  builder: NumberedRecords, path: str, numbers: range, bar: Any
) -> None:
  """Writes a part aside and renames it: whole or not there."""
  features = builder.info.features
  partial = f"{path}.{socket.gethostname()}.{os.getpid()}.partial"
  try:
    with tf.io.TFRecordWriter(partial) as writer:
      for _, example in builder.examples(numbers):
        record = tf.train.Example.FromString(
          features.serialize_example(example)
        )
        # Otherwise each process has an order of its fields.
        writer.write(record.SerializeToString(deterministic=True))
        bar.update(1)
    files.settle(partial)
    tf.io.gfile.rename(partial, path, overwrite=True)
  except Exception:
    files.remove(partial)
    raise
