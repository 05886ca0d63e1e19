"""The image files of a folder: are they there, and are they the same?"""

import functools
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf

from input_pipeline.files import reason
from input_pipeline.missing_files import shown, what_would_fit, where_else
from tokenpose_jax import file_kinds, json_files
from tokenpose_jax.errors import InputError

LARGEST = 2**30  # bytes of an image file: records hold no more than 2 GiB
_LISTED = "files.json"  # beside prepared images: the files that they are of
_THREADS = 64  # that ask a remote file system

Stats = dict[str, tuple[int, int]]
"""Of each file by name: its bytes, and the time of its last change in ns."""


def stats(folder: str, names: Sequence[str]) -> Stats | None:
  """What tells an image file from another under the same name.

  Args:
    folder: of the files.
    names: of the files.

  Returns:
    of those that are there; None where nobody can say: none is there, or the
    folder is remote, where asking for each file takes minutes, and where times
    are those of the upload.
  """
  if is_remote(folder):
    return None
  found = {}
  for name in names:
    try:
      status = os.stat(os.path.join(folder, name))
    except (OSError, ValueError):  # not there; no name for a file
      continue
    if stat.S_ISREG(status.st_mode) and is_name(name):
      found[name] = (status.st_size, status.st_mtime_ns)
  return found or None


def is_remote(folder: str) -> bool:
  """Is it on another file system than the local one?"""
  return "://" in folder


def identity(
  root: str, split: str, names: Sequence[str], files: Stats | None
) -> str:
  """What prepared images are called: the same for the same files.

  Args:
    root: where prepared images lie, a folder for each name.
    split: of the images.
    names: of the files, in order.
    files: as returned by `stats`. Where nobody can say: the newest that are
      prepared of files of these names.
  """
  named = f"{split}-{_digest(list(names))}"
  if files is not None:
    return f"{named}-{_digest(sorted(files.items()))}"
  prepared = [name for _, name, _ in _prepared(root, named)]
  return prepared[-1] if prepared else named


def note(path: str, files: Stats | None) -> None:
  """Notes beside prepared images what they are of.

  Args:
    path: of the prepared images.
    files: as returned by `stats`.
  """
  noted = {"time": time.time_ns(), "files": files}
  with tf.io.gfile.GFile(os.path.join(path, _LISTED), "w") as file:
    file.write(json.dumps(noted))


def changes(root: str, split: str, files: Stats | None) -> str:
  """What is new since the images of a split were prepared last.

  Args:
    root: where prepared images lie.
    split: of the images.
    files: as returned by `stats`.

  Returns:
    "2 changed, 1 new, 0 gone (first a.jpg; before: PATH)"; "" where nothing was
    prepared, or nobody can say.
  """
  for _, name, before in reversed(_prepared(root, split)):
    if before is None or files is None:
      continue
    changed = [n for n in files if n in before and [*files[n]] != before[n]]
    new = [n for n in files if n not in before]
    gone = [n for n in before if n not in files]
    first = shown((changed + new + gone + ["the order"])[0])
    return (
      f"{len(changed)} changed, {len(new)} new, {len(gone)} gone (first"
      f" {first}; before: {os.path.join(root, name)})"
    )
  return ""


def _prepared(
  root: str, prefix: str
) -> list[tuple[int, str, dict[str, list[int]] | None]]:
  """When images were prepared, their name and files; the newest is last.

  Args:
    root: where prepared images lie.
    prefix: of the name, but for hashes.
  """
  gfile, found = tf.io.gfile, []
  hashes = re.compile(re.escape(prefix) + "(-[0-9a-f]{16}){0,2}")
  for name in gfile.listdir(root) if gfile.isdir(root) else ():
    name = name.rstrip("/")
    if not hashes.fullmatch(name):
      continue
    for version in gfile.listdir(os.path.join(root, name)):
      # TFDS writes into a folder "VERSION.incomplete..." and renames it.
      if "incomplete" not in version:
        when, files = _noted(os.path.join(root, name, version, _LISTED))
        found.append((when, name, files))
  return sorted(found, key=lambda one: one[:2])


def _noted(path: str) -> tuple[int, dict[str, list[int]] | None]:
  """What `note` wrote; 0 and None if it is not there, or damaged."""
  try:
    with tf.io.gfile.GFile(path) as file:
      noted = json_files.parse(file.read(), path)
    if isinstance(noted["files"], dict | None):
      return int(noted["time"]), noted["files"]
  except (ValueError, TypeError, KeyError, tf.errors.OpError):
    pass
  return 0, None


def _digest(content: object) -> str:
  return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def require(folder: str, names: Sequence[str]) -> None:
  """Checks that image files exist.

  Args:
    folder: of the files.
    names: of the files.

  Raises:
    InputError: some do not; with the change of their names that would fit.
  """
  if not tf.io.gfile.isdir(folder):
    where = hint(folder, names) or "put the images of that split there"
    raise InputError(
      f"data.dir: the image folder {folder} does not exist (nor images/ above"
      f" it); {where}"
    )
  check = functools.partial(is_file, folder)
  if is_remote(folder):
    with ThreadPoolExecutor(_THREADS) as pool:
      there = list(pool.map(check, names))
  else:
    there = list(map(check, names))
  missing = [n for n, found in zip(names, there, strict=True) if not found]
  if missing:
    what = hint(folder, missing)
    raise InputError(
      f"{folder} lacks {len(missing)} of the {len(names)} images of its"
      f" annotation file, first {shown(missing[0])}"
      + (f"; {what}" if what else "")
    )


def hint(folder: str, missing: Sequence[str]) -> str:
  """What would find missing files, as words; or "".

  Args:
    folder: where they are looked for.
    missing: names of files that are not there.
  """
  if not tf.io.gfile.isdir(folder):
    return where_else(folder, missing, is_file)
  return what_would_fit(folder, missing, functools.partial(is_file, folder))


def is_file(folder: str, name: str) -> bool:
  """Is there a file of that name, and not a folder or a device?"""
  if not is_name(name):
    return False
  path = os.path.join(folder, name)
  if not is_remote(path):
    return os.path.isfile(path)
  return tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path)


def is_name(name: str) -> bool:
  """May a file be called so?"""
  try:
    return bool(name) and b"\0" not in name.encode()
  except UnicodeEncodeError:  # half a character, which JSON may hold
    return False


def read(folder: str, name: str) -> bytes:
  """An image file's bytes.

  Args:
    folder: of the file.
    name: of the file.

  Raises:
    InputError: it cannot be read, or is larger than images are.
  """
  path = os.path.join(folder, name)
  try:
    file_kinds.check(path)
    size = tf.io.gfile.stat(path).length
    if size > LARGEST:
      raise InputError(
        f"{path} has {size / 2**30:.1f} GiB, more than an image may have (1);"
        " is it a video?"
      )
    with tf.io.gfile.GFile(path, "rb") as file:
      return file.read()
  except (OSError, tf.errors.OpError) as error:
    raise InputError(f"cannot read the image {path}: {reason(error)}") from None
