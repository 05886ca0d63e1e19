"""What a network costs: parameters, multiply-adds, activations.

tokenpose cost tokenpose_s_v1
tokenpose cost tokenpose_t --batch_size=64 --set depth=6 dtype=bfloat16
tokenpose cost configs/demo.py
"""

import argparse
import collections
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from tokenpose_jax import network, recipes
from tokenpose_jax.errors import check_at_least
from tokenpose_jax.models import devices
from tokenpose_jax.models.config import ModelConfig, Network
from tokenpose_jax.network import Tree

Call = Callable[[Any, Any], Array]
"""How a part of the network is called with its input."""


@dataclasses.dataclass(frozen=True)
class Cost:
  """The cost of a part of the network.

  Attributes:
    parameters: trainable values.
    layers: multiply-adds of convolutions and linear layers for one person,
      which is what papers count.
    attention: multiply-adds of the products between tokens, for one person.
    stored: bytes that a training step keeps of the forward pass for the
      backward pass, for the whole batch, before the compiler removes or
      recomputes any.
  """

  parameters: int
  layers: int
  attention: int
  stored: int


def summarize(model: Network, batch_size: int) -> dict[str, Cost]:
  """The cost of each part, and of the whole under "total".

  Nothing is computed: the parts are only traced. Of several passes
  (`model.cycles`) one counts, as in an evaluation.

  Args:
    model: the network.
    batch_size: for `Cost.stored`.

  Raises:
    InputError: the network cannot be used.
  """
  # A loop over images would be counted once.
  config = dataclasses.replace(ModelConfig.of(model), attention="plain")
  module = network.abstract_module(config)
  patches = math.prod(config.grid_hw)

  def costs(part: nnx.Module, call: Call, *shape: int) -> Cost:
    return _cost(part, call, (batch_size, *shape), config.dtype)

  def plain(part: Any, x: Array) -> Array:
    return part(x)

  parts: dict[str, Cost] = {}
  if module.backbone is not None:
    parts["backbone"] = costs(
      module.backbone,
      lambda part, x: part(x, train=True, captured={}),
      *(*config.input_hw, 3),
    )
  parts["patch embedding"] = costs(
    module.patch_embedding, plain, patches, module.patch_embedding.in_features
  )
  fixed = [module.keypoint_tokens, module.position_table]
  learned = sum(math.prod(v.shape) for v in fixed if isinstance(v, nnx.Param))
  parts["keypoint tokens, positions"] = Cost(learned, 0, 0, 0)
  block = module.stacks[0][0]
  for visual, count in collections.Counter(config.visual_counts).items():
    tokens, times = config.num_keypoints + visual, config.stacks * count
    one = costs(block, lambda part, x: part(x, None, ""), tokens, config.dim)
    name = f"{times} blocks" + (f", {tokens} tokens" if config.keep < 1 else "")
    parts[name] = Cost(*(times * value for value in dataclasses.astuple(one)))
  parts["head"] = costs(
    module.head, plain, config.num_keypoints, config.stacks * config.dim
  )
  if module.doubt is not None:
    parts["doubt"] = costs(
      module.doubt, plain, config.num_keypoints, config.stacks * config.dim
    )
  if module.patch_head is not None:  # Of trainings alone.
    _, params, _ = network.split_module(module.patch_head)
    parts["patch head"] = Cost(network.count_parameters(params), 0, 0, 0)
  columns = zip(*map(dataclasses.astuple, parts.values()), strict=True)
  return {**parts, "total": Cost(*map(sum, columns))}


def format_table(costs: Mapping[str, Cost], batch_size: int) -> str:
  """The costs as a small table for terminals.

  Args:
    costs: as returned by `summarize`.
    batch_size: given to `summarize`.
  """
  head = ("", "parameters", "conv+linear", "attention", f"stored, {batch_size}")
  rows = [head, ("", "", "GMAC", "GMAC", "people, MiB")]
  rows += [
    (
      name,
      f"{cost.parameters:,}",
      f"{cost.layers / 1e9:.3f}",
      f"{cost.attention / 1e9:.3f}",
      f"{cost.stored / 2**20:,.1f}",
    )
    for name, cost in costs.items()
  ]
  widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
  return "\n".join(
    "  ".join(
      cell.rjust(width) if i else cell.ljust(width)
      for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    for row in rows
  )


@devices.anywhere()
def _cost(
  part: nnx.Module, call: Call, shape: tuple[int, ...], dtype: str
) -> Cost:
  graph, params, rest = network.split_module(part)

  def forward(params: Tree, x: Array, rest: Tree) -> Array:
    return call(network.merge_module(graph, params, rest), x)

  x = jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))
  traced = jax.make_jaxpr(forward)(params, x, rest)
  layers, attention = _multiply_adds(traced.jaxpr)
  # What jax.vjp returns is a pytree of the values that it keeps.
  kept = jax.eval_shape(
    lambda params, x, rest: jax.vjp(
      lambda params, x: forward(params, x, rest), params, x
    )[1],
    *(params, x, rest),
  )
  weights = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
  sizes = (
    leaf.size * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(kept)
    if leaf.shape[:1] == shape[:1]
  )
  batch = shape[0]
  return Cost(weights, layers // batch, attention // batch, sum(sizes))


def _multiply_adds(jaxpr: Any) -> tuple[int, int]:
  """Of layers with weights, and of products between activations."""
  layers = attention = 0
  for equation in jaxpr.eqns:
    for inner in jax.extend.core.jaxprs_in_params(equation.params):
      a, b = _multiply_adds(inner)
      layers, attention = layers + a, attention + b
    size = math.prod(equation.outvars[0].aval.shape)
    if equation.primitive.name == "dot_general":
      (contracted, _), (batch, _) = equation.params["dimension_numbers"]
      left = equation.invars[0].aval.shape
      count = size * math.prod(left[axis] for axis in contracted)
      # Only products between activations have axes that both sides share.
      if batch:
        attention += count
      else:
        layers += count
    elif equation.primitive.name == "conv_general_dilated":
      kernel = equation.invars[1].aval.shape  # h, w, in, out
      layers += size * math.prod(kernel[:-1])
  return layers, attention


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the arguments of `tokenpose cost`."""
  parser.add_argument(
    "network", help="a published network or a file of configs/"
  )
  parser.add_argument(
    "--batch_size",
    type=int,
    default=32,
    help="people whose activations are counted (default 32)",
  )
  parser.add_argument(
    "--set",
    nargs="+",
    default=[],
    metavar="FIELD=VALUE",
    help="changes fields of the network",
  )


def run(arguments: argparse.Namespace) -> None:
  """Prints the table.

  Raises:
    InputError: the network or the batch size cannot be used.
  """
  check_at_least("--batch_size", arguments.batch_size, 1)
  model = recipes.change(recipes.load(arguments.network).model, arguments.set)
  print(
    format_table(summarize(model, arguments.batch_size), arguments.batch_size)
  )
