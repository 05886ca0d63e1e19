"""JSON from other people's files: any encoding, any depth, any size.

One reader for all: a byte-order mark is passed over, and what cannot be read is
one line that names the file.
"""

import json
import os
from typing import Any

from tokenpose_jax import file_kinds
from tokenpose_jax.errors import InputError, one_line

# Parsed numbers take about five times the bytes of their text, and the text is
# in memory twice: 2 GiB need 14.
LARGEST = 2**31


def read(path: str | os.PathLike, what: str) -> Any:
  """Reads and parses a file, on any file system that etils knows.

  Args:
    path: of the file.
    what: it is, for the error: a config field, "results".

  Raises:
    InputError: it is missing, no file, larger than `LARGEST` or not JSON.
  """
  try:
    return load(path)
  except FileNotFoundError:
    raise InputError(f"{what}: the file {path} does not exist") from None
  except OSError as error:
    raise InputError(f"{what}: cannot read {path}: {one_line(error)}") from None


def load(path: str | os.PathLike) -> Any:
  """As `read`, for those who have a use for the error of a file system.

  Args:
    path: of the file.

  Raises:
    InputError: it is larger than `LARGEST` or not JSON.
    OSError: it is missing, no file, or cannot be read.
  """
  from etils import epath  # `tokenpose verify` imports this, and has none.

  file = epath.Path(path)
  file_kinds.check(path)
  check_size(file.stat().length, str(path))
  return parse(file.read_bytes(), str(path))


def check_size(size: int, path: str) -> None:
  """Checks that a file is small enough to be parsed.

  Args:
    size: of the file, bytes.
    path: of the file, for the error.

  Raises:
    InputError: it is larger than `LARGEST`.
  """
  if size > LARGEST:
    raise InputError(
      f"{path} has {size / 2**30:.1f} GiB; JSON of more than"
      f" {LARGEST / 2**30:.0f} GiB is not read: split it by images"
    )


def parse(raw: bytes | str, path: str) -> Any:
  """Parses a file's bytes: UTF-8, UTF-16 or UTF-32, with or without a mark.

  Args:
    raw: the bytes; or their text.
    path: of the file, for the error.

  Raises:
    InputError: they are not JSON, or nested too deeply.
  """
  try:
    return json.loads(raw)
  except RecursionError:
    raise InputError(
      f"{path} is not usable JSON: its brackets are nested too deeply"
    ) from None
  except ValueError as error:  # also bytes that are not text
    raise InputError(f"{path} is not JSON: {error}") from None
