"""Networks named on a command line: published ones, and files of configs/."""

import ast
import dataclasses
import difflib
import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import Any

from tokenpose_jax.errors import InputError
from tokenpose_jax.models.config import ModelConfig
from tokenpose_jax.models.published import PUBLISHED


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What a config says of a network's use.

  Attributes:
    model: the network.
    codec: `config.codec`, JSON types.
    skeleton: `config.data.skeleton`; "" where only the network is known.
  """

  model: ModelConfig
  codec: dict[str, Any]
  skeleton: str


def load(name: str) -> Recipe:
  """The network of that name, or of the config in that file.

  Args:
    name: one of the published networks, or the path of a file with a function
      `get_config`, as those in configs/.

  Raises:
    InputError: it is neither, or the file cannot be used.
  """
  if name in PUBLISHED:
    model = PUBLISHED[name]
    # reference 2.1: 2 pixels in 64 rows, 3 in 96.
    return Recipe(model, {"sigma": model.heatmap_hw[0] / 32, "udp": False}, "")
  if not name.endswith(".py"):
    near = difflib.get_close_matches(name, PUBLISHED, 1)
    raise InputError(
      f"{name!r} is not a published network"
      + (f"; did you mean {near[0]}?" if near else ".")
      + f" Allowed: {', '.join(PUBLISHED)}, or a file of configs/"
    )
  config = _get_config(name)
  return Recipe(
    ModelConfig.of(config.model),
    config.codec.to_dict(),
    config.data.skeleton,
  )


def change(model: ModelConfig, changes: Sequence[str]) -> ModelConfig:
  """A network with some fields changed.

  Args:
    model: the network.
    changes: FIELD=VALUE each; a heatmap size that followed the crop's follows
      it again.

  Raises:
    InputError: a field is unknown, or its value cannot be used.
  """
  fields = model.to_dict()
  quarter = tuple(side // 4 for side in model.input_hw)
  if model.heatmap_hw == quarter:
    fields["heatmap_hw"] = ()
  for text in changes:
    field, equals, value = text.partition("=")
    if not equals:
      raise InputError(f"--set: {text!r} is not FIELD=VALUE")
    try:
      fields[field] = ast.literal_eval(value)
    except (SyntaxError, ValueError):
      fields[field] = value  # text without quotes
  return ModelConfig.of(fields)


def _get_config(path: str) -> Any:
  """What `get_config` of a file returns."""
  # Files of configs/ import each other from the checkout's root.
  root = os.path.dirname(os.path.dirname(os.path.abspath(path)))
  sys.path.insert(0, root)
  try:
    spec = importlib.util.spec_from_file_location("given_config", path)
    if spec is None or spec.loader is None:
      raise InputError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()
  except (OSError, AttributeError, ImportError) as error:
    raise InputError(f"{path}: {error}") from None
  finally:
    sys.path.remove(root)
