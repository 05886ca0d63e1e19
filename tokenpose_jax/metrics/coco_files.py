"""COCO's annotation and results files: read, checked, and made plain.

Owns what an entry must hold. What comes out holds that and nothing else, so
that no odd field and no odd id reaches the evaluation.
"""

import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from tokenpose_jax import json_files
from tokenpose_jax.errors import InputError
from tokenpose_jax.metrics import coco_plain
from tokenpose_jax.metrics.coco_plain import Plain, key

Shape = tuple[int, ...]  # of a field: () or (its length,)
Columns = dict[str, Sequence[Any]]

_NEEDED = {
  "images": ("id",),
  "annotations": ("image_id", "keypoints", "bbox"),
  "results": ("image_id", "category_id", "keypoints", "score"),
}
_IDS = ("image_id", "category_id")
_FLAGS = ("num_keypoints", "iscrowd")


class _Truth(NamedTuple):
  """An annotation file, read.

  Attributes:
    people: the fields of its annotations.
    images: their plain ids by those that results have (`coco_plain.key`).
    categories: likewise.
  """

  people: Columns
  images: dict[Hashable, int]
  categories: dict[Hashable, int]


def read(
  annotations: str | os.PathLike | Mapping[str, Any] | Plain,
  results: str | os.PathLike | Sequence[Any],
  num_keypoints: int,
  image_ids: Iterable[Hashable] | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
  """Reads ground truth and detections for an evaluation.

  Args:
    annotations: a COCO keypoint annotation file, or what it holds; with the
      plain ids where it has been made plain.
    results: a COCO keypoint results file, or what it holds.
    num_keypoints: K.
    image_ids: leave out all other images; None: none.

  Returns:
    (dataset, detections) in COCO's layout; the input's own entries where
    they hold nothing else. Ids are those of `coco_plain`: between equal
    scores the lower image id goes first, whatever the type of the ids.
    Results of unknown categories are left out, as pycocotools does.

  Raises:
    InputError: see `coco.evaluate`.
  """
  truth = _load(annotations, "annotations")
  found = _load(results, "results")
  if isinstance(found, str | Mapping) or not isinstance(found, Sequence):
    raise InputError(
      f"results: expected a list of detections, got a {type(found).__name__}"
    )
  people, images, categories = _truth(truth, num_keypoints)
  shapes: dict[str, Shape] = {"keypoints": (3 * num_keypoints,), "score": ()}
  # As in pycocotools the first result decides whether the areas of all are
  # those of their boxes or those of their keypoints' extents.
  first = found[0] if len(found) else None
  if isinstance(first, Mapping) and np.size(first.get("bbox", [])):
    shapes["bbox"] = (4,)
  detections = _quick_columns(found, shapes)
  quick = detections is not None
  if detections is None:
    detections = _slow_columns(found, "results", shapes)

  _check_images(detections["image_id"], images, "results")
  if image_ids is not None:
    chosen = set(image_ids)
    _check_images(chosen, images, "image_ids")
    images = {k: images[k] for k in map(key, chosen)}
  if found and not {*map(key, detections["category_id"])} & categories.keys():
    raise InputError(
      f"results: category_id {found[0]['category_id']!r} is not a category of"
      f" the annotations, which have {list(categories)}; neither is any other"
      " result's"
    )
  dataset = {
    "images": [{"id": place} for place in images.values()],
    "categories": [{"id": i, "name": str(c)} for c, i in categories.items()],
    "annotations": _entries(people, _own(images), _own(categories)),
  }
  # Nothing to take out, no field too many, no id to be changed.
  if (
    quick
    and {*map(len, found)} <= {len(detections)}
    and _same(detections["image_id"], images)
    and _same(detections["category_id"], categories)
  ):
    return dataset, list(found)
  return dataset, _entries(detections, images, categories)


def _load(source: Any, name: str) -> Any:
  """What the file holds; anything but a path is returned as it is."""
  if not isinstance(source, str | os.PathLike):
    return source
  return json_files.read(source, name)


def _check_structure(truth: Any) -> None:
  """Checks that the lists exist and the images have ids."""
  if not isinstance(truth, Mapping):
    raise InputError(
      "annotations: expected a dictionary with 'images' and 'annotations', got"
      f" a {type(truth).__name__}"
    )
  for name in ("images", "annotations"):
    entries = truth.get(name)
    if entries is None:
      raise InputError(
        f"annotations: {name!r} is missing; found {sorted(truth)}. Give a"
        " COCO keypoint file, such as person_keypoints_val2017.json"
      )
    if isinstance(entries, str | Mapping) or not isinstance(entries, Sequence):
      raise InputError(
        f"annotations: {name!r} is a {type(entries).__name__}, expected a list"
      )
  _check_entries(truth["images"], "images")


def _truth(truth: Any, num_keypoints: int) -> _Truth:
  """The annotations, made plain if they are not.

  Quick where every field is as COCO writes it.
  """
  shapes = {"keypoints": (3 * num_keypoints,), "area": (), "bbox": (4,)}
  made = isinstance(truth, Plain)
  if made:
    truth = truth.content
  else:
    _check_structure(truth)
  entries = truth["annotations"]
  people = _quick_columns(entries, shapes)
  own_ids = made or (
    people is not None and _as_coco_writes(truth, people, num_keypoints)
  )
  if not own_ids:
    _check_entries(entries, "annotations")
    truth, notes = coco_plain.plain(truth, num_keypoints)
    for note in notes:
      logging.warning("annotations: %s", note)
    entries = truth["annotations"]
  if people is None or not own_ids:
    people = _slow_columns(entries, "annotations", shapes)
  for name in _FLAGS:
    people[name] = [entry[name] for entry in entries]
  for index, crowd in enumerate(people["iscrowd"]):
    if crowd not in (0, 1):
      where = _where("annotations", index, entries[index])
      raise InputError(f"{where}: iscrowd is {crowd!r:.40}, expected 0 or 1")
  people["id"] = range(1, len(entries) + 1)
  images, categories = (
    {e["id"]: e["id"] for e in truth[name]}
    if own_ids
    else coco_plain.places(truth[name])
    for name in ("images", "categories")
  )
  return _Truth(people, images, categories)


def _as_coco_writes(
  truth: Mapping[str, Any], people: Columns, num_keypoints: int
) -> bool:
  """Are all ids plain integers, and listed, and people counted and flagged?"""
  try:
    ids = [
      {entry["id"] for entry in truth[name]}
      for name in ("images", "categories")
    ]
    flags = {name: [e[name] for e in truth["annotations"]] for name in _FLAGS}
  except (KeyError, TypeError):
    return False
  every = (*ids[0], *ids[1], *flags["iscrowd"], *flags["num_keypoints"])
  labeled = any(flags["num_keypoints"]) or not any(
    v > 0 for values in people["keypoints"] for v in values[2::3]
  )
  return (
    {*map(type, every)} <= {int}
    and all(0 <= one <= coco_plain.LARGEST_ID for one in (*ids[0], *ids[1]))
    and all(0 <= count <= num_keypoints for count in flags["num_keypoints"])
    and {*map(type, people["image_id"])} <= {int}
    and {*people["category_id"]} <= ids[1]
    and labeled
  )


def _check_entries(entries: Sequence[Any], name: str) -> None:
  """Checks that every entry has all that is going to be read."""
  for index, entry in enumerate(entries):
    if not isinstance(entry, Mapping):
      raise InputError(
        f"{name}[{index}]: expected a dictionary, got {entry!r:.80}"
      )
    for field in _NEEDED[name]:
      if field not in entry:
        raise InputError(
          f"{_where(name, index, entry)}: the field {field!r} is missing"
        )
    for field in ("id",) if name == "images" else _IDS:
      if field in entry and key(entry[field]) is None:
        raise InputError(f"{name}[{index}]: {field} is {entry[field]!r:.80}")


def _check_images(
  ids: Iterable[Hashable], known: Mapping[Hashable, int], name: str
) -> None:
  unknown = {one for one in set(ids) if key(one) not in known}
  if unknown:
    some = ", ".join(sorted(repr(i) for i in unknown)[:5])
    raise InputError(
      f"{name}: {len(unknown)} image ids are not in the annotations, among"
      f" them {some}; use the annotations of the same split"
    )


def _quick_columns(
  entries: Sequence[Any], shapes: Mapping[str, Shape]
) -> Columns | None:
  """Fields of all entries: the ids, and these as finite numbers.

  None unless all are plain numbers, and lists of them.
  """
  try:
    columns: Columns = {
      field: [entry[field] for entry in entries] for field in (*_IDS, *shapes)
    }
  except (AttributeError, KeyError, IndexError, TypeError):
    return None
  for field in _IDS:
    if {*map(type, columns[field])} - {int, str}:
      return None
  sound = all(_sound(columns[field], shape) for field, shape in shapes.items())
  return columns if sound else None


def _slow_columns(
  entries: Sequence[Any], name: str, shapes: Mapping[str, Shape]
) -> Columns:
  """The same of whatever can be read; what cannot is named.

  Raises:
    InputError: an entry cannot be read.
  """
  _check_entries(entries, name)
  ids = {field: [entry[field] for entry in entries] for field in _IDS}
  return ids | {
    field: _column(entries, name, field, shape)
    for field, shape in shapes.items()
  }


def _sound(values: Sequence[Any], shape: Shape) -> bool:
  """Quick: are these finite numbers, or lists of that many of them?"""
  try:
    if shape:
      if {*map(type, values)} - {list} or {*map(len, values)} - {*shape}:
        return False
      values = [*map(sum, values)]  # Finite only if all are.
    if {*map(type, values)} - {int, float, np.float64}:
      return False
    return bool(np.isfinite(np.array(values, np.float64)).all())
  except (OverflowError, TypeError):
    return False


def _column(
  entries: Sequence[Mapping], name: str, field: str, shape: Shape
) -> list[Any]:
  """One field of all entries as floats, or the first that is wrong."""
  try:
    values = np.array([entry[field] for entry in entries], np.float64)
    if values.shape == (len(entries), *shape) and np.isfinite(values).all():
      return values.tolist()
  except (KeyError, OverflowError, TypeError, ValueError):
    pass  # Entry by entry it shows which one it is.
  for index, entry in enumerate(entries):
    where = f"{_where(name, index, entry)}: {field}"
    try:
      value = np.array(entry[field], np.float64)
    except KeyError:
      raise InputError(f"{where} is missing, but others have it") from None
    except (OverflowError, TypeError, ValueError):
      raise InputError(
        f"{where} is not a number or a list of numbers"
      ) from None
    if value.shape != shape and field == "keypoints":
      raise InputError(
        f"{where} has {value.size} numbers, expected {shape[0]}: 3 for each of"
        f" {shape[0] // 3} sigmas; for another skeleton give its sigmas"
      )
    if value.shape != shape:
      raise InputError(f"{where} has the shape {value.shape}, expected {shape}")
    if not np.isfinite(value).all():
      raise InputError(f"{where} has NaN or infinite values")
  return []


def _own(places: Mapping[Hashable, int]) -> dict[Hashable, int]:
  """The plain ids by themselves: those of the annotations."""
  return {place: place for place in places.values()}


def _same(ids: Iterable[Hashable], places: Mapping[Hashable, int]) -> bool:
  """Are these ids, all of them known, the plain ones?"""
  return all(places.get(one) == one for one in set(ids))


def _entries(
  columns: Columns,
  images: Mapping[Hashable, int],
  categories: Mapping[Hashable, int],
) -> list[dict[str, Any]]:
  """Those of the given images and categories, with plain ids."""
  made = dict(columns)
  for name, places in zip(_IDS, (images, categories), strict=True):
    known = {one: places.get(key(one)) for one in set(columns[name])}
    made[name] = [known[one] for one in columns[name]]
  entries = [
    dict(zip(made, row, strict=True))
    for row in zip(*made.values(), strict=True)
  ]
  if all(None not in made[name] for name in _IDS):
    return entries
  return [e for e in entries if all(e[name] is not None for name in _IDS)]


def _where(name: str, index: int, entry: Mapping) -> str:
  return f"{name}[{index}] (image_id {entry.get('image_id')!r})"
