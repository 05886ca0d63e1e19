"""Weights from PyTorch to a work directory of this software, and back.

    python -m tokenpose_jax.convert inspect tokenpose_s_v1.pth
    python -m tokenpose_jax.convert import tokenpose_s_v1.pth runs/s_v1
    python -m tokenpose_jax.convert export runs/s_v1 s_v1.safetensors

What `import` wrote can be evaluated (main.py --mode=evaluate) and trained
further (--config.train.init_from=runs/s_v1). Files of PyTorch need PyTorch
(pip install torch); .safetensors do not.
"""

import argparse
import importlib.util
import json
import os
import sys
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags, logging
from ml_collections import ConfigDict

import tokenpose_jax
from configs import default
from tokenpose_jax import (
  checkpoint,
  convert,
  optim,
  report,
  skeletons,
  train_state,
)
from tokenpose_jax import config as config_lib
from tokenpose_jax.convert.detect import Detection, detect
from tokenpose_jax.errors import InputError
from tokenpose_jax.skeletons import Skeleton


def main(argv: list[str]) -> None:
  """Runs a sub-command; bad input is one line and exit code 1."""
  arguments = _parser().parse_args(argv)
  flags.FLAGS(["convert"])  # absl's logging waits for flags; there are none
  package = os.path.dirname(os.path.abspath(tokenpose_jax.__file__))
  report.log_only(package, level=logging.WARNING)
  try:
    arguments.run(arguments)
  except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m tokenpose_jax.convert",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  commands = parser.add_subparsers(required=True)
  command = commands.add_parser("inspect", help="say what a file holds")
  _add_file(command)
  command.set_defaults(run=_inspect)
  command = commands.add_parser("import", help="PyTorch -> work directory")
  _add_file(command)
  command.add_argument("workdir", help="a new work directory")
  command.add_argument(
    "--config", help="a file of configs/; default: told from the file"
  )
  command.add_argument(
    "--skeleton", help="coco_17, mpii_16 or a JSON file; default: by number"
  )
  command.add_argument("--heads", type=int, help="attention heads")
  command.add_argument("--attention_scale", choices=("head", "width"))
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
  command.set_defaults(run=_export)
  return parser


def _add_file(command: argparse.ArgumentParser) -> None:
  command.add_argument("file", help=".safetensors, or .pth of PyTorch")
  command.add_argument(
    "--key", default="", help="of the state dict in the file, if nested"
  )


def _inspect(arguments: argparse.Namespace) -> None:
  found = detect(convert.read_state_dict(arguments.file, arguments.key))
  _describe(found)


def _describe(found: Detection) -> None:
  for name, value in found.model.items():
    print(f"model.{name} = {value}")
  print(f"layout: {found.layout}")
  for line in found.assumed:
    print(f"assumed: {line}")


def _import(arguments: argparse.Namespace) -> None:
  state_dict = convert.read_state_dict(arguments.file, arguments.key)
  if arguments.config:
    config = _load_config(arguments.config)
    skeleton = _skeleton(
      arguments.skeleton or config.data.skeleton, config.model.num_keypoints
    )
  else:
    found = detect(state_dict)
    config = default.get_config()
    config.model.update(found.model)
    # reference 2.1: 2 pixels in 64 rows, 3 in 96.
    config.sigma = found.model["heatmap_hw"][0] / 32
    _describe(found)
    skeleton = _skeleton(arguments.skeleton, found.model["num_keypoints"])
  for name in ("heads", "attention_scale", "position"):
    value = getattr(arguments, name)
    if value is not None:
      config.model[name] = value
      print(f"model.{name} = {value}, as given")
  config.data.skeleton = arguments.skeleton or skeleton.name
  config_lib.resolve(config)
  fresh = None
  if arguments.partial:
    fresh = train_state.init(config.model, config.seed)
  params, model_state = convert.import_torch(
    config.model, state_dict, into=fresh
  )
  checkpoints = checkpoint.Checkpoints(arguments.workdir)
  if checkpoints.steps():
    raise InputError(
      f"{arguments.workdir} holds checkpoints already; name a new directory"
    )
  optimizer = optim.create_optimizer(config.optim, lambda _: 0.0)
  state = train_state.TrainState(
    step=jnp.zeros((), jnp.int32),
    params=jax.tree.map(jnp.asarray, params),
    model_state=jax.tree.map(jnp.asarray, model_state),
    opt_state=optimizer.init(params),
  )
  origin = {"imported_from": arguments.file, "crc32": _crc(state_dict)}
  meta = checkpoint.describe(config, skeleton.to_dict(), origin)
  checkpoints.save(state, meta)
  checkpoints.close()
  count = train_state.count_parameters(params)
  print(f"{count:,} parameters -> {checkpoints.path / '0'}")


def _export(arguments: argparse.Namespace) -> None:
  checkpoints = checkpoint.Checkpoints(arguments.workdir, read_only=True)
  step = checkpoints.choose(arguments.step)
  meta = checkpoints.read_meta(step)
  model = meta["config"]["model"]
  weights = checkpoints.restore_weights(step, meta)
  checkpoints.close()
  state_dict = convert.export_torch(model, *weights)
  convert.write_state_dict(arguments.file, state_dict)
  fields = json.dumps({k: model[k] for k in ("heads", "attention_scale")})
  print(f"step {step}: {len(state_dict)} tensors -> {arguments.file}; {fields}")


def _load_config(path: str) -> ConfigDict:
  """The config of a file of configs/."""
  spec = importlib.util.spec_from_file_location("given_config", path)
  if spec is None or spec.loader is None:
    raise InputError(f"--config: {path} is no Python file")
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    return module.get_config()
  except (OSError, AttributeError) as error:
    raise InputError(f"--config: {path}: {error}") from None


def _skeleton(name: str | None, count: int) -> Skeleton:
  """The skeleton of that name, or the known one with that many keypoints."""
  if name:
    skeleton = skeletons.get(name)
    if skeleton.num_keypoints == count:
      return skeleton
    raise InputError(
      f"the file has {count} keypoints, the skeleton {skeleton.name}"
      f" {skeleton.num_keypoints}"
    )
  if known := skeletons.of_count(count):
    print(f"skeleton: {known.name}, by its {count} keypoints")
    return known
  raise InputError(
    f"the file has {count} keypoints, of which skeleton it does not tell; give"
    " --skeleton=FILE.json"
  )


def _crc(state_dict: Mapping[str, Any]) -> str:
  """CRC-32 over all tensors: which weights these are."""
  value = 0
  for name in sorted(state_dict):
    array = np.array(state_dict[name], order="C")
    value = zlib.crc32(array.tobytes(), zlib.crc32(name.encode(), value))
  return f"{value:08x}"


if __name__ == "__main__":
  main(sys.argv[1:])
