"""Our networks as PyTorch's peers (peers_torch.py) know them."""

from typing import Any

import jax
import numpy as np

from tokenpose_jax.models.config import ModelConfig
from tokenpose_jax.network import Tree

_NAMES = {
  "kernel": "weight",
  "scale": "weight",
  "mean": "running_mean",
  "var": "running_var",
}


def state_of(
  model: ModelConfig, weights: tuple[Tree, Tree]
) -> dict[str, np.ndarray]:
  """Our weights under PyTorch's names, in its order of axes.

  Args:
    model: the network.
    weights: (params, model_state).
  """
  found = {}
  for tree in weights:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
      *parts, last = [key.key for key in path]
      if last == "position_table" and model.position == "sine-full":
        continue  # Of the same function.
      value = np.array(leaf)
      if parts == ["patch_embedding"] and value.ndim == 2:
        value = value.reshape(*model.patch_hw, -1, model.dim)
      if value.ndim == 4:
        value = value.transpose(3, 2, 0, 1)
      elif last == "kernel":
        value = value.T
      name = (
        "num_batches_tracked" if last == "count" else _NAMES.get(last, last)
      )
      found[".".join([*parts, name])] = np.ascontiguousarray(value)
  return found


def shape_of(model: ModelConfig) -> dict[str, Any]:
  """The arguments of `peers_torch.Shape`, for all networks but HRNet's.

  Args:
    model: the network; its positions are "sine-full" or "learnable".
  """
  if model.position not in ("sine-full", "learnable") or model.mlp_ratio != 3:
    raise ValueError(
      "peers have position = sine-full or learnable, and mlp_ratio = 3"
    )
  return {
    "backbone": model.backbone,
    "patch": model.patch_hw,
    "heads": model.heads,
    "stacks": (model.depth,) * model.stacks,
    "parameters": 0,
    "full_scale": model.attention_scale == "width",
    "hidden": model.head_dim,
    "input_hw": model.input_hw,
    "dim": model.dim,
    "stem_channels": model.stem_channels,
    "learned": model.position == "learnable",
    "patch_head": model.patch_head,
    "heatmap_hw": model.heatmap_hw,
  }
