"""What was saved of a network, whatever it was saved as."""

import dataclasses
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from tokenpose_jax import checkpoint, convert, json_files, network, skeletons
from tokenpose_jax import config as config_lib
from tokenpose_jax.codec import Codec
from tokenpose_jax.convert.detect import detect
from tokenpose_jax.errors import InputError, one_line
from tokenpose_jax.models.config import ModelConfig
from tokenpose_jax.network import Tree
from tokenpose_jax.predict.estimator import Estimator
from tokenpose_jax.skeletons import Skeleton
from tokenpose_jax.version import __version__

# Of a folder of `tokenpose publish` or `tokenpose export`.
CONFIG, WEIGHTS, SKELETON = "config.json", "model.safetensors", "skeleton.json"
ORBAX = "orbax"  # the weights in an export, in place of WEIGHTS
FORMAT = 1

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
  """

  model: ModelConfig
  weights: tuple[Tree, Tree]
  codec: Codec
  skeleton: Skeleton
  options: Mapping[str, Any]
  step: int | None = None


def read(path: str, step: str = "best", skeleton: str = "") -> Saved:
  """Reads a network.

  Args:
    path: a work directory, a folder of `hub.save_pretrained`, or a file of
      TokenPose weights (.safetensors, or of PyTorch).
    step: of a work directory: "best", "latest" or a number.
    skeleton: of a file: a name or a JSON file; "": by the number of keypoints.

  Raises:
    InputError: nothing can be read from there.
  """
  folder = epath.Path(path)
  if not folder.is_dir():
    return _of_file(path, skeleton)
  if (folder / CONFIG).exists():
    return _of_pretrained(folder)
  return _of_workdir(path, step)


def _of_workdir(path: str, which: str) -> Saved:
  step, meta, weights = checkpoint.read_weights(path, which)
  config = meta["config"]
  model = ModelConfig.of(config["model"])
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
  )


def _of_file(path: str, name: str) -> Saved:
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
  described = description(str(folder))
  if (folder / WEIGHTS).exists() or not (folder / ORBAX).exists():
    state_dict = convert.read_state_dict(str(folder / WEIGHTS))
    weights = convert.import_torch(described.model, state_dict)
  else:
    weights = read_orbax(described.model, str(folder / ORBAX))
  return dataclasses.replace(described, weights=weights)


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
    model = ModelConfig.of(content["model"])
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


def read_orbax(model: ModelConfig, path: str) -> tuple[Tree, Tree]:
  """(params, model_state) of an Orbax checkpoint of weights, NumPy.

  Args:
    model: the network.
    path: of the checkpoint.

  Raises:
    InputError: it is damaged, or of another network.
  """
  params, model_state = network.abstract(model)
  wanted = {"params": params, "model_state": model_state}
  try:
    with ocp.PyTreeCheckpointer() as reader:
      found = reader.restore(
        epath.Path(path).absolute(),
        ocp.args.PyTreeRestore(
          item=wanted,
          restore_args=jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted
          ),
        ),
      )
  except Exception as error:  # Orbax raises whatever its readers raise.
    raise InputError(
      f"cannot read the weights in {path}: {one_line(error, 200)}"
    ) from None
  return found["params"], found["model_state"]


def write(saved: Saved, folder: epath.Path) -> None:
  """Writes the three files that `read` needs.

  Args:
    saved: the network.
    folder: that is there.

  Raises:
    InputError: a file cannot be written.
  """
  state_dict = convert.export_torch(saved.model, *saved.weights)
  convert.write_state_dict(str(folder / WEIGHTS), state_dict)
  write_description(saved, folder)


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
