"""Kinds of weights of a checkpoint: as trained, and their moving average."""

import argparse
from collections.abc import Mapping
from typing import Any

KINDS = ("raw", "ema")  # ema.py


def has_average(meta: Mapping[str, Any]) -> bool:
  """Does a checkpoint hold a moving average of its weights?"""
  return any(name.startswith("['ema']") for name in meta["checksums"])


def usual(meta: Mapping[str, Any]) -> str:
  """Which weights of a checkpoint are used unless others are asked for.

  Those that its own training was judged by (`eval.weights`).

  Args:
    meta: as returned by `Checkpoints.read_meta`.
  """
  asked = meta["config"].get("eval", {}).get("weights", "raw")
  return asked if has_average(meta) else "raw"


def add_argument(parser: argparse.ArgumentParser) -> None:
  """Adds --kind to a command that reads a work directory's weights.

  Args:
    parser: of the command.
  """
  parser.add_argument(
    "--kind",
    choices=KINDS,
    default="",
    help="of a work directory's weights; default: as its training was judged",
  )
