"""State dicts in, parameters out, and back: equal bytes after a round trip."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from tokenpose_jax import train_state
from tokenpose_jax.convert import names
from tokenpose_jax.convert.files import as_numpy
from tokenpose_jax.errors import InputError
from tokenpose_jax.models import positions
from tokenpose_jax.train_state import Tree

NAMED_PROBLEMS = 5  # in one error


def import_torch(
  model: Mapping[str, Any],
  state_dict: Mapping[str, Any],
  *,
  into: tuple[Tree, Tree] | None = None,
) -> tuple[Tree, Tree]:
  """Reads the weights of a TokenPose made with PyTorch.

  The fixed position table and batch norm's counters are read as they are, so
  that `export_torch` writes the same bytes again. Both may be absent (PyTorch
  before 0.4.1 wrote no counters): the table is then computed, counters are 0.

  Args:
    model: `config.model` of the variant.
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
  entries, _ = names.canonical(state_dict)
  wanted = _wanted(model)
  problems = _problems(model, wanted, entries)
  problems += [
    f"{name}: surplus, shape {tuple(np.shape(value))}"
    for name, value in entries.items()
    if name not in wanted and not name.endswith("num_batches_tracked")
  ]
  if problems and into is None:
    raise InputError(f"state dict does not fit config.model: {_some(problems)}")
  for line in problems:
    logging.warning("not loaded: %s", line)
  return _merge(model, wanted, entries, into)


def import_backbone(
  model: Mapping[str, Any],
  state_dict: Mapping[str, Any],
  into: tuple[Tree, Tree],
) -> tuple[Tree, Tree]:
  """Reads a backbone's weights, as of an HRNet trained on ImageNet.

  The official names (github.com/HRNet/HRNet-Image-Classification) and timm's
  are the same up to stage 3. Later stages, the classifier, and in stage 3 the
  fusion to coarser branches have no place in TokenPose and are passed over.

  Args:
    model: `config.model`; its backbone may not be "none".
    state_dict: names to arrays; a prefix `module.` or `backbone.` is dropped.
    into: (params, model_state) whose backbone is replaced.

  Raises:
    InputError: naming the first tensors that are missing or of another shape.
  """
  if model["backbone"] == "none":
    raise InputError(
      "model.init_backbone: model.backbone is 'none', there is nothing to load"
    )
  entries = dict(state_dict)
  for prefix in ("module.", "backbone."):
    if f"{prefix}conv1.weight" in entries:
      entries = {n.removeprefix(prefix): v for n, v in entries.items()}
  prefix, _ = names.PREFIXES[model["backbone"]]
  entries = {prefix + name: value for name, value in entries.items()}
  wanted = {
    name: place
    for name, place in _wanted(model).items()
    if place[0].startswith("backbone/")
  }
  problems = [p.removeprefix(prefix) for p in _problems(model, wanted, entries)]
  if problems:
    raise InputError(
      f"the weights do not fit model.backbone = {model['backbone']!r}:"
      f" {_some(problems)}"
    )
  unused = sum(name not in wanted for name in entries)
  logging.info(
    "backbone: %d tensors loaded, %d of later layers passed over",
    len(wanted),
    unused,
  )
  return _merge(model, wanted, entries, into)


def export_torch(
  model: Mapping[str, Any], params: Tree, model_state: Tree
) -> dict[str, np.ndarray]:
  """Writes weights under the original's names: inverse of `import_torch`."""
  result: dict[str, np.ndarray] = {}
  for tree in (params, model_state):
    for path, leaf in train_state.flatten(tree).items():
      name = names.official_name(model, path)
      result[name] = _to_official(path, np.asarray(leaf))
  return result


def _wanted(
  model: Mapping[str, Any],
) -> dict[str, tuple[str, tuple[int, ...]]]:
  """The original's name of everything -> our path, the original's shape."""
  wanted = {}
  for tree in train_state.abstract(model):
    for path, leaf in train_state.flatten(tree).items():
      dummy = np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)
      shape = _to_official(path, dummy).shape
      wanted[names.official_name(model, path)] = path, shape
  return wanted


def _problems(model, wanted, entries: Mapping[str, Any]) -> list[str]:
  lines = []
  for name, (path, shape) in wanted.items():
    if name not in entries:
      if not _may_be_absent(model, path):
        lines.append(f"{name}: expected {shape}, missing")
    elif np.shape(entries[name]) != shape:
      found = tuple(np.shape(entries[name]))
      lines.append(f"{name}: expected {shape}, found {found}")
  return lines


def _some(problems: list[str]) -> str:
  more = len(problems) - NAMED_PROBLEMS
  text = "; ".join(problems[:NAMED_PROBLEMS])
  return f"{text} and {more} more" if more > 0 else text


def _may_be_absent(model: Mapping[str, Any], path: str) -> bool:
  """Counters, and the position table where it is computed, not trained."""
  if path == "position_table":
    return model["position"] != "learnable"
  return path.endswith("/count")


def _merge(model, wanted, entries, into) -> tuple[Tree, Tree]:
  """The trees `into`, or new ones, with every entry that fits."""
  params, model_state = train_state.abstract(model)
  old: dict[str, Any] = {}
  for tree in into or ():
    old |= train_state.flatten(tree)
  place = {path: (name, shape) for name, (path, shape) in wanted.items()}

  def value(path: str, leaf: Any) -> np.ndarray:
    name, shape = place.get(path, ("", ()))
    if name in entries and np.shape(entries[name]) == shape:
      return _from_official(path, as_numpy(entries[name])).astype(leaf.dtype)
    if into is not None:
      return np.asarray(old[path])
    if path == "position_table":
      grid = train_state.abstract_module(model).grid_hw
      return positions.sine_table(*grid, model["dim"])
    return np.zeros(leaf.shape, leaf.dtype)

  return (
    train_state.map_paths(value, params),
    train_state.map_paths(value, model_state),
  )


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
