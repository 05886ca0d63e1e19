"""Files of a data folder, through TensorFlow's file systems (gs:// too)."""

import contextlib
import os
import re

import tensorflow as tf

from tokenpose_jax import file_kinds, json_files
from tokenpose_jax.errors import InputError


def read_bytes(path: str) -> bytes:
  """The whole content of an annotation file.

  Raises:
    InputError: it cannot be read, is no file, or is larger than JSON may be.
  """
  try:
    file_kinds.check(path)
    json_files.check_size(tf.io.gfile.stat(path).length, path)
    with tf.io.gfile.GFile(path, "rb") as file:
      return file.read()
  except (OSError, tf.errors.OpError) as error:
    raise InputError(f"cannot read {path}: {reason(error)}") from None


def write(path: str, content: str | bytes) -> None:
  """Writes a file.

  Args:
    path: of the file.
    content: text or bytes.

  Raises:
    InputError: it cannot be written.
  """
  try:
    _put(path, content)
  except (OSError, tf.errors.OpError) as error:
    raise InputError(f"cannot write {path}: {reason(error)}") from None


def require_writable(path: str) -> None:
  """Checks that a file can be written: now, not after an hour.

  Args:
    path: of the file. One that is there stays as it is.

  Raises:
    InputError: it cannot.
  """
  if tf.io.gfile.isdir(path):
    raise InputError(f"cannot write {path}: it is a folder")
  try:
    probe(path)
  except (OSError, tf.errors.OpError) as error:
    raise InputError(f"cannot write {path}: {reason(error)}") from None


def probe(path: str) -> None:
  """Writes an empty file beside a path, and removes it.

  Args:
    path: of a file.

  Raises:
    OSError: that cannot be done; or TensorFlow's OpError.
  """
  beside = f"{path}.{os.getpid()}.partial"
  _put(beside, "")
  tf.io.gfile.remove(beside)


def replace(path: str, content: str | bytes) -> None:
  """Writes a file aside and renames it: whole or not there.

  Other processes may do the same at the same time.

  Args:
    path: of the file.
    content: text or bytes.

  Raises:
    OSError: it cannot be written; or TensorFlow's OpError.
  """
  partial = f"{path}.{os.getpid()}"
  try:
    _put(partial, content)
    tf.io.gfile.rename(partial, path, overwrite=True)
  except (OSError, tf.errors.OpError):
    remove(partial)
    raise


def remove(path: str) -> None:
  """Removes a file, if it can be removed.

  Args:
    path: of the file.
  """
  with contextlib.suppress(OSError, tf.errors.OpError):
    tf.io.gfile.remove(path)


def settle(path: str) -> None:
  """Waits until a file is on its disk, where that can be asked for.

  Args:
    path: of the file.

  Raises:
    OSError: it cannot be written.
  """
  if "://" in path:
    return
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _put(path: str, content: str | bytes) -> None:
  mode = "w" if isinstance(content, str) else "wb"
  with tf.io.gfile.GFile(path, mode) as file:
    file.write(content)


def reason(error: Exception) -> str:
  """An error of TensorFlow or a file system in a few words, on one line."""
  words = getattr(error, "message", None) or getattr(error, "strerror", None)
  plain = re.sub(r"\{\{.*?\}\} *| *\[Op:[^\]]*\]?", "", str(words or error))
  text = " ".join(plain.split()) or type(error).__name__
  # What happened is said at the end, after the path.
  return text if len(text) <= 200 else f"{text[:80]} ... {text[-110:]}"


def unwritable(field: str, path: str, error: Exception) -> InputError:
  """What is said where a run cannot write data.

  Args:
    field: of the config that says where.
    path: that cannot be written.
    error: of TensorFlow or a file system.
  """
  why = reason(error).rpartition("; ")[2]  # TensorFlow names a path, too.
  return InputError(
    f"{field}: cannot write {path}: {why}; make it writable, with room, or"
    f" choose another folder with --config.{field}=DIR (the same command goes"
    " on)"
  )


def require_file(path: str, field: str) -> None:
  """Checks that a file exists.

  Args:
    path: of the file.
    field: of the config that names it, for the error.

  Raises:
    InputError: it does not.
  """
  if not tf.io.gfile.exists(path) or tf.io.gfile.isdir(path):
    raise InputError(f"{field}: the file {path} does not exist")


def require_folder(folder: str, kind: str) -> None:
  """Checks that `data.dir` is a folder with something in it.

  Args:
    folder: `data.dir`.
    kind: what it should be, for the error.

  Raises:
    InputError: it is not.
  """
  gfile = tf.io.gfile
  if not gfile.exists(folder):
    raise InputError(
      f"data.dir: the folder {folder} does not exist; give {kind} with"
      " --config.data.dir=DIR"
    )
  if not gfile.isdir(folder) or not gfile.listdir(folder):
    raise InputError(
      f"data.dir: {folder} is not a folder or empty; expected {kind}"
    )
