"""Training progress: bar, log lines, summaries, and what ends a training."""

import collections
import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
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

# Scalars of a step that are finite as long as the training is sound: the loss
# of the weights before it, its gradient, and what it adds to the weights.
FINITE = {
  "loss": "loss",
  "grad_norm": "gradient's norm",
  "update_norm": "update's norm",
}

_LONG = 100  # steps without anything to learn from, after which it is an error
_DIVERGED = 10  # times the loss of the start

_ALL = 3  # The first 2 ** 3 pictures are all written, later ones less often.

# What the loop's thread spends its time on. Steps: starting and awaiting them;
# host: what is made of their metrics.
_TIMED = ("steps", "host", "data", "compilation", "checkpoint", "evaluation")


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


def is_pictured(step: int, every: int) -> bool:
  """Is something that happens at regular steps shown as a picture?

  A picture takes 2 MB of the event files, so their distance grows with the run:
  every time at first, then every second time, every fourth ... The step alone
  decides, so that a resumed run shows the same.

  Args:
    step: of the run.
    every: steps between two times; 0: never.
  """
  if not every or step % every:
    return False
  times = step // every
  apart = 2 ** max(0, (times - 1).bit_length() - _ALL)
  return times % apart == 0


class _DeviceClock:
  """How long the device works on steps.

  Attributes:
    busy: seconds.
  """

  def __init__(self) -> None:
    self.busy = 0.0
    self._ended = 0.0
    # The loop itself sees the end of a step only when it asks for it.
    self._thread = futures.ThreadPoolExecutor(1, "device clock")

  def started(self, result: Any) -> None:
    """Takes note of a step that is on its way to the device.

    Args:
      result: what is there when the step has ended.
    """
    self._thread.submit(self._wait, result, time.monotonic())

  def _wait(self, result: Any, started: float) -> None:
    jax.block_until_ready(result)
    now = time.monotonic()
    self.busy += now - max(started, self._ended)
    self._ended = now

  def close(self) -> None:
    """Waits for the last step."""
    self._thread.shutdown()


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
    image_ids: Callable[[int], Sequence[int]] = lambda step: (),
  ):
    """Starts the bar.

    Args:
      config: of the run.
      writer: of summaries.
      skeleton: of the pictures.
      first: step at which this run starts.
      total: steps of the training.
      image_ids: of the people in the batch of a step, for errors.
    """
    self._config = config
    self._writer = writer
    self._skeleton = skeleton
    self._total = total
    self._image_ids = image_ids
    self._pending: tuple[int, StepMetrics, TrainBatch] | None = None
    self._window: list[dict[str, float]] = []
    self._unreadable = 0
    self._skipped = 0
    self._in_vain: collections.Counter[str] = collections.Counter()
    self._first_loss = math.inf
    self._bar = bar(total, "training", "step", initial=first)
    self._start = self._since = time.monotonic()
    self._timed = -1  # steps since then; the first one compiles
    self._seconds: dict[str, float] = dict.fromkeys(_TIMED, 0.0)
    self._device = _DeviceClock()
    self._saved_step, self._saved_at = 0, self._start

  def add(self, step: int, metrics: StepMetrics, batch: TrainBatch) -> None:
    """Takes a step's metrics, and reads those of the step before."""
    self._device.started(metrics.scalars)
    self.flush()
    self._pending = (step, metrics, batch)

  def saved(self, step: int) -> None:
    """Takes note of a checkpoint."""
    self._saved_step, self._saved_at = step, time.monotonic()

  def described(self) -> str:
    """What is saved, in words."""
    if self._saved_step:
      return f"step {self._saved_step} is saved"
    return "nothing is saved yet"

  def flush(self) -> None:
    """Reads the metrics that are pending.

    Raises:
      InputError: they say that the training is not sound, or that there is
        nothing to learn from.
    """
    if self._pending is None:
      return
    step, metrics, batch = self._pending
    self._pending = None
    with self.spent("steps"):
      read = jax.device_get(metrics)
    with self.spent("host"):
      self._take(step, read, batch)

  def _take(self, step: int, metrics: StepMetrics, batch: TrainBatch) -> None:
    """Checks, logs and pictures a step."""
    row = {name: float(value) for name, value in metrics.scalars.items()}
    self._unreadable += int(row["unreadable"])
    self._check(step, row)
    if all(math.isfinite(row[name]) for name in FINITE):
      self._window.append(row)
    else:
      self._skipped += 1
    self._bar.update(1)
    if self._timed < 0:
      self._since = time.monotonic()
    self._timed += 1
    if step % self._config.train.log_every == 0 or step == self._total:
      self._log(step)
    every = self._config.train.pictures_every
    if is_pictured(step, every) and jax.process_index() == 0:
      self._picture(step, batch, metrics)

  def _check(self, step: int, row: Mapping[str, float]) -> None:
    """Raises InputError where it makes no sense to go on."""
    people = self._config.train.batch_size
    bad = next((n for n in FINITE if not math.isfinite(row[n])), None)
    if bad and self._config.train.on_nonfinite == "stop":
      raise InputError(
        f"the {FINITE[bad]} is {row[bad]} at step {step}; that step was not"
        f" saved {self._where(step)}. Lower --config.optim.learning_rate,"
        " start from an earlier checkpoint, or set"
        " --config.train.on_nonfinite=skip"
      )
    for what, in_vain in (
      ("no step was finite", bad is not None),
      ("no image could be read", row["unreadable"] >= people),
      ("no keypoint was labeled", row["labeled"] == 0),
    ):
      self._in_vain[what] = self._in_vain[what] + 1 if in_vain else 0
      if self._in_vain[what] == _LONG:
        raise InputError(
          f"{what} in {_LONG} steps, up to step {step}: there is nothing to"
          f" learn from {self._where(step)}; python -m"
          " input_pipeline.doctor looks at the data"
        )

  def _where(self, step: int) -> str:
    """The batch of a step and the last checkpoint, in words."""
    ids = list(self._image_ids(step - 1))
    some = ", ".join(map(str, ids[:8])) + (", ..." if len(ids) > 8 else "")
    images = f"images {some}; " if ids else ""
    return f"({images}{self.described()})"

  def _log(self, step: int) -> None:
    seconds = (time.monotonic() - self._since) / max(self._timed, 1)
    means = {
      name: float(np.mean([row[name] for row in self._window]))
      for name in (self._window[0] if self._window else ())
    }
    self._check_loss(step, means)
    means.pop("unreadable", None)  # Their number from the start is said.
    means["images_per_second"] = self._config.train.batch_size / seconds
    self._writer.write_scalars(
      step,
      {f"train/{name}": value for name, value in means.items()}
      | {"train/unreadable_images": self._unreadable}
      | {"train/skipped_steps": self._skipped}
      | {f"time/{name}": share for name, share in self._shares().items()}
      | {"time/device_busy": self._device_busy()}
      | {"time/unsaved_seconds": time.monotonic() - self._saved_at},
    )
    self._bar.set_postfix(
      loss=f"{means.get('loss', math.nan):.2e}",
      accuracy=f"{means.get('accuracy', math.nan):.3f}",
    )
    # A bar shows all this already.
    if self._bar.disable and jax.process_index() == 0:
      left = (self._total - step) * seconds
      logging.info(
        "step %d/%d  loss %.3e  accuracy %.3f  grad norm %.2e  rate %.2e"
        "  %.1f images/s  %s left%s%s",
        step,
        self._total,
        *(
          means.get(name, math.nan)
          for name in ("loss", "accuracy", "grad_norm", "learning_rate")
        ),
        means["images_per_second"],
        time.strftime("%H:%M:%S", time.gmtime(left)),
        f"  {self._unreadable} unreadable" if self._unreadable else "",
        f"  {self._skipped} skipped" if self._skipped else "",
      )
    self._window, self._timed = [], 0
    self._since = time.monotonic()

  def _check_loss(self, step: int, means: Mapping[str, float]) -> None:
    """Raises InputError where the loss grows without end."""
    loss = means.get("loss", 0.0)
    if loss > _DIVERGED * self._first_loss:
      raise InputError(
        f"the loss diverges: {loss:.3g} up to step {step}, and"
        f" {self._first_loss:.3g} at the start {self._where(step)}. Lower"
        " --config.optim.learning_rate, or start from an earlier checkpoint"
      )
    if math.isinf(self._first_loss) and means:
      self._first_loss = loss

  def _shares(self) -> dict[str, float]:
    """Of the time since the start, by what it was spent on."""
    whole = max(time.monotonic() - self._start, 1e-9)
    shares = {name: self._seconds[name] / whole for name in _TIMED}
    return shares | {"other": max(0.0, 1 - sum(shares.values()))}

  def _device_busy(self) -> float:
    """Share of the time but for compilation and evaluations, 0 to 1."""
    apart = self._seconds["compilation"] + self._seconds["evaluation"]
    whole = time.monotonic() - self._start - apart
    return self._device.busy / max(whole, 1e-9)

  def _picture(
    self, step: int, batch: TrainBatch, metrics: StepMetrics
  ) -> None:
    _, points, scores = metrics
    # Single process: its slots are the batch's. In a multi-process run the
    # first process's slots come first.
    count = min(len(batch["image"]), len(points))
    sheet = visualize.contact_sheet(
      batch["image"][:count],
      np.asarray(points[:count]),
      np.asarray(scores[:count]) > self._config.eval.min_keypoint_score,
      self._skeleton,
    )
    self._writer.write_images(step, {"train/people": sheet[None]})

  @contextlib.contextmanager
  def spent(self, on: str) -> Iterator[None]:
    """Counts the time in here.

    Only that of steps and data counts in images per second.

    Args:
      on: one of steps, host, data, compilation, checkpoint, evaluation.
    """
    start = time.monotonic()
    try:
      yield
    finally:
      seconds = time.monotonic() - start
      self._seconds[on] += seconds
      if on in ("checkpoint", "evaluation"):
        self._since += seconds

  def close(self) -> None:
    """Ends the bar, and writes and says what is left."""
    self.flush()
    self._device.close()
    self._bar.close()
    self._writer.flush()
    if self._timed >= 0 and jax.process_index() == 0:
      shares = ", ".join(f"{n} {s:.0%}" for n, s in self._shares().items())
      logging.info(
        "wall time: %s; device busy %.1f%% of all but compilation and"
        " evaluations",
        shares,
        100 * self._device_busy(),
      )
