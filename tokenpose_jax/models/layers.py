"""Layers shared by the backbones and the Transformer.

Every number that decides results is written out here, with its source, even
where it equals today's default of a library: defaults differ silently.
"""

import dataclasses
import functools
import types
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from tokenpose_jax.models import (
  attention,
  convolution,
  devices,
  initial,
  packing,
)

# reference 2.7: linear weights and tokens have standard deviation 0.02. The
# original implementation cuts them at +-2 absolute (100 standard deviations),
# which never bites.
LINEAR_STD = 0.02
CONV_STD = 0.001
LINEAR_INIT = initial.normal(LINEAR_STD)
CONV_INIT = initial.normal(CONV_STD)

# Flax's layers ask for keys, which `initial` has no use for.
_NO_KEYS: Any = types.SimpleNamespace(params=lambda: None)

LAYER_NORM_EPS = 1e-5  # reference 2.4; Flax's default is 1e-6.
BATCH_NORM_EPS = 1e-5  # reference 2.4
BATCH_NORM_MOMENTUM = 0.9  # reference 2.4: keeps 0.9 of the old value

Captured = dict[str, Array]
"""Filled by a forward pass: intermediate values by name.

Under `jax.jit` what nobody reads is never computed.
"""


@dataclasses.dataclass(frozen=True)
class Training:
  """How a forward pass is one of a training: given as `train` for True.

  Attributes:
    replicas: equal parts of the batch that batch norm normalizes each by
      itself, those of the devices; 1: the batch as a whole.
    remat: blocks keep no inner values for the backward pass, which computes
      them again.
    frozen: first stages of a pretrained backbone that are evaluated only.
  """

  replicas: int = 1
  remat: bool = False
  frozen: int = 0

  @classmethod
  def of(cls, train: "Train") -> "Training":
    """The fields, also of a plain True or False."""
    return train if isinstance(train, cls) else cls()


Train: TypeAlias = bool | Training
"""False: evaluation; True: a training as by default."""


def run(block: Any, *inputs: Any, remat: bool, **options: Any) -> Any:
  """Calls a block of a network; equal ones are traced once for a training.

  HRNet's 56 basic blocks are of three kinds: a training step of B is traced and
  lowered in three fifths of the time so.

  Args:
    block: a module.
    *inputs: arrays, or lists of arrays.
    remat: as in `Training`.
    **options: of the call, no arrays.
  """
  if not options.get("train", True):
    return block(*inputs, **options)
  graph, state = nnx.split(block)
  # What the trace depends on besides, and JAX does not know of.
  how = (packing.used(), devices.kind(), remat, tuple(options.items()))
  outputs, statistics = _called(
    graph, how, nnx.to_pure_dict(state), list(inputs)
  )
  nnx.update(block, statistics)
  return outputs


@functools.partial(jax.jit, static_argnums=(0, 1))
def _called(
  graph: nnx.GraphDef, how: tuple, values: Any, inputs: list[Any]
) -> tuple[Any, Any]:
  """What a block of these values returns, and its new statistics."""
  *_, remat, options = how

  def call(values: Any, inputs: list[Any]) -> tuple[Any, Any]:
    module: Any = nnx.merge(graph, values)
    outputs = module(*inputs, **dict(options))
    return outputs, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))

  return (jax.checkpoint(call) if remat else call)(values, inputs)


def linear(
  inputs: int,
  outputs: int,
  *,
  dtype: DTypeLike = jnp.float32,
  use_bias: bool = True,
  std: float = LINEAR_STD,
) -> nnx.Linear:
  """A linear layer initialized as in reference 2.7; parameters stay float32."""
  return nnx.Linear(
    inputs,
    outputs,
    use_bias=use_bias,
    kernel_init=initial.normal(std),
    bias_init=initial.zeros,
    dtype=dtype,
    param_dtype=jnp.float32,
    rngs=_NO_KEYS,
  )


def layer_norm(size: int, *, dtype: DTypeLike) -> nnx.LayerNorm:
  """A layer norm with the paper code's epsilon; statistics in float32."""
  return nnx.LayerNorm(
    size,
    epsilon=LAYER_NORM_EPS,
    # E[x^2] - E[x]^2 loses digits where the mean is large against the spread.
    use_fast_variance=False,
    scale_init=initial.ones,
    bias_init=initial.zeros,
    dtype=dtype,
    param_dtype=jnp.float32,
    rngs=_NO_KEYS,
  )


class BatchNorm(nnx.Module):
  """Batch normalization over all but the last axis, as in reference 2.4.

  Own code because the running variance takes the *unbiased* batch variance
  (n / (n - 1)); `nnx.BatchNorm` takes the biased one. Under `jax.jit` with the
  batch sharded over devices the statistics are those of the global batch,
  unless `Training.replicas` asks for each device's own. The running statistics
  then take the mean over devices, where the original implementation keeps
  those of its first one.
  """

  def __init__(
    self, size: int, *, dtype: DTypeLike, epsilon: float = BATCH_NORM_EPS
  ):
    self.epsilon = epsilon
    self.scale = nnx.Param(initial.ones(None, (size,), jnp.float32))
    self.bias = nnx.Param(initial.zeros(None, (size,), jnp.float32))
    self.mean = nnx.BatchStat(initial.zeros(None, (size,), jnp.float32))
    self.var = nnx.BatchStat(initial.ones(None, (size,), jnp.float32))
    # Without effect; PyTorch counts too, and its files keep the count.
    self.count = nnx.BatchStat(initial.zeros(None, (), jnp.int32))
    self.dtype = dtype

  def __call__(
    self, x: Float[Array, "*axes c"], *, train: Train, repeated: int = 1
  ) -> Float[Array, "*axes c"]:
    """Normalizes (..., C); in training by the batch, updating statistics.

    Args:
      x: the values; on TPUs a map may be packed (packing.py).
      train: how the network is trained.
      repeated: how often x has every value, which counts once.
    """
    shape, replicas = x.shape, Training.of(train).replicas
    if replicas > 1:
      x = x.reshape(replicas, -1, *shape[1:])
    scale, bias = _as_channels(x, self.scale), _as_channels(x, self.bias)
    if train:
      axes = tuple(range(x.ndim - len(shape), x.ndim - 1))
      near = _as_channels(x, self.mean)
      y, mean, var = _normalize(axes, self.epsilon, x, scale, bias, near)
      count = x.size // mean.size // repeated
      unbiased = var * (count / max(count - 1, 1))
      # Not `self.mean[...] = `: that asks a traced value for its sharding,
      # which took HRNet's tracing from 2 seconds to 20.
      self.mean.set_value(_moved(self.mean, mean))
      self.var.set_value(_moved(self.var, unbiased))
      self.count.set_value(self.count[...] + 1)
    else:
      moments = _as_channels(x, self.mean), _as_channels(x, self.var)
      y = _scaled(x, self.epsilon, scale, bias, *moments)
    y = y.astype(self.dtype)
    return y if replicas == 1 else y.reshape(shape)


def _scaled(
  x: Array, epsilon: float, scale: Array, bias: Array, mean: Array, var: Array
) -> Array:
  gain = scale * jax.lax.rsqrt(var + epsilon)
  return x * _as_packed(x, gain) + _as_packed(x, bias - mean * gain)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _normalize(
  axes: tuple[int, ...],
  epsilon: float,
  x: Array,
  scale: Array,
  bias: Array,
  near: Array,
) -> tuple[Array, Array, Array]:
  """Values normalized over axes, their mean and their variance.

  The gradient is written out, that of the values alone. What JAX derives has
  twice the operations: a second at every start of B, and steps no faster.

  Args:
    axes: of `_moments`.
    epsilon: added to the variance.
    x: of any type.
    scale: of each channel.
    bias: likewise.
    near: of `_moments`.
  """
  return _keep_normalized(axes, epsilon, x, scale, bias, near)[0]


def _keep_normalized(
  axes: tuple[int, ...],
  epsilon: float,
  x: Array,
  scale: Array,
  bias: Array,
  near: Array,
) -> tuple[tuple[Array, Array, Array], tuple[Array, ...]]:
  mean, var = _moments(x, axes, near)
  y = _scaled(x, epsilon, scale, bias, mean, var)
  return (y, mean, var), (x, scale, mean, var)


def _of_normalized(
  axes: tuple[int, ...],
  epsilon: float,
  kept: tuple[Array, ...],
  gradients: tuple[Array, Array, Array],
) -> tuple[Array, Array, Array, None]:
  x, scale, mean, var = kept
  of_y = gradients[0].astype(jnp.float32)
  wide, count = x.astype(jnp.float32), x.size // mean.size
  spread = jax.lax.rsqrt(var + epsilon)
  of_bias = _mean_of(of_y, axes, scale.size)
  of_scale = _mean_of(of_y * (wide - _as_packed(x, mean)), axes, scale.size)
  of_scale = of_scale * spread
  # Ioffe and Szegedy, 2015, section 3: of_y without its mean and without its
  # part along the normalized x.
  gain, slope = scale * spread, -scale * jnp.square(spread) * of_scale
  shift = -gain * of_bias - slope * mean
  of_x = of_y * _as_packed(x, gain)
  of_x = of_x + wide * _as_packed(x, slope) + _as_packed(x, shift)
  # Replicas have moments of their own, and the parameters in common.
  of_scale, of_bias = (
    count * values.reshape(-1, scale.size).sum(0).reshape(scale.shape)
    for values in (of_scale, of_bias)
  )
  return of_x.astype(x.dtype), of_scale, of_bias, None


_normalize.defvjp(_keep_normalized, _of_normalized)


def _mean_of(x: Array, axes: tuple[int, ...], channels: int) -> Array:
  """(..., c) means over axes of (..., pixels * c)."""
  means = x.mean(axes, keepdims=True)
  if means.shape[-1] == channels:
    return means
  return means.reshape(*means.shape[:-1], -1, channels).mean(-2)


def _moments(
  x: Float[Array, "*axes _c"], axes: tuple[int, ...], near: Array
) -> tuple[Array, Array]:
  """Mean and biased variance over axes, float32.

  Args:
    x: of any type.
    axes: that are kept with size 1.
    near: the mean, as far as it is known before.
  """

  wide = x.astype(jnp.float32)
  if x.dtype == jnp.float32:
    mean = _mean_of(wide, axes, near.size)
    apart = jnp.square(wide - _as_packed(x, mean))
    return mean, _mean_of(apart, axes, near.size)
  # Both sums at once: a TPU makes them within the convolution that makes x, and
  # the gradient has a sum less (S-v1: 16 % of a step's cycles). A difference of
  # squares loses digits where `near` is many standard deviations off: in the
  # first steps at most, and float32 has many more than x.
  wide = wide - _as_packed(x, near)
  mean, square = (
    _mean_of(values, axes, near.size) for values in (wide, jnp.square(wide))
  )
  return near + mean, jnp.maximum(square - jnp.square(mean), 0)


def _moved(running: nnx.Variable, batch: Float[Array, "*axes c"]) -> Array:
  """Running statistics after those of a batch, or of its replicas."""
  old = running[...]
  new = batch.ravel()
  if new.size > old.size:
    new = new.reshape(-1, old.size).mean(0)
  return BATCH_NORM_MOMENTUM * old + (1 - BATCH_NORM_MOMENTUM) * new


def _as_channels(x: Array, values: nnx.Variable) -> Array:
  """One value a channel, shaped to be combined with x."""
  return values[...].reshape((1,) * (x.ndim - 1) + (-1,))


def _as_packed(x: Array, values: Array) -> Array:
  """Values of the channels, for each pixel in those of x."""
  pixels = x.shape[-1] // values.shape[-1]
  return values if pixels == 1 else jnp.tile(values, pixels)


class Conv(nnx.Module):
  """Convolution without bias, on maps (B, H, W, C).

  Pads half a kernel on all four sides, also with stride 2: "SAME" would pad
  only right and below there (reference 2.4).
  """

  def __init__(
    self,
    inputs: int,
    outputs: int,
    *,
    kernel: int,
    stride: int,
    dtype: DTypeLike,
  ):
    shape = (kernel, kernel, inputs, outputs)
    self.kernel = nnx.Param(CONV_INIT(None, shape, jnp.float32))
    self.stride = stride
    self.dtype = dtype

  def __call__(
    self, x: Float[Array, "b h w c"], *, train: Train = False, widen: int = 1
  ) -> Float[Array, "b _h _w _c"]:
    """Maps (B, H, W, inputs) to (B, H / stride, W / stride, outputs).

    On TPUs both may be packed (packing.py).

    Args:
      x: the map.
      train: how the network is trained.
      widen: how often every pixel made is repeated along its row; packed only.
    """
    kernel = self.kernel[...].astype(self.dtype)
    size, _, inputs, outputs = kernel.shape
    given = x.shape[-1] // inputs
    step, sides = self.stride, (size // 2, size // 2)
    if packing.used():
      width = x.shape[2] * given // self.stride * widen
      kernel, step, sides = packing.kernel(
        kernel,
        stride=self.stride,
        widen=widen,
        inputs=given,
        # As many as a block given makes, or more: steps are whole blocks.
        outputs=max(
          packing.pixels(outputs, width), given * widen // self.stride
        ),
      )
    if kernel.shape[:2] == (1, 1) and self.stride == step == 1:
      # The same as one product of matrices. XLA does not see that on a CPU:
      # the convolution's gradient takes two to three times as long, and so
      # does that of a product with x's four axes.
      flat = x.reshape(-1, x.shape[-1]) @ kernel[0, 0]
      return flat.reshape(*x.shape[:-1], -1)
    if train and inputs >= convolution.LEAST and devices.kind() == "cpu":
      return convolution.convolve(x, kernel, self.stride)
    above = (size // 2, size // 2)
    return convolution.plain(x, kernel, (self.stride, step), (above, sides))


class ConvNorm(nnx.Module):
  """Convolution, then batch norm."""

  def __init__(
    self,
    inputs: int,
    outputs: int,
    *,
    kernel: int,
    stride: int = 1,
    dtype: DTypeLike = jnp.float32,
    epsilon: float = BATCH_NORM_EPS,
  ):
    self.conv = Conv(inputs, outputs, kernel=kernel, stride=stride, dtype=dtype)
    self.norm = BatchNorm(outputs, dtype=dtype, epsilon=epsilon)

  def __call__(
    self, x: Float[Array, "b h w c"], *, train: Train, widen: int = 1
  ) -> Float[Array, "b _h _w _c"]:
    """As the convolution."""
    return self.norm(
      self.conv(x, train=train, widen=widen), train=train, repeated=widen
    )


def _on_cpu(form: str) -> bool:
  """Whether a form of `attention` may be what is fastest on a CPU."""
  return form != "plain" and devices.kind() == "cpu"


def _project(
  layer: nnx.Linear, x: Float[Array, "b n c"], form: str
) -> Float[Array, "b n _c"]:
  """A linear layer of each token.

  On a CPU by rows of one matrix: with two axes of rows the product for the
  kernel's gradient copies x and what comes back, which takes a third of its
  time. On a TPU the rows of other images share no tile, so it costs copies.
  """
  if not _on_cpu(form):
    return layer(x)
  return layer(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)


def _gelu(x: Array, form: str) -> Array:
  """The exact GELU.

  JAX's is by erfc, which keeps the digits of its far left tail, below 1e-6, and
  takes a CPU four times as long. An export has it too: TensorFlow knows no erf.
  """
  if not _on_cpu(form):
    return jax.nn.gelu(x, approximate=False)
  wide = x.astype(jnp.float32)
  return (0.5 * wide * (1 + jax.lax.erf(wide * 0.5**0.5))).astype(x.dtype)


class Attention(nnx.Module):
  """Multi-head self-attention over all tokens (reference 2.4).

  Attributes:
    scale: what the logits are multiplied by. S uses width**-0.5, the others
      (width / heads)**-0.5: "scale quirk" in reference 2.4.
    form: of the computation (`attention.attend`).
  """

  def __init__(
    self,
    dim: int,
    heads: int,
    scale: float,
    *,
    form: str,
    dtype: DTypeLike,
  ):
    self.heads = heads
    self.scale = scale
    self.form = form
    self.dtype = dtype
    self.to_qkv = linear(dim, 3 * dim, use_bias=False, dtype=dtype)
    self.to_out = linear(dim, dim, dtype=dtype)

  def __call__(
    self,
    x: Float[Array, "b n d"],
    captured: Captured | None,
    name: str,
  ) -> Float[Array, "b n d"]:
    """Maps tokens (B, N, dim) to the same shape; captures `attention.NAME`."""
    b, n, d = x.shape
    qkv = _project(self.to_qkv, x, self.form)
    qkv = qkv.reshape(b, n, 3, self.heads, d // self.heads)
    if captured is not None:
      captured[f"attention.{name}"] = attention.weights(qkv, self.scale)
    shape = (self.heads, d // self.heads, n)
    if attention.uses_kernel(self.form, *shape, self.dtype):
      return self._by_columns(x)
    mixed = attention.attend(qkv, self.scale, self.form)
    return _project(self.to_out, mixed.astype(self.dtype), self.form)

  def received(
    self, x: Float[Array, "b n d"], rows: int
  ) -> Float[Array, "b n"]:
    """The weights that the first tokens give to each one (`received`).

    Args:
      x: (B, N, dim) tokens.
      rows: how many are the first.
    """
    d = x.shape[-1]
    x = x.astype(self.dtype)
    kernel = self.to_qkv.kernel[...].astype(self.dtype)
    kernel = kernel.reshape(d, 3, self.heads, d // self.heads)
    q = jnp.einsum("bnc,chd->bnhd", x[:, :rows], kernel[:, 0])
    keys = jnp.einsum("bnc,chd->bnhd", x, kernel[:, 1])
    return attention.received(q, keys, self.scale)

  def _by_columns(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
    """The same, each projection made in the order that the kernel takes.

    Brought into it afterwards, they are copied: on a TPU v5e 11 thousand cycles
    for a block of T and an image, as many as the kernels take.
    """
    d = x.shape[-1]
    x = x.astype(self.dtype)
    to_qkv = self.to_qkv.kernel[...].astype(self.dtype)
    to_qkv = to_qkv.reshape(d, 3, self.heads, d // self.heads)
    q, k, v = (jnp.einsum("bnc,chd->bhdn", x, to_qkv[:, i]) for i in range(3))
    mixed = attention.attend_columns(q * self.scale, k, v)
    to_out = self.to_out.kernel[...].astype(self.dtype)
    to_out = to_out.reshape(self.heads, d // self.heads, d)
    y = jnp.einsum("bhdn,hdc->bnc", mixed, to_out)
    assert self.to_out.bias is not None  # `linear` makes one.
    return y + self.to_out.bias[...].astype(self.dtype)[None, None]


class Block(nnx.Module):
  """A pre-norm Transformer block: x + Attn(LN(x)), then x + MLP(LN(x))."""

  def __init__(
    self,
    dim: int,
    heads: int,
    scale: float,
    mlp_dim: int,
    *,
    form: str,
    dtype: DTypeLike,
  ):
    self.norm1 = layer_norm(dim, dtype=dtype)
    self.attention = Attention(dim, heads, scale, form=form, dtype=dtype)
    self.norm2 = layer_norm(dim, dtype=dtype)
    self.mlp_in = linear(dim, mlp_dim, dtype=dtype)
    self.mlp_out = linear(mlp_dim, dim, dtype=dtype)

  def __call__(
    self,
    x: Float[Array, "b n d"],
    captured: Captured | None,
    name: str,
  ) -> Float[Array, "b n d"]:
    """Maps tokens (B, N, dim) to the same shape; captures `block.NAME`."""
    x = x + self.attention(self.norm1(x), captured, name)
    form = self.attention.form
    hidden = _gelu(_project(self.mlp_in, self.norm2(x), form), form)
    x = x + _project(self.mlp_out, hidden, form)
    if captured is not None:
      captured[f"block.{name}"] = x
    return x

  def received(
    self, x: Float[Array, "b n d"], rows: int
  ) -> Float[Array, "b n"]:
    """The weights that the first tokens give to each one in this block.

    Args:
      x: (B, N, dim) what the block is given.
      rows: how many are the first.

    Returns:
      (B, N), the mean over the heads of the sum over the first tokens.
    """
    return self.attention.received(self.norm1(x), rows)
