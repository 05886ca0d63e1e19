"""Other people's COCO files, made plain: one spelling of every field.

Every tool writes COCO's fields a little differently: text for numbers, nested
keypoints, no areas, no categories. Where the meaning is certain, it is taken,
and what was assumed is noted; all else stays as it is, to be refused by who
reads it (`coco_files`; `input_pipeline.coco_rules`).
"""

import math
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

# COCO's category, of files without any.
CATEGORY = 1
# Area of a person over that of the box: the mean of COCO's people.
AREA_OF_BOX = 0.53
# Of an image or a category: its id in the file, if another than `id`.
ORIGINAL_ID = "original_id"
LARGEST_ID = 2**53  # integers that every reader of JSON keeps
_LARGEST_SIDE = 2**31  # of an image, pixels


class Plain(NamedTuple):
  """An annotation file's content, made plain.

  Attributes:
    content: images, categories and annotations. Ids of images and categories
      are integers from 0; those of annotations, if they are listed, too.
      `area`, `iscrowd`, `category_id` and `num_keypoints` are there, and
      `width` and `height` both or neither.
    notes: what was assumed, a line each.
  """

  content: dict[str, Any]
  notes: tuple[str, ...]


def plain(content: Mapping[str, Any], num_keypoints: int) -> Plain:
  """Makes a file's content plain.

  Args:
    content: COCO's dict: lists of dicts, images with an `id`.
    num_keypoints: K of the skeleton.
  """
  notes: list[str] = []
  images = _numbered(content["images"], "image", notes)
  categories = _numbered(_categories(content, notes), "category", notes)
  ids = places(images), places(categories)
  entries = [_person(e, *ids, num_keypoints) for e in content["annotations"]]
  _add_areas(entries, notes)
  _count_keypoints(entries, num_keypoints, notes)
  _read_images(images)
  fields = {
    "images": images,
    "categories": categories,
    "annotations": entries,
  }
  return Plain({**content, **fields}, tuple(notes))


def places(entries: Iterable[Mapping[str, Any]]) -> dict[Hashable, int]:
  """The plain ids of images or categories, by the `key` of the file's own."""
  return {key(e.get(ORIGINAL_ID, e["id"])): e["id"] for e in entries}


def key(value: Any) -> Hashable:
  """What ids are compared by: 785, 785.0 and "785" are one; None: no id."""
  number_of = whole(value)
  if number_of is not None:
    return number_of
  return value if isinstance(value, str) else number(value)


def whole(value: Any) -> int | None:
  """An integer, also as 7.0 and "7"; None for anything else."""
  value = _python(value)
  if isinstance(value, bool):
    return None
  if isinstance(value, int):
    return value
  if isinstance(value, float):
    return int(value) if value.is_integer() else None
  if isinstance(value, str):
    text = value.strip()
    digits = text.removeprefix("-")
    plain_digits = digits.isascii() and digits.isdigit() and len(digits) < 20
    # "007" is a name: another image may be "7".
    return int(text) if plain_digits and str(int(text)) == text else None
  return None


def number(value: Any) -> float | None:
  """A finite number, also as text; None for anything else."""
  value = _python(value)
  if isinstance(value, bool) or not isinstance(value, int | float | str):
    return None
  try:
    result = float(value)
  except (OverflowError, ValueError):
    return None
  return result if math.isfinite(result) else None


def _python(value: Any) -> Any:
  """NumPy's scalars as Python's."""
  return value.item() if isinstance(value, np.generic) else value


def _numbered(
  listed: Iterable[Mapping[str, Any]], kind: str, notes: list[str]
) -> list[dict[str, Any]]:
  """Images or categories with integer ids."""
  made = [dict(entry) for entry in listed]
  keys = [key(entry["id"]) for entry in made]
  place: dict[Hashable, Any] = {k: k for k in keys}
  if not all(type(k) is int and 0 <= k <= LARGEST_ID for k in keys):
    # Numbers before text, so that both can be sorted together.
    ordered = sorted(
      {k for k in keys if k is not None},
      key=lambda k: (isinstance(k, str), k),
    )
    place |= {k: n for n, k in enumerate(ordered, start=1)}
    notes.append(
      f"{kind} ids are not plain numbers: they are numbered here, results are"
      " written with the file's own"
    )
  for entry, k in zip(made, keys, strict=True):
    own = entry["id"]
    if k is not None and (type(own) is not int or own != place[k]):
      entry |= {"id": place[k], ORIGINAL_ID: own}
  return made


def _categories(
  content: Mapping[str, Any], notes: list[str]
) -> list[dict[str, Any]]:
  """The categories, with those that people have and the file does not list."""
  given = content.get("categories")
  listed = [
    category
    for category in (given if isinstance(given, list) else ())
    # Without an id it is nobody's.
    if isinstance(category, dict) and key(category.get("id")) is not None
  ]
  used = {key(e.get("category_id", CATEGORY)) for e in content["annotations"]}
  missing = used - {key(category["id"]) for category in listed}
  for number_of in sorted(n for n in missing if isinstance(n, int)):
    if listed or number_of != CATEGORY:
      notes.append(f"category {number_of} is not listed: it is added")
    listed.append({"id": number_of, "name": f"category {number_of}"})
  return listed


def _read_images(images: list[dict[str, Any]]) -> None:
  """Names as text; sizes as integers, or none where they cannot be."""
  for image in images:
    name = image.get("file_name")
    if isinstance(name, int) and not isinstance(name, bool):
      image["file_name"] = str(name)
    height, width = (whole(image.pop(f, None)) for f in ("height", "width"))
    if all(0 < (side or 0) <= _LARGEST_SIDE for side in (height, width)):
      image |= {"height": height, "width": width}


def _person(
  entry: Mapping[str, Any],
  images: Mapping[Hashable, int],
  categories: Mapping[Hashable, int],
  k: int,
) -> dict[str, Any]:
  """An annotation; its `area` is None where the file's is no number."""
  made = dict(entry)
  image, category = (
    key(entry.get("image_id")),
    key(entry.get("category_id", CATEGORY)),
  )
  if image in images:
    made["image_id"] = images[image]
  if category is not None:
    made["category_id"] = categories.get(category, category)
  crowd = entry.get("iscrowd")
  number_of = int(crowd) if isinstance(crowd, bool) else whole(crowd or 0)
  made["iscrowd"] = crowd if number_of is None else number_of
  made["keypoints"] = _keypoints(entry.get("keypoints"), k)
  box = _sequence(entry.get("bbox"))
  numbers = [number(v) for v in box] if isinstance(box, list) else []
  if len(numbers) == 4 and None not in numbers:
    made["bbox"] = [
      v if type(v) is int else n for v, n in zip(box, numbers, strict=True)
    ]
  elif box is None and not labeled(made):
    made["bbox"] = [0.0, 0.0, 0.0, 0.0]
  made["area"] = number(entry.get("area"))
  return made


def labeled(entry: Mapping[str, Any]) -> int:
  """How many keypoints of a plain annotation are labeled: v above 0."""
  values = entry.get("keypoints")
  if not isinstance(values, list):
    return 0
  return sum(isinstance(v, int | float) and v > 0 for v in values[2::3])


def _sequence(values: Any) -> Any:
  """Arrays and tuples as lists; anything else as it is."""
  if isinstance(values, np.ndarray):
    return values.tolist()
  return list(values) if isinstance(values, tuple) else values


def _keypoints(given: Any, k: int) -> Any:
  """3K numbers where the meaning is certain; else the value itself."""
  values = _sequence(given)
  if values is None or values == []:
    return [0] * (3 * k)
  if not isinstance(values, list):
    return values
  if all(isinstance(v, list | tuple) and len(v) == 3 for v in values):
    values = [one for triple in values for one in triple]
  if {*map(type, values)} <= {int, float} and _finite(values):
    return values
  numbers = [v if type(v) in (int, float) else number(v) for v in values]
  if len(numbers) % 3:
    return values
  for n in range(0, len(numbers), 3):
    # Of what is not labeled, the place does not matter.
    if numbers[n + 2] == 0:
      for m in (n, n + 1):
        if number(numbers[m]) is None:
          numbers[m] = 0
  return values if None in numbers else numbers


def _finite(values: list[int | float]) -> bool:
  try:
    return all(map(math.isfinite, values))
  except OverflowError:  # an integer that is no float
    return False


def _add_areas(entries: list[dict[str, Any]], notes: list[str]) -> None:
  """Where there is none, COCO's mean part of the box."""
  lacking = [entry for entry in entries if entry["area"] is None]
  for entry in lacking:
    entry["area"] = _box_area(entry.get("bbox")) * AREA_OF_BOX
  if lacking:
    notes.append(
      f"{len(lacking)} of {len(entries)} annotations have no area:"
      f" {AREA_OF_BOX} x box is taken, COCO's mean"
    )


def _box_area(box: Any) -> float:
  if not isinstance(box, list) or len(box) != 4:
    return 0.0
  w, h = number(box[2]), number(box[3])
  return 0.0 if w is None or h is None else max(w, 0.0) * max(h, 0.0)


def _count_keypoints(
  entries: list[dict[str, Any]], k: int, notes: list[str]
) -> None:
  """`num_keypoints`: the file's where it says something, else counted."""
  counts = [whole(entry.get("num_keypoints")) for entry in entries]
  own = [labeled(entry) for entry in entries]
  given = [count for count in counts if count is not None]
  if given and not any(given) and any(own):
    notes.append("num_keypoints is 0 everywhere: keypoints with v > 0 count")
    counts = [None] * len(entries)
  for entry, count, labels in zip(entries, counts, own, strict=True):
    sound = count is not None and 0 <= count <= k
    entry["num_keypoints"] = count if sound else labels
