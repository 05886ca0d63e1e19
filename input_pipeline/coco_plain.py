"""Other people's COCO files, made plain: one spelling of every field.

Every tool writes COCO's fields a little differently: text for numbers, nested
keypoints, no areas, no categories. Where the meaning is certain, it is taken,
and what was assumed is noted; all else is left for `coco_rules` to refuse.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from tokenpose_jax.metrics.coco_files import AREA_OF_BOX

# COCO's category, of files without any.
CATEGORY = 1
# Of an image: its id in the file, where that is not a plain integer.
ORIGINAL_ID = "original_id"
_LARGEST_ID = 2**53  # integers that every reader of JSON keeps


class Plain(NamedTuple):
  """An annotation file's content, made plain.

  Attributes:
    content: images, categories and annotations. Image ids are integers;
      those of annotations, of listed images, too. `area`, `iscrowd`,
      `category_id` and `num_keypoints` are there.
    notes: what was assumed, a line each.
  """

  content: dict[str, Any]
  notes: tuple[str, ...]


def plain(content: Mapping[str, Any], num_keypoints: int) -> Plain:
  """Makes a file's content plain.

  Args:
    content: COCO's dict, whose outer structure is valid.
    num_keypoints: K of the skeleton.
  """
  notes: list[str] = []
  images, place = _images(content["images"], notes)
  people = [_Person(e, place, num_keypoints) for e in content["annotations"]]
  _say_assumed(people, notes)
  entries = [person.entry for person in people]
  _count_keypoints(entries, num_keypoints, notes)
  categories = _categories(content.get("categories"), entries, notes)
  fields = {
    "images": images,
    "categories": categories,
    "annotations": entries,
  }
  return Plain({**content, **fields}, tuple(notes))


def key(image_id: Any) -> Any:
  """What ids are compared by: 785, 785.0 and "785" are one image."""
  if isinstance(image_id, bool) or not isinstance(image_id, int | float | str):
    return None
  number = whole(image_id)
  return image_id if number is None else number


def whole(value: Any) -> int | None:
  """An integer, also as 7.0 and "7"; None for anything else."""
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
  if isinstance(value, bool) or not isinstance(value, int | float | str):
    return None
  try:
    result = float(value)
  except (OverflowError, ValueError):
    return None
  return result if math.isfinite(result) else None


def _images(
  images: list[dict[str, Any]], notes: list[str]
) -> tuple[list[dict[str, Any]], dict[Any, int]]:
  """The images with integer ids, and those ids by `key`."""
  keys = [key(image["id"]) for image in images]
  if all(type(k) is int and 0 <= k <= _LARGEST_ID for k in keys):
    place = {k: k for k in keys}
  else:
    # As text, so that numbers and names can be sorted together.
    ordered = sorted({k for k in keys if k is not None}, key=str)
    place = {k: n for n, k in enumerate(ordered, start=1)}
    notes.append(
      "image ids are not plain numbers: they are numbered here, results are"
      " written with the file's own"
    )
  made = []
  for image, k in zip(images, keys, strict=True):
    entry = dict(image)
    if k in place:
      entry["id"] = place[k]
      if type(image["id"]) is not int or image["id"] != place[k]:
        entry[ORIGINAL_ID] = image["id"]
    if isinstance(image["file_name"], int) and not isinstance(
      image["file_name"], bool
    ):
      entry["file_name"] = str(image["file_name"])
    for field in ("width", "height"):
      size = whole(image.get(field))
      if size is not None:
        entry[field] = size
    made.append(entry)
  return made, place


class _Person:
  """An annotation made plain, and what had to be assumed."""

  def __init__(
    self, entry: Mapping[str, Any], place: Mapping[Any, int], k: int
  ) -> None:
    self.entry: dict[str, Any] = dict(entry)
    made = self.entry
    image = key(entry.get("image_id"))
    if image in place:
      made["image_id"] = place[image]
    category = entry.get("category_id", CATEGORY)
    number_of = whole(category)
    made["category_id"] = category if number_of is None else number_of
    crowd = entry.get("iscrowd")
    crowd = int(crowd) if isinstance(crowd, bool) else whole(crowd or 0)
    made["iscrowd"] = entry.get("iscrowd") if crowd is None else crowd
    made["keypoints"] = _keypoints(entry.get("keypoints"), k)
    box = entry.get("bbox")
    if isinstance(box, list) and len(box) == 4:
      numbers = [number(v) for v in box]
      if None not in numbers:
        made["bbox"] = [
          v if type(v) is int else n for v, n in zip(box, numbers, strict=True)
        ]
    self.without_box = box is None and not labeled(made)
    if self.without_box:
      made["bbox"] = [0.0, 0.0, 0.0, 0.0]
    area = number(entry.get("area"))
    self.without_area = area is None
    if area is None:
      area = _box_area(made.get("bbox")) * AREA_OF_BOX
    made["area"] = area


def labeled(entry: Mapping[str, Any]) -> int:
  """How many keypoints of a plain annotation are labeled: v above 0."""
  values = entry.get("keypoints")
  if not isinstance(values, list):
    return 0
  return sum(isinstance(v, int | float) and v > 0 for v in values[2::3])


def _box_area(box: Any) -> float:
  if not isinstance(box, list) or len(box) != 4:
    return 0.0
  w, h = number(box[2]), number(box[3])
  return 0.0 if w is None or h is None else max(w, 0.0) * max(h, 0.0)


def _keypoints(values: Any, k: int) -> Any:
  """3K numbers where the meaning is certain; else the value itself."""
  if values is None or values == []:
    return [0] * (3 * k)
  if not isinstance(values, list):
    return values
  if all(isinstance(v, list) and len(v) == 3 for v in values):
    values = [one for triple in values for one in triple]
  if {*map(type, values)} <= {int, float} and all(map(math.isfinite, values)):
    return values
  numbers = [v if type(v) in (int, float) else number(v) for v in values]
  if len(numbers) % 3:
    return values
  for n in range(0, len(numbers), 3):
    # Of what is not labeled, the place does not matter.
    if numbers[n + 2] == 0:
      for m in (n, n + 1):
        place = numbers[m]
        if place is None or not math.isfinite(place):
          numbers[m] = 0
  return values if None in numbers else numbers


def _say_assumed(people: list[_Person], notes: list[str]) -> None:
  boxes = sum(person.without_area for person in people)
  if boxes:
    notes.append(
      f"{boxes} of {len(people)} annotations have no area:"
      f" {AREA_OF_BOX} x box is taken, COCO's mean"
    )


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


def _categories(
  given: Any, entries: list[dict[str, Any]], notes: list[str]
) -> list[dict[str, Any]]:
  """The categories, with those that people have and the file does not list."""
  categories = []
  for category in given if isinstance(given, list) else ():
    number_of = (
      whole(category.get("id")) if isinstance(category, dict) else None
    )
    if number_of is not None:
      categories.append({**category, "id": number_of})
  listed = {category["id"] for category in categories}
  used = {e["category_id"] for e in entries if type(e["category_id"]) is int}
  for missing in sorted(used - listed):
    categories.append({"id": missing, "name": f"category {missing}"})
    if categories[:-1] or missing != CATEGORY:
      notes.append(f"category {missing} is not listed: it is added")
  return categories
