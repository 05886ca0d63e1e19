"""Initial values: the layers say them, the host draws them.

Networks are built of shapes alone, each with the way its values begin.
`draw` makes arrays of them, with NumPy: nothing is compiled, where JAX compiles
a program for every shape of a network.

Algorithm: NumPy's Philox4x64-10 bit generator, its key the 128-bit BLAKE2b of
"SEED/PATH", and its raw 64-bit words, whose sequence NumPy guarantees. Normal
numbers are Box-Muller of a word's two halves. So the values of a parameter
depend on the seed and its own path in the tree, on no other parameter.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Float, Shaped

Values: TypeAlias = Callable[[int], Shaped[np.ndarray, "..."]]
"""The values of an array, by the key of its generator."""


class Initial(jax.ShapeDtypeStruct):
  """The shape and type of an array of a network, and how it begins.

  Attributes:
    values: gives the array (...), by the key of its generator.
  """

  def __init__(self, shape: Sequence[int], dtype: DTypeLike, values: Values):
    super().__init__(shape, dtype)
    self.values = values


# As Flax's layers call them: (key, shape, dtype) -> what is an array for them,
# and an `Initial` here. Nothing is drawn, so the key plays no part.
Initializer: TypeAlias = Callable[[Any, Sequence[int], DTypeLike], Any]


def zeros(key: Any, shape: Sequence[int], dtype: DTypeLike) -> Any:
  """An initializer: all 0."""
  del key
  return Initial(shape, dtype, lambda _: np.zeros(shape, dtype))


def ones(key: Any, shape: Sequence[int], dtype: DTypeLike) -> Any:
  """An initializer: all 1."""
  del key
  return Initial(shape, dtype, lambda _: np.ones(shape, dtype))


def normal(std: float) -> Initializer:
  """An initializer: normal numbers around 0.

  Args:
    std: their standard deviation.
  """

  def initializer(key: Any, shape: Sequence[int], dtype: DTypeLike) -> Any:
    del key

    def values(key: int) -> np.ndarray:
      drawn = _normal(key, math.prod(shape)) * np.float32(std)
      return drawn.reshape(shape).astype(dtype, copy=False)

    return Initial(shape, dtype, values)

  return initializer


def draw(tree: Any, seed: int) -> Any:
  """The arrays of a tree of shapes, on the host.

  Args:
    tree: nested dicts of `Initial`.
    seed: of the draws.
  """

  def values(path: Sequence[Any], leaf: Initial) -> np.ndarray:
    name = "/".join([str(seed), *(key.key for key in path)])
    digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
    return leaf.values(int.from_bytes(digest, "little"))

  return jax.tree_util.tree_map_with_path(values, tree)


def _normal(key: int, count: int) -> Float[np.ndarray, " count"]:
  """Standard normal numbers in float32, by Box and Muller, 1958."""
  words = np.random.Philox(key=key).random_raw((count + 1) // 2)
  high, low = words >> 32, words & 0xFFFFFFFF
  # In (0, 1]: no number is larger than 6.8.
  uniform = (high.astype(np.float32) + np.float32(0.5)) * np.float32(2**-32)
  radius = np.sqrt(np.float32(-2) * np.log(uniform))
  angle = low.astype(np.float32) * np.float32(2 * math.pi * 2**-32)
  pair = (radius * np.cos(angle), radius * np.sin(angle))
  return np.concatenate(pair)[:count]
