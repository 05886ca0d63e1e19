"""Which network a state dict is of, inferred from names and shapes."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tokenpose_jax.convert import names
from tokenpose_jax.errors import InputError
from tokenpose_jax.models import positions
from tokenpose_jax.models.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class Detection:
  """A network and how sure it is.

  Attributes:
    model: the network.
    layout: a layout of `names.canonical`.
    assumed: a line for each field that the file does not determine, with what
      was assumed and why.
  """

  model: ModelConfig
  layout: str
  assumed: tuple[str, ...]


def detect(state_dict: Mapping[str, Any]) -> Detection:
  """Reads the network's fields off a TokenPose state dict.

  Args:
    state_dict: names to arrays, in a layout of `names.canonical`.

  Raises:
    InputError: it is not of a TokenPose, or of none that can be built.
  """
  try:
    return _detect(*names.canonical(state_dict))
  except InputError:
    raise
  except (IndexError, KeyError, TypeError, ValueError, ZeroDivisionError) as e:
    raise InputError(
      f"not a TokenPose state dict: {e} is missing or has an unexpected shape"
    ) from None


def _detect(entries: Mapping[str, Any], layout: str) -> Detection:
  shape = {name: np.shape(value) for name, value in entries.items()}
  backbone, channels = _backbone(shape)
  _, prefix = names.PREFIXES[backbone]
  _, keypoints, dim = shape[f"{prefix}keypoint_token"]
  patch_dim = shape[f"{prefix}patch_to_embedding.weight"][1]
  two_layers = f"{prefix}mlp_head.3.weight" in shape
  pixels = shape[f"{prefix}mlp_head.{3 if two_layers else 1}.weight"][0]
  stacks = 3 if f"{prefix}transformer3.layers.0.0.fn.norm.bias" in shape else 1
  first = f"{prefix}transformer{1 if stacks > 1 else ''}.layers."
  blocks = {n[len(first) :].split(".")[0] for n in shape if n.startswith(first)}
  hidden = shape[f"{first}0.1.fn.fn.net.0.weight"][0]
  depth = len(blocks)
  assumed = []
  heatmap_hw = _portrait_or_square(pixels)
  table = entries.get(f"{prefix}pos_embedding")
  position, grid_hw = _position(table)
  if position == "sine-full":
    assumed.append(
      "position = sine-full: the table is the same with 'sine'; published"
      " weights re-add it in every block"
    )
  map_hw = (
    heatmap_hw if backbone != "none" else tuple(4 * s for s in heatmap_hw)
  )
  if grid_hw is None:
    raise InputError(
      f"cannot infer the patch grid from a {position} position table; pass"
      " --config"
    )
  patch_hw = (map_hw[0] // grid_hw[0], map_hw[1] // grid_hw[1])
  if patch_hw[0] * patch_hw[1] * channels != patch_dim:
    raise InputError(
      f"patches of {patch_hw} (h, w) with {channels} channels have"
      f" {math.prod(patch_hw) * channels} numbers, the weights take"
      f" {patch_dim}; pass --config"
    )
  heads = _published_heads(backbone, depth)
  assumed.append(
    f"heads = {heads}: shapes are the same for any; as "
    + (
      "in configs/small.py"
      if backbone in _OURS
      else "published for this network"
    )
  )
  scale = "width" if backbone == "stem" and layout == "official" else "head"
  assumed.append(
    f"attention_scale = {scale}: not in the file; as the {layout} code of this"
    " network computes it"
  )
  stem_channels = ModelConfig.stem_channels
  if backbone in ("stem", *_OURS):
    stem_channels = channels // 4 if backbone == "stem" else channels
  model = ModelConfig(
    input_hw=(4 * heatmap_hw[0], 4 * heatmap_hw[1]),
    heatmap_hw=heatmap_hw,
    num_keypoints=keypoints,
    backbone=backbone,
    stem_channels=stem_channels,
    patch_hw=patch_hw,
    dim=dim,
    depth=depth,
    stacks=stacks,
    heads=heads,
    attention_scale=scale,
    mlp_ratio=hidden // dim,
    position=position,
    head_dim=shape[f"{prefix}mlp_head.1.weight"][0] if two_layers else 0,
    doubt=f"{prefix}doubt.weight" in shape,
    patch_head=f"{prefix}patch_head.1.weight" in shape,
  )
  return Detection(model, layout, tuple(assumed))


_OURS = ("pyramid", "lite0")


def _backbone(shape: Mapping[str, tuple[int, ...]]) -> tuple[str, int]:
  """The backbone and the channels of its map."""
  if "features.keypoint_token" in shape:
    return "stem", 4 * shape["features.conv1.weight"][0]
  if "transformer.keypoint_token" not in shape:
    some = ", ".join(list(shape)[:3])
    raise InputError(
      f"not a TokenPose state dict: no keypoint_token; its names begin {some}."
      " The weights of a backbone alone go to --config.init.backbone"
    )
  level = "pre_feature.levels.0.0.conv1.weight"
  if level in shape:
    return "pyramid", shape[level][0]
  lateral = "pre_feature.lateral.0.0.weight"
  if lateral in shape:
    return "lite0", shape[lateral][0]
  fuse = "pre_feature.stage2.0.branches.0.0.conv1.weight"
  if fuse not in shape:
    return "none", 3
  width = shape[fuse][0]
  if f"hrnet_w{width}" not in names.PREFIXES:
    raise InputError(
      f"state dict of an HRNet-W{width}; this software has W32 and W48"
    )
  return f"hrnet_w{width}", width


def _portrait_or_square(pixels: int) -> tuple[int, int]:
  """Heatmap size (h, w) of 4:3 crops, else of square ones."""
  side = math.isqrt(pixels // 12)
  if 12 * side**2 == pixels:
    return 4 * side, 3 * side
  side = math.isqrt(pixels)
  if side**2 == pixels:
    return side, side
  raise InputError(
    f"heatmaps of {pixels} pixels are neither 4:3 nor square; pass --config"
  )


def _position(table: Any) -> tuple[str, tuple[int, int] | None]:
  """The kind of position embedding, and the patch grid (h, w) if it shows."""
  if table is None:
    return "none", None
  table = np.asarray(table, np.float32)[0]
  count, dim = table.shape
  for rows in range(1, count + 1):
    if count % rows == 0 and dim % 4 == 0:
      grid = (rows, count // rows)
      if np.abs(positions.sine_table(*grid, dim) - table).max() < 1e-3:
        return "sine-full", grid
  return "learnable", None


def _published_heads(backbone: str, depth: int) -> int:
  """Reference 2.1; all its L of 8 blocks a stack have 12, those of 2 have 8."""
  if backbone == "none":
    return 16
  return 12 if backbone == "hrnet_w48" and depth == 8 else 8
