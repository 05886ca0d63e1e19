"""Starting a training from other weights: a backbone's, or a whole network's.

A keypoint token belongs to a named keypoint, so weights move between skeletons
by name. The network's head is shared by all keypoints and moves as it is.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from tokenpose_jax import checkpoint, convert, skeletons, train_state
from tokenpose_jax import config as config_lib
from tokenpose_jax.convert import names
from tokenpose_jax.errors import InputError
from tokenpose_jax.skeletons import Skeleton
from tokenpose_jax.train_state import TrainState, Tree

FILE_ENDINGS = (".pth", ".pt", ".safetensors")

# New keypoints that lie amid others: theirs is the mean of those that are
# known. By the names that COCO, MPII and their relatives use.
_SHOULDERS = ("left_shoulder", "right_shoulder")
_HIPS = ("left_hip", "right_hip")
_FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
_HEAD = ("head", "head_top")
AMID = {
  "pelvis": _HIPS,
  "thorax": _SHOULDERS,
  "neck": ("upper_neck", *_SHOULDERS),
  "upper_neck": ("neck", *_SHOULDERS),
  "head": ("head_top", *_FACE),
  "head_top": ("head", *_FACE),
  **dict.fromkeys(_FACE, _HEAD),
}


@dataclasses.dataclass(frozen=True)
class Origin:
  """Where a keypoint's token comes from: the mean of these, and why."""

  names: tuple[str, ...]
  rule: str

  def __str__(self) -> str:
    if len(self.names) > 4:
      return f"mean of {len(self.names)} ({self.rule})"
    return f"{' + '.join(self.names)} ({self.rule})"


def match_keypoints(source: Skeleton, target: Skeleton) -> dict[str, Origin]:
  """For every keypoint of `target`, its origin among those of `source`.

  The first rule that applies: the same name; the name of its mirror image
  (`target.flip_pairs`); the mean of what it lies amid (`AMID`); the mean of
  its neighbours on the target's limbs, the nearest that have an origin; the
  mean of all.
  """
  known = set(source.keypoints)
  found: dict[str, Origin] = {}
  for index, name in enumerate(target.keypoints):
    mirror = target.keypoints[int(target.flip_permutation[index])]
    amid = tuple(n for n in AMID.get(name, ()) if n in known)
    if name in known:
      found[name] = Origin((name,), "same name")
    elif mirror in known:
      found[name] = Origin((mirror,), "mirror image")
    elif amid:
      found[name] = Origin(amid, "lies amid")
  while True:  # each round reaches one limb further
    reached = {}
    for index, name in enumerate(target.keypoints):
      if name not in found:
        near = [found[n] for n in _neighbours(target, index) if n in found]
        parts = dict.fromkeys(part for origin in near for part in origin.names)
        if parts:
          reached[name] = Origin(tuple(parts), "neighbours")
    if not reached:
      break
    found |= reached
  everything = Origin(source.keypoints, "nothing near")
  return {name: found.get(name, everything) for name in target.keypoints}


def _neighbours(skeleton: Skeleton, index: int) -> list[str]:
  ends = [b if a == index else a for a, b in skeleton.limbs if index in (a, b)]
  return [skeleton.keypoints[end] for end in ends]


def transfer(
  source: tuple[Tree, Tree],
  source_skeleton: Skeleton,
  target: tuple[Tree, Tree],
  target_skeleton: Skeleton,
) -> tuple[Tree, Tree]:
  """Weights of a network with one skeleton for the same with another.

  Args:
    source: (params, model_state) to take.
    target: (params, model_state) of the right shapes.

  Returns:
    new (params, model_state): the source's, with a token per keypoint of the
    target.

  Raises:
    InputError: the networks differ in more than their keypoints.
  """
  origins = match_keypoints(source_skeleton, target_skeleton)
  number = {name: i for i, name in enumerate(source_skeleton.keypoints)}
  rows = [[number[n] for n in origin.names] for origin in origins.values()]
  params, model_state = map(train_state.flatten, source)
  # A fixed position table has no rows of keypoints, and is no parameter.
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
    width = max(map(len, origins))
    lines = [f"  {name:<{width}}  {o}" for name, o in origins.items()]
    logging.info(
      "keypoint tokens from %s:\n%s", source_skeleton.name, "\n".join(lines)
    )
  return _like(target[0], params), _like(target[1], model_state)


def _shape_problems(flat: Mapping[str, Any], target: Tree) -> list[str]:
  """Lines of what has another shape than in `target`, or is not there."""
  wanted = train_state.flatten(target)
  return config_lib.differences(
    {name: np.shape(value) for name, value in flat.items()},
    {name: np.shape(value) for name, value in wanted.items()},
  )


def _like(target: Tree, flat: Mapping[str, Any]) -> Tree:
  return train_state.map_paths(lambda path, _: flat[path], target)


def warm_start(
  config: ConfigDict, skeleton: Skeleton, state: TrainState
) -> TrainState:
  """A fresh state with the weights that the config asks for.

  `train.init_from`: a work directory (its best checkpoint) or a file of
  PyTorch weights; `model.init_backbone`: a file of backbone weights. Step and
  optimiser stay fresh.

  Raises:
    InputError: both are given, or what they name cannot be used.
  """
  init_from, backbone = config.train.init_from, config.model.init_backbone
  weights = state.params, state.model_state
  if init_from and backbone:
    raise InputError(
      "train.init_from and model.init_backbone are both given; the first holds"
      " a backbone already: give one"
    )
  if init_from:
    model = config_lib.to_dict(config)["model"]
    found, found_skeleton = _read(init_from, model, skeleton)
    weights = transfer(found, found_skeleton, weights, skeleton)
    logging.info("weights from %s", init_from)
  elif backbone:
    weights = convert.import_backbone(
      config.model, convert.read_state_dict(backbone), weights
    )
    logging.info("backbone from %s", backbone)
  elif config.model.backbone.startswith("hrnet"):
    logging.warning(
      "the backbone %s starts from random weights; the paper's starts from"
      " ImageNet's (--config.model.init_backbone=FILE)",
      config.model.backbone,
    )
  params, model_state = weights
  return dataclasses.replace(state, params=params, model_state=model_state)


def _read(
  path: str, model: Mapping[str, Any], skeleton: Skeleton
) -> tuple[tuple[Tree, Tree], Skeleton]:
  """(params, model_state) and the skeleton of a work directory or a file."""
  if path.endswith(FILE_ENDINGS):
    state_dict = convert.read_state_dict(path)
    tokens = [v for n, v in state_dict.items() if n.endswith("keypoint_token")]
    count = tokens[0].shape[1] if tokens else skeleton.num_keypoints
    found = _of_count(path, count, skeleton)
    fields = {**model, "num_keypoints": count}
    return convert.import_torch(fields, state_dict), found
  checkpoints = checkpoint.Checkpoints(path, read_only=True)
  step = checkpoints.choose("best")
  saved = checkpoints.read_meta(step)
  # Shapes do not tell everything: heads, say, leave none.
  changed = [
    line
    for line in checkpoint.network_differences(saved["config"]["model"], model)
    if not line.startswith(("model.num_keypoints:", "model.dtype:"))
  ]
  if changed:
    raise InputError(
      f"train.init_from: {path} is of another network: {'; '.join(changed)}"
    )
  weights = checkpoints.restore_weights(step, saved)
  checkpoints.close()
  return weights, Skeleton.from_dict(saved["skeleton"])


def _of_count(path: str, count: int, skeleton: Skeleton) -> Skeleton:
  """A file tells no names: its skeleton goes by the number of keypoints."""
  if count == skeleton.num_keypoints:
    return skeleton
  if known := skeletons.of_count(count):
    logging.info("%s has %d keypoints: %s", path, count, known.name)
    return known
  raise InputError(
    f"{path} has {count} keypoints, of which skeleton it does not tell; import"
    " it with python -m tokenpose_jax.convert import --skeleton=FILE.json"
  )
