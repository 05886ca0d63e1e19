"""Weights to and from the original PyTorch implementation's state dicts.

One table of names (`RULES`) serves both directions. Arrays are NumPy; PyTorch
is not needed.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tokenpose_jax import train_state
from tokenpose_jax.errors import InputError
from tokenpose_jax.models import positions
from tokenpose_jax.train_state import Tree

# Our path of a module -> the original's name. `{b}` and `{t}` are the prefixes
# of the backbone and of the tokens' half, `{s}` the name of a stack; they
# differ by variant (SPEC.md 2.4 "Prefixes").
RULES = (
  (r"backbone/(?:stem/)?conv(\d)/conv", r"{b}conv\1"),
  (r"backbone/(?:stem/)?conv(\d)/norm", r"{b}bn\1"),
  (r"backbone/(?:stem/)?layer1/(\d+)/(.+)", r"{b}layer1.\1.<\2>"),
  (r"backbone/transition1/0/(.+)", r"{b}transition1.0.[\1]"),
  (r"backbone/transition(\d)/(\d)/(.+)", r"{b}transition\1.\2.0.[\3]"),
  (r"backbone/(stage\d)/(\d)/branches/(\d)/(\d)/(.+)",
   r"{b}\1.\2.branches.\3.\4.<\5>"),
  (r"backbone/(stage\d)/(\d)/fuse/(\d)/(\d)/up/(.+)",
   r"{b}\1.\2.fuse_layers.\3.\4.[\5]"),
  (r"backbone/(stage\d)/(\d)/fuse/(\d)/(\d)/down/(\d)/(.+)",
   r"{b}\1.\2.fuse_layers.\3.\4.\5.[\6]"),
  (r"patch_embedding", r"{t}patch_to_embedding"),
  (r"stacks/\d/(\d+)/norm1", r"{s}.layers.\1.0.fn.norm"),
  (r"stacks/\d/(\d+)/attention/to_qkv", r"{s}.layers.\1.0.fn.fn.to_qkv"),
  (r"stacks/\d/(\d+)/attention/to_out", r"{s}.layers.\1.0.fn.fn.to_out.0"),
  (r"stacks/\d/(\d+)/norm2", r"{s}.layers.\1.1.fn.norm"),
  (r"stacks/\d/(\d+)/mlp_in", r"{s}.layers.\1.1.fn.fn.net.0"),
  (r"stacks/\d/(\d+)/mlp_out", r"{s}.layers.\1.1.fn.fn.net.3"),
  (r"head/norm1", r"{t}mlp_head.0"),
  (r"head/linear1", r"{t}mlp_head.1"),
  (r"head/norm2", r"{t}mlp_head.2"),
  (r"head/linear2", r"{t}mlp_head.3"),
)  # fmt: skip

# Convolution and norm inside a residual block <...>, and inside a pair [...].
INNER = {
  "<conv1/conv>": "conv1",
  "<conv1/norm>": "bn1",
  "<conv2/conv>": "conv2",
  "<conv2/norm>": "bn2",
  "<conv3/conv>": "conv3",
  "<conv3/norm>": "bn3",
  "<downsample/conv>": "downsample.0",
  "<downsample/norm>": "downsample.1",
  "[conv]": "0",
  "[norm]": "1",
}

# The last part of a name.
LEAVES = {
  "kernel": "weight",
  "scale": "weight",
  "bias": "bias",
  "mean": "running_mean",
  "var": "running_var",
}

# backbone -> prefixes of its layers and of the tokens' half.
PREFIXES = {
  "none": ("", "transformer."),
  "stem": ("features.", "features."),
  "hrnet_w32": ("pre_feature.", "transformer."),
  "hrnet_w48": ("pre_feature.", "transformer."),
}


def official_name(model: Mapping[str, Any], path: str) -> str:
  """The original's name of our parameter or statistic at `path` (a/b/c)."""
  backbone, tokens = PREFIXES[model["backbone"]]
  if path == "keypoint_tokens":
    return f"{tokens}keypoint_token"
  if path == "position_table":
    return f"{tokens}pos_embedding"
  module, _, leaf = path.rpartition("/")
  for pattern, template in RULES:
    if match := re.fullmatch(pattern, module):
      name = match.expand(template)
      name = re.sub(r"<.+>|\[.+\]", lambda inner: INNER[inner[0]], name)
      stack = f"{tokens}transformer"
      if model["stacks"] > 1 and module.startswith("stacks/"):
        stack += str(int(module.split("/")[1]) + 1)
      for key, value in (("{b}", backbone), ("{t}", tokens), ("{s}", stack)):
        name = name.replace(key, value)
      return f"{name}.{LEAVES[leaf]}"
  raise KeyError(f"no rule for the parameter {path}")


def import_torch(
  model: Mapping[str, Any], state_dict: Mapping[str, Any]
) -> tuple[Tree, Tree]:
  """Reads the original's weights.

  Args:
    model: `config.model` of the variant.
    state_dict: the original's names to arrays (NumPy, or anything that
      `np.asarray` takes).

  Returns:
    (params, model_state) for `apply`, float32.

  Raises:
    InputError: naming the first tensors that are missing, surplus or of
      another shape, with expected and found shape. Nothing is loaded partially.
  """
  found = {name: np.shape(value) for name, value in state_dict.items()}
  expected = _official_shapes(model)
  problems = [
    f"{name}: expected {shape}, "
    + (f"found {found[name]}" if name in found else "missing")
    for name, shape in expected.items()
    if found.get(name) != shape
  ]
  problems += [
    f"{name}: surplus, shape {shape}"
    for name, shape in found.items()
    if name not in expected and not _carries_no_weight(name)
  ]
  if problems:
    more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
    raise InputError(
      f"state dict does not fit config.model: {'; '.join(problems[:5])}{more}"
    )

  def read(path: str) -> np.ndarray:
    value = np.asarray(state_dict[official_name(model, path)], np.float32)
    return _from_official(path, value)

  params, model_state = train_state.abstract(model)
  return _map_paths(read, params), _map_paths(read, model_state)


def export_torch(
  model: Mapping[str, Any], params: Tree, model_state: Tree
) -> dict[str, np.ndarray]:
  """Writes weights under the original's names: inverse of `import_torch`.

  The fixed position table is written as the original stores it; batch norm's
  counters, which decide nothing, are written as 0.
  """
  result: dict[str, np.ndarray] = {}
  for tree in (params, model_state):
    for path, leaf in _flatten(tree).items():
      name = official_name(model, path)
      result[name] = _to_official(path, np.asarray(leaf, np.float32))
      if name.endswith("running_var"):
        counter = name.removesuffix("running_var") + "num_batches_tracked"
        result[counter] = np.zeros((), np.int64)
  if model["position"] in ("sine", "sine-full"):
    _, tokens = PREFIXES[model["backbone"]]
    grid = train_state.abstract_module(model).grid_hw
    table = positions.sine_table(*grid, model["dim"])
    result[f"{tokens}pos_embedding"] = table[None]
  return result


def _carries_no_weight(name: str) -> bool:
  """Entries of the original that are computed or count, SPEC.md 2.2."""
  return name.endswith(("num_batches_tracked", "pos_embedding"))


def _official_shapes(model: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
  shapes = {}
  for tree in train_state.abstract(model):
    for path, leaf in _flatten(tree).items():
      dummy = np.broadcast_to(np.float32(0), leaf.shape)
      shapes[official_name(model, path)] = _to_official(path, dummy).shape
  return shapes


def _to_official(path: str, value: np.ndarray) -> np.ndarray:
  """(kh, kw, in, out) -> (out, in, kh, kw); (in, out) -> (out, in)."""
  if path in ("keypoint_tokens", "position_table"):
    return value[None]
  if path.endswith("kernel"):
    return value.transpose((3, 2, 0, 1) if value.ndim == 4 else (1, 0))
  return value


def _from_official(path: str, value: np.ndarray) -> np.ndarray:
  """Inverse of `_to_official`."""
  if path in ("keypoint_tokens", "position_table"):
    return value[0]
  if path.endswith("kernel"):
    return value.transpose((2, 3, 1, 0) if value.ndim == 4 else (1, 0))
  return value


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
  if not isinstance(tree, Mapping):
    return {prefix: tree}
  flat: dict[str, Any] = {}
  for key, value in tree.items():
    flat |= _flatten(value, f"{prefix}/{key}" if prefix else key)
  return flat


def _map_paths(function, tree: Any, prefix: str = "") -> Any:
  if not isinstance(tree, Mapping):
    return function(prefix)
  return {
    key: _map_paths(function, value, f"{prefix}/{key}" if prefix else key)
    for key, value in tree.items()
  }
