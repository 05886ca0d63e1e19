"""A recipe's training as a PyTorch user writes it: AP, and time.

    python -m benchmarks.train_torch --config=configs/small.py --workdir=new \
        --config.init.backbone=FILE

The same network from the same initial weights (`init.*` as well), the same
people as often, the same augmentation, optimizer, schedule and moving average;
PyTorch's own loader, order and draws (trainer_torch.py), in the environment of
`make bench`. What it finds is measured as an evaluation of ours.
"""

import json
import os
import pathlib
import subprocess
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from benchmarks import figures, peer_weights
from input_pipeline import batches, datasets, mixing
from tokenpose_jax import config as config_lib
from tokenpose_jax import geometry, inference, optim, train_state, transfer
from tokenpose_jax.config import codec_of
from tokenpose_jax.metrics.benchmark import Predictions
from tokenpose_jax.models.config import ModelConfig
from tokenpose_jax.terminal import say

TORCH = ".venv/torch/bin/python"

_CONFIG = config_flags.DEFINE_config_file("config")
_WORKDIR = flags.DEFINE_string("workdir", None, "a new folder", required=True)
_WORKERS = flags.DEFINE_integer("workers", 1, "processes that load")
_COMPILE = flags.DEFINE_bool("compile", True, "through torch.compile")


def main(argv: list[str]) -> None:
  del argv
  config_lib.check(_CONFIG.value)
  skeleton = datasets.skeleton_of(
    _CONFIG.value.data, _CONFIG.value.data.train_split
  )
  config = config_lib.resolve(_CONFIG.value, skeleton)
  folder = pathlib.Path(_WORKDIR.value)
  folder.mkdir(parents=True)
  others = mixing.others(config.data.mix)
  people = [people_of(config, skeleton, config.data.train_split, number=0)]
  for number, other in enumerate(others, 1):
    own = ConfigDict(config)
    own.data.name, own.data.dir = other.name, other.folder
    people.append(people_of(own, skeleton, other.split, number=number))
  joined = {
    f"train/{name}": np.concatenate([one[name] for one in people])
    for name in people[0]
  }
  data = batches.eval_data(config, skeleton, np.arange(config.eval.batch_size))
  boxes = people_of(config, skeleton, config.data.eval_split, config.eval.boxes)
  joined |= {f"eval/{name}": values for name, values in boxes.items()}
  np.savez(folder / "people.npz", **joined)
  weights = [1.0, *(float(other.weight) for other in others)]
  count = round(len(people[0]["path"]) * sum(weights))
  run = run_of(config, skeleton, weights, count)
  (folder / "run.json").write_text(json.dumps(run, indent=1))
  np.savez(folder / "start.npz", **start_of(config, skeleton))
  subprocess.run(
    [TORCH, "-m", "benchmarks.trainer_torch", str(folder)], check=True
  )
  found = np.load(folder / "found.npz")
  affine = geometry.crop_affine(
    boxes["center"], boxes["scale"], 0.0, tuple(config.model.input_hw)
  )
  points = inference.keypoints_of(
    codec_of(config),
    config.eval.decoder,
    inference.Found(jnp.asarray(found["heatmaps"])),
    geometry.invert(affine).astype(np.float32),
  )
  predictions = Predictions(
    boxes=data.boxes,
    keypoints=np.asarray(points.image),
    scores=np.asarray(points.scores),
    peaks=np.asarray(points.peaks),
    valid=np.ones(len(data.boxes), bool),
  )
  seconds = float(found["seconds"])
  told = figures.told(data, predictions, config.eval.bootstrap)
  told["training_seconds"] = seconds
  (folder / "metrics.json").write_text(json.dumps(told, indent=1))
  say(f"training: {seconds:.0f} s")


def people_of(
  config: Any, skeleton: Any, split: str, boxes: str = "gt", number: int = 0
) -> dict[str, np.ndarray]:
  """Paths of images, places, keypoints of the people of a split."""
  prepared = datasets.prepare(config.data, split, skeleton)
  people = datasets.people(prepared, config, boxes=boxes)
  folder = prepared.dataset.image_folder(config.data.dir, split)
  paths = np.array(
    [os.path.join(folder, name) for name in prepared.store.names]
  )
  return {
    "path": paths[people.image],
    "center": people.center,
    "scale": people.scale,
    "keypoints": people.keypoints,
    "visible": people.visible,
    "set": np.full(len(people), number),
  }


def run_of(
  config: Any, skeleton: Any, weights: list[float], count: int
) -> dict[str, Any]:
  """What PyTorch's side must know, JSON types."""
  codec = codec_of(config)
  epoch = count / config.train.batch_size
  needed = {
    "optim.schedule": "cosine",
    "optim.clip_norm": 0.0,
    "optim.reference_batch": 0,
    "train.steps": 0,
    "train.microbatches": 1,
    "model.cycles": 1,
    "model.keep": 1.0,
    "eval.flip": True,
    "eval.flip_shift": False,
    "eval.max_images": 0,
  }
  for field, value in needed.items():
    section, _, name = field.partition(".")
    if config[section][name] != value:
      raise ValueError(f"{field} must be {value}")
  return {
    "seed": config.seed,
    "shape": peer_weights.shape_of(ModelConfig.of(config.model)),
    "settings": {
      "input_hw": codec.input_hw,
      "heatmap_hw": codec.heatmap_hw,
      "sigma": codec.sigma,
      "augment": config.augment.to_dict(),
      "upper_body": skeleton.upper_body,
      "flip_permutation": skeleton.flip_permutation.tolist(),
    },
    "weights": weights,
    "batch_size": config.train.batch_size,
    "eval_batch_size": config.eval.batch_size,
    "steps": round(config.train.epochs * epoch),
    "warmup_steps": round(config.optim.warmup_epochs * epoch),
    "learning_rate": config.optim.learning_rate,
    "b1": config.optim.b1,
    "b2": config.optim.b2,
    "weight_decay": config.optim.weight_decay,
    "ema": config.train.ema,
    "frozen": config.train.frozen,
    "patch_loss": config.train.patch_loss,
    "log_every": config.train.log_every,
    "workers": _WORKERS.value,
    "compile": _COMPILE.value,
  }


def start_of(config: Any, skeleton: Any) -> dict[str, np.ndarray]:
  """The weights that our training starts from, under PyTorch's names."""
  schedule = optim.create_schedule(
    config.optim, config.train.epochs, 1, config.train.batch_size
  )
  state = train_state.create(
    config.model,
    optim.create_optimizer(config.optim, schedule),
    config.seed,
    config.init.scheme,
  )
  state = transfer.warm_start(config, skeleton, state)
  model = ModelConfig.of(config.model)
  return {
    name: value
    for name, value in peer_weights.state_of(
      model, (state.params, state.model_state)
    ).items()
    if not name.startswith("doubt.")
  }


if __name__ == "__main__":
  app.run(main)
