"""Checkpoints of a training: saving, resuming, and what to do with damage."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint import checkpoint_managers

from tokenpose_jax import (
  atomic,
  orbax_trees,
  processes,
  stopping,
  weight_kinds,
)
from tokenpose_jax.checkpoint import (
  HEADLINE,
  Checkpoints,
  Damaged,
  checksums_of,
  headline_of,
  weights_of,
)
from tokenpose_jax.errors import InputError, one_line
from tokenpose_jax.train_state import TrainState

ASIDE = "damaged"  # folder of the work directory


class Saver(Checkpoints):
  """The checkpoints of a training, which has them to itself."""

  def __init__(self, workdir: str, *, keep: int = 2):
    """Opens them; what a killed save has left is removed.

    Args:
      workdir: of a run.
      keep: how many of the latest stay; the best one stays as well.

    Raises:
      InputError: the folder cannot be made.
    """
    super().__init__(workdir)
    orbax_trees.pass_over_complaints()  # Of a full disk, say.
    policy = checkpoint_managers.AnyPreservationPolicy(
      [
        checkpoint_managers.LatestN(keep),
        checkpoint_managers.BestN(
          get_metric_fn=headline_of,
          n=1,
          keep_checkpoints_without_metrics=False,
        ),
      ]
    )
    several = jax.process_count() > 1
    options = ocp.CheckpointManagerOptions(
      preservation_policy=policy,
      best_fn=headline_of,
      best_mode="max",
      # It is called in a thread already, whose waiting for other processes must
      # not be a collective among those of the steps: it is none where they are
      # named, and then Orbax makes no folder.
      enable_async_checkpointing=False,
      create=False,
      multiprocessing_options=ocp.options.MultiprocessingOptions(
        active_processes=set(range(jax.process_count())) if several else None
      ),
    )
    self._thread = futures.ThreadPoolExecutor(1, "saving")
    self._under_way: futures.Future[None] | None = None
    try:
      with processes.first_process_first("looking at the checkpoints"):
        if jax.process_index() == 0:
          self.path.mkdir(parents=True, exist_ok=True)
          self._clean_up()
      self._manager = ocp.CheckpointManager(self.path, options=options)
    except OSError as error:
      raise InputError(f"cannot write {self.path}: {error.strerror}") from None

  def _clean_up(self) -> None:
    """Removes half-written checkpoints; renames what Orbax could not read."""
    for folder in self.path.iterdir():
      if ocp.utils.is_tmp_checkpoint(folder):
        logging.info("removing an unfinished checkpoint: %s", folder)
        folder.rmtree()
    for step in self.steps():
      file = self.metrics_file(step)
      if file.exists() and self.metrics(step) is None:
        file.replace(file.with_name(f"{file.name}.damaged"))

  def save(self, state: TrainState, meta: Mapping[str, Any]) -> None:
    """Saves in the background; the caller waits for a copy on the host.

    Args:
      state: its arrays may be donated once this returns.
      meta: JSON types (`checkpoint.describe`).

    Raises:
      InputError: the one before could not be written.
    """
    self.wait()
    step = int(state.step)
    if step in self._manager.all_steps():
      return
    # On CPUs what is got is the device's own memory: hence the copy.
    tree = jax.tree.map(np.array, jax.device_get(_plain(state)))
    self._under_way = self._thread.submit(self._write, step, tree, meta)

  def _write(
    self, step: int, tree: dict[str, Any], meta: Mapping[str, Any]
  ) -> None:
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(tree),
        meta=ocp.args.JsonSave({**meta, "checksums": checksums_of(tree)}),
      ),
      force=True,
    )

  def wait(self) -> None:
    """Waits for a save under way.

    Raises:
      InputError: it failed, which is said once.
    """
    if self._under_way is None:
      return
    with self._writing():
      try:
        self._under_way.result()
      except Exception:
        self._under_way = None
        raise

  def add_metrics(
    self, step: int, metrics: Mapping[str, float], headline: str
  ) -> None:
    """Adds an evaluation to a checkpoint that is saved, or being saved.

    Orbax takes metrics only with the state. Saved first, a state does not
    depend on its evaluation; so this writes the file that Orbax would.

    Args:
      step: of the checkpoint.
      metrics: of the evaluation.
      headline: the one of them that decides which checkpoint is best.

    Raises:
      InputError: the checkpoint could not be saved.
    """
    self.wait()
    with processes.first_process_first("metrics of a checkpoint"):
      if jax.process_index() == 0:
        file = self.metrics_file(step)
        file.parent.mkdir(exist_ok=True)
        content = {HEADLINE: metrics[headline], **metrics}
        atomic.write(file, json.dumps(content))
      self._manager.reload()

  def restore(
    self, step: int, template: TrainState, meta: Mapping[str, Any]
  ) -> TrainState:
    """Reads a state and checks it against its checksums.

    Args:
      step: of the checkpoint.
      template: a state of the same shapes, types and shardings.
      meta: as returned by `read_meta`.

    Returns:
      the state; with a moving average where the checkpoint has one, whatever
      the template has.

    Raises:
      Damaged: the checkpoint is, or is from a different network.
    """
    same = (template.params, template.model_state)
    template = dataclasses.replace(
      template, ema=same if weight_kinds.has_average(meta) else None
    )
    shapes = jax.tree.map(
      lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding),
      _plain(template),
    )

    def read() -> dict[str, Any]:
      return self._manager.restore(
        step,
        args=ocp.args.Composite(state=ocp.args.StandardRestore(shapes)),
      )["state"]

    restored = self.unless_damaged(step, read)
    self.check(step, meta["checksums"], restored)
    if int(restored["step"]) != step:
      raise self.damaged(step, f"it holds step {int(restored['step'])}")
    if "ema" in restored:
      restored["ema"] = weights_of(restored["ema"])
    return dataclasses.replace(template, **restored)

  def set_aside(self, step: int, damage: Damaged) -> None:
    """Moves a damaged checkpoint out of the way, to WORKDIR/damaged.

    Args:
      step: of the checkpoint.
      damage: what is wrong, which is said.

    Raises:
      Damaged: no other checkpoint is left, or it cannot be moved.
    """
    older = [s for s in self.steps() if s < step]
    if not older:
      raise damage
    folder = self.path.parent / ASIDE
    with processes.first_process_first("setting a checkpoint aside"):
      if jax.process_index() == 0:
        target, number = folder / str(step), 1
        while target.exists():
          number += 1
          target = folder / f"{step}-{number}"
        try:
          folder.mkdir(exist_ok=True)
          (self.path / str(step)).rename(target)
        except OSError:
          raise damage from None
        logging.warning(
          "%s. It is in %s now; going on from step %d",
          damage.what,
          target,
          older[-1],
        )
    self._manager.reload()

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    """Says in one line why a checkpoint cannot be written."""
    try:
      yield
    except Exception as error:  # Orbax raises whatever its writers raise.
      steps = self.steps()
      raise InputError(
        f"cannot write a checkpoint to {self.path}: {one_line(error, 200)}. "
        + (
          f"Step {steps[-1]} is saved: the same command goes on from there"
          if steps
          else "None is saved yet"
        )
      ) from error

  def close(self) -> None:
    """Waits for a save under way.

    Raises:
      InputError: it failed.
    """
    try:
      self.wait()
    finally:
      self._thread.shutdown()
      with self._writing():
        self._manager.close()


@contextlib.contextmanager
def opened(workdir: str, *, keep: int) -> Iterator[Saver]:
  """The checkpoints of a training, closed whatever ends it.

  Args:
    workdir: of the run.
    keep: as for `Saver`.

  Raises:
    InputError: they cannot be opened, or the last save failed.
  """
  saver = Saver(workdir, keep=keep)
  with stopping.duty(saver.wait), contextlib.closing(saver):
    yield saver


def restore_latest(
  saver: Saver,
  template: TrainState,
  check: Callable[[int, dict[str, Any]], None],
  on_damage: str,
) -> TrainState:
  """The latest state that is whole.

  Args:
    saver: that has checkpoints.
    template: as for `Saver.restore`.
    check: is given a step and its meta; raises InputError where that is not
      to be resumed.
    on_damage: "previous": damaged ones are set aside; "stop".

  Raises:
    InputError: none is whole, or the latest is damaged and `on_damage` is
      "stop".
  """
  while True:
    step = saver.steps()[-1]
    state, damage = None, None
    try:
      meta = saver.read_meta(step)
      check(step, meta)
      state = saver.restore(step, template, meta)
    except Damaged as error:
      damage = error
    if processes.all_agree(damage is None) and state is not None:
      return state
    damage = damage or saver.damaged(step, "another process cannot read it")
    if on_damage == "stop":
      raise damage
    saver.set_aside(step, damage)


def _plain(state: TrainState) -> dict[str, Any]:
  plain = {
    "step": state.step,
    "params": state.params,
    "model_state": state.model_state,
    "opt_state": state.opt_state,
  }
  if state.ema is not None:
    params, model_state = state.ema
    plain["ema"] = {"params": params, "model_state": model_state}
  return plain
