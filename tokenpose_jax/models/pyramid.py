"""Pyramid: a backbone of ours that small machines can train.

HRNet keeps its finest branch, where a channel costs most, through all modules.
Here most of the work is at 1/8 to 1/32 of the image: at 128x96 and 32 channels
a person costs 0.15 GMAC, where HRNet-W32 up to stage 3 costs 1.17.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from tokenpose_jax.models import layers, packing
from tokenpose_jax.models.backbones import BasicBlock, enlarge
from tokenpose_jax.models.config import ModelConfig
from tokenpose_jax.models.layers import Captured, ConvNorm, Train

# Widths at 1/4, 1/8, 1/16 and 1/32 of the image, over `channels`, and basic
# blocks on the way down.
WIDTHS = (1, 2, 4, 6)
BLOCKS = (1, 2, 2, 2)


class Pyramid(nnx.Module):
  """Down to 1/32 of the image, and up again to 1/4.

  On the way up, each size is the sum of what it was on the way down and of the
  coarser one, through a basic block. Input (B, H, W, 3), output (B, H/4, W/4,
  channels).

  Args:
    channels: of its finest map.
  """

  def __init__(self, *, channels: int, dtype: DTypeLike = jnp.float32):
    options: dict[str, Any] = dict(dtype=dtype)
    widths = [width * channels for width in WIDTHS]
    steps = list(itertools.pairwise(widths))
    self.channels = channels
    half = 3 * channels // 4  # at half of the image's size, the most pixels
    self.conv1 = ConvNorm(3, half, kernel=3, stride=2, **options)
    self.conv2 = ConvNorm(half, channels, kernel=3, stride=2, **options)
    self.down = nnx.List(
      [ConvNorm(a, b, kernel=3, stride=2, **options) for a, b in steps]
    )
    self.levels = nnx.List(
      [
        nnx.List([BasicBlock(width, **options) for _ in range(count)])
        for width, count in zip(widths, BLOCKS, strict=True)
      ]
    )
    self.up = nnx.List([ConvNorm(b, a, kernel=1, **options) for a, b in steps])
    self.merge = nnx.List([BasicBlock(a, **options) for a, _ in steps])

  @packing.apart()
  def __call__(
    self,
    x: Float[Array, "b h w 3"],
    *,
    train: Train,
    captured: Captured,
  ) -> Float[Array, "b _h _w _c"]:
    """Maps images (B, H, W, 3) to (B, H/4, W/4, channels)."""
    remat = layers.Training.of(train).remat

    def run(block: BasicBlock, x: Array) -> Array:
      return layers.run(block, x, remat=remat, train=train)

    x = jax.nn.relu(self.conv1(x, train=train))
    x = jax.nn.relu(self.conv2(x, train=train))
    maps: list[Array] = []
    for i, blocks in enumerate(self.levels):
      if i:
        x = jax.nn.relu(self.down[i - 1](x, train=train))
      for block in blocks:
        x = run(block, x)
      captured[f"backbone.levels.{i}"] = x
      maps.append(x)
    for i in reversed(range(len(self.merge))):
      coarse = jax.nn.relu(self.up[i](x, train=train))
      x = run(self.merge[i], maps[i] + enlarge(coarse, 2, 2))
      captured[f"backbone.merge.{i}"] = x
    return x


def pyramid(config: ModelConfig, **options: Any) -> Pyramid:
  """Builds a pyramid of `stem_channels`.

  Args:
    config: the network.
    **options: dtype.
  """
  return Pyramid(channels=config.stem_channels, **options)
