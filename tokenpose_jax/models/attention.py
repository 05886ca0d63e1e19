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
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from tokenpose_jax.errors import InputError
from tokenpose_jax.models import devices

Arrays: TypeAlias = tuple[Array, ...]

# Bytes of logits at a time on a CPU: from a fourth of it on the time differs by
# less than a tenth.
_CHUNK = 10_000_000
# Bytes of logits up to which images are taken together: a turn of the loop
# costs more than 21 tokens do.
_SMALL = 1_000_000


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
  return devices.on_each(functools.partial(_recomputed, scale), qkv)


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
  # The check knows nothing of kernels.
  return devices.on_each(_columns, q, k, v, check=False)


def weights(
  qkv: Float[Array, "b n 3 h d"], scale: float
) -> Float[Array, "b h n n"]:
  """Each query's weights of all keys, float32; arguments as for `attend`."""
  q, k, _ = jnp.moveaxis(qkv, (2, 3), (0, 2))
  logits = _product(q * scale, jnp.swapaxes(k, -1, -2))
  return jax.nn.softmax(logits, axis=-1)


def received(
  q: Float[Array, "b k h d"], keys: Float[Array, "b n h d"], scale: float
) -> Float[Array, "b n"]:
  """The weights that some queries give to each key, float32.

  Args:
    q: (B, K, heads, width) queries.
    keys: (B, N, heads, width).
    scale: of the logits.

  Returns:
    (B, N), the mean over the heads of the sum over the queries.
  """
  logits = _product(jnp.moveaxis(q * scale, 1, 2), jnp.moveaxis(keys, 1, 3))
  return jax.nn.softmax(logits, axis=-1).mean(1).sum(1)


def _product(one: Array, other: Array) -> Array:
  return jnp.matmul(one, other, preferred_element_type=jnp.float32)


def _plain(qkv: Array, scale: float) -> Array:
  # Heads in front: products that every compiler and every export knows.
  q, k, v = jnp.moveaxis(qkv, (2, 3), (0, 2))
  # The softmax in float32, its division after the product with v: (n, d)
  # divisions a head instead of (n, n).
  logits = _product(q * scale, jnp.swapaxes(k, -1, -2))
  shares = jnp.exp(
    logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True))
  )
  total = shares.sum(-1, keepdims=True)
  mixed = _product(shares.astype(v.dtype), v) / total
  b, h, n, d = mixed.shape
  return jnp.swapaxes(mixed, 1, 2).reshape(b, n, h * d)


def _mix(q: Array, rows_of_k: Array, v: Array) -> Arrays:
  """(..., width, N) mixed values and (..., 1, N) logarithms of the sums.

  A column of the logits is a query's: so no product here or of the gradients
  has to turn an (N, N) matrix. Small ones are given in the order that their
  product takes: on a CPU both together take a fifth off the time.

  Args:
    q: (..., width, N), multiplied by the scale.
    rows_of_k: (..., N, width).
    v: (..., width, N).
  """
  logits = _product(rows_of_k, q)
  peak = logits.max(-2, keepdims=True)
  shares = jnp.exp(logits - peak)
  total = shares.sum(-2, keepdims=True)
  return _product(v, shares.astype(v.dtype)) / total, peak + jnp.log(total)


def _gradients(
  q: Array,
  k: Array,
  of_mixed: Array,
  rows_of_q: Array,
  rows_of_k: Array,
  rows_of_v: Array,
  rows_of_mixed: Array,
  log_sums: Array,
  common: Array,
) -> Arrays:
  """The gradients of q in columns, of k and v in rows.

  Args:
    q: (..., width, N), multiplied by the scale.
    k: likewise, without a scale.
    of_mixed: (..., width, N) gradient of the mixed values.
    rows_of_q: (..., N, width).
    rows_of_k: (..., N, width).
    rows_of_v: (..., N, width).
    rows_of_mixed: (..., N, width) the same.
    log_sums: (..., 1, N) of `_mix`.
    common: (..., 1, N) products of the mixed values with their gradients.
  """
  shares = jnp.exp(_product(rows_of_k, q) - log_sums)
  of_logits = shares * (_product(rows_of_v, of_mixed) - common)
  of_logits, shares = of_logits.astype(q.dtype), shares.astype(q.dtype)
  return (
    _product(k, of_logits),
    _product(of_logits, rows_of_q),
    _product(shares, rows_of_mixed),
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
  # Not within the loop: XLA would make one slow call of it and a product.
  common = _columns_of(_common(mixed, of_mixed, -1))
  return _by_platform(function, qkv, log_sums, of_mixed, common)


def _common(mixed: Array, of_mixed: Array, axis: int) -> Array:
  """`common` of `_gradients`; the axis is that of the width."""
  one, other = mixed.astype(jnp.float32), of_mixed.astype(jnp.float32)
  return (one * other).sum(axis, keepdims=True)


_recomputed.defvjp(_keep, _back)


def _by_platform(function: Callable[..., Arrays], *inputs: Array) -> Arrays:
  """A function of (B, ...) and `heads_at_once`, as is best where it runs."""
  n, _, heads, _ = inputs[0].shape[1:]
  fitting = max(1, _CHUNK // (4 * n * n))
  images = _SMALL // (4 * n * n * heads)
  few = max(g for g in range(1, heads + 1) if not heads % g and g <= fitting)

  def by_image(*inputs: Array) -> Arrays:
    one = functools.partial(function, heads_at_once=few)
    together = images if images > 1 else None
    return jax.lax.map(lambda arrays: one(*arrays), inputs, batch_size=together)

  whole = functools.partial(function, heads_at_once=heads)
  return jax.lax.platform_dependent(*inputs, cpu=by_image, default=whole)


def _columns_of(x: Array) -> Array:
  """(..., N, heads, width) as (..., heads, width, N)."""
  return jnp.moveaxis(x, -3, -1)


def _rows_of(x: Array) -> Array:
  """(..., N, heads, width) as (..., heads, N, width)."""
  return jnp.swapaxes(x, -2, -3)


def _forward(scale: float, qkv: Array, *, heads_at_once: int) -> Arrays:
  """(..., N, heads, width) mixed values, (..., heads, 1, N) of the sums."""
  q, k, v = jnp.moveaxis(qkv, -3, 0)
  inputs = _columns_of(q * scale), _rows_of(k), _columns_of(v)
  mixed, log_sums = _some_heads(_mix, heads_at_once, *inputs)
  return jnp.moveaxis(mixed, -1, -3).astype(v.dtype), log_sums


def _backward(
  scale: float,
  qkv: Array,
  log_sums: Array,
  of_mixed: Array,
  common: Array,
  *,
  heads_at_once: int,
) -> Arrays:
  """(..., N, 3, heads, width) gradient of qkv."""
  q, k, v = jnp.moveaxis(qkv, -3, 0)
  q *= scale
  inputs = (
    *map(_columns_of, (q, k, of_mixed)),
    *map(_rows_of, (q, k, v, of_mixed)),
    *(log_sums, common),
  )
  of_q, of_k, of_v = _some_heads(_gradients, heads_at_once, *inputs)
  found = [jnp.moveaxis(of_q * scale, -1, -3), _rows_of(of_k), _rows_of(of_v)]
  return (jnp.stack(found, axis=-3).astype(qkv.dtype),)


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
    q, k, v = inputs
    mixed, log_sums = _mix(q, _turned(k), v)
    return mixed.astype(v.dtype), log_sums

  mixed, log_sums = jax.lax.platform_dependent(
    q, k, v, tpu=attention_tpu.forward, default=elsewhere
  )
  return mixed, (q, k, v, mixed, log_sums)


def _back_columns(kept: Arrays, of_mixed: Array) -> Arrays:
  from tokenpose_jax.models import attention_tpu

  def elsewhere(*inputs: Array) -> Arrays:
    q, k, v, mixed, log_sums, of_mixed = inputs
    rows = map(_turned, (q, k, v, of_mixed))
    common = _common(mixed, of_mixed, -2)
    needed: Arrays = (q, k, of_mixed, *rows, log_sums, common)
    of_q, of_k, of_v = _gradients(*needed)
    found = of_q, _turned(of_k), _turned(of_v)
    return tuple(x.astype(q.dtype) for x in found)

  return jax.lax.platform_dependent(
    *kept, of_mixed, tpu=attention_tpu.backward, default=elsewhere
  )


_columns.defvjp(_keep_columns, _back_columns)


def _turned(x: Array) -> Array:
  return jnp.swapaxes(x, -1, -2)
