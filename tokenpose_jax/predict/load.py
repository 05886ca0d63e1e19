"""Networks ready for use, from what was saved of them."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8

from tokenpose_jax import network
from tokenpose_jax.arrays import AnyArray
from tokenpose_jax.models.config import ModelConfig
from tokenpose_jax.network import Tree
from tokenpose_jax.predict import saved as saved_lib
from tokenpose_jax.predict.estimator import Estimator


def load(
  path: str, *, step: str = "best", skeleton: str = "", **options: Any
) -> Estimator:
  """A network ready for use.

  Args:
    path: a work directory, a folder of `save_pretrained`, or a file of
      TokenPose weights (.safetensors, or of PyTorch).
    step: of a work directory: "best", "latest" or a number.
    skeleton: of a file: a name or a JSON file; "": by the number of keypoints.
    options: of `Estimator`; by default those of the training's evaluation.

  Raises:
    InputError: nothing can be loaded from there.
  """
  saved = saved_lib.read(path, step, skeleton)
  return Estimator(
    heatmaps_of(saved.model, saved.weights),
    saved.codec,
    saved.skeleton,
    **{**saved.options, **options},
  )


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
