"""The only border between NNX modules and plain trees.

Inside, the network is an NNX module. Outside, its parameters and its batch
statistics are plain nested dicts with string keys, which `jax.jit`, `jax.grad`,
optax and Orbax handle directly.

Wherever a network is asked for, a `ModelConfig`, `config.model` or the mapping
in a checkpoint will do (`ModelConfig.of`).
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from jaxtyping import Array, Float, UInt8

from tokenpose_jax.arrays import AnyArray
from tokenpose_jax.errors import InputError, check_choice
from tokenpose_jax.models import initial
from tokenpose_jax.models.config import (
  BACKBONES,
  IMAGE_MEAN,
  IMAGE_STD,
  ModelConfig,
  Network,
)
from tokenpose_jax.models.layers import Captured, Train
from tokenpose_jax.models.tokenpose import Pass, TokenPose, keep_variance, named

Tree = dict[str, Any]
"""A plain nested dict of arrays."""

# Dozens of times what the largest published network has.
MOST_BLOCKS, MOST_NUMBERS = 1000, 2**31

SCHEMES = ("original", "fan_in")


def normalize(
  images: UInt8[AnyArray, "b h w 3"],
) -> Float[AnyArray, "b h w 3"]:
  """8-bit RGB crops as the networks take them."""
  mean = jnp.array(IMAGE_MEAN).reshape(1, 1, 1, 3)
  std = jnp.array(IMAGE_STD).reshape(1, 1, 1, 3)
  return (images.astype(jnp.float32) / 255 - mean) / std


def frozen(model: ModelConfig, stages: int) -> Callable[[Sequence[str]], bool]:
  """Tells by its path whether a parameter is of a backbone's first stages.

  Args:
    model: the network.
    stages: at most as many as the backbone has (`BackboneFacts`).
  """
  is_frozen = named(BACKBONES[model.backbone].frozen)
  return functools.partial(is_frozen, stages=stages)


def create_model(model: Network, *, rngs: nnx.Rngs) -> TokenPose:
  """Builds a network with weights.

  Args:
    model: the network.
    rngs: its `params` gives the seed of the weights (`init`), so not inside of
      `jax.jit` and its like: `abstract_module` has the shapes.

  Raises:
    InputError: a field is unknown, does not fit, or is out of all bounds.
  """
  config = ModelConfig.of(model)
  require_size(config)
  words = np.asarray(jax.random.key_data(rngs.params()))
  seed = int.from_bytes(words.astype(">u4").tobytes())
  return _merge(config, *init(config, seed))


def require_size(config: ModelConfig) -> None:
  """Checks that a network is not out of all bounds, before it is built.

  What a stranger's file says may take all memory, or a day for its blocks.

  Args:
    config: the network.

  Raises:
    InputError: it has more than `MOST_BLOCKS` blocks, or its weights, a crop
      and its heatmaps more than `MOST_NUMBERS` numbers.
  """
  blocks, dim = config.stacks * config.depth, config.dim
  area = math.prod(config.heatmap_hw)
  tokens = math.prod(config.grid_hw) + config.num_keypoints
  numbers = (
    blocks * dim**2 * (4 + 2 * config.mlp_ratio)
    + dim * (tokens + 3 * math.prod(config.patch_hw))
    + config.stacks * dim * (config.head_dim or area)
    + config.head_dim * area
    + config.stem_channels**2
    + 3 * math.prod(config.input_hw)
    + config.num_keypoints * area
  )
  if blocks > MOST_BLOCKS or numbers > MOST_NUMBERS:
    raise InputError(
      f"the network is larger than any of its kind: at most {MOST_BLOCKS:,}"
      f" blocks, and {MOST_NUMBERS:,} numbers in weights, crop and heatmaps,"
      " are built; are its model.* fields damaged?"
    )


def init(
  model: Network, seed: int, scheme: str = "original"
) -> tuple[Tree, Tree]:
  """Fresh (params, model_state) of a network, float32.

  Drawn on the host, so that no program is compiled (`models.initial`). Each
  parameter depends on the seed and its path alone.

  Args:
    model: the network.
    seed: of the draws.
    scheme: "original": as in reference 2.7; "fan_in": the same draws, scaled
      so that each layer keeps the variance of its input, for short trainings
      from scratch.

  Raises:
    InputError: the network or the scheme cannot be used.
  """
  check_choice("init.scheme", scheme, SCHEMES)
  params, model_state = (initial.draw(tree, seed) for tree in abstract(model))
  if scheme == "fan_in":
    flat = traverse_util.flatten_dict(params)
    flat = {path: keep_variance(path, leaf) for path, leaf in flat.items()}
    params = traverse_util.unflatten_dict(flat)
  return jax.device_put((params, model_state))


@overload
def apply(
  model: Network,
  params: Tree,
  model_state: Tree,
  images: Float[AnyArray, "b h w 3"],
  *,
  capture: Literal[False] = False,
) -> Float[Array, "b k hh ww"]: ...


@overload
def apply(
  model: Network,
  params: Tree,
  model_state: Tree,
  images: Float[AnyArray, "b h w 3"],
  *,
  capture: Literal[True],
) -> tuple[Float[Array, "b k hh ww"], Captured]: ...


def apply(
  model: Network,
  params: Tree,
  model_state: Tree,
  images: Float[AnyArray, "b h w 3"],
  *,
  capture: bool = False,
) -> Any:
  """The network in evaluation mode, as a pure function.

  Args:
    model: the network.
    params: as returned by `init`, `import_torch` or a checkpoint.
    model_state: likewise.
    images: (B, H, W, 3) float32, RGB, normalized (`normalize`).
    capture: also return intermediate values.

  Returns:
    heatmaps (B, K, h, w) float32, or (heatmaps, captured) with `capture`;
    `captured` is described at `TokenPose.__call__`.

  Raises:
    InputError: the network cannot be used.
    ValueError: the images are not of the network's input size.
  """
  captured: Captured | None = {} if capture else None
  module = _merge(model, params, model_state)
  heatmaps = module(images, train=False, captured=captured)
  return (heatmaps, captured) if capture else heatmaps


def last_pass(
  model: Network,
  params: Tree,
  model_state: Tree,
  images: Float[AnyArray, "b h w 3"],
) -> Pass:
  """The network in evaluation mode: all that its last pass has to say.

  Args:
    model: the network.
    params: as for `apply`.
    model_state: likewise.
    images: likewise.
  """
  return _merge(model, params, model_state).passes(images)[-1]


def heatmaps_of(
  model: Network,
  params: Tree,
  model_state: Tree,
  tokens: Float[AnyArray, "b k d"],
) -> Float[Array, "b k h w"]:
  """The heatmaps of keypoint tokens, by the network's head.

  Args:
    model: the network.
    params: as for `apply`.
    model_state: likewise.
    tokens: (B, K, stacks * dim), as `captured["head_in"]`.
  """
  return _merge(model, params, model_state).heatmaps(jnp.asarray(tokens))


def apply_train(
  model: Network,
  params: Tree,
  model_state: Tree,
  images: Float[AnyArray, "b h w 3"],
  train: Train = True,
) -> tuple[Float[Array, "b k hh ww"], Tree]:
  """The network in training mode.

  Args:
    model: the network.
    params: as for `apply`.
    model_state: likewise.
    images: likewise.
    train: how it is trained.

  Returns:
    heatmaps (B, K, h, w) float32 and the new model_state.
  """
  passes, new = train_passes(model, params, model_state, images, train)
  return passes[-1].heatmaps, new


def train_passes(
  model: Network,
  params: Tree,
  model_state: Tree,
  images: Float[AnyArray, "b h w 3"],
  train: Train = True,
) -> tuple[list[Pass], Tree]:
  """The network in training mode, all its passes (`model.cycles`).

  Args:
    model: the network.
    params: as for `apply`.
    model_state: likewise.
    images: likewise.
    train: how it is trained.

  Returns:
    what comes out of each pass, and the new model_state.
  """
  module = _merge(model, params, model_state)
  passes = module.passes(images, train=train)
  return passes, _split(module)[1]


def count_parameters(params: Tree) -> int:
  """The number of trainable values."""
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


def abstract(model: Network) -> tuple[Tree, Tree]:
  """(params, model_state) as shapes and types, without drawing anything."""
  return _split(abstract_module(model))


def abstract_module(model: Network) -> TokenPose:
  """The network with shapes in place of weights.

  Args:
    model: the network.

  Raises:
    InputError: as `create_model`.
  """
  config = ModelConfig.of(model)
  require_size(config)
  return _abstract_module(config)


def split_module(module: nnx.Module) -> tuple[nnx.GraphDef, Tree, Tree]:
  """A module, or a part of one, as its graph, params and model_state."""
  parts: Any = nnx.split(module, nnx.Param, ...)
  graph, params, rest = parts
  plain = nnx.to_pure_dict
  return graph, _with_strings(plain(params)), _with_strings(plain(rest))


def merge_module(
  graph: nnx.GraphDef, params: Tree, model_state: Tree
) -> nnx.Module:
  """The inverse of `split_module`."""
  return nnx.merge(graph, _with_ints(params), _with_ints(model_state))


@functools.lru_cache(maxsize=16)
def _abstract_module(config: ModelConfig) -> TokenPose:
  return TokenPose(config)


@functools.lru_cache(maxsize=16)
def _graph(config: ModelConfig) -> nnx.GraphDef:
  return split_module(_abstract_module(config))[0]


def _merge(model: Network, params: Tree, model_state: Tree) -> TokenPose:
  module: Any = merge_module(_graph(ModelConfig.of(model)), params, model_state)
  return module


def _split(module: nnx.Module) -> tuple[Tree, Tree]:
  return split_module(module)[1:]


# NNX numbers the members of a list with ints. Orbax and sorting want one type
# of key, so the digits are strings outside.
def _with_strings(tree: Any) -> Any:
  if not isinstance(tree, Mapping):
    return tree
  return {str(key): _with_strings(value) for key, value in tree.items()}


def _with_ints(tree: Any) -> Any:
  if not isinstance(tree, Mapping):
    return tree
  return {
    int(key) if key.isdigit() else key: _with_ints(value)
    for key, value in tree.items()
  }
