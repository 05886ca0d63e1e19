"""Evaluation: predict on every box, rescore, suppress, measure, write down."""

import dataclasses
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh
from ml_collections import ConfigDict

from tokenpose_jax import (
  checkpoint,
  codec,
  eval_report,
  models,
  optim,
  report,
  sharding,
  train_state,
  visualize,
)
from tokenpose_jax.errors import InputError
from tokenpose_jax.report import Batch
from tokenpose_jax.skeletons import Skeleton
from tokenpose_jax.train_state import TrainState


@dataclasses.dataclass(frozen=True)
class EvalData:
  """What an evaluation reads.

  Attributes:
    batches: makes one pass over the boxes: image (b, H, W, 3) uint8,
      crop_to_image (b, 2, 3) float32, index (b,) int32 of the box, mask (b,)
      float32, 0 for padding and unreadable images.
    image_id: (N,) of each box, score: (N,) of the detector (1 for annotated
      boxes), area: (N,) of the padded box, square pixels.
    annotations: COCO's dict, for the metrics.
    image_ids: the images that count; None: all of the annotations.
    boxes: "gt" or the path of the detector-box file.
    ground_truth: for MPII, in the order of the boxes: keypoints (N, 16, 2)
      image pixels, visible (N, 16), head_boxes (N, 4) x1, y1, x2, y2. The
      figures are then PCKh; None: COCO's, from the annotations.
  """

  batches: Callable[[], Iterable[Batch]]
  image_id: np.ndarray
  score: np.ndarray
  area: np.ndarray
  annotations: dict[str, Any]
  image_ids: list[int] | None
  boxes: str
  ground_truth: dict[str, np.ndarray] | None = None


@dataclasses.dataclass
class Predictions:
  """Of N boxes: keypoints (N, K, 2) image pixels, scores (N, K), valid (N,).

  Also a few crops with their keypoints in crop pixels, for a picture.
  """

  keypoints: np.ndarray
  scores: np.ndarray
  valid: np.ndarray
  crops: list[np.ndarray]
  crop_keypoints: list[np.ndarray]
  crop_scores: list[np.ndarray]


def create_eval_step(
  config: ConfigDict, skeleton: Skeleton, mesh: Mesh
) -> Callable:
  """The jitted step: (params, model_state, batch) -> keypoints and scores.

  Everything from uint8 crops to keypoints in image pixels is on the device;
  results are gathered to every process.
  """
  codec.check_decoder(config.eval.decoder)  # Before a training, not after.
  model = config.model.to_dict()
  order = skeleton.flip_permutation

  def step(params, model_state, batch):
    images = models.normalize(batch["image"])
    heatmaps = train_state.apply(model, params, model_state, images)
    if config.eval.flip:
      mirrored = train_state.apply(
        model, params, model_state, images[:, :, ::-1]
      )
      flipped = codec.flip(mirrored, order, shift=config.eval.flip_shift)
      heatmaps = (heatmaps + flipped) / 2
    points, scores = codec.decode(heatmaps, config.eval.decoder)
    crop = codec.heatmap_to_crop(
      points, model["input_hw"], model["heatmap_hw"], udp=config.udp
    )
    affine = batch["crop_to_image"]
    image = (
      jnp.einsum(
        "bkj,bij->bki",
        crop,
        affine[:, :, :2],
        precision=jax.lax.Precision.HIGHEST,
      )
      + affine[:, None, :, 2]
    )
    return {
      "keypoints": image,
      "crop_keypoints": crop,
      "scores": scores,
      "index": batch["index"],
      "mask": batch["mask"],
    }

  everywhere, by_batch = sharding.replicated(mesh), sharding.by_batch(mesh)
  return jax.jit(
    step,
    in_shardings=(everywhere, everywhere, by_batch),
    out_shardings=everywhere,
  )


def predict(
  eval_step: Callable,
  state: TrainState,
  data: EvalData,
  mesh: Mesh,
  *,
  pictures: int = 0,
  gallery: eval_report.Gallery | None = None,
) -> Predictions:
  """Runs the network over all boxes.

  Args:
    pictures: how many people, evenly spread, to keep the crops of.
    gallery: is shown every prediction.
  """
  total = len(data.image_id)
  k = None
  wanted = set(visualize.grid_points(pictures, total)) if pictures else set()
  found: Predictions | None = None
  bar = report.bar(total, "evaluating", "people")
  for batch in data.batches():
    placed = sharding.put_batch(mesh, batch)
    out = jax.device_get(eval_step(state.params, state.model_state, placed))
    if found is None:
      k = out["scores"].shape[1]
      found = Predictions(
        np.zeros((total, k, 2), np.float32),
        np.zeros((total, k), np.float32),
        np.zeros(total, bool),
        [],
        [],
        [],
      )
    good = out["mask"] > 0
    index = out["index"][good]
    found.keypoints[index] = out["keypoints"][good]
    found.scores[index] = out["scores"][good]
    found.valid[index] = True
    # This process holds the pixels of its own slots only.
    place = {int(i): n for n, i in enumerate(out["index"]) if good[n]}
    for slot, number in enumerate(batch["index"].tolist()):
      if not batch["mask"][slot] > 0:
        continue
      at, crop = place[number], batch["image"][slot]
      if gallery is not None:
        gallery.add(
          number,
          crop,
          batch["crop_to_image"][slot],
          out["keypoints"][at],
          out["crop_keypoints"][at],
          out["scores"][at],
        )
      if number in wanted:
        wanted.discard(number)
        found.crops.append(crop)
        found.crop_keypoints.append(out["crop_keypoints"][at])
        found.crop_scores.append(out["scores"][at])
    bar.update(int(good.sum()))
  bar.close()
  assert found is not None, "an evaluation has at least one batch"
  return found


def evaluate(
  config: ConfigDict,
  skeleton: Skeleton,
  eval_step: Callable,
  state: TrainState,
  data: EvalData,
  mesh: Mesh,
  workdir: str,
) -> tuple[dict[str, float], np.ndarray | None]:
  """One evaluation, its files in WORKDIR/eval/STEP/ (see eval_report).

  Returns:
    the figures by name (coco.FIGURES, or mpii.FIGURES), and a contact sheet.
  """
  check(skeleton, data)
  start = time.monotonic()
  settings = config.eval
  first = jax.process_index() == 0
  gallery = eval_report.Gallery(
    data, skeleton, settings.best_and_worst if first else 0
  )
  found = predict(
    eval_step,
    state,
    data,
    mesh,
    pictures=settings.pictures if first else 0,
    gallery=gallery,
  )
  measured = eval_report.measure(settings, skeleton, data, found, details=first)
  sheet = None
  if found.crops:
    sheet = visualize.contact_sheet(
      np.stack(found.crops),
      np.stack(found.crop_keypoints),
      np.stack(found.crop_scores) > settings.keypoint_score,
      skeleton,
    )
  if first:
    skipped = int((~found.valid).sum())
    made = eval_report.how_made(config, data, state, workdir, skipped)
    made["seconds"] = round(time.monotonic() - start, 1)
    folder = eval_report.write(
      workdir,
      {"figures": measured.figures, **measured.details, "made": made},
      measured.results,
      gallery,
      skeleton,
      settings.keypoint_score,
      sheet,
    )
    title = (
      f"step {made['step']}, boxes: {data.boxes}, {len(found.valid)} people"
    )
    if skipped:
      title += f", {skipped} skipped (unreadable images)"
    logging.info("%s\n%s", title, measured.table)
    logging.info("report: %s", folder / eval_report.REPORT)
  return measured.figures, sheet


def check(skeleton: Skeleton, data: EvalData) -> None:
  """Can this be measured? To be known before a training of days, not after.

  Raises:
    InputError: COCO's figures need OKS constants that the skeleton lacks.
  """
  if data.ground_truth is None and skeleton.sigmas is None:
    raise InputError(
      f"data.skeleton: {skeleton.name} has no OKS constants ('sigmas'), so AP"
      " is not defined; add them to its JSON file"
    )


def evaluate_checkpoint(
  config: ConfigDict,
  skeleton: Skeleton,
  workdir: str,
  *,
  mesh: Mesh,
  data: EvalData,
) -> dict[str, float]:
  """Evaluates the checkpoint that `config.eval.checkpoint` means.

  Raises:
    InputError: there is none, it is damaged, or of another network.
  """
  check(skeleton, data)
  checkpoints = checkpoint.Checkpoints(workdir)
  step = checkpoints.choose(config.eval.checkpoint)
  saved = checkpoints.read_meta(step)
  now = checkpoint.describe(config, skeleton.to_dict(), saved["data"])
  changed = checkpoint.mismatches(saved, now)
  # It was trained on heatmaps that lie elsewhere: not an evaluation's choice.
  trained = saved["config"].get("udp", False)
  if trained != config.udp:
    changed.append(f"udp: {trained} -> {config.udp}")
  if changed and not config.checkpoint.accept_mismatch:
    raise InputError(
      f"{checkpoints.path / str(step)} is of another network:"
      f" {'; '.join(changed)}; give its config, or"
      " --config.checkpoint.accept_mismatch=True to use it all the same"
    )
  # The schedule does not change the shape of the optimiser's state.
  optimizer = optim.create_optimizer(
    config.optim, optim.create_schedule(config.optim, 1, 1)
  )
  template = train_state.create(config.model, optimizer, config.seed)
  template = sharding.put_replicated(mesh, template)
  state = checkpoints.restore(step, template, saved)
  checkpoints.close()
  eval_step = create_eval_step(config, skeleton, mesh)
  return evaluate(config, skeleton, eval_step, state, data, mesh, workdir)[0]
