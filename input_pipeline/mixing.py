"""Training on several data sets at once: `data.mix`.

Which set a position of a run is from is a pure function of the position, as all
else (sampling.py): each set has its share of every stretch of positions, to a
few people, and its people come in its own order, each once in an epoch of its
own.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from tokenpose_jax.errors import InputError

# Of shares: so that positions times numerators are whole numbers of 64 bits.
_FINEST = 10**6


class Other(NamedTuple):
  """A data set that is trained on besides `data.train_split`.

  Attributes:
    name: as `data.name`.
    folder: as `data.dir`.
    split: as `data.train_split`.
    weight: people of it for each of `data.train_split`.
  """

  name: str
  folder: str
  split: str
  weight: Fraction


def others(mix: Sequence[str]) -> list[Other]:
  """What `data.mix` names.

  Args:
    mix: NAME:DIR:SPLIT:WEIGHT each.

  Raises:
    InputError: one of them is of another form.
  """
  return [_other(text) for text in mix]


def _other(text: str) -> Other:
  # A folder may have colons, as gs://bucket/folder.
  name, _, rest = str(text).partition(":")
  folder, *last = rest.rsplit(":", 2)
  try:
    split, number = last
    weight = Fraction(number).limit_denominator(_FINEST)
    if not (name and folder and split and 0 < weight < _FINEST):
      raise ValueError
  except (ValueError, ZeroDivisionError):
    raise InputError(
      f"data.mix: {text!r:.80} is not NAME:DIR:SPLIT:WEIGHT, as"
      " coco:data/coco:train2017:0.5; a weight is above 0"
    ) from None
  return Other(name, folder, split, weight)


class Mix:
  """Which of several sets each position is from."""

  def __init__(self, weights: Sequence[Fraction] = ()):
    """Of sets in order.

    Args:
      weights: of the second and later sets; the first one's is 1.
    """
    left = self.total = 1 + sum(weights, Fraction(0))
    # Of what the sets before leave, the share of each but the last.
    self._shares = []
    for weight in (Fraction(1), *weights)[:-1] if weights else ():
      share = (weight / left).limit_denominator(_FINEST)
      self._shares.append((share.numerator, share.denominator))
      left -= weight

  def at(
    self, positions: Int[np.ndarray, " n"]
  ) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """The set of each position, and how many of that set came before.

    Args:
      positions: (n,) step * batch_size + slot.
    """
    which = np.full(len(positions), len(self._shares))
    place = np.array(positions, np.int64)
    for number, (over, under) in enumerate(self._shares):
      before, after = place * over // under, (place + 1) * over // under
      open_still = which == len(self._shares)
      taken = open_still & (after > before)
      which[taken] = number
      place = np.where(
        taken, before, np.where(open_still, place - before, place)
      )
    return which, place
