"""MATLAB files from other people: parsed, or one line that says why not."""

import io
from typing import Any

import numpy as np
import scipy.io
from jaxtyping import Float

from tokenpose_jax.errors import InputError, one_line

LARGEST = 2**31  # of numbers that are pixels


def parse(raw: bytes, what: str, *, structs: bool = False) -> dict[str, Any]:
  """The variables of a file.

  Args:
    raw: its bytes.
    what: it is, for the error: its path.
    structs: structs as objects with attributes, and no axes of length one.

  Raises:
    InputError: it is not a MATLAB file, or of version 7.3 (HDF5).
  """
  try:
    return scipy.io.loadmat(
      io.BytesIO(raw), squeeze_me=structs, struct_as_record=not structs
    )
  except Exception as error:  # whatever SciPy finds wrong in the bytes
    reason = one_line(error, 200)
    raise InputError(f"{what} is not a MATLAB file: {reason}") from None


def pixels(
  value: Any, shape: tuple[int, ...], what: str
) -> Float[np.ndarray, "..."]:
  """Numbers of an image, as an array.

  Args:
    value: anything.
    shape: that they must have; -1: any length. One at the end may be missing,
      as MATLAB leaves it out.
    what: it is, for the error.

  Returns:
    float64; NaN where a number is not finite, or too large for pixels.

  Raises:
    InputError: it is not numbers of that shape.
  """
  try:
    array = np.asarray(value, np.float64)
  except (OverflowError, TypeError, ValueError):
    raise InputError(f"{what} is not numbers") from None
  found = array.shape
  if len(found) == len(shape) - 1:
    array = array[..., None]
  fits = len(array.shape) == len(shape) and all(
    want in (-1, have) for want, have in zip(shape, array.shape, strict=True)
  )
  if not fits:
    wanted = ", ".join("n" if want < 0 else str(want) for want in shape)
    raise InputError(f"{what} has the shape {found}, expected ({wanted})")
  return np.where(np.abs(array) < LARGEST, array, np.nan)
