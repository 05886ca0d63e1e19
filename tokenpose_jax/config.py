"""What a config means beyond its fields: checks, derived values, upgrades."""

import json
import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from tokenpose_jax import network, optim, weight_kinds
from tokenpose_jax.codec import DECODERS, Codec
from tokenpose_jax.errors import InputError, check_choice
from tokenpose_jax.models.config import BACKBONES, ModelConfig
from tokenpose_jax.skeletons import Skeleton

Differences = dict[str, tuple[Any, Any]]
"""(value in one, value in the other) by path, `section.field`."""

# Format 1 moved these fields; format 0 is everything before.
RENAMED = {
  "model.init_backbone": "init.backbone",
  "train.init": "init.scheme",
  "train.init_from": "init.weights",
  "sigma": "codec.sigma",
  "udp": "codec.udp",
  "eval.box_score": "eval.min_box_score",
  "eval.keypoint_score": "eval.min_keypoint_score",
  "eval.nms_oks": "eval.nms_threshold",
}

# Fields that were added since format 1, with the values that change nothing.
ADDED = {
  "augment.color": 0.0,
  "augment.cover_probability": 0.0,
  "data.allow_outside": False,
  "data.mix": (),
  "model.attention": "auto",
  "model.cycles": 1,
  "model.doubt": False,
  "model.keep": 1.0,
  "model.patch_head": False,
  "model.prune_before": (3, 6, 9),
  "optim.reference_batch": 0,
  "optim.weight_decay": 0.0,
  "optim.clip_norm": 0.0,
  "train.microbatches": 1,
  "train.ema": 0.0,
  "train.batch_norm": "global",
  "train.remat": "none",
  "train.on_nonfinite": "stop",
  "train.token_loss": 5e-6,
  "train.keep_epochs": 0.0,
  "train.doubt_loss": 1e-3,
  "train.patch_loss": 1.0,
  "train.frozen": 0,
  "eval.cycles": 1,
  "checkpoint.on_damage": "previous",
  "eval.weights": "raw",
}

_WORDS = {
  "init.scheme": network.SCHEMES,
  "optim.schedule": optim.SCHEDULES,
  "train.batch_norm": ("global", "replica"),
  "train.remat": ("none", "blocks"),
  "eval.decoder": tuple(DECODERS),
  "train.on_nonfinite": ("stop", "skip"),
  "checkpoint.on_damage": ("previous", "stop"),
  "eval.weights": weight_kinds.KINDS,
}

# The allowed range of every number, both ends included. "(" and ")" exclude.
_RANGES = {
  "data.padding": "(0, inf)",
  "data.crop_density": "(0, inf)",
  "data.synthetic_seed": "[0, inf)",
  "data.synthetic_train_people": "[1, inf)",
  "data.synthetic_test_people": "[1, inf)",
  "data.workers": "[0, inf)",
  "augment.flip_probability": "[0, 1]",
  "augment.rotation_probability": "[0, 1]",
  "augment.rotation_degrees": "[0, 180]",
  "augment.scale": "[0, 1)",
  "augment.half_body_probability": "[0, 1]",
  "augment.half_body_min_keypoints": "[0, inf)",
  "augment.half_body_upper_probability": "[0, 1]",
  "augment.color": "[0, 1]",
  "augment.cover_probability": "[0, 1]",
  "optim.learning_rate": "(0, inf)",
  "optim.reference_batch": "[0, inf)",
  "optim.warmup_epochs": "[0, inf)",
  "optim.b1": "[0, 1)",
  "optim.b2": "[0, 1)",
  "optim.eps": "(0, inf)",
  "optim.weight_decay": "[0, inf)",
  "optim.clip_norm": "[0, inf)",
  "train.batch_size": "[1, inf)",
  "train.microbatches": "[1, inf)",
  "train.ema": "[0, 1)",
  "train.token_loss": "[0, inf)",
  "train.keep_epochs": "[0, inf)",
  "train.doubt_loss": "[0, inf)",
  "train.patch_loss": "[0, inf)",
  "train.frozen": "[0, inf)",
  "train.epochs": "(0, inf)",
  "train.steps": "[0, inf)",
  "train.log_every": "[1, inf)",
  "train.pictures_every": "[0, inf)",
  "train.eval_every_epochs": "[0, inf)",
  "checkpoint.every_steps": "[1, inf)",
  "checkpoint.keep": "[1, inf)",
  "eval.min_box_score": "(-inf, inf)",
  "eval.min_keypoint_score": "(-inf, inf)",
  "eval.nms_threshold": "(0, 1]",
  "eval.batch_size": "[1, inf)",
  "eval.cycles": "[1, inf)",
  "eval.max_images": "[0, inf)",
  "eval.pictures": "[0, inf)",
  "eval.best_and_worst": "[0, inf)",
  "eval.bootstrap": "[0, inf)",
  "seed": "[0, inf)",
}


def check(config: ConfigDict) -> None:
  """Checks every value, before anything is read.

  Args:
    config: of configs/default.py.

  Raises:
    InputError: naming the field that cannot be used, and what could.
  """
  codec_of(config)
  for field, words in _WORDS.items():
    check_choice(field, _get(config, field), words)
  for field, allowed in _RANGES.items():
    _check_range(field, _get(config, field), allowed)
  drops = tuple(config.optim.drop_epochs)
  if list(drops) != sorted(set(drops)) or any(epoch <= 0 for epoch in drops):
    raise InputError(
      f"optim.drop_epochs is {drops}; it must be epochs above 0, ascending"
    )
  traced = tuple(config.profile_steps)
  if traced and not (
    len(traced) == 2
    and all(isinstance(step, int) for step in traced)
    and 0 < traced[0] <= traced[1]
  ):
    raise InputError(
      f"profile_steps is {traced}; expected the first and the last step, as"
      " (10, 15)"
    )
  batch_size, parts = config.train.batch_size, config.train.microbatches
  if batch_size % parts:
    raise InputError(
      f"train.batch_size is {batch_size}; it must be a multiple of"
      f" train.microbatches, {parts}"
    )
  if config.model.keep < 1 and config.train.keep_epochs >= config.train.epochs:
    raise InputError(
      f"train.keep_epochs is {config.train.keep_epochs}; it must be below"
      f" train.epochs, {config.train.epochs}"
    )
  frozen, backbone = config.train.frozen, config.model.backbone
  if frozen > BACKBONES[backbone].stages:
    raise InputError(
      f"train.frozen is {frozen}; the backbone {backbone!r} has"
      f" {BACKBONES[backbone].stages} stages that can be"
    )
  which = config.eval.checkpoint
  if which not in ("best", "latest") and not which.isdigit():
    raise InputError(
      f"eval.checkpoint is {which!r}; allowed: best, latest or a step"
    )
  if config.init.weights and config.init.backbone:
    raise InputError(
      "init.weights and init.backbone are both given; the first already"
      " contains a backbone; give only one of them"
    )


def resolve(config: ConfigDict, skeleton: Skeleton) -> FrozenConfigDict:
  """A frozen copy with its derived fields filled in.

  Args:
    config: checked (`check`).
    skeleton: what `config.data.skeleton` names.

  Returns:
    the copy: `model.num_keypoints` is the skeleton's, `model.heatmap_hw` is
    given.

  Raises:
    InputError: the network does not fit the skeleton.
  """
  resolved = config.copy_and_resolve_references()
  resolved.model.num_keypoints = skeleton.num_keypoints
  resolved.model.update(ModelConfig.of(resolved.model).to_dict())
  return FrozenConfigDict(resolved)


def codec_of(config: ConfigDict) -> Codec:
  """The codec of a config.

  Raises:
    InputError: its network or its codec cannot be used.
  """
  model = ModelConfig.of(config.model)
  network.require_size(model)
  return codec_with(model, config.codec)


def codec_with(
  model: ModelConfig, fields: ConfigDict | Mapping[str, Any]
) -> Codec:
  """The codec of a network.

  Args:
    model: the network.
    fields: `config.codec`; what is not there has its default.

  Raises:
    InputError: a field cannot be used.
  """
  height, width = model.heatmap_hw
  return Codec(input_hw=model.input_hw, heatmap_hw=(height, width), **fields)


def to_dict(config: ConfigDict) -> dict[str, Any]:
  """The config as JSON types."""
  return json.loads(config.to_json())


def upgrade(config: Mapping[str, Any]) -> dict[str, Any]:
  """A saved config of format 0 with the field names of format 1.

  Args:
    config: as saved, JSON types.
  """
  upgraded: dict[str, Any] = {"init": {}, "codec": {}}
  for section, fields in config.items():
    if not isinstance(fields, Mapping):
      fields, prefix = {section: fields}, ""
    else:
      prefix = f"{section}."
    for name, value in fields.items():
      path = RENAMED.get(prefix + name, prefix + name)
      where, _, key = path.rpartition(".")
      target = upgraded.setdefault(where, {}) if where else upgraded
      target[key] = value
  return upgraded


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
  """A saved config with the fields that it lacks because it is older.

  Args:
    config: of format 1, JSON types; sections that it lacks stay away.
  """
  completed = dict(config)
  for path, value in ADDED.items():
    section, _, name = path.partition(".")
    if section in completed:
      completed[section] = {name: value, **completed[section]}
  return completed


def differences(
  one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = ""
) -> Differences:
  """Where two dicts differ.

  Args:
    one: nested mappings.
    other: likewise.
    prefix: of the paths.

  Returns:
    the values by path; None where one is missing.
  """
  found: Differences = {}
  for key in sorted({*one, *other}):
    a, b = one.get(key), other.get(key)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
      found |= differences(a, b, f"{prefix}{key}.")
    elif a != b:
      found[f"{prefix}{key}"] = (a, b)
  return found


def lines(differing: Differences) -> list[str]:
  """`field: value in one -> value in other` of each of `differences`."""
  return [f"{path}: {a} -> {b}" for path, (a, b) in differing.items()]


def _get(config: ConfigDict, field: str) -> Any:
  section, _, name = field.rpartition(".")
  return config[section][name] if section else config[name]


def _check_range(field: str, value: float, allowed: str) -> None:
  """Raises InputError unless the value lies in a range such as "[0, 1)"."""
  low, high = map(float, allowed[1:-1].split(","))
  above = value >= low if allowed[0] == "[" else value > low
  below = value <= high if allowed[-1] == "]" else value < high
  if above and below and not math.isnan(value):
    return
  bounds = [
    ("at least" if allowed[0] == "[" else "above") + f" {low:g}",
    ("at most" if allowed[-1] == "]" else "below") + f" {high:g}",
  ]
  finite = [
    text
    for text, end in zip(bounds, (low, high), strict=True)
    if math.isfinite(end)
  ]
  raise InputError(
    f"{field} is {value}; it must be {' and '.join(finite) or 'finite'}"
  )
