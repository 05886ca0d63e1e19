"""TokenPose (Li et al., ICCV 2021): keypoint tokens and visual tokens.

T, S, B and L are arguments of one class. Exact behaviour: reference 2.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from tokenpose_jax.models import hrnet, layers, positions
from tokenpose_jax.models.layers import Captured

BACKBONES = ("none", "stem", "hrnet_w32", "hrnet_w48")
POSITIONS = ("none", "learnable", "sine", "sine-full")
ATTENTION_SCALES = ("head", "width")
STRIDE = 4  # of every backbone's output against the image


class Fixed(nnx.Variable):
  """An array of the network that is not trained."""


class TokenPose(nnx.Module):
  """Image crops in, one heatmap per keypoint out.

  Args:
    input_hw: crop size, pixels.
    heatmap_hw: heatmap size, pixels.
    num_keypoints: K.
    backbone: "none" (patches of the image itself, T), "stem" (S), "hrnet_w32"
      (B) or "hrnet_w48" (L).
    stem_channels: inner channels of S's stem; its output has four times as
      many.
    patch_hw: patch size on the backbone's map, pixels of that map.
    dim: token width.
    depth: blocks in a stack.
    stacks: stacks in series; the keypoint tokens after each are concatenated
      for the head (L has 3).
    heads: attention heads; divides dim.
    attention_scale: "head": (dim / heads)**-0.5, as T, B, L; "width":
      dim**-0.5, as the original's S.
    mlp_ratio: hidden width of a block's MLP over dim.
    position: "none": nothing added; "learnable": one table over keypoint and
      patch tokens, added once; "sine": the sine table added once to the patch
      tokens; "sine-full": and again before every block but a stack's first.
    head_dim: hidden width of the two-layer head, or 0 for a single layer.
    dtype: compute type; parameters, softmax and normalisation stay float32.
    rngs: source of the initial weights.

  Raises:
    ValueError: naming the field that does not fit, and what would.
  """

  def __init__(
    self,
    *,
    input_hw: Sequence[int],
    heatmap_hw: Sequence[int],
    num_keypoints: int,
    backbone: str,
    stem_channels: int,
    patch_hw: Sequence[int],
    dim: int,
    depth: int,
    stacks: int,
    heads: int,
    attention_scale: str,
    mlp_ratio: int,
    position: str,
    head_dim: int,
    dtype: str,
    rngs: nnx.Rngs,
  ):
    layers.check_choice("backbone", backbone, BACKBONES)
    layers.check_choice("position", position, POSITIONS)
    layers.check_choice("attention_scale", attention_scale, ATTENTION_SCALES)
    layers.check_choice("dtype", dtype, ("float32", "bfloat16"))
    if heads < 1 or dim % heads:
      raise ValueError(
        f"model.heads is {heads}; it must divide model.dim = {dim}"
      )
    for field, value in (
      ("num_keypoints", num_keypoints),
      ("depth", depth),
      ("stacks", stacks),
      ("mlp_ratio", mlp_ratio),
    ):
      if value < 1:
        raise ValueError(f"model.{field} is {value}; it must be at least 1")
    if head_dim < 0:
      raise ValueError(f"model.head_dim is {head_dim}; it must be at least 0")
    kind = jnp.dtype(dtype)
    self.dtype = kind
    self.input_hw = tuple(input_hw)
    self.heatmap_hw = tuple(heatmap_hw)
    self.patch_hw = tuple(patch_hw)
    self.position = position
    self.num_keypoints = num_keypoints

    self.backbone, map_hw, channels = _backbone(
      backbone, self.input_hw, stem_channels, rngs=rngs, dtype=kind
    )
    for size, patch, side in zip(map_hw, patch_hw, "hw", strict=True):
      if patch < 1 or size % patch:
        raise ValueError(
          f"model.patch_hw is {self.patch_hw}; its {side} must divide the"
          f" backbone's map, which is {map_hw} (h, w) for model.input_hw ="
          f" {self.input_hw}"
        )
    self.grid_hw = (map_hw[0] // patch_hw[0], map_hw[1] // patch_hw[1])
    self.patch_embedding = layers.linear(
      patch_hw[0] * patch_hw[1] * channels, dim, rngs=rngs, dtype=kind
    )
    self.keypoint_tokens = nnx.Param(
      layers.LINEAR_INIT(rngs.params(), (num_keypoints, dim), jnp.float32)
    )
    self.position_table = self._position_table(dim, rngs)
    scale = (dim if attention_scale == "width" else dim // heads) ** -0.5
    self.stacks = nnx.List(
      [
        nnx.List(
          [
            layers.Block(
              dim, heads, scale, mlp_ratio * dim, rngs=rngs, dtype=kind
            )
            for _ in range(depth)
          ]
        )
        for _ in range(stacks)
      ]
    )
    self.head = Head(
      stacks * dim,
      head_dim,
      self.heatmap_hw[0] * self.heatmap_hw[1],
      rngs=rngs,
      # 1 % of the work; sub-pixel maxima need more digits than bfloat16's 8.
      dtype=jnp.float32,
    )

  def __call__(
    self,
    images: Float[Array, "b h w 3"],
    *,
    train: bool = False,
    captured: Captured | None = None,
  ) -> Float[Array, "b k hh ww"]:
    """Heatmaps of normalised RGB crops.

    Args:
      images: (B, H, W, 3), normalised with the ImageNet mean and deviation.
      train: batch statistics in batch norm, and its running values updated.
      captured: a dict to fill with intermediate values: backbone maps
        `backbone.*` (B, h, w, c), `patches_flat`, `patch_embed`, `embed`
        (B, N, d), per block `block.STACK.BLOCK` (B, N, d) and
        `attention.STACK.BLOCK` (B, heads, N, N), and `head_in` (B, K, d).
        Tokens are the K keypoints, then the patches in row-major order.

    Returns:
      (B, K, heatmap h, heatmap w) float32.
    """
    if images.shape[1:3] != self.input_hw:
      raise ValueError(
        f"images are {images.shape[1:3]} (h, w); the model takes"
        f" {self.input_hw}"
      )
    keep = captured if captured is not None else {}
    features = images.astype(self.dtype)
    if self.backbone is not None:
      features = self.backbone(features, train=train, captured=captured)
    keep["patches_flat"] = patches = _patches(features, self.patch_hw)
    keep["patch_embed"] = visual = self.patch_embedding(patches)
    keypoints = jnp.broadcast_to(
      self.keypoint_tokens[...], (images.shape[0], *self.keypoint_tokens.shape)
    )
    # The residual stream stays float32: bfloat16 would round every sum anew.
    x = jnp.concatenate([keypoints, visual.astype(jnp.float32)], axis=1)
    position = self._position_code()
    if position is not None:
      x = x + position
    keep["embed"] = x
    per_stack = []
    for s, stack in enumerate(self.stacks):
      for i, block in enumerate(stack):
        # reference 2.4 "position re-add": before every block except the first
        # of each stack.
        if i > 0 and position is not None and self.position == "sine-full":
          x = x + position
        x = block(x, captured, f"{s}.{i}")
      per_stack.append(x[:, : self.num_keypoints])
    keep["head_in"] = tokens = jnp.concatenate(per_stack, axis=-1)
    heatmaps = self.head(tokens)
    return heatmaps.reshape(*heatmaps.shape[:2], *self.heatmap_hw)

  def _position_table(self, dim: int, rngs: nnx.Rngs) -> nnx.Variable | None:
    """Trainable over all tokens, or fixed over the patches (reference 2.4)."""
    if self.position == "none":
      return None
    if self.position == "learnable":
      tokens = self.num_keypoints + self.grid_hw[0] * self.grid_hw[1]
      return nnx.Param(
        layers.LINEAR_INIT(rngs.params(), (tokens, dim), jnp.float32)
      )
    # A variable and no constant, because the original's files hold it: what
    # they hold is used, and written back to the bit.
    return Fixed(jnp.asarray(positions.sine_table(*self.grid_hw, dim)))

  def _position_code(self) -> Float[Array, "1 n d"] | None:
    """What is added to the token sequence, or None."""
    if self.position_table is None:
      return None
    table = self.position_table[...]
    if self.position != "learnable":  # keypoint tokens receive no code
      table = jnp.pad(table, ((self.num_keypoints, 0), (0, 0)))
    return table[None]


class Head(nnx.Module):
  """Keypoint token to heatmap, shared by all keypoints (reference 2.4).

  LN, linear; or LN, linear, LN, linear, without an activation in between.
  """

  def __init__(
    self, dim: int, hidden: int, pixels: int, *, rngs: nnx.Rngs, dtype: Any
  ):
    self.norm1 = layers.layer_norm(dim, rngs=rngs, dtype=dtype)
    self.linear1 = layers.linear(dim, hidden or pixels, rngs=rngs, dtype=dtype)
    self.norm2 = (
      layers.layer_norm(hidden, rngs=rngs, dtype=dtype) if hidden else None
    )
    self.linear2 = (
      layers.linear(hidden, pixels, rngs=rngs, dtype=dtype) if hidden else None
    )

  def __call__(self, x: Float[Array, "b k d"]) -> Float[Array, "b k p"]:
    x = self.linear1(self.norm1(x))
    if self.norm2 is None or self.linear2 is None:
      return x
    return self.linear2(self.norm2(x))


def _backbone(
  name: str, input_hw: tuple[int, ...], stem_channels: int, **options: Any
) -> tuple[nnx.Module | None, tuple[int, int], int]:
  """The backbone, its map's size (h, w) and its channels."""
  height, width = input_hw
  if name == "none":
    return None, (height, width), 3
  if height % STRIDE or width % STRIDE:
    raise ValueError(
      f"model.input_hw is {input_hw}; with backbone {name!r} both sides must"
      f" be multiples of {STRIDE}"
    )
  module: hrnet.Stem | hrnet.HRNet
  if name == "stem":
    module = hrnet.Stem(channels=stem_channels, **options)
  else:
    channels = int(name.removeprefix("hrnet_w"))
    module = hrnet.HRNet(channels=channels, **options)
  return module, (height // STRIDE, width // STRIDE), module.channels_out


def _patches(
  x: Float[Array, "b h w c"], patch_hw: tuple[int, ...]
) -> Float[Array, "b n p"]:
  """Cuts a map into patches, row-major; in each row, column, then channel."""
  b, h, w, c = x.shape
  ph, pw = patch_hw
  x = x.reshape(b, h // ph, ph, w // pw, pw, c)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, -1, ph * pw * c)
