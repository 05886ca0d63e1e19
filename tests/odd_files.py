"""Pipes in the place of files, and what must not wait for them."""

import os
import pathlib
import threading
from collections.abc import Callable
from typing import Any

import pytest

PATIENCE = 30.0  # seconds; nothing here takes one


def pipe(path: pathlib.Path) -> pathlib.Path:
  """Makes a pipe to which nobody ever writes."""
  path.unlink(missing_ok=True)
  os.mkfifo(path)
  return path


def in_time(call: Callable[[], Any], waited_for: pathlib.Path) -> Any:
  """What a call returns or raises; the test fails where it waits for a pipe."""
  ended: list[Any] = []

  def run() -> None:
    try:
      ended.append((call(), None))
    except Exception as error:
      ended.append((None, error))

  thread = threading.Thread(target=run, daemon=True)
  thread.start()
  thread.join(PATIENCE)
  if thread.is_alive():
    os.close(os.open(waited_for, os.O_WRONLY | os.O_NONBLOCK))
    pytest.fail(f"it waits for {waited_for}")
  value, error = ended[0]
  if error is not None:
    raise error
  return value
