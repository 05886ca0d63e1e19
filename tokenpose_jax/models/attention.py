"""Attention: the forms it is computed in, and which one is chosen where.

All give the same values up to rounding. q, k and v are (B, heads, N, width),
q already multiplied by the scale of the logits.

plain: products and a softmax over the whole batch, differentiated by JAX. What
exports are made of.

auto: chosen where the program is compiled, by platform. Only q, k, v, the
outcome and the logarithms of the sums are kept for the backward pass, which
computes the weights again: (B, heads, N, N) numbers a block are not stored.
On a CPU a few heads of one image at a time stay in the caches: 16 images of
273 tokens, forward and backward, take 100 ms in place of 395 (16 heads of 12)
and 67 in place of 220 (8 of 24; two cores with AVX-512).
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

Arrays: TypeAlias = tuple[Array, ...]

# Bytes of logits at a time on a CPU: those of 4 heads of 273 tokens. From 1 to
# 16 heads the time differs by less than a fifth.
_CHUNK = 1_200_000


def attend(
  q: Float[Array, "b h n d"],
  k: Float[Array, "b h n d"],
  v: Float[Array, "b h n d"],
  form: str,
) -> Float[Array, "b h n d"]:
  """The mean of v with the weights softmax(q k').

  Args:
    q: (B, heads, N, width), multiplied by the scale.
    k: likewise, without a scale.
    v: likewise.
    form: one of `config.ATTENTION`.

  Returns:
    (B, heads, N, width), float32 or the type of v.
  """
  if form == "plain":
    return _plain(q, k, v)
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.size == 1:
    return _recomputed(q, k, v)
  # A loop over images must not run over those of other devices.
  rows = PartitionSpec(mesh.axis_names)
  return jax.shard_map(
    _recomputed, in_specs=(rows, rows, rows), out_specs=rows
  )(q, k, v)


def weights(
  q: Float[Array, "b h n d"], k: Float[Array, "b h n d"]
) -> Float[Array, "b h n n"]:
  """Each query's weights of all keys, float32; arguments as for `attend`."""
  return jax.nn.softmax(_logits(q, k), axis=-1)


def _logits(q: Array, k: Array) -> Array:
  return jnp.matmul(
    q, jnp.swapaxes(k, -1, -2), preferred_element_type=jnp.float32
  )


def _plain(q: Array, k: Array, v: Array) -> Array:
  # The softmax in float32, its division after the product with v: (b, n, d)
  # divisions instead of (b, heads, n, n).
  logits = _logits(q, k)
  peak = jax.lax.stop_gradient(logits.max(-1, keepdims=True))
  shares = jnp.exp(logits - peak)
  mixed = jnp.matmul(
    shares.astype(v.dtype), v, preferred_element_type=jnp.float32
  )
  return mixed / shares.sum(-1, keepdims=True)


@jax.custom_vjp
def _recomputed(q: Array, k: Array, v: Array) -> Array:
  return _by_platform(_forward, q, k, v)[0]


def _keep(q: Array, k: Array, v: Array) -> tuple[Array, Arrays]:
  mixed, log_sums = _by_platform(_forward, q, k, v)
  return mixed, (q, k, v, mixed, log_sums)


def _gradients(kept: Arrays, of_mixed: Array) -> Arrays:
  return _by_platform(_backward, *kept, of_mixed)


_recomputed.defvjp(_keep, _gradients)


def _by_platform(function: Callable[..., Arrays], *inputs: Array) -> Arrays:
  return jax.lax.platform_dependent(
    *inputs,
    cpu=lambda *arrays: _in_chunks(function, arrays),
    default=function,
  )


def _in_chunks(function: Callable[..., Arrays], inputs: Any) -> Arrays:
  """The function on a few heads of an image at a time."""
  b, heads, n, _ = inputs[0].shape
  fitting = max(1, _CHUNK // (4 * n * n))
  group = max(g for g in range(1, heads + 1) if not heads % g and g <= fitting)
  chunks = [x.reshape(-1, group, *x.shape[2:]) for x in inputs]
  outputs = jax.lax.map(lambda chunk: function(*chunk), tuple(chunks))
  return tuple(x.reshape(b, heads, *x.shape[2:]) for x in outputs)


def _forward(q: Array, k: Array, v: Array) -> Arrays:
  """(the mixed values, (..., n, 1) logarithms of the sums), float32."""
  logits = _logits(q, k)
  peak = logits.max(-1, keepdims=True)
  shares = jnp.exp(logits - peak)
  total = shares.sum(-1, keepdims=True)
  mixed = jnp.matmul(
    shares.astype(v.dtype), v, preferred_element_type=jnp.float32
  )
  return (mixed / total).astype(v.dtype), peak + jnp.log(total)


def _backward(
  q: Array, k: Array, v: Array, mixed: Array, log_sums: Array, of_mixed: Array
) -> Arrays:
  """The gradients of q, k and v."""

  def product(one: Array, other: Array) -> Array:
    return jnp.matmul(one, other, preferred_element_type=jnp.float32)

  shares = jnp.exp(_logits(q, k) - log_sums)
  wide, outcome = of_mixed.astype(jnp.float32), mixed.astype(jnp.float32)
  common = (wide * outcome).sum(-1, keepdims=True)
  of_shares = product(of_mixed, jnp.swapaxes(v, -1, -2))
  of_logits = (shares * (of_shares - common)).astype(q.dtype)
  shares = shares.astype(v.dtype)
  return (
    product(of_logits, k).astype(q.dtype),
    product(jnp.swapaxes(of_logits, -1, -2), q).astype(k.dtype),
    product(jnp.swapaxes(shares, -1, -2), of_mixed).astype(v.dtype),
  )
