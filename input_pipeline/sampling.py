"""Which person, which augmentation: pure functions of (seed, position).

A position is step * batch_size + slot: the place of a person in the endless
sequence of a run. No iterator holds state, so any number of processes yields
the same batches, and a run resumes at any step at once.

Algorithm: NumPy's Philox4x64-10 bit generator with key (seed, stream), counter
(0, 0, number, 0), and its raw 64-bit words, whose sequence NumPy guarantees.
An epoch's order is the stable argsort of one word a person. A uniform number is
word / 2**64 cut to 53 bits; a normal one is Box-Muller of two of those.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt64

_ORDER, _AUGMENTATION, _PIXELS = 0, 1, 2  # streams


Numbers = Float[np.ndarray, "*n"] | float


@dataclasses.dataclass(frozen=True)
class Draws:
  """The random numbers of augmentations, (*n,) float64 each.

  "Uniform" is in [0, 1).
  """

  half_body: Numbers  # uniform: is the crop cut to a half?
  upper: Numbers  # uniform: to the upper half?
  scale: Numbers  # normal
  rotate: Numbers  # uniform: is there a rotation?
  rotation: Numbers  # normal
  flip: Numbers  # uniform


@dataclasses.dataclass(frozen=True)
class PixelDraws:
  """The random numbers of augmentations of pixels, uniform in [0, 1)."""

  gain: Float[np.ndarray, "n 3"]  # of each channel
  contrast: Float[np.ndarray, " n"]
  brightness: Float[np.ndarray, " n"]
  cover: Float[np.ndarray, " n"]  # is a part covered?
  cover_center: Float[np.ndarray, "n 2"]  # y, x
  cover_size: Float[np.ndarray, "n 2"]  # height, width


def person_at(seed: int, position: int, people: int) -> int:
  """The index of the person at a position.

  Args:
    seed: of the run.
    position: step * batch_size + slot.
    people: how many there are; each comes once in an epoch of that many.
  """
  epoch, place = divmod(position, people)
  return int(_permutation(seed, epoch, people)[place])


def draws_at(seed: int, positions: int | Int[np.ndarray, "*n"]) -> Draws:
  """The random numbers of the augmentation at each position.

  Args:
    seed: of the run.
    positions: (*n) step * batch_size + slot.
  """
  positions = np.asarray(positions)
  flat = _uniform(seed, _AUGMENTATION, positions.ravel().tolist(), 8)
  u = [uniform.reshape(positions.shape) for uniform in flat.T]
  return Draws(
    half_body=u[0],
    upper=u[1],
    scale=_normal(u[2], u[3]),
    rotate=u[4],
    rotation=_normal(u[5], u[6]),
    flip=u[7],
  )


def pixel_draws_at(seed: int, positions: Int[np.ndarray, " n"]) -> PixelDraws:
  """The random numbers of the pixels' augmentation at each position.

  Args:
    seed: of the run.
    positions: (n,) step * batch_size + slot.
  """
  u = _uniform(seed, _PIXELS, positions.tolist(), 10)
  return PixelDraws(
    gain=u[:, :3],
    contrast=u[:, 3],
    brightness=u[:, 4],
    cover=u[:, 5],
    cover_center=u[:, 6:8],
    cover_size=u[:, 8:],
  )


# Positions near an epoch's end alternate between two epochs, of each set.
@functools.lru_cache(maxsize=64)
def _permutation(seed: int, epoch: int, people: int) -> np.ndarray:
  (words,) = _words(seed, _ORDER, [epoch], people)
  return np.argsort(words, kind="stable").astype(np.int32)


def _words(
  seed: int, stream: int, numbers: Sequence[int], count: int
) -> UInt64[np.ndarray, "n count"]:
  """The first raw words of the sequence of each number."""
  generator = np.random.Philox(key=np.array([seed, stream], np.uint64))
  # Setting the counter of one generator takes a sixth of making another.
  state = generator.state
  words = np.empty((len(numbers), count), np.uint64)
  for row, number in zip(words, numbers, strict=True):
    state["state"]["counter"] = np.array([0, 0, number, 0], np.uint64)
    generator.state = state
    row[:] = generator.random_raw(count)
  return words


def _uniform(
  seed: int, stream: int, numbers: Sequence[int], count: int
) -> Float[np.ndarray, "n count"]:
  return (_words(seed, stream, numbers, count) >> 11) * 2.0**-53


def _normal(
  u: Float[np.ndarray, "*n"], v: Float[np.ndarray, "*n"]
) -> Float[np.ndarray, "*n"]:
  # By `math`, an element at a time: NumPy's own logarithm and cosine need not
  # round alike on every processor.
  found = [
    math.sqrt(-2 * math.log(1 - one)) * math.cos(2 * math.pi * two)
    for one, two in zip(u.flat, v.flat, strict=True)
  ]
  return np.array(found, np.float64).reshape(u.shape)
