"""What a config means beyond its fields: derived values, JSON, comparison."""

import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from tokenpose_jax import skeletons, train_state
from tokenpose_jax.errors import InputError
from tokenpose_jax.skeletons import Skeleton


def resolve(config: ConfigDict) -> Skeleton:
  """Fills `model.num_keypoints` from the skeleton and checks the whole.

  Returns:
    the skeleton that `config.data.skeleton` names.

  Raises:
    InputError: naming the field that cannot be used, and what could.
  """
  skeleton = skeletons.get(config.data.skeleton)
  config.model.num_keypoints = skeleton.num_keypoints
  try:
    train_state.abstract(config.model)
  except InputError:
    raise
  except ValueError as error:
    raise InputError(str(error).splitlines()[0]) from None
  for field, least in (
    ("train.batch_size", 1),
    ("train.log_every", 1),
    ("eval.batch_size", 1),
    ("checkpoint.every_steps", 1),
    ("checkpoint.keep", 1),
  ):
    section, name = field.split(".")
    if config[section][name] < least:
      raise InputError(
        f"{field} is {config[section][name]}; it must be at least {least}"
      )
  return skeleton


def to_dict(config: ConfigDict) -> dict[str, Any]:
  """The config as JSON types."""
  return json.loads(config.to_json())


def differences(
  one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = ""
) -> list[str]:
  """Lines `field: value in one -> value in other` where two dicts differ."""
  lines = []
  for key in sorted({*one, *other}):
    a, b = one.get(key), other.get(key)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
      lines += differences(a, b, f"{prefix}{key}.")
    elif a != b:
      lines.append(f"{prefix}{key}: {a} -> {b}")
  return lines
