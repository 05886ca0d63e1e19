"""Training progress: bar, log lines, summaries."""

import contextlib
import math
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from absl import logging
from jaxtyping import Array, Float
from ml_collections import ConfigDict
from tqdm import tqdm

from tokenpose_jax import visualize
from tokenpose_jax.arrays import AnyArray
from tokenpose_jax.data import TrainBatch
from tokenpose_jax.errors import InputError
from tokenpose_jax.skeletons import Skeleton


class StepMetrics(NamedTuple):
  """What a training step says.

  Attributes:
    scalars: () each, by name.
    points: (P, K, 2) predictions of some people, crop pixels.
    scores: (P, K) of these.
  """

  scalars: dict[str, Array]
  points: Float[AnyArray, "p k 2"]
  scores: Float[AnyArray, "p k"]


@runtime_checkable
class Writer(Protocol):
  """What writes summaries: clu's `MetricWriter`, or a test's stand-in."""

  def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Writes numbers by name."""

  def write_images(self, step: int, images: Mapping[str, Any]) -> None:
    """Writes (n, h, w, 3) uint8 RGB by name."""

  def flush(self) -> None:
    """Writes what is left."""


def bar(
  total: int | None, description: str, unit: str, initial: int = 0
) -> tqdm:
  """A bar with the time left; disabled when stderr is not a terminal."""
  return tqdm(
    total=total,
    desc=description,
    unit=unit,
    initial=initial,
    dynamic_ncols=True,
    disable=not sys.stderr.isatty(),
  )


class Progress:
  """Training progress: the bar, the log, the summaries.

  Reads each step's metrics when the next step is under way, so that the device
  never waits for the host.
  """

  def __init__(
    self,
    config: ConfigDict,
    writer: Writer,
    skeleton: Skeleton,
    first: int,
    total: int,
  ):
    """Starts the bar.

    Args:
      config: of the run.
      writer: of summaries.
      skeleton: of the pictures.
      first: step at which this run starts.
      total: steps of the training.
    """
    self._config = config
    self._writer = writer
    self._skeleton = skeleton
    self._total = total
    self._pending: tuple[int, StepMetrics, TrainBatch] | None = None
    self._window: list[dict[str, float]] = []
    self._unreadable = 0
    self._bar = bar(total, "training", "step", initial=first)
    self._since = time.monotonic()
    self._timed = -1  # steps since then; the first one compiles

  def add(self, step: int, metrics: StepMetrics, batch: TrainBatch) -> None:
    """Takes a step's metrics, and reads those of the step before."""
    self.flush()
    self._pending = (step, metrics, batch)

  def flush(self) -> None:
    """Reads the metrics that are pending.

    Raises:
      InputError: the loss is not finite.
    """
    if self._pending is None:
      return
    step, metrics, batch = self._pending
    self._pending = None
    scalars, points, scores = jax.device_get(metrics)
    row = {name: float(value) for name, value in scalars.items()}
    if not math.isfinite(row["loss"]):
      raise InputError(
        f"the loss is {row['loss']} at step {step}; that step was not saved."
        " Lower --config.optim.learning_rate, or start from an earlier"
        " checkpoint"
      )
    self._unreadable += int(row.pop("unreadable"))
    self._window.append(row)
    self._bar.update(1)
    if self._timed < 0:
      self._since = time.monotonic()
    self._timed += 1
    if step % self._config.train.log_every == 0 or step == self._total:
      self._log(step)
    every = self._config.train.pictures_every
    if every and step % every == 0 and jax.process_index() == 0:
      self._picture(step, batch, points, scores)

  def _log(self, step: int) -> None:
    seconds = (time.monotonic() - self._since) / max(self._timed, 1)
    means = {
      name: float(np.mean([row[name] for row in self._window]))
      for name in self._window[0]
    }
    means["images_per_second"] = self._config.train.batch_size / seconds
    self._writer.write_scalars(
      step,
      {f"train/{name}": value for name, value in means.items()}
      | {"train/unreadable_images": self._unreadable},
    )
    self._bar.set_postfix(
      loss=f"{means['loss']:.2e}", accuracy=f"{means['accuracy']:.3f}"
    )
    # A bar shows all this already.
    if self._bar.disable and jax.process_index() == 0:
      left = (self._total - step) * seconds
      logging.info(
        "step %d/%d  loss %.3e  accuracy %.3f  grad norm %.2e  rate %.2e"
        "  %.1f images/s  %s left%s",
        step,
        self._total,
        means["loss"],
        means["accuracy"],
        means["grad_norm"],
        means["learning_rate"],
        means["images_per_second"],
        time.strftime("%H:%M:%S", time.gmtime(left)),
        f"  {self._unreadable} unreadable" if self._unreadable else "",
      )
    self._window, self._timed = [], 0
    self._since = time.monotonic()

  def _picture(
    self, step: int, batch: TrainBatch, points: np.ndarray, scores: np.ndarray
  ) -> None:
    # Single process: its slots are the batch's. In a multi-process run the
    # first process's slots come first.
    count = min(len(batch["image"]), len(points))
    sheet = visualize.contact_sheet(
      batch["image"][:count],
      points[:count],
      scores[:count] > self._config.eval.min_keypoint_score,
      self._skeleton,
    )
    self._writer.write_images(step, {"train/people": sheet[None]})

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Time in here does not count in images per second."""
    start = time.monotonic()
    yield
    self._since += time.monotonic() - start

  def close(self) -> None:
    """Ends the bar and writes what is left."""
    self.flush()
    self._bar.close()
    self._writer.flush()
