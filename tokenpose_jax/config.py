"""What a config means beyond its fields: derived values, JSON, comparison."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from tokenpose_jax import skeletons, train_state
from tokenpose_jax.errors import InputError
from tokenpose_jax.skeletons import Skeleton


def parse_flags(argv: Sequence[str], config: flags.FlagHolder) -> None:
  """Parses a command line with a config flag and overrides of its fields.

  Args:
    config: of `config_flags.DEFINE_config_file`.

  Raises:
    InputError: whatever is wrong in the command line.
  """
  try:
    flags.FLAGS(argv)
    if config.value is not None:
      # A file that cannot be loaded shows only when a field is read.
      _ = config.value.seed
  except (AttributeError, KeyError) as error:  # ml_collections: no such field
    fields = [a.split("=")[0] for a in argv if a.startswith("--config.")]
    name = re.search(r"\w+", str(error))
    near = re.search(r'Did you mean "(\w+)"', str(error))
    raise InputError(
      f"the config has no field {name[0] if name else ''!r}"
      + (f", did you mean {near[1]!r}?" if near else "")
      + f" (given: {' '.join(fields)}; configs/default.py lists them all)"
    ) from None
  except (flags.Error, OSError, TypeError, ValueError) as error:
    raise InputError(" ".join(str(error).split())) from None


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
