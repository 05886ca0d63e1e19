"""What a run says of itself: progress bar, log lines, summaries."""

import contextlib
import math
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict
from tqdm import tqdm

from tokenpose_jax import visualize
from tokenpose_jax.errors import InputError
from tokenpose_jax.skeletons import Skeleton

Batch = dict[str, np.ndarray]


def log_only(*ours: str, level: int = logging.INFO) -> None:
  """Log lines of code in these files and folders; of libraries, errors only.

  Args:
    ours: absolute paths.
    level: of absl, from which on ours are shown.
  """

  def keep(record) -> bool:
    return record.levelno >= 40 or record.pathname.startswith(ours)

  logging.use_absl_handler()
  logging.set_verbosity(level)
  logging.set_stderrthreshold(level)
  logging.get_absl_handler().addFilter(keep)


def bar(total: int, description: str, unit: str, initial: int = 0) -> tqdm:
  """A bar with the time left, or nothing where standard error is a file."""
  return tqdm(
    total=total,
    desc=description,
    unit=unit,
    initial=initial,
    dynamic_ncols=True,
    disable=not sys.stderr.isatty(),
  )


class Report:
  """What a run says of itself: the bar, the log, the summaries.

  Reads each step's metrics when the next step is under way, so that the device
  never waits for the host.
  """

  def __init__(
    self,
    config: ConfigDict,
    writer: Any,
    skeleton: Skeleton,
    first: int,
    total: int,
  ):
    self._config = config
    self._writer = writer
    self._skeleton = skeleton
    self._total = total
    self._pending: tuple[int, dict[str, Any], Batch] | None = None
    self._window: list[dict[str, float]] = []
    self._unreadable = 0
    self._bar = bar(total, "training", "step", initial=first)
    self._since = time.monotonic()
    self._timed = -1  # steps since then; the first one compiles

  def add(self, step: int, metrics: dict[str, Any], batch: Batch) -> None:
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
    values = jax.device_get(metrics)
    points, scores = values.pop("points"), values.pop("scores")
    row = {name: float(value) for name, value in values.items()}
    if not math.isfinite(row["loss"]):
      raise InputError(
        f"the loss is {row['loss']} at step {step}; nothing of it was saved."
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
    self, step: int, batch: Batch, points: np.ndarray, scores: np.ndarray
  ) -> None:
    # Single process: its slots are the batch's. In a multi-process run the
    # first process's slots come first.
    count = min(len(batch["image"]), len(points))
    sheet = visualize.contact_sheet(
      batch["image"][:count],
      points[:count],
      scores[:count] > 0.2,
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
