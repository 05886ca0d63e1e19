"""Convolutions: XLA's own, and for one CPU with another gradient of the kernel.

XLA makes that a convolution of transposed maps. On its way it computes what a
map is made of once more for the copy, in strides: through HRNet's shortcuts
that is the whole branch, and a third of a training step. Its convolution then
runs on one core. Here the gradient is products of matrices over a few images
at a time, which read the map as it is: steps of B take 0.8 of the time.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

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


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
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
  return _forward(x, kernel, stride)


def _forward(x: Array, kernel: Array, stride: int) -> Array:
  half = kernel.shape[0] // 2
  return plain(x, kernel, (stride, stride), ((half, half), (half, half)))


def _keep(
  x: Array, kernel: Array, stride: int
) -> tuple[Array, tuple[Array, Array]]:
  return _forward(x, kernel, stride), (x, kernel)


def _back(
  stride: int, kept: tuple[Array, Array], of_y: Array
) -> tuple[Array, Array]:
  x, kernel = kept
  _, back = jax.vjp(lambda x: _forward(x, kernel, stride), x)
  return *back(of_y), _of_kernel(x, of_y, kernel.shape[0], stride)


convolve.defvjp(_keep, _back)


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
