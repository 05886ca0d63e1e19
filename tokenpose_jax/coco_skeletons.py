"""What a category of a COCO annotation file says of its skeleton."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from tokenpose_jax import skeleton_fields
from tokenpose_jax.errors import InputError
from tokenpose_jax.skeletons import COCO_17, Skeleton


def from_category(category: Mapping[str, Any]) -> Skeleton:
  """The skeleton that a COCO annotation file's category describes.

  COCO's `keypoints` (names) and `skeleton` (pairs, see `_limbs`); besides, any
  other field of `Skeleton.from_dict`. Where `flip_pairs` is missing, names that
  differ in their side only are pairs. COCO's own 17 names are `COCO_17`,
  with its sigmas and halves, where the category gives none of its own.

  Raises:
    InputError: as `Skeleton.from_dict`; what is drawn alone, limbs and colors,
      is left out with a warning instead.
  """
  names = skeleton_fields.keypoints(category.get("keypoints"))
  own = {
    field: category[field]
    for field in ("flip_pairs", "upper_body", "sigmas")
    if category.get(field) is not None
  }
  if limbs := _limbs(category.get("limbs"), names, first=0):
    own["limbs"] = limbs
  if colors := _colors(category.get("colors"), names):
    own["colors"] = colors
  if names == COCO_17.keypoints:
    if not own:
      return COCO_17
    base = COCO_17.to_dict()
  else:
    base = {
      "keypoints": names,
      "limbs": _limbs(category.get("skeleton"), names),
      "flip_pairs": name_pairs(names),
    }
  if (name := category.get("name")) is not None:
    own["name"] = str(name)[:80]
  return Skeleton.from_dict(base | own)


def _colors(given: Any, names: Sequence[str]) -> Any:
  """One for each keypoint; None where they are not just that."""
  try:
    colors = skeleton_fields.colors(given)
  except InputError as error:
    logging.warning("the annotations' %s; drawn in others", error)
    return None
  if colors and len(colors) != len(names):
    logging.warning(
      "the annotations' colors: %d for %d keypoints; drawn in others",
      len(colors),
      len(names),
    )
    return None
  return colors


def _limbs(
  given: Any, names: Sequence[str], first: int | None = None
) -> list[tuple[int, int]]:
  """Pairs of keypoints by name or number, as pairs of places.

  Limbs are drawn and nothing else: what is not certain is left out, and said.

  Args:
    given: a list of pairs; None: there are none.
    names: of the keypoints.
    first: the number of the first; None, COCO's `skeleton`: 1, or 0 where one
      is 0, or nobody knows.
  """
  if given is None:
    return []
  pairs = [
    pair
    for pair in (given if isinstance(given, list) else ())
    if isinstance(pair, list) and len(pair) == 2
    if all(isinstance(end, int | float | str) for end in pair)
    if not any(isinstance(end, bool) for end in pair)
  ]
  ends = {end for pair in pairs for end in pair}
  place: dict[Any, int] = {name: i for i, name in enumerate(names)}
  if first is not None or not {0, len(names)} <= ends:
    first = int(0 not in ends) if first is None else first
    place |= {i + first: i for i in range(len(names))}
  limbs = [(place[a], place[b]) for a, b in pairs if a in place and b in place]
  count = len(given) if isinstance(given, list) else 1
  if len(limbs) < count:
    logging.warning(
      "the annotations' skeleton: %d of %d limbs are not pairs of keypoints and"
      " are not drawn",
      count - len(limbs),
      count,
    )
  return limbs


# How names say a side, the surest first: a word of its own (left_eye, eyeLeft,
# l-eye, eye_L), the word within another (leftshoulder), a letter at an end
# (LHip, Lwrist, hipR). A pair needs both names, alike but for the side.
_SIDES = {"left": "right", "l": "r", "\u5de6": "\u53f3"}
_OTHER_SIDE = _SIDES | {right: left for left, right in _SIDES.items()}
_MARKS = tuple(
  re.compile(pattern)
  for pattern in (
    r"[A-Z]?[a-z]+|[A-Z]+",
    r"(?i:left|right)|[\u5de6\u53f3]",
    r"^[lrLR]",
    r"[lrLR]$",
  )
)


def name_pairs(names: Sequence[str]) -> list[tuple[int, int]]:
  """Pairs of names that differ in their side alone: (left, right) places.

  Names in capitals and small letters are the same name; of names that repeat,
  none is paired.

  Args:
    names: of keypoints, in English letters or with the Chinese characters for
      left and right; others have no pairs.
  """
  folded = [name.casefold() for name in names]
  place = {n: i for i, n in enumerate(folded) if folded.count(n) == 1}
  pairs: list[tuple[int, int]] = []
  free = set(place.values())
  for marks in _MARKS:
    for i in sorted(free):
      mirrored, is_left = _mirrored(names[i], marks)
      other = place.get(mirrored, i)
      if is_left and other in free and other != i:
        pairs.append((i, other))
        free -= {i, other}
  return sorted(pairs)


def _mirrored(name: str, marks: re.Pattern[str]) -> tuple[str, bool]:
  """The name of the other side, and whether this one is of the left."""
  sides = []

  def swap(match: re.Match[str]) -> str:
    mark = match.group().casefold()
    if mark in _OTHER_SIDE:
      sides.append(mark)
    return _OTHER_SIDE.get(mark, mark)

  return marks.sub(swap, name).casefold(), bool(sides) and sides[0] in _SIDES
