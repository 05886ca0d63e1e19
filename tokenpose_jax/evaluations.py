"""The evaluations of a training."""

import dataclasses
import functools
from collections.abc import Mapping
from concurrent import futures

from absl import logging
from jax.sharding import Mesh
from ml_collections import ConfigDict

from tokenpose_jax import evaluate, inference, processes, saving
from tokenpose_jax.data import EvalData
from tokenpose_jax.errors import InputError, one_line
from tokenpose_jax.progress import Writer, is_pictured
from tokenpose_jax.skeletons import Skeleton
from tokenpose_jax.train_state import TrainState


@dataclasses.dataclass
class _Begun:
  """An evaluation whose predictions are there.

  Attributes:
    step: of the state.
    last: nothing follows.
    outcomes: of each kind of weights.
    failure: that came before them.
  """

  step: int
  last: bool
  outcomes: dict[str, futures.Future[evaluate.Outcome]] = dataclasses.field(
    default_factory=dict
  )
  failure: Exception | None = None


class Evaluations:
  """The evaluations of a training, each after its step has been saved.

  Predicting keeps the loop; metrics and the report are a thread's, while the
  device works on the next steps.
  """

  def __init__(
    self,
    config: ConfigDict,
    skeleton: Skeleton,
    workdir: str,
    mesh: Mesh,
    data: EvalData,
    saver: saving.Saver,
    writer: Writer,
    every: int,
  ):
    """Evaluates nothing yet.

    Args:
      config: resolved.
      skeleton: of the data.
      workdir: of the run.
      mesh: as returned by `sharding.create_mesh`.
      data: what is evaluated.
      saver: of the states, which gets the metrics.
      writer: of summaries.
      every: steps between regular evaluations; 0: there are none.
    """
    self._begin = functools.partial(
      evaluate.begin,
      evaluate.create_eval_step(inference.Settings.of(config, skeleton), mesh),
      data=data,
      mesh=mesh,
      config=config,
      skeleton=skeleton,
      workdir=workdir,
    )
    self._headline = data.benchmark.headline
    self._decisive = config.eval.weights
    self._saver = saver
    self._writer = writer
    self._every = every
    self._thread = futures.ThreadPoolExecutor(1, "evaluation")
    self._begun: _Begun | None = None

  def run(self, state: TrainState, step: int, *, last: bool = False) -> None:
    """Evaluates a saved state; a failure costs the training nothing.

    Args:
      state: that is saved; its arrays may be donated once this returns.
      step: of the state.
      last: nothing follows: it is waited for, and a failure is raised.

    Raises:
      InputError: the last one failed, the state could not be saved, or this
        process is out of step with the others.
    """
    self.finish()
    begun = self._begun = _Begun(step, last)
    try:
      for kind, weights in state.weights().items():
        finish = self._begin(weights, step=step, kind=kind)
        begun.outcomes[kind] = self._thread.submit(finish)
    except processes.OutOfStep:
      raise
    except Exception as error:  # Whatever it is, the training is worth more.
      begun.failure = error
    if last:
      self.finish()

  def finish(self) -> None:
    """Waits for the evaluation under way, if any, and records it.

    Called before the next step is saved: what is resumed is evaluated, and the
    best one is known when old ones are removed.

    Raises:
      InputError: as for `run`.
    """
    begun, self._begun = self._begun, None
    if begun is None:
      return
    step, last, failure = begun.step, begun.last, begun.failure
    outcomes: dict[str, evaluate.Outcome] = {}
    try:
      outcomes = {kind: one.result() for kind, one in begun.outcomes.items()}
    except Exception as error:
      failure = failure or error
    # A checkpoint that cannot be saved is no failed evaluation.
    self._saver.wait()
    if processes.all_agree(failure is None):
      try:
        self._record(step, outcomes, last)
      except Exception as error:  # A full disk, say.
        failure = error
    elif failure is None:
      failure = InputError("it failed in another process")
    if failure is None:
      return
    said = (
      f"the evaluation of step {step} failed: {one_line(failure)}. Its"
      " checkpoint is saved"
    )
    # Bad input is a line; anything else is to be looked into.
    expected = isinstance(failure, InputError)
    if last:
      said += "; the same command evaluates it again"
      if expected:
        raise InputError(said) from None
      failure.add_note(said)
      raise failure
    logging.error(
      "%s, and the training goes on",
      said,
      exc_info=None if expected else failure,
    )

  def _record(
    self, step: int, outcomes: Mapping[str, evaluate.Outcome], last: bool
  ) -> None:
    """Metrics of the checkpoint and summaries, of what is defined."""
    prefix = {"raw": "", "ema": "ema_"}
    metrics = {
      prefix[kind] + name: value
      for kind, outcome in outcomes.items()
      for name, value in outcome.metrics.items()
    }
    decisive = self._decisive if self._decisive in outcomes else "raw"
    headline = prefix[decisive] + self._headline
    self._saver.add_metrics(step, metrics, headline)
    pictured = last or is_pictured(step, self._every)
    for kind, outcome in outcomes.items():
      where = "eval_ema" if kind == "ema" else "eval"
      defined = {n: v for n, v in outcome.metrics.items() if v >= 0}
      self._writer.write_scalars(
        step, {f"{where}/{n}": v for n, v in defined.items()}
      )
      if pictured and outcome.sheet is not None:
        self._writer.write_images(
          step, {f"{where}/people": outcome.sheet[None]}
        )
