"""What a network costs: parameters, multiply-adds, activations."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
from flax import nnx

from tokenpose_jax import train_state


@dataclasses.dataclass(frozen=True)
class Cost:
  """Of a part of the network.

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


def summarize(model: Mapping[str, Any], batch_size: int) -> dict[str, Cost]:
  """The cost of each part, and of the whole under "total".

  Args:
    model: `config.model`.
    batch_size: for `Cost.stored`.

  Nothing is computed: the parts are only traced.
  """
  module = train_state.abstract_module(model)
  dtype = jnp.dtype(model["dtype"])
  tokens = module.num_keypoints + math.prod(module.grid_hw)
  dim = model["dim"]

  def costs(part: Any, *shape: int, **options: Any) -> Cost:
    return _cost(part, (batch_size, *shape), dtype, options)

  parts: dict[str, Cost] = {}
  shape: tuple[int, ...] = (*model["input_hw"], 3)
  if module.backbone is not None:
    parts["backbone"] = costs(module.backbone, *shape, train=True)
  parts["patch embedding"] = costs(
    module.patch_embedding,
    tokens - module.num_keypoints,
    module.patch_embedding.in_features,
  )
  fixed = [module.keypoint_tokens, module.position_table]
  learned = sum(math.prod(v.shape) for v in fixed if isinstance(v, nnx.Param))
  parts["keypoint tokens, positions"] = Cost(learned, 0, 0, 0)
  block = costs(module.stacks[0][0], tokens, dim)
  count = model["stacks"] * model["depth"]
  values = (count * value for value in dataclasses.astuple(block))
  parts[f"{count} blocks"] = Cost(*values)
  parts["head"] = costs(
    module.head, module.num_keypoints, model["stacks"] * dim
  )
  columns = zip(*map(dataclasses.astuple, parts.values()), strict=True)
  return {**parts, "total": Cost(*map(sum, columns))}


def format_table(costs: Mapping[str, Cost], batch_size: int) -> str:
  """The costs as a small table for terminals."""
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


def _cost(
  part: nnx.Module, shape: tuple[int, ...], dtype: Any, options: dict[str, Any]
) -> Cost:
  parts: Any = nnx.split(part, nnx.Param, ...)
  graph, *states = parts
  params, rest = map(nnx.to_pure_dict, states)

  def forward(params, x, rest):
    return nnx.merge(graph, params, rest)(x, **options)

  x = jax.ShapeDtypeStruct(shape, dtype)
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
