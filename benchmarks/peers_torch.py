"""TokenPose in PyTorch, as its users write networks today, for comparison.

    .venv/torch/bin/python -m benchmarks.peers_torch      # JSON, a row a line
    ... --networks=tokenpose_t --cases=training --batch=16 --seconds=5

T, S-v1, B and L/D24: the same layers and the same function as ours (the tests
load our weights and compare the heatmaps), with what PyTorch has for each part:
`scaled_dot_product_attention`, `nn.LayerNorm`, a convolution for the patches.
Attributes have the names of ours. Imports PyTorch alone.
"""

import argparse
import dataclasses
import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import environment, rounds

CASES = {"training": (16,), "inference": (1, 16)}  # and their batches
KEYPOINTS = 17
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Shape:
  """What distinguishes the networks.

  Attributes:
    backbone: "none", "stem", "pyramid", "lite0", or the width of HRNet's finest
      branch.
    patch: (height, width) on the backbone's map.
    heads: of the attention.
    stacks: blocks of each stack.
    full_scale: logits are divided by the root of the full width.
    parameters: that the paper's networks have; 0: not known.
    hidden: of the head; 0: one layer.
    input_hw: of the crops.
    dim: width of tokens.
    stem_channels: inner channels of the stem, or of the finest map of the
      pyramid and lite0.
    learned: positions are, and added once; else sines, before every block.
    patch_head: has `PatchHead`.
    heatmap_hw: of the heatmaps; (): a quarter of the crops.
  """

  backbone: str | int
  patch: tuple[int, int]
  heads: int
  stacks: tuple[int, ...]
  parameters: int
  full_scale: bool = False
  hidden: int = 384
  input_hw: tuple[int, int] = (256, 192)
  dim: int = 192
  stem_channels: int = 64
  learned: bool = False
  patch_head: bool = False
  heatmap_hw: tuple[int, ...] = ()


SHAPES = {
  "tokenpose_t": Shape("none", (16, 12), 16, (12,), 5_816_448),
  "tokenpose_s_v1": Shape("stem", (4, 3), 8, (12,), 6_620_736, full_scale=True),
  "tokenpose_b": Shape(32, (4, 3), 8, (12,), 13_465_216),
  "tokenpose_l_d24": Shape(48, (4, 3), 12, (8, 8, 8), 27_482_400, hidden=0),
}


class ConvNorm(nn.Module):
  """Convolution, then batch norm."""

  def __init__(
    self,
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int = 1,
    epsilon: float = 1e-5,
  ):
    super().__init__()
    self.conv = nn.Conv2d(
      inputs, outputs, kernel, stride, padding=kernel // 2, bias=False
    )
    self.norm = nn.BatchNorm2d(outputs, epsilon)

  def forward(self, x: Tensor) -> Tensor:
    """(B, inputs, h, w) to (B, outputs, h / stride, w / stride)."""
    return self.norm(self.conv(x))


class Bottleneck(nn.Module):
  """1x1, 3x3 and 1x1 convolutions around a shortcut."""

  def __init__(self, inputs: int, channels: int):
    super().__init__()
    outputs = 4 * channels
    self.conv1 = ConvNorm(inputs, channels, 1)
    self.conv2 = ConvNorm(channels, channels, 3)
    self.conv3 = ConvNorm(channels, outputs, 1)
    if inputs == outputs:
      self.downsample: nn.Module = nn.Identity()
    else:
      self.downsample = ConvNorm(inputs, outputs, 1)

  def forward(self, x: Tensor) -> Tensor:
    """(B, inputs, h, w) to (B, 4 * channels, h, w)."""
    y = F.relu(self.conv1(x))
    y = F.relu(self.conv2(y))
    return F.relu(self.conv3(y) + self.downsample(x))


class Stem(nn.Module):
  """Two convolutions of stride 2 and four bottlenecks."""

  def __init__(self, channels: int = 64):
    super().__init__()
    self.channels = 4 * channels
    self.conv1 = ConvNorm(3, channels, 3, 2)
    self.conv2 = ConvNorm(channels, channels, 3, 2)
    self.layer1 = nn.Sequential(
      Bottleneck(channels, channels),
      *(Bottleneck(self.channels, channels) for _ in range(3)),
    )

  def forward(self, x: Tensor) -> Tensor:
    """(B, 3, H, W) to (B, 4 * channels, H / 4, W / 4)."""
    x = F.relu(self.conv1(x))
    return self.layer1(F.relu(self.conv2(x)))


class BasicBlock(nn.Module):
  """Two 3x3 convolutions around a shortcut."""

  def __init__(self, channels: int):
    super().__init__()
    self.conv1 = ConvNorm(channels, channels, 3)
    self.conv2 = ConvNorm(channels, channels, 3)

  def forward(self, x: Tensor) -> Tensor:
    """(B, channels, h, w) to the same shape."""
    return F.relu(self.conv2(F.relu(self.conv1(x))) + x)


class Up(nn.Module):
  """A coarser branch at a finer one's width and size."""

  def __init__(self, inputs: int, outputs: int, factor: int):
    super().__init__()
    self.factor = factor
    self.up = ConvNorm(inputs, outputs, 1)

  def forward(self, x: Tensor) -> Tensor:
    """(B, inputs, h, w) to (B, outputs, factor * h, factor * w)."""
    return F.interpolate(self.up(x), scale_factor=self.factor, mode="nearest")


class Down(nn.Module):
  """A finer branch at a coarser one's width and size."""

  def __init__(self, inputs: int, outputs: int, steps: int):
    super().__init__()
    widths = [inputs] * steps + [outputs]
    self.down = nn.ModuleList(
      ConvNorm(a, b, 3, 2) for a, b in itertools.pairwise(widths)
    )

  def forward(self, x: Tensor) -> Tensor:
    """(B, inputs, h, w) to (B, outputs, h / 2**steps, w / 2**steps)."""
    for conv in self.down[:-1]:
      x = F.relu(conv(x))
    return self.down[-1](x)


class Exchange(nn.Module):
  """Four blocks a branch, then every branch to every other."""

  def __init__(self, widths: Sequence[int], outputs: int):
    super().__init__()
    self.branches = nn.ModuleList(
      nn.Sequential(*(BasicBlock(width) for _ in range(4))) for width in widths
    )
    self.fuse = nn.ModuleList(
      nn.ModuleList(
        self._resample(widths, source, target) for source in range(len(widths))
      )
      for target in range(outputs)
    )

  @staticmethod
  def _resample(widths: Sequence[int], source: int, target: int) -> nn.Module:
    ends = widths[source], widths[target]
    if source == target:
      return nn.Identity()
    if source > target:
      return Up(*ends, 2 ** (source - target))
    return Down(*ends, target - source)

  def forward(self, maps: list[Tensor]) -> list[Tensor]:
    """A map of each branch (B, width_i, h_i, w_i) to those of `outputs`."""
    maps = [run(x) for run, x in zip(self.branches, maps, strict=True)]
    return [
      F.relu(sum(run(x) for run, x in zip(row, maps, strict=True)))
      for row in self.fuse
    ]


class HRNet(nn.Module):
  """HRNet up to stage 3, its finest branch."""

  def __init__(self, channels: int):
    super().__init__()
    self.channels = channels
    widths = (channels, 2 * channels, 4 * channels)
    self.stem = Stem()
    self.transition1 = nn.ModuleList(
      [
        ConvNorm(self.stem.channels, widths[0], 3),
        ConvNorm(self.stem.channels, widths[1], 3, 2),
      ]
    )
    self.stage2 = nn.Sequential(Exchange(widths[:2], 2))
    self.transition2 = nn.ModuleDict(
      {"2": ConvNorm(widths[1], widths[2], 3, 2)}
    )
    self.stage3 = nn.Sequential(*(Exchange(widths, n) for n in (3, 3, 3, 1)))

  def forward(self, x: Tensor) -> Tensor:
    """(B, 3, H, W) to (B, channels, H / 4, W / 4)."""
    x = self.stem(x)
    maps = self.stage2([F.relu(conv(x)) for conv in self.transition1])
    new = F.relu(self.transition2["2"](maps[-1]))
    return self.stage3([*maps, new])[0]


class Pyramid(nn.Module):
  """Down to 1/32, and up again to 1/4."""

  def __init__(self, channels: int):
    super().__init__()
    self.channels = channels
    widths = [channels * width for width in (1, 2, 4, 6)]
    steps = list(itertools.pairwise(widths))
    half = 3 * channels // 4
    self.conv1 = ConvNorm(3, half, 3, 2)
    self.conv2 = ConvNorm(half, channels, 3, 2)
    self.down = nn.ModuleList(ConvNorm(a, b, 3, 2) for a, b in steps)
    self.levels = nn.ModuleList(
      nn.Sequential(*(BasicBlock(width) for _ in range(count)))
      for width, count in zip(widths, (1, 2, 2, 2), strict=True)
    )
    self.up = nn.ModuleList(ConvNorm(b, a, 1) for a, b in steps)
    self.merge = nn.ModuleList(BasicBlock(a) for a, _ in steps)

  def forward(self, x: Tensor) -> Tensor:
    """(B, 3, H, W) to (B, channels, H / 4, W / 4)."""
    x = F.relu(self.conv2(F.relu(self.conv1(x))))
    maps = [self.levels[0](x)]
    for down, blocks in zip(self.down, self.levels[1:], strict=True):
      maps.append(blocks(F.relu(down(maps[-1]))))
    x = maps.pop()
    for up, merge in zip(reversed(self.up), reversed(self.merge), strict=True):
      coarse = F.interpolate(F.relu(up(x)), scale_factor=2)
      x = merge(maps.pop() + coarse)
    return x


class SameConvNorm(nn.Module):
  """A convolution that pads as TensorFlow's "SAME", then batch norm."""

  def __init__(
    self, inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1
  ):
    super().__init__()
    self.conv = nn.Conv2d(
      inputs, outputs, kernel, stride, groups=groups, bias=False
    )
    self.norm = nn.BatchNorm2d(outputs, 1e-3)
    before = (kernel - stride) // 2
    self.around = (before, kernel - stride - before) * 2

  def forward(self, x: Tensor) -> Tensor:
    """(B, inputs, h, w) to (B, outputs, h / stride, w / stride)."""
    return self.norm(self.conv(F.pad(x, self.around)))


class Inverted(nn.Module):
  """An inverted bottleneck of EfficientNet-Lite."""

  def __init__(
    self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int
  ):
    super().__init__()
    inner = expansion * inputs
    self.shortcut = inputs == outputs and stride == 1
    self.expand = (
      ConvNorm(inputs, inner, 1, epsilon=1e-3) if expansion > 1 else None
    )
    self.depthwise = SameConvNorm(inner, inner, kernel, stride, groups=inner)
    self.project = ConvNorm(inner, outputs, 1, epsilon=1e-3)

  def forward(self, x: Tensor) -> Tensor:
    """(B, inputs, h, w) to (B, outputs, h / stride, w / stride)."""
    y = x if self.expand is None else F.relu6(self.expand(x))
    y = self.project(F.relu6(self.depthwise(y)))
    return x + y if self.shortcut else y


class Trunk(nn.Module):
  """EfficientNet-Lite0 up to its stage 6."""

  STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
  )

  def __init__(self):
    super().__init__()
    self.stem = SameConvNorm(3, 32, 3, 2)
    blocks, inputs = [], 32
    for count, kernel, stride, expansion, outputs in self.STAGES:
      for i in range(count):
        step = 1 if i else stride
        blocks.append(Inverted(inputs, outputs, kernel, step, expansion))
        inputs = outputs
    self.blocks = nn.ModuleList(blocks)
    # What its training had of values from 0 to 1, by what crops have.
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    self.register_buffer("scale", 255 * std / 128, persistent=False)
    self.register_buffer("shift", (255 * mean - 127) / 128, persistent=False)

  def first(self, stages: int) -> list[nn.Module]:
    """The modules of the first stages."""
    count = sum(stage[0] for stage in self.STAGES[:stages])
    return [self.stem, *self.blocks[:count]]

  def forward(self, x: Tensor) -> list[Tensor]:
    """(B, 3, H, W) to maps at 1/4, 1/8, 1/16 and 1/32."""
    x = F.relu6(self.stem(x * self.scale + self.shift))
    maps = []
    for i, block in enumerate(self.blocks):
      x = block(x)
      if i in (2, 4, 10, 14):
        maps.append(x)
    return maps


class Lite0(nn.Module):
  """EfficientNet-Lite0 down to 1/32, and up again to 1/4."""

  def __init__(self, channels: int):
    super().__init__()
    self.channels = channels
    self.trunk = Trunk()
    self.lateral = nn.ModuleList(
      ConvNorm(width, channels, 1) for width in (24, 40, 112, 192)
    )
    self.merge = nn.ModuleList(BasicBlock(channels) for _ in range(4))

  def forward(self, x: Tensor) -> Tensor:
    """(B, 3, H, W) to (B, channels, H / 4, W / 4)."""
    y = None
    for trunk, lateral, merge in zip(
      reversed(self.trunk(x)),
      reversed(self.lateral),
      reversed(self.merge),
      strict=True,
    ):
      z = lateral(trunk)
      if y is not None:
        z = z + F.interpolate(y, scale_factor=2)
      y = merge(F.relu(z))
    return y


class Attention(nn.Module):
  """Self-attention over all tokens."""

  def __init__(self, dim: int, heads: int, scale: float):
    super().__init__()
    self.heads, self.scale = heads, scale
    self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
    self.to_out = nn.Linear(dim, dim)

  def forward(self, x: Tensor) -> Tensor:
    """(B, N, dim) to the same shape."""
    b, n, d = x.shape
    qkv = self.to_qkv(x).view(b, n, 3, self.heads, d // self.heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()
    mixed = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
    return self.to_out(mixed.transpose(1, 2).reshape(b, n, d))


class Block(nn.Module):
  """x + Attention(LN(x)), then x + MLP(LN(x))."""

  def __init__(self, dim: int, heads: int, scale: float):
    super().__init__()
    self.norm1 = nn.LayerNorm(dim)
    self.attention = Attention(dim, heads, scale)
    self.norm2 = nn.LayerNorm(dim)
    self.mlp_in = nn.Linear(dim, 3 * dim)
    self.mlp_out = nn.Linear(3 * dim, dim)

  def forward(self, x: Tensor) -> Tensor:
    """(B, N, dim) to the same shape."""
    x = x + self.attention(self.norm1(x))
    return x + self.mlp_out(F.gelu(self.mlp_in(self.norm2(x))))


class Head(nn.Module):
  """Tokens to heatmaps: one layer, or two."""

  def __init__(self, dim: int, hidden: int, pixels: int):
    super().__init__()
    self.norm1 = nn.LayerNorm(dim)
    self.linear1 = nn.Linear(dim, hidden or pixels)
    self.norm2 = nn.LayerNorm(hidden) if hidden else nn.Identity()
    self.linear2 = nn.Linear(hidden, pixels) if hidden else nn.Identity()

  def forward(self, x: Tensor) -> Tensor:
    """(B, K, dim) to (B, K, pixels)."""
    return self.linear2(self.norm2(self.linear1(self.norm1(x))))


class PatchHead(nn.Module):
  """Visual tokens to their parts of the heatmaps."""

  def __init__(self, dim: int, grid: tuple[int, int], heatmap: tuple[int, ...]):
    super().__init__()
    self.grid = grid
    self.cell = heatmap[0] // grid[0], heatmap[1] // grid[1]
    self.norm = nn.LayerNorm(dim)
    self.linear = nn.Linear(dim, KEYPOINTS * math.prod(self.cell))

  def forward(self, x: Tensor) -> Tensor:
    """(B, patches, dim) to (B, K, h, w)."""
    x = self.linear(self.norm(x)).transpose(1, 2)
    return F.fold(
      x,
      [n * size for n, size in zip(self.grid, self.cell, strict=True)],
      self.cell,
      stride=self.cell,
    )


class TokenPose(nn.Module):
  """8-bit crops in, one heatmap per keypoint out."""

  def __init__(self, shape: Shape):
    super().__init__()
    quarter = tuple(side // 4 for side in shape.input_hw)
    self.heatmap_hw = tuple(shape.heatmap_hw) or quarter
    channels, stride = 3, 1
    self.backbone: nn.Module = nn.Identity()
    if shape.backbone == "stem":
      self.backbone = Stem(shape.stem_channels)
    elif shape.backbone == "pyramid":
      self.backbone = Pyramid(shape.stem_channels)
    elif shape.backbone == "lite0":
      self.backbone = Lite0(shape.stem_channels)
    elif isinstance(shape.backbone, int):
      self.backbone = HRNet(shape.backbone)
    if shape.backbone != "none":
      channels, stride = self.backbone.channels, 4
    dim = shape.dim
    self.patch_embedding = nn.Conv2d(channels, dim, shape.patch, shape.patch)
    self.keypoint_tokens = nn.Parameter(0.02 * torch.randn(KEYPOINTS, dim))
    rows, columns = (
      side // stride // patch
      for side, patch in zip(shape.input_hw, shape.patch, strict=True)
    )
    self.learned = shape.learned
    if shape.learned:
      self.position_table = nn.Parameter(
        0.02 * torch.randn(KEYPOINTS + rows * columns, dim)
      )
    else:  # Keypoint tokens have no place.
      table = F.pad(sine_table(rows, columns, dim), (0, 0, KEYPOINTS, 0))
      self.register_buffer("position_table", table)
    scale = (dim if shape.full_scale else dim // shape.heads) ** -0.5
    self.stacks = nn.ModuleList(
      nn.ModuleList(Block(dim, shape.heads, scale) for _ in range(depth))
      for depth in shape.stacks
    )
    self.head = Head(
      dim * len(shape.stacks), shape.hidden, math.prod(self.heatmap_hw)
    )
    self.patch_head = (
      PatchHead(dim, (rows, columns), self.heatmap_hw)
      if shape.patch_head
      else None
    )
    mean, std = (255 * torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    self.register_buffer("mean", mean, persistent=False)
    self.register_buffer("std", std, persistent=False)

  def forward(self, crops: Tensor) -> Tensor | tuple[Tensor, list[Tensor]]:
    """(B, 3, H, W) uint8 to (B, K, H / 4, W / 4).

    In a training with a patch head, also what that says.
    """
    x = self.backbone((crops - self.mean) / self.std)
    x = self.patch_embedding(x).flatten(2).transpose(1, 2)
    tokens = self.keypoint_tokens.expand(len(x), -1, -1)
    x = torch.cat([tokens, x], 1) + self.position_table
    found, taught = [], [x]
    for stack in self.stacks:
      for i, block in enumerate(stack):
        if i and not self.learned:
          x = x + self.position_table
        if block is self.stacks[-1][-1] is not self.stacks[0][0]:
          taught.append(x)
        x = block(x)
      found.append(x[:, :KEYPOINTS])
    maps = self.head(torch.cat(found, -1)).unflatten(-1, self.heatmap_hw)
    if self.patch_head is None or not self.training:
      return maps
    return maps, [self.patch_head(x[:, KEYPOINTS:]) for x in taught]


def sine_table(rows: int, columns: int, dim: int) -> Tensor:
  """(rows * columns, dim): half of it codes the row, half the column."""
  features = torch.arange(dim // 2)
  waves = 10000 ** (features.div(2, rounding_mode="floor") * 4 / dim)

  def code(size: int) -> Tensor:
    turn = 2 * math.pi * torch.arange(1, size + 1) / (size + 1e-6)
    angle = turn[:, None] / waves
    return torch.where(features % 2 == 0, angle.sin(), angle.cos())

  y = code(rows)[:, None].expand(-1, columns, -1)
  x = code(columns)[None].expand(rows, -1, -1)
  return torch.cat([y, x], -1).flatten(0, 1)


def build(shape: Shape) -> TokenPose:
  """A network, checked to have as many parameters as it should."""
  model = TokenPose(shape)
  count = sum(p.numel() for p in model.parameters())
  if shape.parameters and count != shape.parameters:
    raise SystemExit(f"{count:,} parameters, expected {shape.parameters:,}")
  return model


def create_step(
  shape: Shape,
  case: str,
  batch: int,
  *,
  compiled: bool,
  channels_last: bool,
  device: str = "cpu",
  bfloat16: bool = False,
  repeat: int = 1,
) -> Callable[[], Any]:
  """A step that can be taken over and over: of a training, or of inference.

  Args:
    shape: of the network.
    case: "training" (forward, heatmap loss, backward, Adam) or "inference".
    batch: crops in a step.
    compiled: through `torch.compile`.
    channels_last: memory order of the maps.
    device: as PyTorch names it.
    bfloat16: under autocast.
    repeat: how often, before it is waited for.
  """
  torch.manual_seed(0)
  order = torch.channels_last if channels_last else torch.contiguous_format
  model = build(shape).to(device, memory_format=order)
  model.train(case == "training")
  run = torch.compile(model) if compiled else model
  crops = torch.randint(0, 256, (batch, 3, *shape.input_hw), dtype=torch.uint8)
  crops = crops.to(device, memory_format=order)
  autocast = torch.autocast(device, torch.bfloat16, enabled=bfloat16)

  def infer() -> Tensor:
    with torch.inference_mode(), autocast:
      return run(crops)

  if case == "inference":
    return _repeated(infer, repeat, device)
  optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
  targets = torch.rand(batch, KEYPOINTS, *model.heatmap_hw, device=device)
  weights = torch.ones(batch, KEYPOINTS, 1, 1, device=device)

  def train() -> Tensor:
    with autocast:
      heatmaps = run(crops)
    loss = (weights * (heatmaps.float() - targets) ** 2).mean() / 2
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()

  return _repeated(train, repeat, device)


def _repeated(
  step: Callable[[], Tensor], repeat: int, device: str
) -> Callable[[], Tensor]:
  """Several steps in one, the device being waited for at the end."""

  def steps() -> Tensor:
    for _ in range(repeat):
      out = step()
    if device == "cuda":
      torch.cuda.synchronize()
    return out

  return steps


def variants(network: str) -> list[dict[str, bool]]:
  """The ways a network is run on a CPU, of which the fastest counts.

  Convolutions are compiled in channels_last alone: HRNet takes minutes each
  time.
  """
  convolutions = SHAPES[network].backbone != "none"
  names = ("compiled", "allocator", "channels_last")
  ways = [
    (False, False, False),
    (False, True, False),
    (True, False, convolutions),
    (True, True, convolutions),
  ]
  if convolutions:
    ways.insert(2, (False, True, True))
  return [dict(zip(names, way, strict=True)) for way in ways]


def describe(variant: dict[str, bool]) -> str:
  """A variant in words."""
  words = ["compiled" if variant["compiled"] else "eager"]
  words += [
    name.replace("_", " ")
    for name in ("allocator", "channels_last")
    if variant[name]
  ]
  return ", ".join(words)


def contender(network: str, variant: dict[str, bool]) -> dict[str, Any]:
  """How a variant is started (rounds.py); `--cases` and `--batch` are missing.

  Args:
    network: a name of `SHAPES`.
    variant: one of `variants`.
  """
  options = [f"--{n}" for n in ("compiled", "channels_last") if variant[n]]
  module = (sys.executable, "-m", "benchmarks.peers_torch", "--worker")
  return {
    "words": describe(variant),
    "command": [*module, f"--networks={network}", *options],
    "environment": environment.torch(variant),
  }


def products(seconds: float = 2.0) -> float:
  """FLOP/s of float32 matrix products, as `limits.products`."""
  size, best = 2048, math.inf
  a, b = torch.randn(2, size, size)
  end = time.perf_counter() + seconds
  while time.perf_counter() < end:
    start = time.perf_counter()
    a @ b
    best = min(best, time.perf_counter() - start)
  return 2 * size**3 / best


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add("--networks", type=lambda text: text.split(","), default=list(SHAPES))
  add("--cases", type=lambda text: text.split(","), default=list(CASES))
  add("--batch", type=int, help="default: 1 and 16, in training 16")
  add("--seconds", type=float, default=5.0)
  add("--compiled", action="store_true", help=argparse.SUPPRESS)
  add("--channels_last", action="store_true", help=argparse.SUPPRESS)
  add("--worker", action="store_true", help=argparse.SUPPRESS)
  add("--variants", action="store_true", help=argparse.SUPPRESS)
  add("--products", action="store_true", help="FLOP/s of matrix products")
  options = parser.parse_args()
  if options.products:
    print(json.dumps({"products": products(), "torch": torch.__version__}))
    return
  if options.worker:
    (network,), (case,) = options.networks, options.cases
    step = create_step(
      SHAPES[network],
      case,
      options.batch,
      compiled=options.compiled,
      channels_last=options.channels_last,
    )
    facts = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    rounds.serve(step, options.batch, facts)
    return
  if options.variants:
    (network,) = options.networks
    ways = [contender(network, variant) for variant in variants(network)]
    print(json.dumps({"variants": ways}))
    return
  for network, case in itertools.product(options.networks, options.cases):
    for batch in (options.batch,) if options.batch else CASES[case]:
      for variant in variants(network):
        way = contender(network, variant)
        row = {"network": network, "case": case, "batch": batch, **variant}
        row |= rounds.alone(
          [*way["command"], f"--cases={case}", f"--batch={batch}"],
          way["environment"],
          options.seconds,
        )
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
  main()
