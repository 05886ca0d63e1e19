"""Evaluation: predict on every box, measure, write the results."""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh
from jaxtyping import UInt8
from ml_collections import ConfigDict

from tokenpose_jax import (
  checkpoint,
  eval_report,
  inference,
  processes,
  progress,
  sharding,
)
from tokenpose_jax import config as config_lib
from tokenpose_jax.arrays import AnyArray
from tokenpose_jax.data import EvalBatch, EvalData
from tokenpose_jax.errors import InputError
from tokenpose_jax.metrics.benchmark import Predictions
from tokenpose_jax.models.doubt import Doubt
from tokenpose_jax.network import Tree
from tokenpose_jax.skeletons import Skeleton


class Outcome(NamedTuple):
  """What an evaluation found.

  Attributes:
    metrics: by name, those of the benchmark.
    sheet: a picture of some people; None where none was asked for.
  """

  metrics: dict[str, float]
  sheet: UInt8[np.ndarray, "h w 3"] | None


def create_eval_step(settings: inference.Settings, mesh: Mesh) -> Callable:
  """The jitted step: (params, model_state, batch) -> keypoints and scores.

  Args:
    settings: the network and how it is used.
    mesh: as returned by `sharding.create_mesh`.

  Returns:
    the step; the batch's arrays are sharded over the mesh, the results are
    gathered to every process.
  """

  def step(
    params: Tree, model_state: Tree, batch: dict[str, jax.Array]
  ) -> dict[str, jax.Array]:
    predicted = inference.keypoints(
      settings, params, model_state, batch["image"], batch["crop_to_image"]
    )
    return {
      **predicted._asdict(),
      "index": batch["index"],
      "mask": batch["mask"],
    }

  everywhere, by_batch = sharding.replicated(mesh), sharding.by_batch(mesh)
  return jax.jit(
    sharding.knowing(mesh, step),
    in_shardings=(everywhere, everywhere, by_batch),
    out_shardings=everywhere,
  )


def predict(
  eval_step: Callable,
  weights: tuple[Tree, Tree],
  data: EvalData,
  mesh: Mesh,
  *,
  num_keypoints: int,
  doubt: bool = False,
  gallery: eval_report.Gallery | None = None,
) -> Predictions:
  """Runs the network over all boxes.

  Args:
    eval_step: as returned by `create_eval_step`.
    weights: (params, model_state).
    data: the boxes.
    mesh: given to `create_eval_step`.
    num_keypoints: K.
    doubt: the network has the heads of `model.doubt`.
    gallery: is shown every prediction.
  """
  total = len(data.boxes)

  def zeros(*last: int) -> np.ndarray:
    return np.zeros((total, num_keypoints, *last), np.float32)

  predictions = Predictions(
    boxes=data.boxes,
    keypoints=zeros(2),
    scores=zeros(),
    valid=np.zeros(total, bool),
    peaks=zeros(),
    doubt=Doubt(*(zeros() for _ in Doubt._fields)) if doubt else None,
  )
  bar = progress.bar(total, "evaluating", "people")

  def take(batch: EvalBatch, found: dict[str, AnyArray]) -> None:
    out = jax.device_get(found)
    good = out["mask"] > 0
    index = out["index"][good]
    predictions.keypoints[index] = out["image"][good]
    predictions.scores[index] = out["scores"][good]
    predictions.peaks[index] = out["peaks"][good]
    if predictions.doubt is not None:
      for place, values in zip(predictions.doubt, out["doubt"], strict=True):
        np.asarray(place)[index] = values[good]
    predictions.valid[index] = True
    if gallery is not None:
      _show(gallery, batch, out)
    bar.update(int(good.sum()))

  with processes.in_step("evaluation"):
    pending = None
    for batch in data.batches():
      found = eval_step(*weights, sharding.put_batch(mesh, batch))
      # The device works on this batch while the host looks at the one before.
      if pending:
        take(*pending)
      pending = (batch, found)
    if pending:
      take(*pending)
  bar.close()
  return predictions


def _show(
  gallery: eval_report.Gallery, batch: EvalBatch, out: dict[str, np.ndarray]
) -> None:
  """Shows a gallery the predictions whose pixels this process holds."""
  row = {int(i): n for n, i in enumerate(out["index"]) if out["mask"][n] > 0}
  for slot, index in enumerate(batch["index"].tolist()):
    if batch["mask"][slot] > 0:
      gallery.add(
        index,
        batch["image"][slot],
        batch["crop_to_image"][slot],
        keypoints=out["image"][row[index]],
        crop_keypoints=out["crop"][row[index]],
        scores=out["scores"][row[index]],
      )


def begin(
  eval_step: Callable,
  weights: tuple[Tree, Tree],
  data: EvalData,
  mesh: Mesh,
  *,
  config: ConfigDict,
  skeleton: Skeleton,
  workdir: str,
  step: int,
  kind: str = "raw",
) -> Callable[[], Outcome]:
  """The part of an evaluation that needs the device: predicts on every box.

  Args:
    eval_step: as returned by `create_eval_step`.
    weights: (params, model_state); may be donated once this returns.
    data: the boxes and the benchmark.
    mesh: given to `create_eval_step`.
    config: resolved.
    skeleton: of the network.
    workdir: of the run.
    step: of the weights.
    kind: of the weights, for the report: "raw" or "ema".

  Returns:
    the other part, for any thread: measures, and writes the files in
    WORKDIR/eval/STEP/ (see eval_report).
  """
  start = time.monotonic()
  settings = config.eval
  first = jax.process_index() == 0
  gallery = eval_report.Gallery(
    data.benchmark,
    data.boxes,
    size=settings.best_and_worst if first else 0,
    sample=settings.pictures if first else 0,
  )
  predictions = predict(
    eval_step,
    weights,
    data,
    mesh,
    num_keypoints=skeleton.num_keypoints,
    doubt=config.model.doubt,
    gallery=gallery,
  )
  benchmark = data.benchmark
  if not first:
    return lambda: Outcome(benchmark.measure(predictions).metrics, None)
  skipped = int((~predictions.valid).sum())
  made = eval_report.how_made(
    eval_report.Circumstances(
      config=config,
      data=data,
      workdir=workdir,
      step=step,
      weights=weights,
      kind=kind,
      skipped=skipped,
      seconds=round(time.monotonic() - start, 1),
    )
  )

  def finish() -> Outcome:
    measured = benchmark.measure(predictions)
    details = benchmark.details(measured, predictions, settings.bootstrap)
    record = eval_report.Record(
      figures=measured.metrics, columns=benchmark.columns, made=made, **details
    )
    sheet = gallery.contact_sheet(skeleton, settings.min_keypoint_score)
    folder = eval_report.write(
      workdir,
      record,
      measured.results,
      gallery.draw(skeleton, settings.min_keypoint_score),
      sheet,
    )
    average = ", ema weights" if kind == "ema" else ""
    title = (
      f"step {step}{average}, boxes: {data.source}, {len(data.boxes)} people"
    )
    if skipped:
      title += f", {skipped} skipped (unreadable images)"
    table = benchmark.format_table(measured.metrics)
    logging.info("%s\n%s", title, table)
    logging.info("report: %s", folder / eval_report.REPORT)
    return Outcome(measured.metrics, sheet)

  return finish


def evaluate_checkpoint(
  config: ConfigDict,
  skeleton: Skeleton,
  workdir: str,
  *,
  mesh: Mesh,
  data: EvalData,
) -> dict[str, float]:
  """Evaluates the checkpoint that `config.eval.checkpoint` names.

  Args:
    config: resolved.
    skeleton: of the data.
    workdir: of a training.
    mesh: as returned by `sharding.create_mesh`.
    data: the boxes and the benchmark.

  Returns:
    the metrics by name.

  Raises:
    InputError: there is no such checkpoint, it is damaged, from a different
      network, or has no such weights.
  """
  step, weights = _read(config, skeleton, workdir)
  finish = begin(
    create_eval_step(inference.Settings.of(config, skeleton), mesh),
    sharding.put_replicated(mesh, weights),
    data,
    mesh,
    config=config,
    skeleton=skeleton,
    workdir=workdir,
    step=step,
    kind=config.eval.weights,
  )
  return finish().metrics


def _read(
  config: ConfigDict, skeleton: Skeleton, workdir: str
) -> tuple[int, tuple[Tree, Tree]]:
  """The step and the weights that `config.eval.checkpoint` names.

  A training beside may delete a checkpoint while it is read: then it is looked
  for again.
  """
  checkpoints = checkpoint.Checkpoints(workdir)
  damaged: set[int] = set()
  while True:
    choices = checkpoints.choices(config.eval.checkpoint)
    step = next((s for s in choices if s not in damaged), choices[0])
    try:
      return step, _weights(config, skeleton, checkpoints, step)
    except checkpoint.Damaged as error:
      gone = step not in checkpoints.steps()
      last = set(choices) <= damaged | {step}
      if not gone and (last or config.checkpoint.on_damage == "stop"):
        raise
      damaged.add(step)
      if not gone:
        logging.warning("%s; another one is evaluated", error.what)


def _weights(
  config: ConfigDict,
  skeleton: Skeleton,
  checkpoints: checkpoint.Checkpoints,
  step: int,
) -> tuple[Tree, Tree]:
  """The weights of a checkpoint, if they are of the config's network."""
  saved = checkpoints.read_meta(step)
  now = checkpoint.describe(config, skeleton.to_dict(), saved["data"])
  changed = checkpoint.mismatches(saved, now)
  # How wide the targets were does not matter once the weights are trained.
  changed.pop("codec.sigma", None)
  if changed and not config.checkpoint.accept_mismatch:
    raise InputError(
      f"{checkpoints.path / str(step)} is from a different network:"
      f" {'; '.join(config_lib.lines(changed))}; give its config, or"
      " --config.checkpoint.accept_mismatch=True to use it anyway"
    )
  return checkpoints.restore_weights(step, saved, config.eval.weights)
