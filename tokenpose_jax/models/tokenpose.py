"""TokenPose (Li et al., ICCV 2021): keypoint tokens and visual tokens.

T, S, B and L are arguments of one class. Exact behavior: reference 2.
"""

import importlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from tokenpose_jax.arrays import AnyArray
from tokenpose_jax.models import (
  doubt,
  initial,
  layers,
  positions,
  pruning,
)
from tokenpose_jax.models.config import BACKBONES, ModelConfig
from tokenpose_jax.models.layers import Captured


class Pass(NamedTuple):
  """What comes out of a pass.

  Attributes:
    tokens: (B, N, dim), those that were left out with their last values; of a
      network with a single pass, without them.
    heatmaps: (B, K, h, w).
    doubt: (B, K, 4), as `doubt.of_logits` takes it; None without such heads.
    patches: (B, K, h, w) heatmaps by `model.patch_head`, of a training's first
      pass: from the tokens before the first block, and before the last one that
      has all of them, if that is another.
  """

  tokens: Float[Array, "b n d"]
  heatmaps: Float[Array, "b k hh ww"]
  doubt: Float[Array, "b k 4"] | None
  patches: Sequence[Float[Array, "b k hh ww"]] = ()


# Of the patch head's kernel: its heatmaps begin near 0. Those of an ordinary
# start are noise that it teaches for thousands of people.
PATCH_STD = 0.001


class Fixed(nnx.Variable):
  """An array of the network that is not trained."""


class TokenPose(nnx.Module):
  """Image crops in, one heatmap per keypoint out.

  Built of shapes, as all of its parts: `network.create_model` has arrays.

  Args:
    config: the network.
  """

  def __init__(self, config: ModelConfig):
    self.config = config
    dtype = jnp.dtype(config.dtype)
    options: dict[str, Any] = dict(dtype=dtype)
    dim = config.dim
    self.backbone = _backbone(config, **options)
    channels = self.backbone.channels if self.backbone else 3
    self.patch_embedding = layers.linear(
      math.prod(config.patch_hw) * channels, dim, **options
    )
    self.keypoint_tokens = nnx.Param(
      layers.LINEAR_INIT(None, (config.num_keypoints, dim), jnp.float32)
    )
    self.position_table = self._position_table()
    width = dim if config.attention_scale == "width" else dim // config.heads
    block = (dim, config.heads, width**-0.5, config.mlp_ratio * dim)
    self.stacks = nnx.List(
      [
        nnx.List(
          [
            layers.Block(*block, form=config.attention, **options)
            for _ in range(config.depth)
          ]
        )
        for _ in range(config.stacks)
      ]
    )
    self.head = Head(
      config.stacks * dim,
      config.head_dim,
      math.prod(config.heatmap_hw),
      # 1 % of the work; sub-pixel maxima need more digits than bfloat16's 8.
      dtype=jnp.float32,
    )
    self.doubt = (
      layers.linear(
        config.stacks * dim + 1, len(doubt.Doubt._fields), dtype=jnp.float32
      )
      if config.doubt
      else None
    )
    self.patch_head = PatchHead(config) if config.patch_head else None

  def __call__(
    self,
    images: Float[AnyArray, "b h w 3"],
    *,
    train: layers.Train = False,
    captured: Captured | None = None,
  ) -> Float[Array, "b k hh ww"]:
    """Heatmaps of normalized RGB crops, of the last pass.

    Args:
      images: (B, H, W, 3), normalized with the ImageNet mean and standard
        deviation.
      train: batch statistics in batch norm, and its running values updated;
        with `Training.remat` blocks capture nothing.
      captured: a dict to fill with intermediate values: backbone maps
        `backbone.*` (B, h, w, c), `patches_flat`, `patch_embed`, `embed`
        (B, N, d), per block `block.STACK.BLOCK` (B, N, d) and
        `attention.STACK.BLOCK` (B, heads, N, N), and `head_in` (B, K, d);
        where tokens are left out `kept.STACK.BLOCK` (B, n), the patches that a
        block has. Of several passes, the first one's. Tokens are the K
        keypoints, then the patches in row-major order.

    Returns:
      (B, K, heatmap h, heatmap w) float32.

    Raises:
      ValueError: the images are not of the network's input size.
    """
    passes = self.passes(images, train=train, captured=captured)
    return passes[-1].heatmaps

  def passes(
    self,
    images: Float[AnyArray, "b h w 3"],
    *,
    train: layers.Train = False,
    captured: Captured | None = None,
  ) -> "list[Pass]":
    """What comes out of each of `config.cycles` passes.

    Args:
      images: as for a call.
      train: likewise.
      captured: likewise.

    Raises:
      ValueError: likewise.
    """
    config = self.config
    if images.shape[1:3] != config.input_hw:
      raise ValueError(
        f"images are {images.shape[1:3]} (h, w); the model takes"
        f" {config.input_hw}"
      )
    # What attention captures is no part of its outcome, and is not computed
    # where nobody asks.
    inner = None if layers.Training.of(train).remat else captured
    captured = {} if captured is None else captured
    features = jnp.asarray(images, config.dtype)
    if self.backbone is not None:
      features = self.backbone(features, train=train, captured=captured)
    captured["patches_flat"] = patches = _patches(features, config.patch_hw)
    captured["patch_embed"] = visual = self.patch_embedding(patches)
    keypoints = jnp.broadcast_to(
      self.keypoint_tokens[...], (images.shape[0], *self.keypoint_tokens.shape)
    )
    # The residual stream stays float32: bfloat16 would round every sum again.
    x = jnp.concatenate([keypoints, visual.astype(jnp.float32)], axis=1)
    position = self._position_code()
    if position is not None:
      x = x + position
    captured["embed"] = x
    passes: list[Pass] = []
    for _ in range(config.cycles):
      # What is captured is of the first pass, which evaluations have.
      taught: list[Array] = []
      x, tokens = self._pass(
        x, position, train, None if passes else inner, taught
      )
      captured.setdefault("head_in", tokens)
      heatmaps = self.heatmaps(tokens)
      by_patch: list[Array] = []
      if self.patch_head is not None and train and not passes:
        by_patch = [self.patch_head(visual) for visual in taught]
      passes.append(Pass(x, heatmaps, self._doubt(tokens, heatmaps), by_patch))
    return passes

  def _doubt(
    self, tokens: Float[Array, "b k c"], heatmaps: Float[Array, "b k h w"]
  ) -> Float[Array, "b k 4"] | None:
    """What the heads of `model.doubt` say of keypoint tokens.

    Nothing of it goes back into the rest of the network, whose training is the
    same with and without them.
    """
    if self.doubt is None:
      return None
    peaks = heatmaps.max((-2, -1))[..., None]
    known = jnp.concatenate([self.head.norm1(tokens), peaks], axis=-1)
    return self.doubt(jax.lax.stop_gradient(known))

  def _pass(
    self,
    x: Float[Array, "b n d"],
    position: Float[Array, "1 n d"] | None,
    train: layers.Train,
    captured: Captured | None,
    taught: list[Array],
  ) -> tuple[Float[Array, "b m d"], Float[Array, "b k c"]]:
    """Through all stacks: the tokens, and those for the head.

    Args:
      x: (B, N, dim) tokens.
      position: of all tokens.
      train: as for a call.
      captured: is filled, or not.
      taught: is filled: the visual tokens that `Pass.patches` are made of.
    """
    per_stack = []
    taught.append(x[:, self.config.num_keypoints :])
    for s in range(self.config.stacks):
      x = self._stack(s, x, position, train, captured, taught)
      per_stack.append(x[:, : self.config.num_keypoints])
    return x, jnp.concatenate(per_stack, axis=-1)

  def _stack(
    self,
    s: int,
    x: Float[Array, "b n d"],
    position: Float[Array, "1 n d"] | None,
    train: layers.Train,
    captured: Captured | None,
    taught: list[Array],
  ) -> Float[Array, "b m d"]:
    """Through a stack, of whose blocks the later ones may have fewer tokens."""
    k = self.config.num_keypoints
    counts = (*self.config.visual_counts, math.inf)
    last = (self.config.stacks - 1, counts.count(counts[0]) - 1)
    again = position if self.config.position == "sine-full" else None
    # Another stack or pass takes those that were left out, too.
    more = self.config.cycles > 1 or s + 1 < self.config.stacks
    kept, whole = None, x
    for i, block in enumerate(self.stacks[s]):
      # reference 2.4 "position re-add": before every block except the first of
      # each stack.
      if i and again is not None:
        x = x + again
      if (s, i) == last != (0, 0):
        taught.append(x[:, k:])
      prunes = counts[i + 1] < counts[i]
      received = block.received(x, k) if prunes else None
      if train and captured is None:
        remat = layers.Training.of(train).remat
        x = layers.run(block, x, remat=remat, captured=None, name="")
      else:
        x = block(x, captured=captured, name=f"{s}.{i}")
      if captured is not None and kept is not None:
        captured[f"kept.{s}.{i}"] = pruning.indices(kept)
      if received is not None:
        stay = pruning.largest(received[:, k:], int(counts[i + 1]))
        if more:
          whole = x if kept is None else pruning.put_back(whole, kept, x)
        kept = stay if kept is None else pruning.joined(kept, stay)
        x = pruning.taken(x, stay)
        if position is not None and again is not None:
          rows = jnp.broadcast_to(position, (x.shape[0], *position.shape[1:]))
          again = pruning.taken(rows, kept)
    return pruning.put_back(whole, kept, x) if more and kept is not None else x

  def heatmaps(self, tokens: Float[Array, "b k d"]) -> Float[Array, "b k h w"]:
    """The heatmaps of keypoint tokens.

    Args:
      tokens: (B, K, stacks * dim), those of each stack's end side by side.
    """
    pixels = self.head(tokens)
    return pixels.reshape(*pixels.shape[:2], *self.config.heatmap_hw)

  def _position_table(self) -> nnx.Variable | None:
    """Trainable over all tokens, or fixed over the patches (reference 2.4)."""
    config = self.config
    if config.position == "none":
      return None
    if config.position == "learnable":
      tokens = config.num_keypoints + math.prod(config.grid_hw)
      return nnx.Param(
        layers.LINEAR_INIT(None, (tokens, config.dim), jnp.float32)
      )
    # A variable, not a constant, because files of the original implementation
    # hold it: their table is used, and written back bit by bit.
    shape = (math.prod(config.grid_hw), config.dim)
    return Fixed(
      initial.Initial(
        shape,
        jnp.float32,
        lambda _: positions.sine_table(*config.grid_hw, config.dim),
      )
    )

  def _position_code(self) -> Float[Array, "1 n d"] | None:
    """What is added to the token sequence, or None."""
    if self.position_table is None:
      return None
    table = jnp.asarray(self.position_table[...])
    if self.config.position != "learnable":  # keypoint tokens get no code
      table = jnp.pad(table, ((self.config.num_keypoints, 0), (0, 0)))
    return table[None]


class Head(nnx.Module):
  """Keypoint token to heatmap, shared by all keypoints (reference 2.4).

  LN, linear; or LN, linear, LN, linear, without an activation in between.
  """

  def __init__(
    self,
    dim: int,
    hidden: int,
    pixels: int,
    *,
    dtype: DTypeLike,
  ):
    self.norm1 = layers.layer_norm(dim, dtype=dtype)
    self.linear1 = layers.linear(dim, hidden or pixels, dtype=dtype)
    self.norm2 = layers.layer_norm(hidden, dtype=dtype) if hidden else None
    self.linear2 = (
      layers.linear(hidden, pixels, dtype=dtype) if hidden else None
    )

  def __call__(self, x: Float[Array, "b k d"]) -> Float[Array, "b k p"]:
    """Maps keypoint tokens (B, K, dim) to heatmaps (B, K, pixels)."""
    x = self.linear1(self.norm1(x))
    if self.norm2 is None or self.linear2 is None:
      return x
    return self.linear2(self.norm2(x))


class PatchHead(nnx.Module):
  """Each visual token to its own part of every keypoint's heatmap: LN, linear.

  A keypoint token learns where to look only once visual tokens know what they
  hold, and what they hold only through keypoint tokens that look at them. With
  few people that takes long; here visual tokens learn it by themselves.
  """

  def __init__(self, config: ModelConfig):
    self.config = config
    pixels = math.prod(config.heatmap_hw) // math.prod(config.grid_hw)
    options: dict[str, Any] = dict(dtype=jnp.float32)
    self.norm = layers.layer_norm(config.dim, **options)
    self.linear = layers.linear(
      config.dim, config.num_keypoints * pixels, std=PATCH_STD, **options
    )

  def __call__(self, visual: Float[Array, "b v d"]) -> Float[Array, "b k h w"]:
    """Maps visual tokens (B, patches, dim) to heatmaps (B, K, h, w)."""
    (rows, columns), (h, w) = self.config.grid_hw, self.config.heatmap_hw
    x = self.linear(self.norm(visual))
    x = x.reshape(
      -1, rows, columns, self.config.num_keypoints, h // rows, w // columns
    )
    return x.transpose(0, 3, 1, 4, 2, 5).reshape(x.shape[0], -1, h, w)


def _backbone(config: ModelConfig, **options: Any) -> Any:
  """Builds the backbone; None where patches are those of the images."""
  builder = BACKBONES[config.backbone].builder
  return named(builder)(config, **options) if builder else None


def named(name: str) -> Any:
  """A function by its name in `BackboneFacts`.

  Args:
    name: "module:function" of tokenpose_jax.models.
  """
  module, _, function = name.partition(":")
  home = importlib.import_module(f"tokenpose_jax.models.{module}")
  return getattr(home, function)


def _patches(
  x: Float[Array, "b h w c"], patch_hw: tuple[int, ...]
) -> Float[Array, "b n p"]:
  """Cuts a map into patches, row-major; in each row, column, then channel."""
  b, h, w, c = x.shape
  ph, pw = patch_hw
  x = x.reshape(b, h // ph, ph, w // pw, pw, c)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, -1, ph * pw * c)


def keep_variance(
  path: tuple[str, ...], leaf: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
  """One initial parameter, rescaled to keep the variance of its input.

  For short trainings from scratch: under the original implementation's tiny
  initial weights narrow networks see little of the image for thousands of
  steps.

  Args:
    path: of the parameter in the tree.
    leaf: (...) as drawn by the layers.
  """
  if path == ("position_table",):  # as large as the sine table's entries
    return leaf / layers.LINEAR_STD
  if path[-1] != "kernel":
    return leaf
  if path[0] == "patch_head":
    return leaf
  if path[:2] == ("head", "linear2"):
    return leaf * 0.05  # heatmaps begin near 0
  fan_in = math.prod(leaf.shape[:-1])
  if leaf.ndim == 4:  # convolutions, before a ReLU (He et al., 2015)
    return leaf / layers.CONV_STD * math.sqrt(2 / fan_in)
  return leaf / layers.LINEAR_STD / math.sqrt(fan_in)
