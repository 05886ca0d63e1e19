"""Training: the step, and the loop around it, read top to bottom."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from absl import logging
from jax.sharding import Mesh
from jaxtyping import Array
from ml_collections import ConfigDict

from tokenpose_jax import (
  checkpoint,
  ema,
  gradients,
  network,
  optim,
  processes,
  saving,
  sharding,
  stopping,
  train_state,
  transfer,
)
from tokenpose_jax import config as config_lib
from tokenpose_jax.codec import Codec
from tokenpose_jax.data import EvalData, TrainData
from tokenpose_jax.errors import InputError
from tokenpose_jax.evaluations import Evaluations
from tokenpose_jax.metrics.accuracy import heatmap_accuracy
from tokenpose_jax.models.config import ModelConfig
from tokenpose_jax.models.layers import Train, Training
from tokenpose_jax.progress import FINITE, Progress, StepMetrics, Writer
from tokenpose_jax.skeletons import Skeleton
from tokenpose_jax.train_state import TrainState

PICTURED = 16  # people on the pictures made during training


def train_step(
  model: ModelConfig,
  target: Codec,
  optimizer: optax.GradientTransformation,
  schedule: optax.Schedule,
  state: TrainState,
  batch: Mapping[str, Array],
  *,
  microbatches: int = 1,
  decay: float = 0.0,
  train: Train = True,
  loss_weights: gradients.LossWeights = gradients.HEATMAPS_ALONE,
) -> tuple[TrainState, StepMetrics]:
  """One update, as a pure function.

  Args:
    model: the network.
    target: makes the target heatmaps.
    optimizer: an optax chain.
    schedule: its learning rate, for the metrics.
    state: before the update.
    batch: a `data.TrainBatch` on the device, of the whole batch.
    microbatches: how many parts it is worked on in (`gradients.of_batch`).
    decay: of the moving average, where the state has one.
    train: how the network is trained.
    loss_weights: of what is learned besides heatmaps.

  Returns:
    the state after the update, and the metrics of the step.
  """
  targets, weights = target.encode(batch["keypoints"], batch["visible"])
  weights = weights * batch["mask"][:, None]
  truth = None
  if model.doubt:
    present = batch["visible"] * target.inside(batch["keypoints"])
    truth = gradients.Truth(
      target.to_heatmap(batch["keypoints"]),
      present,
      batch["hidden"],
      batch["reach"] / target.pixel,
    )
  found = gradients.of_batch(
    model,
    state.params,
    state.model_state,
    gradients.Batch(batch["image"], targets, weights, batch["mask"], truth),
    microbatches,
    train,
    loss_weights,
  )
  grads, model_state = found.gradient, found.model_state
  how = Training.of(train)
  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  if how.frozen:
    # Weight decay moves them too, and so do old moments of the optimizer.
    is_frozen = network.frozen(model, how.frozen)
    updates = jax.tree_util.tree_map_with_path(
      lambda path, update: (
        jnp.zeros_like(update)
        if is_frozen([key.key for key in path])
        else update
      ),
      updates,
    )
  params = optax.apply_updates(state.params, updates)
  average = state.ema
  if average is not None:
    average = ema.update(average, (params, model_state), decay, state.step)
  new = TrainState(
    step=state.step + 1,
    params=params,
    model_state=model_state,
    opt_state=opt_state,
    ema=average,
  )
  scalars = {
    "loss": found.loss,
    "accuracy": heatmap_accuracy(found.heatmaps, targets, weights),
    "grad_norm": optim.norm(grads),
    "update_norm": optim.norm(updates),
    "learning_rate": schedule(state.step),
    "unreadable": (1 - batch["mask"]).sum(),
    "labeled": (weights > 0).sum(),
  }
  for name in ("doubt", "patches"):
    if (value := getattr(found, name)) is not None:
      scalars[name] = value
  # Of all, then a few: so no heatmap has to leave its device.
  points, scores = target.decode(found.heatmaps, "argmax")
  return new, StepMetrics(scalars, points[:PICTURED], scores[:PICTURED])


def jit_train_step(
  config: ConfigDict,
  optimizer: optax.GradientTransformation,
  schedule: optax.Schedule,
  mesh: Mesh,
  prunings: int | None = None,
) -> Callable[..., tuple[TrainState, StepMetrics]]:
  """The compiled `train_step`: (state, batch) -> (state, metrics).

  Donates the state.

  Args:
    config: resolved.
    optimizer: an optax chain.
    schedule: its learning rate.
    mesh: as returned by `sharding.create_mesh`.
    prunings: how many of `model.prune_before` are made; None: all.
  """
  model = ModelConfig.of(config.model)
  if prunings is not None:
    model = model.with_prunings(prunings)
  everywhere, by_batch = sharding.replicated(mesh), sharding.by_batch(mesh)
  train = Training(
    replicas=mesh.size if config.train.batch_norm == "replica" else 1,
    remat=config.train.remat == "blocks",
    frozen=config.train.frozen,
  )
  step = functools.partial(
    sharding.knowing(mesh, train_step),
    model,
    config_lib.codec_of(config),
    optimizer,
    schedule,
    microbatches=config.train.microbatches,
    decay=config.train.ema,
    train=train,
    loss_weights=gradients.LossWeights(
      tokens=config.train.token_loss,
      doubt=config.train.doubt_loss,
      patches=config.train.patch_loss,
    ),
  )
  return jax.jit(
    _skipping(step) if config.train.on_nonfinite == "skip" else step,
    donate_argnums=0,
    in_shardings=(everywhere, by_batch),
    out_shardings=everywhere,
  )


def prunings_at(config: ConfigDict, epoch: float) -> int:
  """How many prunings of `model.prune_before` a step makes.

  Args:
    config: resolved.
    epoch: of the step.
  """
  count = len(config.model.prune_before)
  until = config.train.keep_epochs
  if config.model.keep == 1 or epoch >= until:
    return count
  return int(epoch / until * count)


def _skipping(step: Callable[..., Any]) -> Callable[..., Any]:
  """A step that only counts itself where something is not finite."""

  def guarded(
    state: TrainState, batch: Mapping[str, Array]
  ) -> tuple[TrainState, StepMetrics]:
    new, metrics = step(state, batch)
    fine = jnp.isfinite(sum(metrics.scalars[name] for name in FINITE))
    kept = jax.tree.map(lambda a, b: jnp.where(fine, a, b), new, state)
    return dataclasses.replace(kept, step=new.step), metrics

  return guarded


def train_and_evaluate(
  config: ConfigDict,
  skeleton: Skeleton,
  workdir: str,
  *,
  mesh: Mesh,
  train_data: TrainData,
  eval_data: EvalData | None,
  writer: Writer,
) -> TrainState:
  """Trains, resuming from the last checkpoint in the work directory if any.

  Args:
    config: resolved (`config.resolve`).
    skeleton: of the data.
    workdir: for checkpoints, evaluations and summaries.
    mesh: as returned by `sharding.create_mesh`.
    train_data: what is trained on.
    eval_data: what is evaluated; None: no evaluation.
    writer: of summaries.

  Returns:
    the state at the end.

  Raises:
    InputError: the loss is not finite, the checkpoint cannot be resumed, or
      the last evaluation failed.
  """
  # --- The schedule, in steps -------------------------------------------------
  batch_size = config.train.batch_size
  steps_per_epoch = train_data.people / batch_size
  total = config.train.steps or round(config.train.epochs * steps_per_epoch)
  eval_every = round(config.train.eval_every_epochs * steps_per_epoch)
  schedule = optim.create_schedule(
    config.optim, config.train.epochs, steps_per_epoch, batch_size
  )
  optimizer = optim.create_optimizer(config.optim, schedule)

  # --- The state: from the last checkpoint, other weights, or fresh -----------
  meta = checkpoint.describe(config, skeleton.to_dict(), train_data.identity)
  with saving.opened(workdir, keep=config.checkpoint.keep) as saver:
    if saver.steps():
      template = train_state.abstract(
        config.model, optimizer, sharding.replicated(mesh)
      )
      state = _resume(config, saver, template, meta)
    else:
      fresh = train_state.create(
        config.model, optimizer, config.seed, config.init.scheme
      )
      fresh = transfer.warm_start(config, skeleton, fresh)
      state = sharding.put_replicated(mesh, fresh)
    state = ema.fit(state, config.train.ema)
    first = int(state.step)
    logging.info(
      "%d parameters, %d people, %.1f steps an epoch; steps %d to %d on %d %s"
      " device(s)",
      network.count_parameters(state.params),
      train_data.people,
      steps_per_epoch,
      first,
      total,
      mesh.size,
      jax.devices()[0].platform,
    )

    # --- The loop -------------------------------------------------------------
    prunings = prunings_at(config, first / steps_per_epoch)
    step_fn = jit_train_step(config, optimizer, schedule, mesh, prunings)
    progress = Progress(
      config, writer, skeleton, first, total, train_data.image_ids
    )
    evaluations = None
    if eval_data is not None:
      evaluations = Evaluations(
        config, skeleton, workdir, mesh, eval_data, saver, writer, eval_every
      )

    def due(step: int) -> bool:
      """Is it saved, whatever checkpoint.every_steps says, and evaluated?"""
      regular = eval_data is not None and eval_every
      return step == total or bool(regular and step % eval_every == 0)

    def save(state: TrainState, step: int) -> None:
      if evaluations:
        with progress.spent("evaluation"):
          evaluations.finish()
      progress.flush()  # Checks the step: a bad state is never saved.
      with progress.spent("checkpoint"):
        saver.save(state, meta)
      progress.saved(step)
      stopping.at(f"at step {step}, which is saved")

    if first:
      stopping.at(f"at step {first}, which is saved")
      progress.saved(first)
    ended = first >= total
    if ended:
      logging.info("nothing to train: the checkpoint is at step %d", first)
    missed = first and (ended or due(first)) and saver.metrics(first) is None
    if evaluations and missed:
      # Stopped after the step was saved: the best is that of an unbroken run.
      with progress.spent("evaluation"):
        evaluations.run(state, first, last=ended)
    stop = processes.Stop(mesh)
    trace = _Trace(config.profile_steps, workdir, first)
    batches = iter(()) if ended else train_data.batches(first)
    for step in range(first, total):
      with progress.spent("data"):
        batch = next(batches)
        placed = sharding.put_batch(mesh, batch)
      done = step + 1
      trace.before(done)
      compiles = step == first
      if prunings != prunings_at(config, step / steps_per_epoch):
        prunings, compiles = prunings_at(config, step / steps_per_epoch), True
        logging.info("from step %d on: prunings in a stack: %d", done, prunings)
        step_fn = jit_train_step(config, optimizer, schedule, mesh, prunings)
      with (
        progress.spent("compilation" if compiles else "steps"),
        jax.transfer_guard("disallow"),
      ):
        state, metrics = step_fn(state, placed)
      stopping.at(f"at step {done}; {progress.described()}", unsaved=True)
      # The device works on this step while the host reads the one before.
      progress.add(done, metrics, batch)
      trace.after(done)
      signal = stop.asked()
      if signal or due(done) or done % config.checkpoint.every_steps == 0:
        save(state, done)
      if signal:
        saver.wait()
        stopping.leave_for(signal)
      if evaluations and due(done):
        with progress.spent("evaluation"):
          evaluations.run(state, done, last=done == total)
    progress.close()
  return state


class _Trace:
  """A trace of some steps for XProf (TensorBoard's profile tab)."""

  def __init__(self, steps: tuple[int, ...], workdir: str, first: int):
    # After a resumption they are counted from there.
    self._steps = [first + step for step in steps]
    self._folder = os.path.join(workdir, "profile")

  def before(self, step: int) -> None:
    """Starts the trace where it is time."""
    if self._steps and step == self._steps[0]:
      jax.profiler.start_trace(self._folder)

  def after(self, step: int) -> None:
    """Ends it after its last step."""
    if self._steps and step == self._steps[1]:
      jax.profiler.stop_trace()
      logging.info("profile of steps %d to %d: %s", *self._steps, self._folder)


def _resume(
  config: ConfigDict,
  saver: saving.Saver,
  template: TrainState,
  meta: dict[str, Any],
) -> TrainState:
  """The state of the last checkpoint that is whole."""

  def check(step: int, saved: dict[str, Any]) -> None:
    changed = checkpoint.mismatches(saved, meta)
    if changed and not config.checkpoint.accept_mismatch:
      raise InputError(
        f"{saver.path / str(step)} belongs to a different run:"
        f" {'; '.join(config_lib.lines(changed))}; use another --workdir, or"
        " --config.checkpoint.accept_mismatch=True to continue anyway"
      )
    changed |= config_lib.differences(saved["config"], meta["config"])
    for line in config_lib.lines(changed):
      logging.warning("resuming with a change: %s", line)
    logging.info("resuming from step %d", step)

  return saving.restore_latest(
    saver, template, check, config.checkpoint.on_damage
  )
