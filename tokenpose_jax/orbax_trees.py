"""Trees of arrays in Orbax's own files, read and written without a manager."""

import gc
import logging
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from tokenpose_jax import file_kinds
from tokenpose_jax.errors import one_line

Read = TypeVar("Read")


class Unreadable(Exception):
  """Orbax cannot read something; one line says why."""


def attempt(read: Callable[[], Read]) -> Read:
  """What Orbax reads.

  Args:
    read: calls Orbax.

  Raises:
    Unreadable: it raised whatever its readers raise.
  """
  try:
    return read()
  except Exception as error:  # Orbax raises whatever its readers raise.
    reason = one_line(error, 200)
  pass_over_complaints()
  gc.collect()  # With the error go the reads that it refers to.
  raise Unreadable(reason)


def read(folder: os.PathLike, shapes: Any, *, partial: bool = False) -> Any:
  """A tree as NumPy arrays; raises whatever Orbax raises (`attempt`).

  Args:
    folder: of the tree.
    shapes: the tree with shapes and types in place of arrays.
    partial: what else the folder holds is passed over.
  """
  file_kinds.check_below(folder)  # Orbax would wait for a pipe.
  as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
  with ocp.PyTreeCheckpointer() as reader:
    return reader.restore(
      folder,
      ocp.args.PyTreeRestore(
        item=shapes,
        restore_args=jax.tree.map(lambda _: as_numpy, shapes),
        partial_restore=partial,
      ),
    )


def write(folder: os.PathLike, tree: Any) -> None:
  """Writes a tree that any user of Orbax can restore.

  Args:
    folder: a new one.
    tree: of arrays.
  """
  with ocp.StandardCheckpointer() as writer:
    writer.save(folder, jax.tree.map(np.asarray, tree))


def pass_over_complaints() -> None:
  """Silences what Orbax leaves behind where one of its parts fails.

  The others complain, of their closed event loop or that nobody asked how they
  ended, in the middle of whatever runs then: when they are collected, or when
  their data arrives after all. The failure itself is raised, and said once.
  """
  if sys.unraisablehook is not _passed_over:
    _hooks.append(sys.unraisablehook)
    sys.unraisablehook = _passed_over
  logging.getLogger("asyncio").addFilter(_is_no_complaint)


_hooks: list[Callable[[Any], Any]] = []


def _passed_over(complaint: Any) -> None:
  """Passes on what is not of an unfinished read or write."""
  of_orbax = "Event loop is closed" in str(complaint.exc_value) or (
    "coroutine" in str(complaint.object)
  )
  if not of_orbax:
    _hooks[-1](complaint)


def _is_no_complaint(record: logging.LogRecord) -> bool:
  said = record.getMessage()
  return "never retrieved" not in said and "was destroyed" not in said
