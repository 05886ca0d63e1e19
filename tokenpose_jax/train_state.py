"""The training state, and the only border between NNX modules and JAX.

Inside, the network is an NNX module. Outside, its parameters and its batch
statistics are plain nested dicts with string keys, which `jax.jit`, `jax.grad`,
optax and Orbax handle without further ado.
"""

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx, struct
from jaxtyping import Array, Float, Int

from tokenpose_jax import models
from tokenpose_jax.errors import InputError
from tokenpose_jax.models import TokenPose, create_model, layers

Tree = dict[str, Any]
"""A plain nested dict of arrays."""


@struct.dataclass
class TrainState:
  """Everything that a training step changes.

  Attributes:
    step: () int32, the number of updates made.
    params: trainable parameters, float32.
    model_state: what the network holds beside: batch norm's running
      statistics and the fixed position table.
    opt_state: of the optax chain.
  """

  step: Int[Array, ""]
  params: Tree
  model_state: Tree
  opt_state: optax.OptState


INITS = ("original", "fan_in")


def init(
  model: Mapping[str, Any], seed: int, scheme: str = "original"
) -> tuple[Tree, Tree]:
  """Fresh (params, model_state) of the network that `config.model` describes.

  Args:
    scheme: "original": reference 2.7; "fan_in": the same draws, scaled so that
      each layer keeps the variance of its input. For short trainings from
      scratch: under the original's tiny weights narrow networks see little of
      the image for thousands of steps.
  """
  if scheme not in INITS:
    raise InputError(f"train.init is {scheme!r}; allowed: {', '.join(INITS)}")
  params, model_state = _split(create_model(model, rngs=nnx.Rngs(seed)))
  if scheme == "fan_in":
    params = map_paths(_fan_in, params)
  return params, model_state


def create(
  model: Mapping[str, Any],
  optimizer: optax.GradientTransformation,
  seed: int,
  scheme: str = "original",
) -> TrainState:
  """A state at step 0, on the default device."""
  params, model_state = init(model, seed, scheme)
  return TrainState(
    step=jax.numpy.zeros((), jax.numpy.int32),
    params=params,
    model_state=model_state,
    opt_state=optimizer.init(params),
  )


def _fan_in(name: str, leaf: Array) -> Array:
  """One parameter, its original deviation replaced."""
  if name == "position_table":  # as large as the sine table's entries
    return leaf / layers.LINEAR_STD
  if not name.endswith("kernel"):
    return leaf
  if name.startswith("head/linear2"):
    return leaf * 0.05  # heatmaps begin near 0
  fan_in = np.prod(leaf.shape[:-1])
  if leaf.ndim == 4:  # convolutions, before a ReLU (He et al., 2015)
    return leaf / layers.CONV_STD * np.sqrt(2 / fan_in)
  return leaf / layers.LINEAR_STD / np.sqrt(fan_in)


def apply(
  model: Mapping[str, Any],
  params: Tree,
  model_state: Tree,
  images: Float[Array, "b h w 3"],
  *,
  capture: bool = False,
) -> Any:
  """The network in evaluation mode, as a pure function.

  Args:
    model: `config.model`.
    params, model_state: of `init`, of a checkpoint or of `import_torch`.
    images: (B, H, W, 3) float32, RGB, normalised.
    capture: also return intermediate values.

  Returns:
    heatmaps (B, K, h, w) float32, or (heatmaps, captured) with `capture`;
    `captured` is described at `TokenPose.__call__`.
  """
  module = nnx.merge(
    _graph(_key(model)), _with_ints(params), _with_ints(model_state)
  )
  captured: dict[str, Array] | None = {} if capture else None
  heatmaps = module(images, train=False, captured=captured)
  return (heatmaps, captured) if capture else heatmaps


def apply_train(
  model: Mapping[str, Any],
  params: Tree,
  model_state: Tree,
  images: Float[Array, "b h w 3"],
) -> tuple[Float[Array, "b k hh ww"], Tree]:
  """The network in training mode: heatmaps and the new model_state."""
  module = nnx.merge(
    _graph(_key(model)), _with_ints(params), _with_ints(model_state)
  )
  heatmaps = module(images, train=True)
  return heatmaps, _split(module)[1]


def count_parameters(params: Tree) -> int:
  """The number of trainable values."""
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


def abstract(model: Mapping[str, Any]) -> tuple[Tree, Tree]:
  """(params, model_state) as shapes and types, without drawing anything."""
  return _split(abstract_module(model))


def abstract_module(model: Mapping[str, Any]) -> TokenPose:
  """The network with shapes in place of weights."""
  return _abstract_module(_key(model))


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
  """The leaves of a plain nested dict by their path, a/b/c."""
  if not isinstance(tree, Mapping):
    return {prefix: tree}
  flat: dict[str, Any] = {}
  for key, value in tree.items():
    flat |= flatten(value, f"{prefix}/{key}" if prefix else key)
  return flat


def map_paths(
  function: Callable[[str, Any], Any], tree: Any, prefix: str = ""
) -> Any:
  """The tree of function(path, leaf), paths as of `flatten`."""
  if not isinstance(tree, Mapping):
    return function(prefix, tree)
  return {
    key: map_paths(function, value, f"{prefix}/{key}" if prefix else key)
    for key, value in tree.items()
  }


def _key(model: Mapping[str, Any]) -> str:
  return json.dumps(models.network_fields(model), sort_keys=True)


@functools.lru_cache(maxsize=16)
def _abstract_module(key: str) -> TokenPose:
  fields = json.loads(key)
  return nnx.eval_shape(lambda: create_model(fields, rngs=nnx.Rngs(0)))


@functools.lru_cache(maxsize=16)
def _graph(key: str) -> nnx.GraphDef:
  return nnx.split(_abstract_module(key), nnx.Param, ...)[0]


def _split(module: nnx.Module) -> tuple[Tree, Tree]:
  parts: Any = nnx.split(module, nnx.Param, ...)
  _, params, rest = parts
  plain = nnx.to_pure_dict
  return _with_strings(plain(params)), _with_strings(plain(rest))


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
