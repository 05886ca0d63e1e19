"""ModelConfig: the identity of a network, checked without building it."""

import dataclasses
import difflib
import math
import numbers
import typing
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from ml_collections import ConfigDict

from tokenpose_jax.errors import InputError, check_at_least, check_choice


class BackboneFacts(NamedTuple):
  """A backbone, as far as a config must know it.

  Attributes:
    builder: "module:function" of tokenpose_jax.models, imported only when the
      network is built, because configs need no JAX: (config, dtype=) ->
      a module with `channels`, called as (images, train=, captured=). "": the
      images themselves are the map.
    stride: image pixels per pixel of its map, on both axes.
    multiple: both sides of the image must be multiples of this, pixels: the
      stride of its coarsest branch, or of the coarsest that cannot round up.
    pretrained: it is made to start from ImageNet weights.
    stages: that `train.frozen` can freeze.
    frozen: where it has some, "module:function" as well: (path, stages=) ->
      whether a parameter is in the first so many.
    part: the beginning of our paths of what its published weights hold.
  """

  builder: str
  stride: int
  multiple: int
  pretrained: bool = False
  stages: int = 0
  frozen: str = ""
  part: str = "backbone/"


# To add one: a module in a file of its own, and a row here. If it can be
# exchanged with PyTorch, its names go to convert/names.py.
BACKBONES = {
  "none": BackboneFacts("", 1, 1),
  "stem": BackboneFacts("backbones:stem", 4, 4),
  "hrnet_w32": BackboneFacts("backbones:hrnet_w32", 4, 16, pretrained=True),
  "hrnet_w48": BackboneFacts("backbones:hrnet_w48", 4, 16, pretrained=True),
  "pyramid": BackboneFacts("pyramid:pyramid", 4, 32),
  "lite0": BackboneFacts(
    "lite0:lite0",
    4,
    16,
    pretrained=True,
    stages=6,
    frozen="lite0:is_frozen",
    part="backbone/trunk/",
  ),
}
POSITIONS = ("none", "learnable", "sine", "sine-full")
ATTENTION_SCALES = ("head", "width")
DTYPES = ("float32", "bfloat16")
ATTENTION = ("auto", "plain", "fused")
HEATMAP_STRIDE = 4  # of the default heatmap size

# Of the images that backbones were trained on, ImageNet's; reference 4.4.
IMAGE_MEAN = (0.485, 0.456, 0.406)
MEAN_COLOR = tuple(round(255 * mean) for mean in IMAGE_MEAN)  # of 255
IMAGE_STD = (0.229, 0.224, 0.225)


# It checks its own types, in words.
@typing.no_type_check
@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """A TokenPose network: two equal configs are the same network.

  Frozen, hashable and free of JAX. Sizes are (height, width). The defaults are
  TokenPose-S-v1's, but for `attention_scale`.

  Attributes:
    input_hw: crop size, pixels.
    heatmap_hw: heatmap size, pixels; (): a quarter of the crop's.
    num_keypoints: K.
    backbone: "none" (patches of the image itself, T), "stem" (S), "hrnet_w32"
      (B), "hrnet_w48" (L), "lite0" or "pyramid" (models/lite0.py and
      pyramid.py, ours).
    stem_channels: inner channels of S's stem, whose output has four times as
      many; of the map that lite0 and the pyramid make.
    patch_hw: patch size on the backbone's map, pixels of that map.
    dim: token width.
    depth: blocks in a stack.
    stacks: stacks in series; the keypoint tokens after each are concatenated
      for the head (L has 3).
    heads: attention heads; divides dim.
    attention_scale: "head": (dim / heads)**-0.5, as T, B, L; "width":
      dim**-0.5, as S in the original implementation.
    mlp_ratio: hidden width of a block's MLP over dim.
    position: "none": nothing added; "learnable": one table over keypoint and
      patch tokens, added once; "sine": the sine table added once to the patch
      tokens; "sine-full": and again before every block but a stack's first.
    head_dim: hidden width of the two-layer head, or 0 for a single layer.
    dtype: compute type; parameters, softmax and normalization stay float32.
    attention: how it is computed, which changes nothing but rounding: "plain":
      as every compiler knows it; "auto": as is fastest where it runs
      (models/attention.py); "fused": by the kernel, or an error where there is
      none.
    cycles: times that the tokens go through all stacks, one after the other
      (SDPose). A training has a loss on each; an evaluation has one pass,
      whatever stands here (`eval.cycles`).
    keep: share of the visual tokens that stay at each pruning
      (models/pruning.py); 1: all.
    prune_before: blocks of a stack, from 0, before which tokens are left out.
    doubt: heads that say how far each keypoint is to be trusted
      (models/doubt.py). They read the keypoint tokens and change nothing else.
    patch_head: a head that says each visual token's own part of every heatmap,
      for a loss on it (`train.patch_loss`); an evaluation does not use it.

  Raises:
    InputError: naming the field that does not fit, and what would.
  """

  input_hw: tuple[int, int] = (256, 192)
  heatmap_hw: tuple[int, ...] = ()
  num_keypoints: int = 17
  backbone: str = "stem"
  stem_channels: int = 64
  patch_hw: tuple[int, int] = (4, 3)
  dim: int = 192
  depth: int = 12
  stacks: int = 1
  heads: int = 8
  attention_scale: str = "head"
  mlp_ratio: int = 3
  position: str = "sine-full"
  head_dim: int = 384
  dtype: str = "float32"
  attention: str = "auto"
  cycles: int = 1
  keep: float = 1.0
  prune_before: tuple[int, ...] = (3, 6, 9)
  doubt: bool = False
  patch_head: bool = False

  def __post_init__(self) -> None:
    for field in dataclasses.fields(self):
      value = _checked_type(field, getattr(self, field.name))
      object.__setattr__(self, field.name, value)
    if not self.heatmap_hw:
      quarter = tuple(side // HEATMAP_STRIDE for side in self.input_hw)
      object.__setattr__(self, "heatmap_hw", quarter)
    check_choice("model.backbone", self.backbone, BACKBONES)
    check_choice("model.position", self.position, POSITIONS)
    check_choice(
      "model.attention_scale", self.attention_scale, ATTENTION_SCALES
    )
    check_choice("model.dtype", self.dtype, DTYPES)
    check_choice("model.attention", self.attention, ATTENTION)
    # A heatmap of one pixel has no scale (codec.py).
    for name, least in (("input_hw", 2), ("heatmap_hw", 2), ("patch_hw", 1)):
      check_at_least(f"model.{name}", min(getattr(self, name)), least)
    for name in ("num_keypoints", "stem_channels", "dim", "depth", "stacks"):
      check_at_least(f"model.{name}", getattr(self, name), 1)
    check_at_least("model.mlp_ratio", self.mlp_ratio, 1)
    check_at_least("model.cycles", self.cycles, 1)
    self._check_pruning()
    check_at_least("model.head_dim", self.head_dim, 0)
    if self.heads < 1 or self.dim % self.heads:
      raise InputError(
        f"model.heads is {self.heads}; it must divide model.dim = {self.dim}"
      )
    if self.position.startswith("sine") and self.dim % 4:
      raise InputError(
        f"model.dim is {self.dim}; a sine position table needs a multiple of 4"
      )
    multiple = BACKBONES[self.backbone].multiple
    if any(side % multiple for side in self.input_hw):
      raise InputError(
        f"model.input_hw is {self.input_hw}; with backbone {self.backbone!r}"
        f" both sides must be multiples of {multiple}"
      )
    for size, patch, side in zip(self.map_hw, self.patch_hw, "hw", strict=True):
      if size % patch:
        raise InputError(
          f"model.patch_hw is {self.patch_hw}; its {side} must divide the"
          f" backbone's map, which is {self.map_hw} (h, w) for model.input_hw ="
          f" {self.input_hw}"
        )
    self._check_patch_head()

  def _check_patch_head(self) -> None:
    if not self.patch_head:
      return
    for size, count, side in zip(
      self.heatmap_hw, self.grid_hw, "hw", strict=True
    ):
      if size % count:
        raise InputError(
          f"model.heatmap_hw is {self.heatmap_hw}; with model.patch_head its"
          f" {side} must be a multiple of the patches, {self.grid_hw} (h, w)"
        )

  def _check_pruning(self) -> None:
    if not 0 < self.keep <= 1:
      raise InputError(f"model.keep is {self.keep}; it must be in (0, 1]")
    before = self.prune_before
    inside = all(0 < block < self.depth for block in before)
    if self.keep < 1 and not (inside and list(before) == sorted(set(before))):
      raise InputError(
        f"model.prune_before is {before}; with model.keep below 1 it must be"
        f" ascending blocks from 1 to model.depth - 1 = {self.depth - 1}"
      )

  @classmethod
  def of(cls, model: "Network") -> "ModelConfig":
    """The network that `config.model`, or a checkpoint, describes.

    Args:
      model: a ModelConfig, or its fields by name; missing ones get their
        default, so that checkpoints survive new fields.

    Raises:
      InputError: a field is unknown, or does not fit.
    """
    if isinstance(model, ModelConfig):
      return model
    if not isinstance(model, Mapping | ConfigDict):
      raise InputError(
        f"expected a network, got {model!r}; published ones are in"
        " tp.published, by name"
      )
    known = [field.name for field in dataclasses.fields(cls)]
    for name in model:
      if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        raise InputError(
          f"model.{name} is not a field of the network; "
          + (f"did you mean {near[0]}?" if near else f"known: {known}")
        )
    return cls(**dict(model.items()))

  def to_dict(self) -> dict[str, Any]:
    """The fields by name, sizes as tuples."""
    return dataclasses.asdict(self)

  @property
  def stride(self) -> int:
    """Image pixels per pixel of the backbone's map."""
    return BACKBONES[self.backbone].stride

  @property
  def map_hw(self) -> tuple[int, int]:
    """Size of the backbone's map, pixels of that map."""
    height, width = self.input_hw
    return height // self.stride, width // self.stride

  @property
  def grid_hw(self) -> tuple[int, int]:
    """Rows and columns of patches: the visual tokens."""
    (height, width), (rows, columns) = self.map_hw, self.patch_hw
    return height // rows, width // columns

  def with_prunings(self, count: int) -> "ModelConfig":
    """The same network with the last `count` of its prunings alone."""
    if self.keep == 1 or count >= len(self.prune_before):
      return self
    last = self.prune_before[len(self.prune_before) - count :]
    return dataclasses.replace(self, prune_before=last)

  @property
  def visual_counts(self) -> tuple[int, ...]:
    """Visual tokens that each block of a stack has."""
    count = math.prod(self.grid_hw)
    counts = []
    for block in range(self.depth):
      if self.keep < 1 and block in self.prune_before:
        # 0.7 x 180 is a little less than 126 in binary: no rounding up of that.
        count = math.ceil(round(self.keep * count, 6))
      counts.append(count)
    return tuple(counts)


Network: TypeAlias = ModelConfig | Mapping[str, Any] | ConfigDict
"""Whatever describes a network (`ModelConfig.of`)."""


def _checked_type(field: dataclasses.Field, value: Any) -> Any:
  """The value in its field's type; JSON's lists become tuples."""
  name, default = f"model.{field.name}", field.default
  if field.name == "prune_before":
    if isinstance(value, list | tuple) and all(map(_is_whole, value)):
      return tuple(map(int, value))
    raise InputError(f"{name} is {value}; it must be numbers of blocks")
  if isinstance(default, bool):
    if isinstance(value, bool):
      return value
    raise InputError(f"{name} is {value!r}; it must be True or False")
  if isinstance(default, float):
    if isinstance(value, float) or _is_whole(value):
      return float(value)
    raise InputError(f"{name} is {value!r}; it must be a number")
  if isinstance(default, tuple):
    sides = tuple(value) if isinstance(value, list | tuple) else ()
    allowed = (2,) if default else (0, 2)
    if len(sides) in allowed and all(map(_is_whole, sides)):
      return tuple(map(int, sides))
    raise InputError(f"{name} is {value}; it must be (height, width) in pixels")
  if isinstance(default, str):
    if isinstance(value, str):
      return value
    raise InputError(f"{name} is {value!r}; it must be text")
  if _is_whole(value):
    return int(value)
  raise InputError(f"{name} is {value!r}; it must be a whole number")


def _is_whole(value: Any) -> bool:
  """Whether it is an int, also one of NumPy's; True and 3.0 are not."""
  return isinstance(value, numbers.Integral) and not isinstance(value, bool)
