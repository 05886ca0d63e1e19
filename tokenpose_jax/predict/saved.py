"""What was saved of a network, whatever it was saved as."""

import argparse
import dataclasses
import inspect
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath

from tokenpose_jax import (
  checkpoint,
  convert,
  exported,
  json_files,
  network,
  orbax_trees,
  skeletons,
  weight_kinds,
)
from tokenpose_jax import config as config_lib
from tokenpose_jax.codec import Codec
from tokenpose_jax.convert.detect import detect
from tokenpose_jax.errors import InputError, one_line
from tokenpose_jax.models.config import ModelConfig
from tokenpose_jax.network import Tree
from tokenpose_jax.predict.estimator import Estimator
from tokenpose_jax.skeletons import Skeleton
from tokenpose_jax.terminal import say
from tokenpose_jax.version import __version__

# Of a folder of `tokenpose publish` or `tokenpose export`.
CONFIG, WEIGHTS, SKELETON = "config.json", "model.safetensors", "skeleton.json"
ORBAX = "orbax"  # the weights in an export, in place of WEIGHTS
FORMAT = 1

# The weights that come with the package: a folder of `hub.save_pretrained`. Not
# every build has it.
PACKAGED = pathlib.Path(__file__).parents[1] / "pretrained" / "small"

_EXPORTED = {".onnx", ".stablehlo", ".tflite"}

# Option of an `Estimator` -> field of `config.eval`.
_OPTIONS = {
  "flip_test": "flip",
  "flip_shift": "flip_shift",
  "decoder": "decoder",
  "min_keypoint_score": "min_keypoint_score",
}
_KINDS: dict[str, Callable[[Any], Any]] = {
  "flip_test": bool,
  "flip_shift": bool,
  "decoder": str,
  "min_keypoint_score": float,
  "padding": float,
}


@dataclasses.dataclass(frozen=True)
class Saved:
  """A network with what its use needs.

  Attributes:
    model: the network.
    weights: (params, model_state).
    codec: where its heatmaps lie on crops.
    skeleton: of its keypoints.
    options: of an `Estimator`, as far as something was saved of them.
    step: of the training; None where it is not known.
    kind: of the weights: "raw", or "ema" for their moving average.
  """

  model: ModelConfig
  weights: tuple[Tree, Tree]
  codec: Codec
  skeleton: Skeleton
  options: Mapping[str, Any]
  step: int | None = None
  kind: str = "raw"


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the arguments of `read`, but for the path, as step, kind, skeleton."""
  parser.add_argument(
    "--step", default="best", help="of a work directory; default: best"
  )
  weight_kinds.add_argument(parser)
  parser.add_argument(
    "--skeleton", default="", help="of a file: a name or a JSON file"
  )


def packaged() -> str:
  """The folder of the weights that come with the package.

  Raises:
    InputError: none came with it.
  """
  if not PACKAGED.is_dir():
    raise InputError(
      f"no weights came with this installation ({PACKAGED} is not there): name"
      " a work directory, a published folder or a file of weights (--weights)"
    )
  return str(PACKAGED)


def chosen(weights: str | None) -> str:
  """The weights of a command; says so where they are the package's.

  Args:
    weights: as given; None: those that come with the package.

  Raises:
    InputError: as `packaged`.
  """
  if weights is not None:
    return weights
  folder = packaged()
  say(
    f"weights: {PACKAGED.name}, which come with the package; what they can do"
    f" and what not: {PACKAGED / 'README.md'}"
  )
  return folder


def read(
  path: str, step: str = "best", skeleton: str = "", kind: str = ""
) -> Saved:
  """Reads a network.

  Args:
    path: a work directory, a folder of `hub.save_pretrained`, or a file of
      TokenPose weights (.safetensors, or of PyTorch).
    step: of a work directory: "best", "latest" or a number.
    skeleton: of a file: a name or a JSON file; "": by the number of keypoints.
    kind: of a work directory's weights: "raw", or "ema" for their moving
      average; "": those that its training was judged by (`eval.weights`).

  Raises:
    InputError: nothing can be read from there, or not what was asked for.
  """
  folder = epath.Path(path)
  if not folder.is_dir():
    check_choices(path, step, kind)
    return _of_file(path, skeleton)
  check_choices(path, skeleton=skeleton)
  if (folder / CONFIG).exists():
    check_choices(path, step, kind)
    return _of_pretrained(folder)
  return _of_workdir(path, step, kind)


def check_choices(
  path: str, step: str = "best", kind: str = "", skeleton: str = ""
) -> None:
  """Refuses to choose where nothing can be chosen.

  Args:
    path: of a network that has one step, one kind of weights, its skeleton.
    step: as given to `read`.
    kind: likewise.
    skeleton: likewise.

  Raises:
    InputError: something was chosen.
  """
  if step != "best":
    raise InputError(
      f"step {step}: only a work directory has steps, not {path}"
    )
  if kind:
    raise InputError(
      f"{kind} weights: only a work directory has several, not {path}"
    )
  if skeleton:
    raise InputError(f"skeleton {skeleton}: {path} has its own")


def _of_workdir(path: str, which: str, kind: str) -> Saved:
  step, meta, weights = checkpoint.read_weights(path, which, kind)
  config = meta["config"]
  model = _for_use(ModelConfig.of(config["model"]))
  # What was imported has none.
  settings = config.get("eval", {})
  options = {
    option: settings[field]
    for option, field in _OPTIONS.items()
    if field in settings
  }
  if "padding" in config.get("data", {}):
    options["padding"] = config["data"]["padding"]
  return Saved(
    model,
    weights,
    config_lib.codec_with(model, config["codec"]),
    Skeleton.from_dict(meta["skeleton"]),
    options,
    step,
    kind or weight_kinds.usual(meta),
  )


def _for_use(model: ModelConfig) -> ModelConfig:
  """The network as it predicts: what its training asked for is not asked again.

  "fused" is of the devices that train, and all passes but one of the loss.
  """
  attention = "auto" if model.attention == "fused" else model.attention
  return dataclasses.replace(model, attention=attention, cycles=1)


def _of_file(path: str, name: str) -> Saved:
  if pathlib.PurePath(path).suffix in _EXPORTED:
    raise _export(path)
  state_dict = convert.read_state_dict(path)
  model = detect(state_dict).model
  return Saved(
    model,
    convert.import_torch(model, state_dict),
    config_lib.codec_with(model, {}),
    skeletons.of_weights(path, model.num_keypoints, name, "give skeleton="),
    {},
  )


def _of_pretrained(folder: epath.Path) -> Saved:
  there = [name for name in (WEIGHTS, ORBAX) if (folder / name).exists()]
  if not there and (folder / exported.META).exists():
    raise _export(folder)
  return of_folder(str(folder), there[0] if there else WEIGHTS)


def _export(path: Any) -> InputError:
  return InputError(
    f"{path} is an export for other runtimes, without the weights as they were"
    " trained; name what it was made from"
  )


def of_folder(folder: str, weights: str) -> Saved:
  """Reads a folder of `tokenpose publish` or `tokenpose export`.

  Args:
    folder: that has the weights.
    weights: `WEIGHTS` or `ORBAX`.

  Raises:
    InputError: a file is missing, damaged or of another network.
  """
  described = description(folder)
  path = epath.Path(folder) / weights
  if weights == ORBAX:
    read = _read_orbax(described.model, path)
  else:
    state_dict = convert.read_state_dict(str(path))
    read = convert.import_torch(described.model, state_dict)
  return dataclasses.replace(described, weights=read)


def description(folder: str) -> Saved:
  """What the JSON files of a folder say of a network: all but its weights.

  Args:
    folder: of `tokenpose publish` or `tokenpose export`.

  Returns:
    the network with empty weights.

  Raises:
    InputError: a file is missing or says something else.
  """
  file = epath.Path(folder) / CONFIG
  content = json_files.read(file, "the network")
  try:
    number, software = content["format"], content["software"]
    if number > FORMAT:
      raise InputError(
        f"it has format {number}, written by tokenpose_jax {software}; this one"
        f" reads up to {FORMAT}"
      )
    model = _for_use(ModelConfig.of(content["model"]))
    codec = config_lib.codec_with(model, content["codec"])
    options = {
      name: kind(content["use"][name]) for name, kind in _KINDS.items()
    }
    step = None if content["step"] is None else int(content["step"])
  except InputError as error:
    raise InputError(f"{file}: {error}") from None
  except (
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
  ) as error:
    raise InputError(
      f"{file} does not describe a TokenPose network: {one_line(error, 160)}"
    ) from None
  skeleton = skeletons.of_weights(
    str(file), model.num_keypoints, str(file.parent / SKELETON), ""
  )
  return Saved(model, ({}, {}), codec, skeleton, options, step)


def _read_orbax(model: ModelConfig, path: epath.Path) -> tuple[Tree, Tree]:
  params, model_state = network.abstract(model)
  shapes = {"params": params, "model_state": model_state}
  try:
    found = orbax_trees.attempt(
      lambda: orbax_trees.read(path.absolute(), shapes)
    )
  except orbax_trees.Unreadable as error:
    raise InputError(f"cannot read the weights in {path}: {error}") from None
  return found["params"], found["model_state"]


def write_orbax(saved: Saved, folder: epath.Path) -> None:
  """Writes {"params": ..., "model_state": ...} as a checkpoint of Orbax.

  Args:
    saved: the network.
    folder: that is there; `ORBAX` in it is made.
  """
  params, model_state = saved.weights
  tree = {"params": params, "model_state": model_state}
  orbax_trees.write((folder / ORBAX).absolute(), tree)


def write(saved: Saved, folder: epath.Path) -> None:
  """Writes the three files that `read` needs.

  Args:
    saved: the network.
    folder: that is there.

  Raises:
    InputError: a file cannot be written.
  """
  write_weights(saved, folder)
  write_description(saved, folder)


def write_weights(saved: Saved, folder: epath.Path) -> None:
  """Writes the weights under the original implementation's names.

  Args:
    saved: the network.
    folder: that is there.

  Raises:
    InputError: the file cannot be written.
  """
  state_dict = convert.export_torch(saved.model, *saved.weights)
  convert.write_state_dict(str(folder / WEIGHTS), state_dict)


def write_description(saved: Saved, folder: epath.Path) -> None:
  """Writes the two files that `description` needs.

  Args:
    saved: the network.
    folder: that is there.

  Raises:
    InputError: a file cannot be written.
  """
  # What was not saved is as an `Estimator` has it today.
  known = inspect.signature(Estimator).parameters
  use = {name: known[name].default for name in _KINDS} | dict(saved.options)
  content = {
    "format": FORMAT,
    "software": __version__,
    "library_name": "tokenpose_jax",
    "model": saved.model.to_dict(),
    "codec": {"sigma": saved.codec.sigma, "udp": saved.codec.udp},
    "use": {name: kind(use[name]) for name, kind in _KINDS.items()},
    "step": saved.step,
  }
  try:
    (folder / CONFIG).write_text(json.dumps(content, indent=2))
    (folder / SKELETON).write_text(skeletons.to_json(saved.skeleton))
  except OSError as error:
    raise InputError(f"cannot write to {folder}: {one_line(error)}") from None
