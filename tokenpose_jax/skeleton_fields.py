"""The fields of a skeleton as JSON has them, checked one by one."""

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from tokenpose_jax.errors import InputError

KNOWN = (
  "name",
  "keypoints",
  "limbs",
  "flip_pairs",
  "upper_body",
  "sigmas",
  "colors",
)
_NEAR = 0.55  # of 1: how alike two names are before one may be a slip


def read(fields: Any) -> dict[str, Any]:
  """The fields of `Skeleton`, by their names; None where there is none.

  Args:
    fields: a dict of JSON types. `keypoints` is required; null is as good as
      nothing. A field that is not known is passed over with a warning, but
      refused where it may be a slip of one that is.

  Raises:
    InputError: naming the field, what it is and what is expected.
  """
  if not isinstance(fields, Mapping):
    raise InputError(
      f"skeleton: {fields!r:.40} is no JSON object with 'keypoints'"
    )
  _check_known(fields)
  given = {name: fields.get(name) for name in KNOWN}
  if given["keypoints"] is None:
    raise InputError("skeleton: the field 'keypoints' is missing")
  names = keypoints(given["keypoints"])
  return {
    "name": _text(given["name"]),
    "keypoints": names,
    "limbs": _pairs("limbs", given["limbs"], names),
    "flip_pairs": _pairs("flip_pairs", given["flip_pairs"], names),
    "upper_body": tuple(
      _index("upper_body", value, names)
      for value in _listed("upper_body", given["upper_body"])
    ),
    "sigmas": sigmas(given["sigmas"]),
    "colors": colors(given["colors"]),
  }


def keypoints(value: Any) -> tuple[str, ...]:
  """K names.

  Args:
    value: a list of them.

  Raises:
    InputError: it is none, or empty.
  """
  if (
    isinstance(value, list | tuple)
    and value
    and all(isinstance(name, str) and name.strip() for name in value)
  ):
    return tuple(value)
  raise InputError(
    f"skeleton: keypoints is {value!r:.80}, expected a list of names"
  )


def sigmas(value: Any) -> tuple[float, ...] | None:
  """OKS constants; None for None.

  Args:
    value: a list of numbers.

  Raises:
    InputError: it is none.
  """
  if value is None:
    return None
  return tuple(_number("sigmas", one) for one in _listed("sigmas", value))


def colors(value: Any) -> tuple[tuple[int, int, int], ...] | None:
  """RGB colors; None where there are none.

  Args:
    value: a list of three numbers from 0 to 255 each.

  Raises:
    InputError: it is none.
  """
  made = []
  for color in _listed("colors", value):
    if not isinstance(color, list | tuple) or len(color) != 3:
      raise InputError(
        f"skeleton: colors has {color!r:.40}; expected red, green and blue"
      )
    red, green, blue = (_number("colors", part) for part in color)
    if not all(p.is_integer() and 0 <= p <= 255 for p in (red, green, blue)):
      raise InputError(
        f"skeleton: colors has {color!r:.40}; expected whole numbers from 0 to"
        " 255"
      )
    made.append((int(red), int(green), int(blue)))
  return tuple(made) or None


def _check_known(fields: Mapping[str, Any]) -> None:
  """A slip in `sigmas` would mean the default, and no one would know."""
  plain = {name.replace("_", ""): name for name in KNOWN}
  unknown = [name for name in fields if name not in KNOWN]
  for name in unknown:
    short = str(name).replace("_", "").casefold()
    if near := difflib.get_close_matches(short, plain, 1, _NEAR):
      raise InputError(
        f"skeleton: unknown fields {unknown!r:.80}; is {str(name)!r:.40} meant"
        f" to be {plain[near[0]]!r}? known: {', '.join(KNOWN)}"
      )
  if unknown:
    logging.warning(
      "the skeleton's fields %.80s are not known and play no part", unknown
    )


def _text(value: Any) -> str | None:
  if value is None or (isinstance(value, str) and value.strip()):
    return value
  raise InputError(f"skeleton: name is {value!r:.40}, expected text")


def _listed(field: str, value: Any) -> Sequence[Any]:
  """A list; none for None."""
  if value is None:
    return ()
  if isinstance(value, list | tuple):
    return value
  raise InputError(f"skeleton: {field} is {value!r:.80}, expected a list")


def _pairs(
  field: str, value: Any, names: Sequence[str]
) -> tuple[tuple[int, int], ...]:
  found = []
  for pair in _listed(field, value):
    if not isinstance(pair, list | tuple) or len(pair) != 2:
      raise InputError(
        f"skeleton: {field} has {pair!r:.40}; expected two names or indices"
      )
    first, second = (_index(field, end, names) for end in pair)
    found.append((first, second))
  return tuple(found)


def _index(field: str, value: Any, names: Sequence[str]) -> int:
  """Of a keypoint that is given by its name or index."""
  if isinstance(value, str):
    if value not in names:
      raise InputError(
        f"skeleton: {field}: {value!r:.40} is not one of the keypoints"
        f" {', '.join(names)}"
      )
    return names.index(value)
  number = None if isinstance(value, bool) else value
  if isinstance(number, float) and number.is_integer():
    number = int(number)
  if not isinstance(number, int):
    raise InputError(
      f"skeleton: {field} has {value!r:.40}; expected a keypoint's name or"
      " index"
    )
  return number


def _number(field: str, value: Any) -> float:
  """A finite number, also as text."""
  try:
    number = math.nan if isinstance(value, bool) else float(value)
  except (OverflowError, TypeError, ValueError):
    number = math.nan
  if not math.isfinite(number):
    raise InputError(
      f"skeleton: {field} has {value!r:.40}; expected a finite number"
    )
  return number
