"""Starting a training from other weights: a backbone's, or a whole network's.

A keypoint token belongs to a named keypoint, so weights move between skeletons
by name. The network's head is shared by all keypoints and moves unchanged.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from flax import traverse_util
from ml_collections import ConfigDict

from tokenpose_jax import checkpoint, convert, skeletons, weight_kinds
from tokenpose_jax import config as config_lib
from tokenpose_jax.arrays import AnyArray
from tokenpose_jax.convert import names
from tokenpose_jax.errors import InputError
from tokenpose_jax.models.config import BACKBONES, ModelConfig
from tokenpose_jax.network import Tree
from tokenpose_jax.predict import saved as saved_lib
from tokenpose_jax.skeletons import Skeleton
from tokenpose_jax.train_state import TrainState

# The token of a new keypoint is the mean of those around it that are known. By
# the names that COCO, MPII and their relatives use.
_SHOULDERS = ("left_shoulder", "right_shoulder")
_HIPS = ("left_hip", "right_hip")
_FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
_HEAD = ("head", "head_top")
AROUND = {
  "pelvis": _HIPS,
  "thorax": _SHOULDERS,
  "neck": ("upper_neck", *_SHOULDERS),
  "upper_neck": ("neck", *_SHOULDERS),
  "head": ("head_top", *_FACE),
  "head_top": ("head", *_FACE),
  **dict.fromkeys(_FACE, _HEAD),
}


@dataclasses.dataclass(frozen=True)
class TokenSource:
  """Where a keypoint's token comes from.

  Attributes:
    names: of the keypoints whose tokens are averaged.
    rule: why these.
  """

  names: tuple[str, ...]
  rule: str

  def __str__(self) -> str:
    if len(self.names) > 4:
      return f"mean of {len(self.names)} ({self.rule})"
    return f"{' + '.join(self.names)} ({self.rule})"


def match_keypoints(
  source: Skeleton, target: Skeleton
) -> dict[str, TokenSource]:
  """For every keypoint of `target`, its source among those of `source`.

  The first rule that applies: the same name; the name of its mirror image
  (`target.flip_pairs`); the mean of the keypoints around it (`AROUND`); the
  mean of its neighbors on the target's limbs, the nearest that have a source;
  the mean of all.

  Args:
    source: of the weights.
    target: of the new network.

  Returns:
    the source of each keypoint by name.
  """
  known = set(source.keypoints)
  matched: dict[str, TokenSource] = {}
  for index, name in enumerate(target.keypoints):
    mirror = target.keypoints[int(target.flip_permutation[index])]
    around = tuple(n for n in AROUND.get(name, ()) if n in known)
    if name in known:
      matched[name] = TokenSource((name,), "same name")
    elif mirror in known:
      matched[name] = TokenSource((mirror,), "mirror image")
    elif around:
      matched[name] = TokenSource(around, "around it")
  while True:  # each round reaches one limb further
    reached = {}
    for index, name in enumerate(target.keypoints):
      if name not in matched:
        near = [n for n in _neighbors(target, index) if n in matched]
        parts = [part for n in near for part in matched[n].names]
        if parts:
          reached[name] = TokenSource(tuple(dict.fromkeys(parts)), "neighbors")
    if not reached:
      break
    matched |= reached
  everything = TokenSource(source.keypoints, "nothing near")
  return {name: matched.get(name, everything) for name in target.keypoints}


def _neighbors(skeleton: Skeleton, index: int) -> list[str]:
  ends = [b if a == index else a for a, b in skeleton.limbs if index in (a, b)]
  return [skeleton.keypoints[end] for end in ends]


def transfer_weights(
  source: tuple[Tree, Tree],
  source_skeleton: Skeleton,
  target: tuple[Tree, Tree],
  target_skeleton: Skeleton,
) -> tuple[Tree, Tree]:
  """Weights of a network with one skeleton for the same with another.

  Args:
    source: (params, model_state) to take.
    source_skeleton: of `source`.
    target: (params, model_state) of the right shapes.
    target_skeleton: of `target`.

  Returns:
    new (params, model_state): the source's, with a token per keypoint of the
    target.

  Raises:
    InputError: the networks differ in more than their keypoints.
  """
  matched = match_keypoints(source_skeleton, target_skeleton)
  row = {name: i for i, name in enumerate(source_skeleton.keypoints)}
  rows = [[row[n] for n in token.names] for token in matched.values()]
  params, model_state = map(_flat, source)
  if source_skeleton.keypoints != target_skeleton.keypoints:
    # What a visual token says of other keypoints is of no use.
    params = {
      path: value
      for path, value in params.items()
      if not path.startswith("patch_head/")
    }
  _fit_heads(params, _flat(target[0]))
  # A fixed position table has no rows of keypoints, and is not a parameter.
  for path in names.PER_KEYPOINT & params.keys():
    value = np.asarray(params[path])
    tokens = [value[index].mean(0) for index in rows]
    others = value[source_skeleton.num_keypoints :]
    params[path] = np.concatenate([np.stack(tokens), others])
  problems = _shape_problems(params, target[0])
  problems += _shape_problems(model_state, target[1])
  if problems:
    raise InputError(
      "the networks differ in more than their keypoints: "
      + "; ".join(problems[:3])
      + (f" and {len(problems) - 3} more" if len(problems) > 3 else "")
    )
  if source_skeleton.keypoints != target_skeleton.keypoints:
    width = max(map(len, matched))
    table = [f"  {name:<{width}}  {token}" for name, token in matched.items()]
    logging.info(
      "keypoint tokens from %s:\n%s", source_skeleton.name, "\n".join(table)
    )
  return _like(target[0], params), _like(target[1], model_state)


# Heads that a network may have besides that of the heatmaps.
HEADS = ("doubt", "patch_head")
_SIZES = ("input_hw", "heatmap_hw", "patch_hw")


def _fit_heads(params: dict[str, Any], target: Mapping[str, Any]) -> None:
  """What does not fit of `HEADS` starts fresh, or is left out."""
  heads = [p for p in {*params, *target} if p.split("/")[0] in HEADS]
  for path in heads:
    if path not in target:
      del params[path]
    elif path not in params or params[path].shape != target[path].shape:
      params[path] = target[path]


def _flat(tree: Tree) -> dict[str, Any]:
  return traverse_util.flatten_dict(tree, sep="/")


def _shape_problems(flat: Mapping[str, Any], target: Tree) -> list[str]:
  """Lines of what has another shape than in `target`, or is not there."""
  here, there = (
    {name: np.shape(value) for name, value in leaves.items()}
    for leaves in (flat, _flat(target))
  )
  return config_lib.lines(config_lib.differences(here, there))


def _like(target: Tree, flat: Mapping[str, Any]) -> Tree:
  leaves = {name: flat[name] for name in _flat(target)}
  return traverse_util.unflatten_dict(leaves, sep="/")


def warm_start(
  config: ConfigDict, skeleton: Skeleton, state: TrainState
) -> TrainState:
  """A fresh state with the weights that `config.init` asks for.

  `init.weights`: a work directory (its best checkpoint, of that the kind of
  weights that `eval.weights` names, if it is there), a folder of
  `hub.save_pretrained` or a file of PyTorch weights; `init.backbone`: a file of
  backbone weights. Step and optimizer stay fresh.

  Args:
    config: resolved.
    skeleton: of the network.
    state: at step 0.

  Raises:
    InputError: what the fields name cannot be used.
  """
  model, init = ModelConfig.of(config.model), config.init
  weights = state.params, state.model_state
  if init.weights:
    with _blaming("init.weights"):
      source, source_skeleton, source_model = _read(
        init.weights, model, skeleton, config.eval.weights
      )
      source = _of_size(source, source_model, weights, model)
      weights = transfer_weights(source, source_skeleton, weights, skeleton)
    logging.info("weights from %s", init.weights)
  elif init.backbone:
    with _blaming("init.backbone"):
      weights = convert.import_backbone(
        model, convert.read_state_dict(init.backbone), weights
      )
    logging.info("backbone from %s", init.backbone)
  elif config.train.frozen:
    raise InputError(
      f"train.frozen is {config.train.frozen}, and the backbone would start"
      " from random weights; name others (--config.init.backbone=FILE), or"
      " freeze nothing (--config.train.frozen=0)"
    )
  elif BACKBONES[model.backbone].pretrained:
    logging.warning(
      "the backbone %s starts from random weights; it is made to start from"
      " ImageNet's (--config.init.backbone=FILE)",
      model.backbone,
    )
  params, model_state = weights
  return dataclasses.replace(state, params=params, model_state=model_state)


@contextlib.contextmanager
def _blaming(field: str) -> Iterator[None]:
  """Bad input comes from that field of the config."""
  try:
    yield
  except InputError as error:
    raise InputError(f"{field}: {error}") from None


def _read(
  path: str, model: ModelConfig, skeleton: Skeleton, kind: str
) -> tuple[tuple[Tree, Tree], Skeleton, ModelConfig]:
  """(params, model_state), skeleton and network of what `path` names."""
  folder = epath.Path(path)
  if not folder.is_dir():
    return _read_file(path, model, skeleton)
  if (folder / saved_lib.CONFIG).exists():
    published = saved_lib.read(path)
    _check_network(path, published.model, model)
    return published.weights, published.skeleton, published.model
  checkpoints = checkpoint.Checkpoints(path)
  step = checkpoints.choose("best")
  saved = checkpoints.read_meta(step)
  source = ModelConfig.of(saved["config"]["model"])
  _check_network(path, source, model)
  kind = kind if weight_kinds.has_average(saved) else "raw"
  weights = checkpoints.restore_weights(step, saved, kind)
  logging.info("%s: the %s weights of step %d", path, kind, step)
  return weights, Skeleton.from_dict(saved["skeleton"]), source


def _read_file(
  path: str, model: ModelConfig, skeleton: Skeleton
) -> tuple[tuple[Tree, Tree], Skeleton, ModelConfig]:
  """Likewise of a file, which does not say its network."""
  state_dict = convert.read_state_dict(path)
  count = _keypoints_of(state_dict, skeleton.num_keypoints)
  entries, _ = names.canonical(state_dict)
  source = dataclasses.replace(
    model,
    num_keypoints=count,
    doubt=any(".doubt." in name for name in entries),
    patch_head=any(".patch_head." in name for name in entries),
  )
  return (
    convert.import_torch(source, state_dict),
    _of_count(path, count, skeleton),
    source,
  )


def _check_network(path: str, source: ModelConfig, model: ModelConfig) -> None:
  """Refuses another network than the new one but for what may differ.

  Shapes are not enough: the number of heads, for example, leaves no trace in
  them. Weights are float32 whatever computes.
  """
  changed = checkpoint.network_differences(source, model)
  for field in ("num_keypoints", "dtype", *_SIZES, *HEADS):
    changed.pop(f"model.{field}", None)
  if changed:
    raise InputError(
      f"{path} is from a different network:"
      f" {'; '.join(config_lib.lines(changed))}"
    )


def _of_size(
  source: tuple[Tree, Tree],
  source_model: ModelConfig,
  target: tuple[Tree, Tree],
  model: ModelConfig,
) -> tuple[Tree, Tree]:
  """Weights of a network of one size for one of another (`_SIZES`).

  Learned positions are interpolated, and so is what makes heatmaps: a pixel of
  them is a row of the head's last layer. Networks that trained on small images
  soon see large ones, and keypoint tokens that read a few large patches soon
  read many small ones; both take long from scratch. Of other patches the
  embedding is the target's, and the target's fresh positions are added to tell
  those apart that interpolation leaves alike.
  """
  params, model_state = (dict(tree) for tree in source)
  fresh, fresh_state = target
  other_patches = model.patch_hw != source_model.patch_hw
  if other_patches:
    params["patch_embedding"] = fresh["patch_embedding"]
    logging.info(
      "patches of %s, not of %s: their embedding starts fresh",
      _by(model.patch_hw),
      _by(source_model.patch_hw),
    )
  if model.grid_hw != source_model.grid_hw:
    if "position_table" in model_state:  # sines of the target's own grid
      model_state["position_table"] = fresh_state["position_table"]
    if "position_table" in params:
      table = np.asarray(params["position_table"])
      k = source_model.num_keypoints
      rows = _resized(table[k:].T, source_model.grid_hw, model.grid_hw).T
      if other_patches:
        rows += np.asarray(fresh["position_table"])[model.num_keypoints :]
      params["position_table"] = np.concatenate([table[:k], rows])
    logging.info(
      "positions of %s patches from those of %s",
      _by(model.grid_hw),
      _by(source_model.grid_hw),
    )
  sides = source_model.heatmap_hw, model.heatmap_hw
  if sides[0] != sides[1]:
    head = dict(params["head"])
    last = "linear2" if "linear2" in head else "linear1"
    head[last] = jax.tree.map(
      lambda pixels: _resized(pixels, *sides), head[last]
    )
    params["head"] = head
    logging.info(
      "heatmaps of %s, not of %s: their pixels are interpolated",
      _by(model.heatmap_hw),
      _by(source_model.heatmap_hw),
    )
  return params, model_state


def _resized(
  values: AnyArray, source_hw: tuple[int, ...], target_hw: tuple[int, ...]
) -> np.ndarray:
  """(..., h * w) values of a grid's pixels, (..., h' * w') of another's."""
  images = np.reshape(values, (*np.shape(values)[:-1], *source_hw))
  shape = (*images.shape[:-2], *target_hw)
  images = jax.image.resize(images, shape, "linear")
  return np.array(images).reshape(*shape[:-2], -1)


def _by(sides: tuple[int, ...]) -> str:
  return f"{sides[0]} x {sides[1]}"


def _keypoints_of(state_dict: Mapping[str, Any], otherwise: int) -> int:
  """How many keypoint tokens there are; `import_torch` checks their shape."""
  entries, _ = names.canonical(state_dict)
  for name, value in entries.items():
    if name.endswith("keypoint_token") and np.ndim(value) == 3:
      return max(np.shape(value)[1], 1)
  return otherwise


def _of_count(path: str, count: int, skeleton: Skeleton) -> Skeleton:
  """A weights file has no keypoint names, so their number must do."""
  if count == skeleton.num_keypoints:
    return skeleton
  advice = "import it with tokenpose convert import --skeleton=FILE.json"
  known = skeletons.of_weights(path, count, "", advice)
  logging.info("%s has %d keypoints: %s", path, count, known.name)
  return known
