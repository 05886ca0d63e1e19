"""Converts weights between PyTorch files and work directories.

    tokenpose convert inspect tokenpose_s_v1.pth
    tokenpose convert import tokenpose_s_v1.pth runs/s_v1
    tokenpose convert export runs/s_v1 s_v1.safetensors

What `import` wrote can be evaluated (main.py --mode=evaluate) and trained
further (--config.init.weights=runs/s_v1). Files of PyTorch need PyTorch
(pip install torch); .safetensors do not.
"""

import argparse
import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tokenpose_jax import (
  checkpoint,
  convert,
  network,
  recipes,
  saving,
  skeletons,
  train_state,
  weight_kinds,
  workdir,
)
from tokenpose_jax.convert.detect import Detection, detect
from tokenpose_jax.errors import InputError
from tokenpose_jax.models.config import ATTENTION_SCALES, ModelConfig
from tokenpose_jax.skeletons import Skeleton
from tokenpose_jax.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the sub-commands inspect, import and export."""
  commands = parser.add_subparsers(required=True)
  command = commands.add_parser("inspect", help="say what a file holds")
  _add_file(command)
  command.set_defaults(run=_inspect)
  command = commands.add_parser("import", help="PyTorch -> work directory")
  _add_file(command)
  command.add_argument("workdir", help="a new work directory")
  command.add_argument(
    "--config",
    help="a published network or a file of configs/; default: inferred from"
    " the file",
  )
  command.add_argument(
    "--skeleton", help="coco_17, mpii_16 or a JSON file; default: by number"
  )
  command.add_argument("--heads", type=int, help="attention heads")
  command.add_argument("--attention_scale", choices=ATTENTION_SCALES)
  command.add_argument("--position", choices=("sine", "sine-full"))
  command.add_argument(
    "--partial",
    action="store_true",
    help="load what fits, the rest fresh, and list what was left",
  )
  command.set_defaults(run=_import)
  command = commands.add_parser("export", help="work directory -> PyTorch")
  command.add_argument("workdir", help="of a training or of an import")
  command.add_argument("file", help="a new .safetensors or .pth file")
  command.add_argument("--step", default="best", help="best, latest or a step")
  weight_kinds.add_argument(command)
  command.set_defaults(run=_export)


def run(arguments: argparse.Namespace) -> None:
  """Runs the chosen sub-command.

  Raises:
    InputError: a file or a work directory cannot be used.
  """
  arguments.run(arguments)


def _add_file(command: argparse.ArgumentParser) -> None:
  command.add_argument("file", help=".safetensors, or .pth of PyTorch")
  command.add_argument(
    "--key", default="", help="of the state dict in the file, if nested"
  )


def _inspect(arguments: argparse.Namespace) -> None:
  found = detect(convert.read_state_dict(arguments.file, arguments.key))
  _describe(found)


def _describe(found: Detection) -> None:
  for name, value in found.model.to_dict().items():
    say(f"model.{name} = {value}")
  say(f"layout: {found.layout}")
  for line in found.assumed:
    say(f"assumed: {line}")


def _import(arguments: argparse.Namespace) -> None:
  workdir.require_inside(arguments.workdir)
  state_dict = convert.read_state_dict(arguments.file, arguments.key)
  name = arguments.skeleton
  if arguments.config:
    recipe = recipes.load(arguments.config)
    model, codec = recipe.model, recipe.codec
    name = name or recipe.skeleton
  else:
    detection = detect(state_dict)
    _describe(detection)
    model = detection.model
    # reference 2.1: 2 pixels in 64 rows, 3 in 96.
    codec = {"sigma": model.heatmap_hw[0] / 32, "udp": False}
  for field in ("heads", "attention_scale", "position"):
    value = getattr(arguments, field)
    if value is not None:
      model = dataclasses.replace(model, **{field: value})
      say(f"model.{field} = {value}, as given")
  skeleton = _skeleton(name, model.num_keypoints)
  fresh = network.init(model, 0) if arguments.partial else None
  weights = convert.import_torch(model, state_dict, into=fresh)
  checkpoints = saving.Saver(arguments.workdir)
  if checkpoints.steps():
    raise InputError(
      f"{arguments.workdir} already contains checkpoints; name a new directory"
    )
  _save(checkpoints, model, codec, skeleton, weights, arguments.file)
  count = network.count_parameters(weights[0])
  say(
    f"{count:,} parameters, CRC-32 {checkpoint.fingerprint(weights)}"
    f" -> {checkpoints.path / '0'}"
  )


def _save(
  checkpoints: saving.Saver,
  model: ModelConfig,
  codec: dict[str, Any],
  skeleton: Skeleton,
  weights: tuple[network.Tree, network.Tree],
  file: str,
) -> None:
  """Saves the weights as the checkpoint of step 0."""
  params, model_state = jax.tree.map(jnp.asarray, weights)
  # A schedule, because the optimizer of a training has one: the states match.
  optimizer = optax.adam(lambda _: 0.0)
  meta = checkpoint.describe(
    {"model": model.to_dict(), "codec": codec},
    skeleton.to_dict(),
    {"imported_from": file, "crc32": checkpoint.fingerprint(weights)},
  )
  checkpoints.save(
    train_state.from_weights(optimizer, params, model_state), meta
  )
  checkpoints.close()


def _export(arguments: argparse.Namespace) -> None:
  step, meta, weights = checkpoint.read_weights(
    arguments.workdir, arguments.step, arguments.kind
  )
  model = meta["config"]["model"]
  state_dict = convert.export_torch(model, *weights)
  convert.write_state_dict(arguments.file, state_dict)
  fields = json.dumps({k: model[k] for k in ("heads", "attention_scale")})
  say(
    f"step {step}: {len(state_dict)} tensors, CRC-32"
    f" {checkpoint.fingerprint(weights)} -> {arguments.file}; {fields}"
  )


def _skeleton(name: str | None, count: int) -> Skeleton:
  """The skeleton of that name, or the known one with that many keypoints."""
  skeleton = skeletons.of_weights(
    "the file", count, name or "", "pass --skeleton=FILE.json"
  )
  if not name:
    say(f"skeleton: {skeleton.name}, by its {count} keypoints")
  return skeleton
