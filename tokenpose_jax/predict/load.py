"""Networks ready for use, from what was saved of them."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from tokenpose_jax import exported, inference, network
from tokenpose_jax.arrays import AnyArray
from tokenpose_jax.codec import Codec
from tokenpose_jax.errors import InputError
from tokenpose_jax.models.config import ModelConfig
from tokenpose_jax.models.doubt import Doubt
from tokenpose_jax.network import Tree
from tokenpose_jax.predict import saved as saved_lib
from tokenpose_jax.predict.estimator import Estimator


def load(
  path: str | None = None,
  *,
  step: str = "best",
  skeleton: str = "",
  weights: str = "",
  format: str = "",
  **options: Any,
) -> Estimator:
  """A network ready for use.

  Args:
    path: a work directory, a folder of `tokenpose publish` or of `tokenpose
      export`, or a file of TokenPose weights (.safetensors, or of PyTorch);
      None: the weights that come with the package.
    step: of a work directory: "best", "latest" or a number.
    skeleton: of a file: a name or a JSON file; "": by the number of keypoints.
    weights: of a work directory: "raw", or "ema" for their moving average; "":
      those that its training was judged by (`eval.weights`).
    format: of an export; "": the fastest one that can be run here: ONNX on a
      CPU, one for JAX on an accelerator.
    options: of `Estimator`; by default those of the training's evaluation.

  Raises:
    InputError: nothing can be loaded from there, or not what was asked for.
  """
  if path is None:
    path = saved_lib.packaged()
  if os.path.exists(os.path.join(path, exported.META)):
    saved_lib.check_choices(path, step, weights, skeleton)
    return _of_export(path, format, options)
  saved = saved_lib.read(path, step, skeleton, weights)
  return Estimator(
    finder(saved.model, saved.weights, saved.codec),
    saved.codec,
    saved.skeleton,
    **{**saved.options, **options},
  )


def _of_export(path: str, name: str, options: Mapping[str, Any]) -> Estimator:
  """An exported model, through its own runtime."""
  meta = exported.read_meta(path)
  known = [n for n in meta["formats"] if n in exported.RUNTIMES]
  there = [n for n in known if exported.has_runtime(n)]
  if not name and not there:
    needed = {exported.RUNTIMES.get(n, n) for n in meta["formats"]}
    raise InputError(
      f"{path} cannot be run here: install one of {', '.join(sorted(needed))}"
    )
  model = exported.open_model(path, name or _fastest(there))
  saved = saved_lib.description(path)
  fixed = {"flip_test": False} if meta["flip_test"] else {}

  def found(crops: UInt8[AnyArray, "b h w 3"]) -> inference.Found:
    out = model(np.asarray(crops))
    doubt = None
    if all(name in out for name in Doubt._fields):
      doubt = Doubt(*(out[name] for name in Doubt._fields))
    return inference.Found(out["heatmaps"], doubt)

  return Estimator(
    found,
    saved.codec,
    saved.skeleton,
    # A flip test that is inside is not made again.
    **{**saved.options, **options, **fixed},
  )


def _fastest(formats: Sequence[str]) -> str:
  """The format to run here; docs/benchmarks.md has their speed on a CPU."""
  order = list(exported.RUNTIMES)
  if jax.default_backend() != "cpu":
    order.sort(key=lambda name: exported.RUNTIMES[name] != "jax")
  return min(formats, key=order.index)


def finder(model: ModelConfig, weights: tuple[Tree, Tree], codec: Codec) -> Any:
  """A network as a function from 8-bit crops to what it finds, compiled.

  Args:
    model: the network.
    weights: (params, model_state).
    codec: where its heatmaps lie on crops.
  """
  on_device = jax.device_put(weights)

  @jax.jit
  def run(
    params: Tree, model_state: Tree, crops: UInt8[AnyArray, "b h w 3"]
  ) -> inference.Found:
    images = network.normalize(crops)
    return inference.of_pass(
      codec, network.last_pass(model, params, model_state, images)
    )

  return lambda crops: run(*on_device, np.asarray(crops))
