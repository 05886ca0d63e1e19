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

import numpy as np

_ORDER, _AUGMENTATION = 0, 1  # streams


@dataclasses.dataclass(frozen=True)
class Draws:
  """The random numbers of one augmentation; "uniform" is in [0, 1)."""

  half_body: float  # uniform: is the crop cut to half a body?
  upper: float  # uniform: to the upper half?
  scale: float  # normal
  rotate: float  # uniform: is there a rotation?
  rotation: float  # normal
  flip: float  # uniform


def person_at(seed: int, position: int, people: int) -> int:
  """The person at a position. Each comes once in an epoch of `people`."""
  epoch, place = divmod(position, people)
  return int(_permutation(seed, epoch, people)[place])


def draws_at(seed: int, position: int) -> Draws:
  """The random numbers of the augmentation at a position."""
  u = (_words(seed, _AUGMENTATION, position, 8) >> 11) * 2.0**-53
  return Draws(
    half_body=float(u[0]),
    upper=float(u[1]),
    scale=_normal(u[2], u[3]),
    rotate=float(u[4]),
    rotation=_normal(u[5], u[6]),
    flip=float(u[7]),
  )


# Positions near an epoch's end alternate between two epochs.
@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, people: int) -> np.ndarray:
  words = _words(seed, _ORDER, epoch, people)
  return np.argsort(words, kind="stable").astype(np.int32)


def _words(seed: int, stream: int, number: int, count: int) -> np.ndarray:
  key = np.array([seed, stream], np.uint64)
  return np.random.Philox(key=key, counter=[0, 0, number, 0]).random_raw(count)


def _normal(u: float, v: float) -> float:
  return math.sqrt(-2 * math.log(1 - u)) * math.cos(2 * math.pi * v)
