"""TensorBoard's summaries of a training, written in the background."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from clu import metric_writers

from tokenpose_jax.errors import one_line


class Summaries:
  """Writes summaries; where that fails, the training is worth more."""

  def __init__(self, folder: str):
    """Opens them; only the first process writes.

    Args:
      folder: the work directory.
    """
    self._folder = folder
    self._failed = False
    self._writer: metric_writers.MetricWriter = metric_writers.MultiWriter([])
    if not jax.process_index():
      self._writer = metric_writers.AsyncWriter(
        metric_writers.SummaryWriter(folder)
      )

  def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Writes numbers by name."""
    # TensorFlow keeps every Python number it ever made a tensor of: a line of
    # the log would take 18 kB for good.
    arrays = {name: np.float32(value) for name, value in scalars.items()}
    with self._going_on():
      self._writer.write_scalars(np.int64(step), arrays)

  def write_images(self, step: int, images: Mapping[str, Any]) -> None:
    """Writes (n, h, w, 3) uint8 RGB by name."""
    with self._going_on():
      self._writer.write_images(np.int64(step), images)

  def flush(self) -> None:
    """Writes what is left."""
    with self._going_on():
      self._writer.flush()

  def close(self) -> None:
    """Writes what is left, and ends the background's thread."""
    with self._going_on():
      self._writer.close()

  @contextlib.contextmanager
  def _going_on(self) -> Iterator[None]:
    """Says, once, why something cannot be written: a full disk, say."""
    try:
      yield
    except Exception as error:  # clu raises its own for whatever it meets.
      if not self._failed:
        # TensorFlow's first line is PATH; WHY.
        first, *_ = str(error.__cause__ or error).splitlines() or [""]
        logging.warning(
          "cannot write summaries to %s: %s. The training goes on; TensorBoard"
          " will miss some",
          self._folder,
          one_line(first.rpartition("; ")[2], 200),
        )
      self._failed = True
