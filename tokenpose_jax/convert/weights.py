"""State dicts in, parameters out, and back: equal bytes after a round trip."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging
from flax import traverse_util

from tokenpose_jax import network
from tokenpose_jax.convert import names
from tokenpose_jax.convert.files import as_numpy
from tokenpose_jax.errors import InputError
from tokenpose_jax.models import positions
from tokenpose_jax.models.config import BACKBONES, ModelConfig, Network
from tokenpose_jax.network import Tree

NAMED_PROBLEMS = 5  # in one error


def import_torch(
  model: Network,
  state_dict: Mapping[str, Any],
  *,
  into: tuple[Tree, Tree] | None = None,
) -> tuple[Tree, Tree]:
  """Reads the weights of a TokenPose made with PyTorch.

  The fixed position table and batch norm's counters are read as they are, so
  that `export_torch` writes the same bytes again. Both may be absent (PyTorch
  before 0.4.1 wrote no counters): the table is then computed, counters are 0.

  Args:
    model: the network.
    state_dict: names to arrays (NumPy, PyTorch, or anything that `np.asarray`
      takes), in one of the layouts of `names.canonical`.
    into: (params, model_state) to load what fits into; what was left out, and
      what keeps its value, is logged. None: all or nothing.

  Returns:
    (params, model_state) for `apply`, float32.

  Raises:
    InputError: naming the first tensors that are missing, surplus or of
      another shape, with expected and found shape.
  """
  config = ModelConfig.of(model)
  entries, _ = names.canonical(state_dict)
  wanted = _wanted(config)
  problems = _problems(config, wanted, entries)
  problems += [
    f"{name}: surplus, shape {tuple(np.shape(value))}"
    for name, value in entries.items()
    if name not in wanted and not name.endswith("num_batches_tracked")
  ]
  if problems and into is None:
    raise InputError(f"state dict does not fit config.model: {_some(problems)}")
  for line in problems:
    logging.warning("not loaded: %s", line)
  return _merge(config, wanted, entries, into)


def import_backbone(
  model: Network,
  state_dict: Mapping[str, Any],
  into: tuple[Tree, Tree],
) -> tuple[Tree, Tree]:
  """Reads a backbone's weights, as of an HRNet trained on ImageNet.

  HRNet's official names (github.com/HRNet/HRNet-Image-Classification) and
  timm's are the same up to stage 3; EfficientNet-Lite0's are those of
  efficientnet_lite_pytorch. Later stages, the classifier, and in HRNet's stage
  3 the fusion to coarser branches have no place in TokenPose and are passed
  over.

  Args:
    model: the network; its backbone may not be "none".
    state_dict: names to arrays; what wrappers put before the names is dropped
      (`names.part`).
    into: (params, model_state) whose backbone is replaced.

  Raises:
    InputError: naming the first tensors that are missing or of another shape.
  """
  config = ModelConfig.of(model)
  if config.backbone == "none":
    raise InputError("model.backbone is 'none', there is nothing to load")
  entries = names.part(state_dict, names.BACKBONE)
  prefix, _ = names.prefixes(config)
  entries = {prefix + name: value for name, value in entries.items()}
  wanted = {
    name: place
    for name, place in _wanted(config).items()
    if place[0].startswith(BACKBONES[config.backbone].part)
  }
  problems = [
    p.removeprefix(prefix) for p in _problems(config, wanted, entries)
  ]
  if problems:
    raise InputError(
      f"the weights do not fit model.backbone = {config.backbone!r}:"
      f" {_some(problems)}"
    )
  unused = sum(name not in wanted for name in entries)
  logging.info(
    "backbone: %d tensors loaded, %d of later layers passed over",
    len(wanted),
    unused,
  )
  return _merge(config, wanted, entries, into)


def export_torch(
  model: Network, params: Tree, model_state: Tree
) -> dict[str, np.ndarray]:
  """Writes weights under their official names: inverse of `import_torch`."""
  config = ModelConfig.of(model)
  result: dict[str, np.ndarray] = {}
  for tree in (params, model_state):
    for path, leaf in _flat(tree).items():
      name = names.official_name(config, path)
      result[name] = _to_official(path, np.asarray(leaf))
  return result


Wanted = dict[str, tuple[str, tuple[int, ...]]]
"""The official name of everything -> our path, the official shape."""


def _flat(tree: Tree) -> dict[str, Any]:
  return traverse_util.flatten_dict(tree, sep="/")


def _wanted(model: ModelConfig) -> Wanted:
  wanted = {}
  for tree in network.abstract(model):
    for path, leaf in _flat(tree).items():
      dummy = np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)
      shape = _to_official(path, dummy).shape
      wanted[names.official_name(model, path)] = path, shape
  return wanted


def _problems(
  model: ModelConfig, wanted: Wanted, entries: Mapping[str, Any]
) -> list[str]:
  lines = []
  for name, (path, shape) in wanted.items():
    if name not in entries:
      if not _may_be_absent(model, path):
        lines.append(f"{name}: expected {shape}, missing")
    elif np.shape(entries[name]) != shape:
      found = tuple(np.shape(entries[name]))
      lines.append(f"{name}: expected {shape}, found {found}")
    elif wrong := _wrong_values(path, entries[name]):
      lines.append(f"{name}: {wrong}")
  return lines


def _wrong_values(path: str, value: Any) -> str:
  """What is wrong with a tensor of the right shape; "" if nothing."""
  array = as_numpy(value)
  if path.endswith("/count"):
    return "" if array.dtype.kind in "iuf" else f"a count of {array.dtype}"
  if array.dtype.kind != "f":
    return f"expected float, found {array.dtype} (quantized?)"
  return "" if np.isfinite(array).all() else "NaN or infinite values"


def _some(problems: list[str]) -> str:
  more = len(problems) - NAMED_PROBLEMS
  text = "; ".join(problems[:NAMED_PROBLEMS])
  return f"{text} and {more} more" if more > 0 else text


def _may_be_absent(model: ModelConfig, path: str) -> bool:
  """Counters, and the position table where it is computed, not trained."""
  if path == "position_table":
    return model.position != "learnable"
  return path.endswith("/count")


def _merge(
  model: ModelConfig,
  wanted: Wanted,
  entries: Mapping[str, Any],
  into: tuple[Tree, Tree] | None,
) -> tuple[Tree, Tree]:
  """The trees `into`, or new ones, with every entry that fits."""
  old: dict[str, Any] = {}
  for tree in into or ():
    old |= _flat(tree)
  place = {path: (name, shape) for name, (path, shape) in wanted.items()}

  def value(path: str, leaf: Any) -> np.ndarray:
    name, shape = place.get(path, ("", ()))
    if name in entries and np.shape(entries[name]) == shape:
      return _from_official(path, as_numpy(entries[name])).astype(leaf.dtype)
    if into is not None:
      return np.asarray(old[path])
    if path == "position_table":
      return positions.sine_table(*model.grid_hw, model.dim)
    return np.zeros(leaf.shape, leaf.dtype)

  def filled(tree: Tree) -> Tree:
    leaves = {path: value(path, leaf) for path, leaf in _flat(tree).items()}
    return traverse_util.unflatten_dict(leaves, sep="/")

  params, model_state = network.abstract(model)
  return filled(params), filled(model_state)


def _to_official(path: str, value: np.ndarray) -> np.ndarray:
  """(kh, kw, in, out) -> (out, in, kh, kw); (in, out) -> (out, in)."""
  if path in ("keypoint_tokens", "position_table"):
    return value[None]
  if path.endswith("kernel"):
    return value.transpose((3, 2, 0, 1) if value.ndim == 4 else (1, 0))
  if path.endswith("/count"):
    return value.astype(np.int64)  # as PyTorch counts
  return value


def _from_official(path: str, value: np.ndarray) -> np.ndarray:
  """Inverse of `_to_official`."""
  if path in ("keypoint_tokens", "position_table"):
    return value[0]
  if path.endswith("kernel"):
    return value.transpose((2, 3, 1, 0) if value.ndim == 4 else (1, 0))
  return value
