"""Attention: the forms it is computed in, and which one is chosen where.

All give the same values up to rounding.

plain: products and a softmax over the whole batch, differentiated by JAX. What
exports are made of.

auto: chosen by platform where the program is compiled. Only queries, keys,
values, the outcome and the logarithms of the sums are kept for the backward
pass, which computes the weights again: no (B, heads, N, N) numbers are stored.
On a CPU a few heads of one image at a time stay in the caches: that takes half
of the plain form's processor time, and a quarter where its temporaries come
fresh from the system (16 images of 273 tokens, 16 heads of 12 or 8 of 24). On
a TPU it is a kernel, which takes its arrays in another order: `uses_kernel`,
`attend_columns`.

fused: that kernel, or an error where there is none.
"""

import functools
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from tokenpose_jax.errors import InputError
from tokenpose_jax.models import devices

Arrays: TypeAlias = tuple[Array, ...]

# Bytes of logits at a time on a CPU: from a fourth of it on the time differs by
# less than a tenth.
_CHUNK = 5_000_000


def attend(
  qkv: Float[Array, "b n 3 h d"], scale: float, form: str
) -> Float[Array, "b n hd"]:
  """The mean of the values with the weights softmax(scale q k').

  Args:
    qkv: (B, N, 3, heads, width) queries, keys and values of N tokens.
    scale: of the logits.
    form: one of `config.ATTENTION`.

  Returns:
    (B, N, heads * width), the heads side by side.
  """
  if form == "plain":
    return _plain(qkv, scale)
  function = functools.partial(_recomputed, scale)
  mesh = jax.sharding.get_abstract_mesh()
  if not mesh.empty and mesh.size > 1:
    # A loop over images must not run over those of other devices.
    rows = PartitionSpec(mesh.axis_names)
    function = jax.shard_map(function, in_specs=rows, out_specs=rows)
  return function(qkv)


def uses_kernel(
  form: str, heads: int, width: int, tokens: int, dtype: DTypeLike
) -> bool:
  """Whether attention is `attend_columns` where the program is to run.

  Args:
    form: one of `config.ATTENTION`.
    heads: of the attention.
    width: of a head.
    tokens: N.
    dtype: of queries, keys and values.

  Raises:
    InputError: the form is "fused", and there is no kernel.
  """
  if form == "plain":
    return False
  kind = devices.kind()
  if kind.startswith("TPU"):
    # Pallas takes its time to import.
    from tokenpose_jax.models import attention_tpu

    if attention_tpu.supports(heads, width, tokens, dtype, kind):
      return True
  if form == "fused":
    raise InputError(
      "model.attention is 'fused', and there is no kernel for"
      f" {heads} heads of {width}, {tokens} tokens, in {jnp.dtype(dtype)} on"
      f" {kind}; take 'auto'"
    )
  return False


def attend_columns(
  q: Float[Array, "b h d n"],
  k: Float[Array, "b h d n"],
  v: Float[Array, "b h d n"],
) -> Float[Array, "b h d n"]:
  """As `attend`, with the tokens last, and by a kernel on a TPU.

  Args:
    q: (B, heads, width, N) queries, multiplied by the scale.
    k: (B, heads, width, N) keys.
    v: (B, heads, width, N) values.

  Returns:
    (B, heads, width, N), of v's type.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.size == 1:
    return _columns(q, k, v)
  rows = PartitionSpec(mesh.axis_names)
  # The check knows nothing of kernels.
  return jax.shard_map(
    _columns, in_specs=rows, out_specs=rows, check_vma=False
  )(q, k, v)


def weights(
  qkv: Float[Array, "b n 3 h d"], scale: float
) -> Float[Array, "b h n n"]:
  """Each query's weights of all keys, float32; arguments as for `attend`."""
  q, k, _ = jnp.moveaxis(qkv, (2, 3), (0, 2))
  return jax.nn.softmax(_logits(q * scale, k), axis=-1)


def _product(one: Array, other: Array) -> Array:
  return jnp.matmul(one, other, preferred_element_type=jnp.float32)


def _logits(q: Array, k: Array) -> Array:
  return _product(q, jnp.swapaxes(k, -1, -2))


def _plain(qkv: Array, scale: float) -> Array:
  # Heads in front: products that every compiler and every export knows.
  q, k, v = jnp.moveaxis(qkv, (2, 3), (0, 2))
  mixed, _ = _mix(q * scale, k, v)
  b, h, n, d = mixed.shape
  return jnp.swapaxes(mixed, 1, 2).reshape(b, n, h * d)


def _mix(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
  """(..., N, width) mixed values and (..., N, 1) logarithms of the sums."""
  # The softmax in float32, its division after the product with v: (n, d)
  # divisions a head instead of (n, n).
  logits = _logits(q, k)
  peak = jax.lax.stop_gradient(logits.max(-1, keepdims=True))
  shares = jnp.exp(logits - peak)
  total = shares.sum(-1, keepdims=True)
  return _product(shares.astype(v.dtype), v) / total, peak + jnp.log(total)


def _gradients(
  q: Array, k: Array, v: Array, log_sums: Array, mixed: Array, of_mixed: Array
) -> Arrays:
  """The gradients of q, k and v.

  Args:
    q: (..., N, width), multiplied by the scale.
    k: likewise, without a scale.
    v: likewise.
    log_sums: (..., N, 1) of `_mix`.
    mixed: (..., N, width) of `_mix`.
    of_mixed: (..., N, width) gradient of the mixed values.
  """
  wide, outcome = of_mixed.astype(jnp.float32), mixed.astype(jnp.float32)
  common = (wide * outcome).sum(-1, keepdims=True)
  shares = jnp.exp(_logits(q, k) - log_sums)
  of_logits = shares * (_logits(of_mixed, v) - common)
  of_logits, shares = of_logits.astype(q.dtype), shares.astype(v.dtype)
  return (
    _product(of_logits, k),
    _product(jnp.swapaxes(of_logits, -1, -2), q),
    _product(jnp.swapaxes(shares, -1, -2), of_mixed),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _recomputed(scale: float, qkv: Array) -> Array:
  return _keep(scale, qkv)[0]


def _keep(scale: float, qkv: Array) -> tuple[Array, Arrays]:
  mixed, log_sums = _by_platform(functools.partial(_forward, scale), qkv)
  b, n, _, h, d = qkv.shape
  return mixed.reshape(b, n, h * d), (qkv, mixed, log_sums)


def _back(scale: float, kept: Arrays, of_mixed: Array) -> Arrays:
  qkv, mixed, log_sums = kept
  function = functools.partial(_backward, scale)
  of_mixed = of_mixed.reshape(mixed.shape)
  return _by_platform(function, qkv, mixed, log_sums, of_mixed)


_recomputed.defvjp(_keep, _back)


def _by_platform(function: Callable[..., Arrays], *inputs: Array) -> Arrays:
  """A function of (B, ...) and `heads_at_once`, as is best where it runs."""
  n, _, heads, _ = inputs[0].shape[1:]
  fitting = max(1, _CHUNK // (4 * n * n))
  few = max(g for g in range(1, heads + 1) if not heads % g and g <= fitting)

  def by_image(*inputs: Array) -> Arrays:
    one = functools.partial(function, heads_at_once=few)
    return jax.lax.map(lambda arrays: one(*arrays), inputs)

  whole = functools.partial(function, heads_at_once=heads)
  return jax.lax.platform_dependent(*inputs, cpu=by_image, default=whole)


def _forward(scale: float, qkv: Array, *, heads_at_once: int) -> Arrays:
  """(..., N, heads, width) mixed values, (..., heads, N, 1) of the sums."""
  q, k, v = jnp.moveaxis(qkv, (-3, -2), (0, -3))
  mixed, log_sums = _some_heads(_mix, heads_at_once, q * scale, k, v)
  return jnp.swapaxes(mixed, -2, -3).astype(v.dtype), log_sums


def _backward(
  scale: float,
  qkv: Array,
  mixed: Array,
  log_sums: Array,
  of_mixed: Array,
  *,
  heads_at_once: int,
) -> Arrays:
  """(..., N, 3, heads, width) gradient of qkv."""
  q, k, v = jnp.moveaxis(qkv, (-3, -2), (0, -3))
  mixed, of_mixed = (jnp.swapaxes(x, -2, -3) for x in (mixed, of_mixed))
  inputs = (q * scale, k, v, log_sums, mixed, of_mixed)
  of_q, of_k, of_v = _some_heads(_gradients, heads_at_once, *inputs)
  found = jnp.stack([of_q * scale, of_k, of_v])
  return (jnp.moveaxis(found, (0, -3), (-3, -2)).astype(qkv.dtype),)


def _some_heads(
  function: Callable[..., Arrays], heads_at_once: int, *inputs: Array
) -> Arrays:
  """A function of (..., heads, N, width), heads by heads."""
  heads = inputs[0].shape[-3]
  if heads_at_once == heads:
    return function(*inputs)
  groups = [x.reshape(-1, heads_at_once, *x.shape[1:]) for x in inputs]
  outputs = jax.lax.map(lambda group: function(*group), tuple(groups))
  return tuple(x.reshape(heads, *x.shape[2:]) for x in outputs)


@jax.custom_vjp
def _columns(q: Array, k: Array, v: Array) -> Array:
  return _keep_columns(q, k, v)[0]


def _keep_columns(q: Array, k: Array, v: Array) -> tuple[Array, Arrays]:
  from tokenpose_jax.models import attention_tpu

  def elsewhere(*inputs: Array) -> Arrays:
    mixed, log_sums = _mix(*map(_turned, inputs))
    return _turned(mixed).astype(v.dtype), _turned(log_sums)

  mixed, log_sums = jax.lax.platform_dependent(
    q, k, v, tpu=attention_tpu.forward, default=elsewhere
  )
  return mixed, (q, k, v, mixed, log_sums)


def _back_columns(kept: Arrays, of_mixed: Array) -> Arrays:
  from tokenpose_jax.models import attention_tpu

  def elsewhere(*inputs: Array) -> Arrays:
    q, k, v, mixed, log_sums, of_mixed = map(_turned, inputs)
    found = _gradients(q, k, v, log_sums, mixed, of_mixed)
    return tuple(_turned(x).astype(q.dtype) for x in found)

  return jax.lax.platform_dependent(
    *kept, of_mixed, tpu=attention_tpu.backward, default=elsewhere
  )


_columns.defvjp(_keep_columns, _back_columns)


def _turned(x: Array) -> Array:
  return jnp.swapaxes(x, -1, -2)
