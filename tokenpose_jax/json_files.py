"""JSON from other people's files: any encoding, any depth, any size.

One reader for all: a byte-order mark is passed over, and what cannot be read is
one line that names the file.
"""

import json
import os
from typing import Any

from etils import epath

from tokenpose_jax.errors import InputError

# Parsed numbers take about five times the bytes of their text, and the text is
# in memory twice: 2 GiB need 14.
LARGEST = 2**31


def read(path: str | os.PathLike, what: str) -> Any:
  """Reads and parses a file, on any file system that etils knows.

  Args:
    path: of the file.
    what: it is, for the error: a config field, "results".

  Raises:
    InputError: it is missing, larger than `LARGEST` or not JSON.
  """
  file = epath.Path(path)
  try:
    check_size(file.stat().length, str(path))
    return parse(file.read_bytes(), str(path))
  except FileNotFoundError:
    raise InputError(f"{what}: the file {path} does not exist") from None
  except OSError as error:
    raise InputError(f"{what}: cannot read {path}: {error}") from None


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


def parse(raw: bytes, path: str) -> Any:
  """Parses a file's bytes: UTF-8, UTF-16 or UTF-32, with or without a mark.

  Args:
    raw: the bytes.
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
