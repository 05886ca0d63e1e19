"""Neighboring pixels in the channels of a map, for TPUs.

The last axis of an array lies on a TPU's 128 lanes, and the matrix unit is as
wide: a map of 32 channels leaves three quarters of both empty. So a map (B, H,
W, C) is (B, H, W / p, p * C) there, p pixels of a row side by side: the same
order of numbers. A convolution's kernel is written out for that, mostly with
zeros. HRNet's finest branch takes 2.6 times fewer cycles so (docs/tpu.md). p is
a power of two, of each map its own.
"""

import contextlib
import contextvars
import math
from collections.abc import Iterator
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tokenpose_jax.models import devices

T = TypeVar("T")

_LANES = 128
_APART = contextvars.ContextVar("apart", default=False)


@contextlib.contextmanager
def apart() -> Iterator[None]:
  """What is traced inside keeps pixels apart."""
  token = _APART.set(True)
  try:
    yield
  finally:
    _APART.reset(token)


def used() -> bool:
  """Whether maps are packed where the program is to run."""
  return not _APART.get() and devices.kind().startswith("TPU")


def pixels(channels: int, width: int) -> int:
  """How many pixels of a map fill the lanes.

  Args:
    channels: of the map.
    width: in pixels.
  """
  most = max(1, _LANES // channels)
  return math.gcd(width, 2 ** (most.bit_length() - 1))


def unpacked(maps: T, image_hw: tuple[int, int]) -> T:
  """Maps (B, h, w, c), with one pixel in their channels.

  Args:
    maps: a tree of maps, packed or not.
    image_hw: size of the images they are of, whose proportions they have.
  """

  def one(x: Array) -> Array:
    b, h, *_ = x.shape
    return x.reshape(b, h, h * image_hw[1] // image_hw[0], -1)

  return jax.tree.map(one, maps) if used() else maps


def kernel(
  values: Float[Array, "kh kw i o"],
  *,
  stride: int,
  widen: int,
  inputs: int,
  outputs: int,
) -> tuple[Float[Array, "kh _blocks _pi _qo"], int, tuple[int, int]]:
  """A convolution's kernel for packed maps.

  Args:
    values: for one pixel in, one out; half of it is padded on both sides.
    stride: of the convolution.
    widen: how often every pixel made is repeated along its row.
    inputs: pixels in the channels of the map given.
    outputs: those in the channels of the map made.

  Returns:
    the kernel, its stride along rows, and the padding before and after them.
  """
  height, size, channels, _ = values.shape
  # Where the pixels made begin in a row, from the first one given to a block.
  begins = [p // widen * stride - size // 2 for p in range(outputs)]
  first, last = begins[0] // inputs, (begins[-1] + size - 1) // inputs
  blocks = last - first + 1
  shifted = []
  for begin in begins:
    before = begin - first * inputs
    after = blocks * inputs - size - before
    shifted.append(jnp.pad(values, ((0, 0), (before, after), (0, 0), (0, 0))))
  whole = jnp.stack(shifted, axis=3)
  whole = whole.reshape(height, blocks, inputs * channels, -1)
  step = outputs * stride // (widen * inputs)
  return whole, step, (-first, last - step + 1)
