"""Networks ready for use, from what was saved of them."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import Float, UInt8

from tokenpose_jax import checkpoint, convert, network, skeletons
from tokenpose_jax import config as config_lib
from tokenpose_jax.arrays import AnyArray
from tokenpose_jax.convert.detect import detect
from tokenpose_jax.models.config import ModelConfig
from tokenpose_jax.network import Tree
from tokenpose_jax.predict.estimator import Estimator
from tokenpose_jax.skeletons import Skeleton


def load(
  path: str, *, step: str = "best", skeleton: str = "", **options: Any
) -> Estimator:
  """A network ready for use.

  Args:
    path: a work directory, or a file of TokenPose weights (.safetensors, or of
      PyTorch).
    step: of a work directory: "best", "latest" or a number.
    skeleton: of a file: a name or a JSON file; "": by the number of keypoints.
    options: of `Estimator`; by default those of the training's evaluation.

  Raises:
    InputError: nothing can be loaded from there.
  """
  if epath.Path(path).is_dir():
    return _of_workdir(path, step, options)
  return _of_file(path, skeleton, options)


def _of_workdir(path: str, step: str, options: Mapping[str, Any]) -> Estimator:
  _, meta, weights = checkpoint.read_weights(path, step)
  config = meta["config"]
  model = ModelConfig.of(config["model"])
  codec = config_lib.codec_with(model, config["codec"])
  # What was imported has none.
  settings = config.get("eval", {})
  saved = {
    option: settings[field]
    for option, field in (
      ("flip_test", "flip"),
      ("flip_shift", "flip_shift"),
      ("decoder", "decoder"),
      ("min_keypoint_score", "min_keypoint_score"),
    )
    if field in settings
  }
  if "padding" in config.get("data", {}):
    saved["padding"] = config["data"]["padding"]
  return Estimator(
    heatmaps_of(model, weights),
    codec,
    Skeleton.from_dict(meta["skeleton"]),
    **{**saved, **options},
  )


def _of_file(path: str, name: str, options: Mapping[str, Any]) -> Estimator:
  state_dict = convert.read_state_dict(path)
  model = detect(state_dict).model
  weights = convert.import_torch(model, state_dict)
  count = model.num_keypoints
  skeleton = skeletons.of_weights(path, count, name, "give skeleton=")
  codec = config_lib.codec_with(model, {})
  return Estimator(heatmaps_of(model, weights), codec, skeleton, **options)


def heatmaps_of(model: ModelConfig, weights: tuple[Tree, Tree]) -> Any:
  """A network as a function from 8-bit crops to heatmaps, compiled.

  Args:
    model: the network.
    weights: (params, model_state).
  """
  on_device = jax.device_put(weights)

  @jax.jit
  def run(
    params: Tree, model_state: Tree, crops: UInt8[AnyArray, "b h w 3"]
  ) -> Float[AnyArray, "b k hh ww"]:
    return network.apply(model, params, model_state, network.normalize(crops))

  return lambda crops: run(*on_device, np.asarray(crops))
