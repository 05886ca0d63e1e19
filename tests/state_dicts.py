"""State dicts of networks under their official names."""

import numpy as np
from flax import traverse_util

from tests import fixtures
from tokenpose_jax import network
from tokenpose_jax.convert import names
from tokenpose_jax.models import positions
from tokenpose_jax.models.config import ModelConfig


def official(model, table: bool = True) -> dict[str, np.ndarray]:
  """A state dict of that network (tests/parity/README.md, weight rule)."""
  state = {}
  for tree in network.abstract(model):
    for path, leaf in traverse_util.flatten_dict(tree, sep="/").items():
      name = names.official_name(model, path)
      shape = leaf.shape
      if path == "keypoint_tokens":
        shape = (1, *shape)
      elif path == "position_table":
        # Not quite the computed table: what is stored must come back.
        table = np.random.default_rng(0).normal(0, 1e-5, (1, *shape))
        state[name] = (table + position_table(model)).astype(np.float32)
        continue
      elif path.endswith("kernel"):
        order = (3, 2, 0, 1) if len(shape) == 4 else (1, 0)
        shape = tuple(shape[axis] for axis in order)
      elif path.endswith("count"):
        state[name] = np.array(len(state), np.int64)
        continue
      state[name] = fixtures.weight(name, shape)
  return state


def position_table(model) -> np.ndarray:
  """The network's own position table."""
  config = ModelConfig.of(model)
  return positions.sine_table(*config.grid_hw, config.dim)


def check_equal(one, other) -> None:
  """Same names, types, shapes and bytes."""
  assert set(one) == set(other)
  for name, value in other.items():
    assert one[name].dtype == value.dtype, name
    assert one[name].shape == value.shape, name
    assert one[name].tobytes() == value.tobytes(), name
