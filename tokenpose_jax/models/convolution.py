"""Convolutions: XLA's own, and for CPUs others.

`convolve` has another gradient of the kernel, `depthwise` is its own.

XLA makes the gradient of a kernel a convolution of transposed maps. On its way
it computes what a map is made of once more for the copy, in strides: through
HRNet's shortcuts that is the whole branch, and a third of a training step. Its
convolution then runs on one core. Here the gradient is products of matrices
over a few images at a time, which read the map as it is: steps of B take 0.8 of
the time.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tokenpose_jax.models import devices

# Channels of a map: for 16 XLA's gradient takes two thirds of the time.
LEAST = 32
# Bytes of maps at a time: a quarter or four times as much is slower by a third.
_CHUNK = 1_600_000


def plain(
  x: Float[Array, "b h w i"],
  kernel: Float[Array, "kh kw i o"],
  strides: tuple[int, int],
  padding: Sequence[tuple[int, int]],
) -> Float[Array, "b _h _w o"]:
  """XLA's.

  Args:
    x: maps.
    kernel: of x's type.
    strides: down and along rows.
    padding: above and below, before and after rows.
  """
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    window_strides=strides,
    padding=padding,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )


def convolve(
  x: Float[Array, "b h w i"], kernel: Float[Array, "k k i o"], stride: int
) -> Float[Array, "b _h _w o"]:
  """Half of the kernel is padded on all four sides.

  Args:
    x: maps.
    kernel: of an odd size, of x's type.
    stride: a divisor of h and w.

  Returns:
    (B, h / stride, w / stride, o).
  """
  function = functools.partial(_convolve, stride)
  return devices.on_each(function, x, whole=(kernel,), check=False)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve(stride: int, x: Array, kernel: Array) -> Array:
  return _forward(x, kernel, stride)


def _forward(x: Array, kernel: Array, stride: int) -> Array:
  half = kernel.shape[0] // 2
  return plain(x, kernel, (stride, stride), ((half, half), (half, half)))


def _keep(
  stride: int, x: Array, kernel: Array
) -> tuple[Array, tuple[Array, Array]]:
  return _forward(x, kernel, stride), (x, kernel)


def _back(
  stride: int, kept: tuple[Array, Array], of_y: Array
) -> tuple[Array, Array]:
  x, kernel = kept
  _, back = jax.vjp(lambda x: _forward(x, kernel, stride), x)
  return *back(of_y), _of_kernel(x, of_y, kernel.shape[0], stride)


_convolve.defvjp(_keep, _back)


def _of_kernel(x: Array, of_y: Array, size: int, stride: int) -> Array:
  """The kernel's gradient."""
  b, h, w, inputs = x.shape
  most = max(1, _CHUNK // (h * w * inputs * x.dtype.itemsize))
  few = max(n for n in range(1, b + 1) if not b % n and n <= most)
  half, outputs = size // 2, of_y.shape[-1]

  def more(found: Array, some: tuple[Array, ...]) -> tuple[Array, None]:
    x, of_y = some
    x = jnp.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
    # A row's neighbors side by side: one product for each row of the kernel.
    beside = jnp.concatenate(
      [x[:, :, i : i + w : stride] for i in range(size)], axis=-1
    )
    rows = of_y.reshape(-1, outputs)
    products = [
      jax.lax.dot_general(
        beside[:, i : i + h : stride].reshape(-1, size * inputs),
        rows,
        (((0,), (0,)), ((), ())),
        preferred_element_type=jnp.float32,
      )
      for i in range(size)
    ]
    return found + jnp.stack(products), None

  groups = tuple(a.reshape(-1, few, *a.shape[1:]) for a in (x, of_y))
  zeros = jnp.zeros((size, size * inputs, outputs), jnp.float32)
  found, _ = jax.lax.scan(more, zeros, groups)
  return found.reshape(size, size, inputs, outputs).astype(x.dtype)


def depthwise(
  x: Float[Array, "b h w c"], kernel: Float[Array, "k k 1 c"], stride: int
) -> Float[Array, "b _h _w c"]:
  """Each channel with a kernel of its own, an image at a time, for CPUs.

  XLA's takes hundreds of times as long as its multiply-adds. Pads as
  TensorFlow's "SAME": with stride 2 less above and before than below and after.

  Args:
    x: maps.
    kernel: of an odd size, of x's type.
    stride: a divisor of h and w, smaller than the kernel's size.

  Returns:
    (B, h / stride, w / stride, c).
  """
  function = functools.partial(_depthwise, stride)
  return devices.on_each(function, x, whole=(kernel,), check=False)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _depthwise(stride: int, x: Array, kernel: Array) -> Array:
  size = kernel.shape[0]
  taps = kernel.reshape(size * size, 1, 1, -1).astype(jnp.float32)
  height, width = (side // stride for side in x.shape[1:3])

  def convolved(image: Array) -> Array:
    around = _around(image.astype(jnp.float32), size, stride)
    seen = _shifted(around, size, stride, height, width)
    made = sum(tap * part for tap, part in zip(taps, seen, strict=True))
    return made.astype(x.dtype)

  return jax.lax.map(convolved, x)


def _keep_depthwise(
  stride: int, x: Array, kernel: Array
) -> tuple[Array, tuple[Array, Array]]:
  return _depthwise(stride, x, kernel), (x, kernel)


def _back_depthwise(
  stride: int, kept: tuple[Array, Array], of_y: Array
) -> tuple[Array, Array]:
  x, kernel = kept
  size = kernel.shape[0]
  taps = kernel.reshape(size * size, 1, 1, -1).astype(jnp.float32)

  def one(found: Array, some: tuple[Array, Array]) -> tuple[Array, Array]:
    image, of_image = (values.astype(jnp.float32) for values in some)
    around = _around(image, size, stride)
    seen = _shifted(around, size, stride, *of_image.shape[:2])
    of_taps = [(part * of_image).sum((0, 1)) for part in seen]
    of_map = _of_map(of_image, taps, size, stride).astype(x.dtype)
    return found + jnp.stack(of_taps), of_map

  zeros = jnp.zeros((size * size, kernel.shape[-1]), jnp.float32)
  of_kernel, of_x = jax.lax.scan(one, zeros, (x, of_y))
  return of_x, of_kernel.reshape(kernel.shape).astype(kernel.dtype)


_depthwise.defvjp(_keep_depthwise, _back_depthwise)


def _around(image: Array, size: int, stride: int) -> Array:
  before = (size - stride) // 2
  sides = (before, size - stride - before)
  return jnp.pad(image, (sides, sides, (0, 0)))


def _shifted(
  around: Array, size: int, stride: int, height: int, width: int
) -> list[Array]:
  """What each tap of a kernel sees, (height, width, c) each."""
  return [
    around[
      i : i + (height - 1) * stride + 1 : stride,
      j : j + (width - 1) * stride + 1 : stride,
    ]
    for i in range(size)
    for j in range(size)
  ]


def _of_map(of_y: Array, taps: Array, size: int, stride: int) -> Array:
  """The gradient of an image's map.

  A pixel is seen by the taps of its remainder by the stride alone, so each
  remainder is a map of its own.
  """
  height, width, channels = of_y.shape
  before = (size - stride) // 2
  edge = size // stride + 1
  around = jnp.pad(of_y, ((edge, edge), (edge, edge), (0, 0)))

  def moves(remainder: int) -> list[tuple[int, int]]:
    """The taps of a side that see it, and how far off their outputs are."""
    offsets = ((i, remainder + before - i) for i in range(size))
    return [(i, o // stride) for i, o in offsets if o % stride == 0]

  parts = [
    sum(
      around[edge + down :, edge + right :][:height, :width]
      * taps[i * size + j]
      for i, down in moves(y)
      for j, right in moves(x)
    )
    for y in range(stride)
    for x in range(stride)
  ]
  stacked = jnp.stack(parts).reshape(stride, stride, height, width, channels)
  return stacked.transpose(2, 0, 3, 1, 4).reshape(
    height * stride, width * stride, channels
  )
