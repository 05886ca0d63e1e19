"""The whole path as one function: 8-bit crops to keypoints in crop pixels."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8

from tokenpose_jax import exported, inference, network, subpixel
from tokenpose_jax.arrays import AnyArray
from tokenpose_jax.models import devices
from tokenpose_jax.models.config import ModelConfig
from tokenpose_jax.models.layers import ConvNorm, Train
from tokenpose_jax.network import Tree
from tokenpose_jax.predict.saved import Saved

Function = Callable[[UInt8[AnyArray, "b h w 3"]], tuple[AnyArray, ...]]
"""Crops (B, H, W, 3) uint8 RGB to keypoints (B, K, 2) in crop pixels, scores
(B, K) and heatmaps (B, K, h, w); with `model.doubt` also what it says, (B, K)
each, errors in crop pixels."""


class Shift(nnx.Module):
  """What is left of a batch norm whose gain is in its convolution."""

  def __init__(self, shift: Float[AnyArray, " c"]):
    self.shift = nnx.Param(jnp.asarray(shift))

  def __call__(
    self, x: Float[Array, "b h w c"], *, train: Train, repeated: int = 1
  ) -> Float[Array, "b h w c"]:
    """Adds one value a channel."""
    del train, repeated
    return x + self.shift[...].reshape(1, 1, 1, -1)


def folded(model: ModelConfig, weights: tuple[Tree, Tree]) -> Any:
  """The network with its batch norms inside its convolutions.

  Args:
    model: the network.
    weights: (params, model_state).

  Returns:
    an NNX module, for `train=False`.
  """
  model = dataclasses.replace(model, attention="plain")
  graph, _, _ = network.split_module(network.abstract_module(model))
  module: Any = network.merge_module(graph, *weights)
  for _, part in nnx.iter_graph(module):
    if isinstance(part, ConvNorm):
      norm = part.norm
      scale, var = (
        np.asarray(v[...], np.float64) for v in (norm.scale, norm.var)
      )
      gain = scale / np.sqrt(var + norm.epsilon)
      shift = np.asarray(norm.bias[...]) - np.asarray(norm.mean[...]) * gain
      kernel = np.asarray(part.conv.kernel[...]) * gain
      part.conv.kernel.set_value(jnp.asarray(kernel, jnp.float32))
      # Another module in its place: nothing of it is trained again.
      part.norm = Shift(np.asarray(shift, np.float32))  # type: ignore[assignment]
  return module


def function_of(
  saved: Saved,
  *,
  flip_test: bool = False,
  decoder: str = "",
  here: bool = False,
) -> Function:
  """A network as one function.

  Args:
    saved: the network.
    flip_test: averages with the mirrored crop.
    decoder: one of `codec.DECODERS`; "": the saved one, or dark.
    here: it is run by this process, not exported for any device.

  """
  module = folded(saved.model, saved.weights)
  mirror = tuple(saved.skeleton.flip_permutation.tolist())
  decoder = decoder or saved.options.get("decoder", "dark")
  shifted = bool(saved.options.get("flip_shift", False))

  def function(crops: UInt8[AnyArray, "b h w 3"]) -> Any:
    images = network.normalize(crops)
    found = inference.of_pass(saved.codec, module.passes(images)[-1])
    if flip_test:
      mirrored = module.passes(images[:, :, ::-1])[-1]
      found = inference.averaged(
        found,
        inference.of_pass(saved.codec, mirrored),
        mirror,
        shift=shifted,
      )
    with subpixel.without_loops():
      return _decoded(saved, found, decoder)

  return function if here else devices.anywhere()(function)


def outputs_of(model: ModelConfig) -> tuple[str, ...]:
  """The names of what the function of a network returns, in order."""
  return exported.OUTPUTS + (exported.DOUBT if model.doubt else ())


def _decoded(
  saved: Saved, found: inference.Found, decoder: str
) -> tuple[AnyArray, ...]:
  keypoints, scores = saved.codec.decode(found.heatmaps, decoder)
  if found.doubt is None:
    return keypoints, scores, found.heatmaps
  return keypoints, found.doubt.scores, found.heatmaps, *found.doubt


def reference(
  saved: Saved,
  crops: UInt8[np.ndarray, "b h w 3"],
  *,
  flip_test: bool = False,
  decoder: str = "",
) -> Any:
  """What an evaluation makes of crops: nothing folded, nothing replaced.

  Args:
    saved: the network.
    crops: (B, H, W, 3) uint8 RGB.
    flip_test: as for `function_of`.
    decoder: as for `function_of`.

  Returns:
    as of the function, NumPy.
  """
  settings = inference.Settings(
    saved.model,
    saved.codec,
    tuple(saved.skeleton.flip_permutation.tolist()) if flip_test else (),
    bool(saved.options.get("flip_shift", False)),
    decoder or saved.options.get("decoder", "dark"),
  )
  run = jax.jit(functools.partial(inference.find, settings))
  found = run(*saved.weights, crops)
  decoded = functools.partial(_decoded, saved, decoder=settings.decoder)
  return jax.device_get(jax.jit(decoded)(found))
