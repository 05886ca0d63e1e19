"""Convolutional backbones: the stem of S, HRNet up to stage 3 of B and L.

Names (conv1, layer1, ...) follow the original implementation's, so that
weights can be traced.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from tokenpose_jax.models import layers, packing
from tokenpose_jax.models.config import ModelConfig
from tokenpose_jax.models.layers import Captured, ConvNorm, Train

EXPANSION = 4  # a bottleneck's output has four times its inner channels


class Bottleneck(nnx.Module):
  """1x1, 3x3 and 1x1 convolutions around a shortcut (reference 2.4)."""

  def __init__(self, inputs: int, channels: int, *, dtype: DTypeLike):
    outputs = EXPANSION * channels
    self.conv1 = ConvNorm(inputs, channels, kernel=1, dtype=dtype)
    self.conv2 = ConvNorm(channels, channels, kernel=3, dtype=dtype)
    self.conv3 = ConvNorm(channels, outputs, kernel=1, dtype=dtype)
    self.downsample = (
      ConvNorm(inputs, outputs, kernel=1, dtype=dtype)
      if inputs != outputs
      else None
    )

  def __call__(
    self, x: Float[Array, "b h w c"], *, train: Train
  ) -> Float[Array, "b h w _c"]:
    """Maps (B, h, w, inputs) to (B, h, w, 4 * channels)."""
    y = jax.nn.relu(self.conv1(x, train=train))
    y = jax.nn.relu(self.conv2(y, train=train))
    y = self.conv3(y, train=train)
    shortcut = x if self.downsample is None else self.downsample(x, train=train)
    return jax.nn.relu(y + shortcut)


class Stem(nnx.Module):
  """Two stride-2 convolutions and four bottlenecks: features at 1/4.

  The backbone of TokenPose-S, and the beginning of HRNet. Input (B, H, W, 3),
  output (B, H/4, W/4, 4 * channels).
  """

  def __init__(self, *, channels: int = 64, dtype: DTypeLike = jnp.float32):
    self.channels = EXPANSION * channels
    self.conv1 = ConvNorm(3, channels, kernel=3, stride=2, dtype=dtype)
    self.conv2 = ConvNorm(channels, channels, kernel=3, stride=2, dtype=dtype)
    inputs = (channels, *[self.channels] * 3)
    self.layer1 = nnx.List(
      [Bottleneck(size, channels, dtype=dtype) for size in inputs]
    )

  # Its 64 channels would be packed too, but compiling takes minutes longer.
  @packing.apart()
  def __call__(
    self,
    x: Float[Array, "b h w 3"],
    *,
    train: Train,
    captured: Captured,
  ) -> Float[Array, "b _h _w _c"]:
    """Maps images (B, H, W, 3) to (B, H/4, W/4, channels)."""
    y = self.conv1(x, train=train)
    captured["backbone.bn1_preact"] = y
    z = self.conv2(jax.nn.relu(y), train=train)
    captured["backbone.bn2_preact"] = z
    z = jax.nn.relu(z)
    remat = layers.Training.of(train).remat
    for i, block in enumerate(self.layer1):
      if remat:
        z = layers.run(block, z, remat=True, train=train)
      else:  # XLA's fast preset is slow at few channels within a call.
        z = block(z, train=train)
      captured[f"backbone.layer1.{i}"] = z
    return z


class BasicBlock(nnx.Module):
  """Two 3x3 convolutions around a shortcut."""

  def __init__(self, channels: int, *, dtype: DTypeLike):
    self.conv1 = ConvNorm(channels, channels, kernel=3, dtype=dtype)
    self.conv2 = ConvNorm(channels, channels, kernel=3, dtype=dtype)

  def __call__(
    self, x: Float[Array, "b h w c"], *, train: Train
  ) -> Float[Array, "b h w c"]:
    """Maps (B, h, w, channels) to the same shape."""
    y = jax.nn.relu(self.conv1(x, train=train))
    return jax.nn.relu(self.conv2(y, train=train) + x)


class Up(nnx.Module):
  """A coarser branch at a finer one's width and size."""

  def __init__(self, inputs: int, outputs: int, factor: int, **options: Any):
    self.factor = factor
    self.up = ConvNorm(inputs, outputs, kernel=1, **options)

  def __call__(
    self, x: Float[Array, "b h w c"], *, train: Train
  ) -> Float[Array, "b _h _w _c"]:
    """Maps (B, h, w, inputs) to (B, factor * h, factor * w, outputs)."""
    widen = self.factor if packing.used() else 1
    x = self.up(x, train=train, widen=widen)
    return enlarge(x, self.factor, self.factor // widen)


class Down(nnx.Module):
  """A finer branch at a coarser one's width and size: stride-2 steps.

  All steps but the last keep the width and are followed by ReLU.
  """

  def __init__(self, inputs: int, outputs: int, steps: int, **options: Any):
    widths = [inputs] * steps + [outputs]
    self.down = nnx.List(
      [
        ConvNorm(a, b, kernel=3, stride=2, **options)
        for a, b in itertools.pairwise(widths)
      ]
    )

  def __call__(
    self, x: Float[Array, "b h w c"], *, train: Train
  ) -> Float[Array, "b _h _w _c"]:
    """Maps (B, h, w, inputs) to (B, h / 2**steps, w / 2**steps, outputs)."""
    for i, conv in enumerate(self.down):
      x = conv(jax.nn.relu(x) if i else x, train=train)
    return x


def _resample(
  source: int, target: int, channels: Sequence[int], **options: Any
) -> Up | Down | None:
  """What brings branch `source` to branch `target`; None for itself."""
  if source == target:
    return None
  widths = (channels[source], channels[target])
  if source > target:
    return Up(*widths, 2 ** (source - target), **options)
  return Down(*widths, target - source, **options)


class ExchangeModule(nnx.Module):
  """An HRNet module: four basic blocks per branch, then all-to-all fusion.

  Args:
    channels: width of each branch; branch i has 1/2**i of branch 0's size.
    outputs: how many branches it returns.
  """

  def __init__(
    self,
    channels: Sequence[int],
    outputs: int,
    *,
    dtype: DTypeLike,
  ):
    self.branches = nnx.List(
      [
        nnx.List([BasicBlock(c, dtype=dtype) for _ in range(4)])
        for c in channels
      ]
    )
    self.fuse = nnx.List(
      [
        nnx.List(
          [_resample(j, i, channels, dtype=dtype) for j in range(len(channels))]
        )
        for i in range(outputs)
      ]
    )

  def __call__(
    self, inputs: list[Float[Array, "b _h _w _c"]], *, train: Train
  ) -> list[Float[Array, "b _h _w _c"]]:
    """Maps a branch (B, h_i, w_i, channels_i) each to `outputs` fused ones."""
    maps = []
    for x, blocks in zip(inputs, self.branches, strict=True):
      for block in blocks:
        x = layers.run(block, x, remat=False, train=train)
      maps.append(x)
    fused = []
    for like, row in zip(maps, self.fuse, strict=False):
      terms = [
        x if resample is None else resample(x, train=train).reshape(like.shape)
        for x, resample in zip(maps, row, strict=True)
      ]
      fused.append(jax.nn.relu(sum(terms[1:], start=terms[0])))
    return fused


class HRNet(nnx.Module):
  """HRNet up to stage 3, its finest branch: the backbone of B and L.

  Input (B, H, W, 3), output (B, H/4, W/4, channels). reference 2.4.

  Args:
    channels: C, 32 or 48; the branches have C, 2C and 4C.
  """

  def __init__(self, *, channels: int, dtype: DTypeLike = jnp.float32):
    options: dict[str, Any] = dict(dtype=dtype)
    widths = (channels, 2 * channels, 4 * channels)
    self.channels = channels
    self.stem = Stem(**options)
    features = self.stem.channels
    self.transition1 = nnx.List(
      [
        ConvNorm(features, widths[0], kernel=3, **options),
        ConvNorm(features, widths[1], kernel=3, stride=2, **options),
      ]
    )
    self.stage2 = nnx.List([ExchangeModule(widths[:2], 2, **options)])
    # Keyed by the branch it makes; branches 0 and 1 pass unchanged.
    self.transition2 = nnx.Dict(
      {"2": ConvNorm(widths[1], widths[2], kernel=3, stride=2, **options)}
    )
    self.stage3 = nnx.List(
      [ExchangeModule(widths, outputs, **options) for outputs in (3, 3, 3, 1)]
    )

  def __call__(
    self,
    x: Float[Array, "b h w 3"],
    *,
    train: Train,
    captured: Captured,
  ) -> Float[Array, "b _h _w _c"]:
    """Maps images (B, H, W, 3) to (B, H/4, W/4, channels)."""
    image_hw = x.shape[1], x.shape[2]
    seen: Captured = {}
    x = self.stem(x, train=train, captured=seen)
    seen["backbone.layer1"] = x
    maps = [jax.nn.relu(conv(x, train=train)) for conv in self.transition1]
    for i, y in enumerate(maps):
      seen[f"backbone.transition1.{i}"] = y
    maps = self._stage("stage2", maps, train, seen)
    new = jax.nn.relu(self.transition2["2"](maps[-1], train=train))
    seen["backbone.transition2.2"] = new
    y = self._stage("stage3", [*maps, new], train, seen)[0]
    y, seen = packing.unpacked((y, seen), image_hw)
    captured.update(seen)
    return y

  def _stage(
    self, name: str, maps: list[Array], train: Train, captured: Captured
  ) -> list[Array]:
    remat = layers.Training.of(train).remat
    for m, module in enumerate(getattr(self, name)):
      maps = layers.run(module, maps, remat=remat, train=train)
      for i, y in enumerate(maps):
        captured[f"backbone.{name}.{m}.branch{i}"] = y
    return maps


def enlarge(
  x: Float[Array, "b h w c"], height: int, width: int
) -> Float[Array, "b _h _w c"]:
  """Nearest-neighbor enlargement by whole factors."""
  b, h, w, c = x.shape
  x = jnp.broadcast_to(x[:, :, None, :, None], (b, h, height, w, width, c))
  return x.reshape(b, h * height, w * width, c)


def stem(config: ModelConfig, **options: Any) -> Stem:
  """Builds the stem of S.

  Args:
    config: the network.
    **options: dtype.
  """
  return Stem(channels=config.stem_channels, **options)


def hrnet_w32(config: ModelConfig, **options: Any) -> HRNet:
  """Builds HRNet-W32 up to stage 3.

  Args:
    config: the network.
    **options: dtype.
  """
  del config
  return HRNet(channels=32, **options)


def hrnet_w48(config: ModelConfig, **options: Any) -> HRNet:
  """Builds HRNet-W48 up to stage 3.

  Args:
    config: the network.
    **options: dtype.
  """
  del config
  return HRNet(channels=48, **options)
