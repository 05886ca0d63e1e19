"""What stopped preparations have left, and when it may be removed."""

import os
import re
import socket
import time
from collections.abc import Iterator

import tensorflow as tf
from absl import logging

from input_pipeline import files, locks

PARTS = "incomplete.parts"  # of a data set that is being prepared
LOCK = "incomplete.lock"  # beside them, held by who prepares
DAY = 24 * 60 * 60.0  # seconds without a change, after which nobody writes

# As TFDS calls what it writes; earlier versions left such folders.
_TFDS = re.compile(r"incomplete\.[A-Z0-9]{6}_\d+\.\d+\.\d+")
_HASH = re.compile(r"-[0-9a-f]{16}")


def remove(root: str, config: str) -> None:
  """Removes what dead preparations have left of a data set's configs.

  That is a folder in which nothing has changed for a day, or the parts of the
  same images as they were before they changed, if they are of a process of this
  host that is gone.

  Args:
    root: of the data set, a folder for each config.
    config: that is going to be prepared: its parts stay, they are gone on with.
  """
  for other in _names(root):
    home = os.path.join(root, other)
    for name in _names(home):
      path = os.path.join(home, name)
      if _TFDS.fullmatch(name):
        if _is_old(path):
          _remove(path)
      elif name == PARTS and other != config:
        lock = os.path.join(home, LOCK)
        with locks.left(lock) as host:
          replaced = _stem(other) == _stem(config)
          mine = replaced and host == socket.gethostname()
          if host is not None and (mine or _is_old(path)):
            _remove(path)
            files.remove(lock)


def _stem(config: str) -> str:
  """A config's name without the hash of how the images are."""
  *_, start = [0, *(found.start() for found in _HASH.finditer(config))]
  return config[:start]


def _is_old(path: str) -> bool:
  """Has nothing in a folder changed for a day?"""
  times = [time_ns for _, _, time_ns in _files(path)]
  if os.path.isdir(path):
    times.append(os.stat(path).st_mtime_ns)
  return bool(times) and time.time() - max(times) / 1e9 > DAY


def _remove(path: str) -> None:
  """Removes a folder, and says so."""
  if os.path.islink(path):
    return
  size = sum(length for _, length, _ in _files(path))
  try:
    tf.io.gfile.rmtree(path)
  except (OSError, tf.errors.OpError):
    return  # Another run does the same, or it is nobody's business.
  logging.info(
    "removed what a stopped preparation left: %s, %.1f MB", path, size / 1e6
  )


def _files(path: str) -> Iterator[tuple[str, int, int]]:
  """Path, bytes and time in ns of the files in a folder."""
  for folder, _, names in tf.io.gfile.walk(path):
    for name in names:
      file = os.path.join(folder, name)
      try:
        status = tf.io.gfile.stat(file)
      except (OSError, tf.errors.OpError):
        continue  # It is gone.
      yield file, status.length, status.mtime_nsec


def _names(folder: str) -> list[str]:
  """What is in a folder; nothing if it is none."""
  try:
    return [name.rstrip("/") for name in tf.io.gfile.listdir(folder)]
  except (OSError, tf.errors.OpError):
    return []
