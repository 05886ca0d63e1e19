"""Training: the jitted step, and the loop around it, read top to bottom."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
from absl import logging
from jax.sharding import Mesh
from ml_collections import ConfigDict

from tokenpose_jax import (
  checkpoint,
  codec,
  evaluate,
  losses,
  models,
  optim,
  report,
  sharding,
  train_state,
  transfer,
)
from tokenpose_jax import config as config_lib
from tokenpose_jax.errors import InputError
from tokenpose_jax.evaluate import EvalData
from tokenpose_jax.metrics.accuracy import heatmap_accuracy
from tokenpose_jax.report import Batch
from tokenpose_jax.skeletons import Skeleton
from tokenpose_jax.train_state import TrainState

PICTURED = 16  # people on the pictures made during training


@dataclasses.dataclass(frozen=True)
class TrainData:
  """What training reads.

  Attributes:
    batches: makes the endless batches from a step on: image (b, H, W, 3)
      uint8, keypoints (b, K, 2) float32 crop pixels, visible (b, K), mask (b,).
    people: in an epoch.
    identity: what must not change between a checkpoint and its resumption,
      JSON types.
  """

  batches: Callable[[int], Iterator[Batch]]
  people: int
  identity: dict[str, Any]


def create_train_step(
  config: ConfigDict,
  optimizer: optax.GradientTransformation,
  schedule: optax.Schedule,
  mesh: Mesh,
) -> Callable:
  """The jitted step: (state, batch) -> (state, metrics). Donates the state."""
  model = config.model.to_dict()
  sizes = dict(
    input_hw=model["input_hw"],
    heatmap_hw=model["heatmap_hw"],
    udp=config.udp,
  )

  def step(
    state: TrainState, batch: dict[str, jax.Array]
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    images = models.normalize(batch["image"])
    targets, weights = codec.encode(
      batch["keypoints"], batch["visible"], sigma=config.sigma, **sizes
    )
    weights = weights * batch["mask"][:, None]

    def loss_of(params):
      heatmaps, model_state = train_state.apply_train(
        model, params, state.model_state, images
      )
      loss = losses.mse(heatmaps, targets, weights, batch["mask"])
      return loss, (heatmaps, model_state)

    gradient = jax.value_and_grad(loss_of, has_aux=True)
    (loss, (heatmaps, model_state)), grads = gradient(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    new = TrainState(
      step=state.step + 1,
      params=optax.apply_updates(state.params, updates),
      model_state=model_state,
      opt_state=opt_state,
    )
    points, scores = codec.maxima(heatmaps[:PICTURED])
    return new, {
      "loss": loss,
      "accuracy": heatmap_accuracy(heatmaps, targets, weights),
      "grad_norm": optax.tree.norm(grads),
      "learning_rate": schedule(state.step),
      "unreadable": (1 - batch["mask"]).sum(),
      "points": codec.heatmap_to_crop(points.astype(jnp.float32), **sizes),
      "scores": scores,
    }

  everywhere, by_batch = sharding.replicated(mesh), sharding.by_batch(mesh)
  return jax.jit(
    step,
    donate_argnums=0,
    in_shardings=(everywhere, by_batch),
    out_shardings=everywhere,
  )


def train_and_evaluate(
  config: ConfigDict,
  skeleton: Skeleton,
  workdir: str,
  *,
  mesh: Mesh,
  train_data: TrainData,
  eval_data: EvalData | None,
  writer: Any,
) -> TrainState:
  """Trains, or goes on where the work directory's last checkpoint is.

  Args:
    config: resolved (`config.resolve`).
    workdir: for checkpoints, evaluations and summaries.
    mesh: of `sharding.create_mesh`.
    eval_data: None: no evaluation.
    writer: with clu's write_scalars, write_images and flush.

  Returns:
    the state at the end.

  Raises:
    InputError: the loss is not finite, or the checkpoint cannot be resumed.
  """
  # --- The schedule, in steps -------------------------------------------------
  batch_size = config.train.batch_size
  steps_per_epoch = train_data.people / batch_size
  total = config.train.steps or round(config.train.epochs * steps_per_epoch)
  eval_every = round(config.train.eval_every_epochs * steps_per_epoch)
  schedule = optim.create_schedule(
    config.optim, config.train.epochs, steps_per_epoch
  )
  optimizer = optim.create_optimizer(config.optim, schedule)

  # --- The state: from the last checkpoint, other weights, or fresh -----------
  fresh = train_state.create(
    config.model, optimizer, config.seed, config.train.init
  )
  count = train_state.count_parameters(fresh.params)
  meta = checkpoint.describe(config, skeleton.to_dict(), train_data.identity)
  checkpoints = checkpoint.Checkpoints(workdir, keep=config.checkpoint.keep)
  if checkpoints.steps():
    state = sharding.put_replicated(mesh, fresh)
    state = _resume(config, checkpoints, state, meta)
  else:
    fresh = transfer.warm_start(config, skeleton, fresh)
    state = sharding.put_replicated(mesh, fresh)
  first = int(state.step)
  logging.info(
    "%d parameters, %d people, %.1f steps an epoch; steps %d to %d on %d %s"
    " device(s)",
    count,
    train_data.people,
    steps_per_epoch,
    first,
    total,
    mesh.size,
    jax.devices()[0].platform,
  )

  # --- The loop ---------------------------------------------------------------
  train_step = create_train_step(config, optimizer, schedule, mesh)
  if eval_data is not None:
    evaluate.check(skeleton, eval_data)
    eval_step = evaluate.create_eval_step(config, skeleton, mesh)
  reporter = report.Report(config, writer, skeleton, first, total)
  batches = train_data.batches(first) if first < total else iter(())
  for step in range(first, total):
    batch = next(batches)
    placed = sharding.put_batch(mesh, batch)
    with jax.transfer_guard("disallow"):
      state, metrics = train_step(state, placed)
    done = step + 1
    # The device works on this step while the host reads the one before.
    reporter.add(done, metrics, batch)
    last = done == total
    evaluating = eval_data is not None and (
      last or (eval_every and done % eval_every == 0)
    )
    if last or evaluating or done % config.checkpoint.every_steps == 0:
      reporter.flush()  # Checks the loss: a bad state is never saved.
      figures = None
      if evaluating:
        assert eval_data is not None
        with reporter.paused():
          figures, sheet = evaluate.evaluate(
            config, skeleton, eval_step, state, eval_data, mesh, workdir
          )
        writer.write_scalars(
          done, {f"eval/{name}": value for name, value in figures.items()}
        )
        if sheet is not None:
          writer.write_images(done, {"eval/people": sheet[None]})
      checkpoints.save(state, meta, figures)
  reporter.close()
  checkpoints.close()
  if first >= total:
    logging.info("nothing to train: the checkpoint is at step %d", first)
    if eval_data is not None:
      evaluate.evaluate(
        config, skeleton, eval_step, state, eval_data, mesh, workdir
      )
  return state


def _resume(
  config: ConfigDict,
  checkpoints: checkpoint.Checkpoints,
  state: TrainState,
  meta: dict[str, Any],
) -> TrainState:
  """The state of the last checkpoint."""
  step = checkpoints.steps()[-1]
  saved = checkpoints.read_meta(step)
  changed = checkpoint.mismatches(saved, meta)
  if changed and not config.checkpoint.accept_mismatch:
    raise InputError(
      f"{checkpoints.path / str(step)} is of another run: {'; '.join(changed)};"
      " give another --workdir, or --config.checkpoint.accept_mismatch=True to"
      " go on all the same"
    )
  other = config_lib.differences(saved["config"], meta["config"])
  for line in dict.fromkeys([*changed, *other]):
    logging.warning("resuming with a change: %s", line)
  logging.info("resuming from step %d", step)
  return checkpoints.restore(step, state, saved)
