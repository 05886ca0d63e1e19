"""COCO's annotation and results files: read, checked, and made plain.

Owns what an entry must hold. What comes out holds that and nothing else, so
that no odd field and no odd id reaches the evaluation.
"""

import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from tokenpose_jax import json_files
from tokenpose_jax.errors import InputError

Shape = tuple[int, ...]  # of a field: () or (its length,)

_NEEDED = {
  "images": ("id",),
  "categories": ("id",),
  "annotations": ("image_id", "category_id", "keypoints", "bbox"),
  "results": ("image_id", "category_id", "keypoints", "score"),
}
# Area of a person over that of the box: the mean of COCO's people.
AREA_OF_BOX = 0.53
_IDS = ("image_id", "category_id")
_PLAIN = 2**53  # the largest id that is passed on as it is


def read(
  annotations: str | os.PathLike | Mapping[str, Any],
  results: str | os.PathLike | Sequence[Mapping[str, Any]],
  num_keypoints: int,
  image_ids: Iterable[Hashable] | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
  """Reads ground truth and detections for an evaluation.

  Args:
    annotations: a COCO keypoint annotation file, or what it holds.
    results: a COCO keypoint results file, or what it holds.
    num_keypoints: K.
    image_ids: leave out all other images; None: none.

  Returns:
    (dataset, detections) in COCO's layout; the input's own entries where
    they hold nothing else. Ids of images and categories that are not plain
    numbers become their places among the sorted ids, from 1: between equal
    scores the lower image id goes first, whatever the type of the ids.
    Results of unknown categories are left out, as pycocotools does.

  Raises:
    InputError: see `coco.evaluate`.
  """
  truth = _load(annotations, "annotations")
  found = _load(results, "results")
  _check_structure(truth, found)
  people, _ = _columns(
    _with_areas(truth["annotations"]),
    "annotations",
    {"keypoints": (3 * num_keypoints,), "area": (), "bbox": (4,)},
  )
  shapes: dict[str, Shape] = {"keypoints": (3 * num_keypoints,), "score": ()}
  # As in pycocotools the first result decides whether the areas of all are
  # those of their boxes or those of their keypoints' extents.
  first = found[0] if len(found) else None
  if isinstance(first, Mapping) and np.size(first.get("bbox", [])):
    shapes["bbox"] = (4,)
  detections, plain = _columns(found, "results", shapes)

  known = {image["id"] for image in truth["images"]}
  chosen = known if image_ids is None else set(image_ids)
  found_in, found_of = (set(detections[name]) for name in _IDS)
  _check_images(chosen, known, "image_ids")
  _check_images(found_in, known, "results")
  images = _places(chosen, "images")
  categories = _places((c["id"] for c in truth["categories"]), "categories")
  if found and not found_of & categories.keys():
    raise InputError(
      f"results: category_id {found[0]['category_id']!r} is not a category of"
      f" the annotations, which have {list(categories)}; neither is any other"
      " result's"
    )
  people["num_keypoints"] = _labeled(truth["annotations"], people)
  people["iscrowd"] = [
    int(entry.get("iscrowd") or 0) for entry in truth["annotations"]
  ]
  people["id"] = range(1, len(people["iscrowd"]) + 1)
  dataset = {
    "images": [{"id": place} for place in images.values()],
    "categories": [{"id": i, "name": str(c)} for c, i in categories.items()],
    "annotations": _entries(people, images, categories),
  }
  same_ids = all(key == place for key, place in (images | categories).items())
  if plain and same_ids and found_in <= chosen and found_of <= {*categories}:
    return dataset, list(found)
  return dataset, _entries(detections, images, categories)


def _load(source: Any, name: str) -> Any:
  """What the file holds; anything but a path is returned as it is."""
  if not isinstance(source, str | os.PathLike):
    return source
  return json_files.read(source, name)


def _check_structure(truth: Any, found: Any) -> None:
  """Checks that the lists exist, and the images and categories are valid."""
  if not isinstance(truth, Mapping):
    raise InputError(
      "annotations: expected a dictionary with 'images', 'annotations' and"
      f" 'categories', got a {type(truth).__name__}"
    )
  if isinstance(found, str | Mapping) or not isinstance(found, Sequence):
    raise InputError(
      f"results: expected a list of detections, got a {type(found).__name__}"
    )
  for name in ("images", "categories", "annotations"):
    if truth.get(name) is None:
      raise InputError(
        f"annotations: {name!r} is missing; found {sorted(truth)}. Give a"
        " COCO keypoint file, such as person_keypoints_val2017.json"
      )
  for name in ("images", "categories"):
    _check_entries(truth[name], name)


def _with_areas(entries: Any) -> Any:
  """The annotations; those without an area get `AREA_OF_BOX` of their box's."""
  try:
    lacking = sum(entry.get("area") is None for entry in entries)
    if not lacking:
      return entries
    made = [
      entry
      if entry.get("area") is not None
      else {**entry, "area": entry["bbox"][2] * entry["bbox"][3] * AREA_OF_BOX}
      for entry in entries
    ]
  except (AttributeError, IndexError, KeyError, TypeError):
    return entries  # Read one by one, the wrong entry is named.
  logging.warning(
    "%d of %d annotations have no area: %s x box is taken, COCO's mean",
    lacking,
    len(made),
    AREA_OF_BOX,
  )
  return made


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
      if field.endswith("id") and not isinstance(entry[field], Hashable):
        raise InputError(f"{name}[{index}]: {field} is {entry[field]!r:.80}")


def _check_images(
  ids: Iterable[Hashable], known: set[Hashable], name: str
) -> None:
  unknown = set(ids) - known
  if unknown:
    some = ", ".join(sorted(repr(i) for i in unknown)[:5])
    raise InputError(
      f"{name}: {len(unknown)} image ids are not in the annotations, among"
      f" them {some}; use the annotations of the same split"
    )


def _places(ids: Iterable[Any], name: str) -> dict[Hashable, int]:
  """{id: itself if all are plain, else its place among all, from 1}."""
  try:
    ordered = sorted(set(ids))
  except TypeError:
    raise InputError(f"{name}: ids are partly text, partly numbers") from None
  if all(type(key) is int and 0 <= key <= _PLAIN for key in ordered):
    return {key: key for key in ordered}
  return {key: place for place, key in enumerate(ordered, start=1)}


def _columns(
  entries: Sequence[Any], name: str, shapes: Mapping[str, Shape]
) -> tuple[dict[str, Sequence[Any]], bool]:
  """Fields of all entries: the ids, and these as finite numbers.

  Quick where all are plain numbers and lists of them. Else the slow way reads
  what can be read and names what cannot.

  Returns:
    the columns, and whether the entries are just that and could be passed on.
  """
  names = (*_IDS, *shapes)
  columns: dict[str, Sequence[Any]] = {}
  try:
    columns |= {field: [entry[field] for entry in entries] for field in names}
    plain = {*map(len, entries)} <= {len(names)}
    odd = any({*map(type, columns[field])} - {int, str} for field in _IDS)
  except (AttributeError, KeyError, IndexError, TypeError):
    odd = True
  if odd:
    plain = False
    _check_entries(entries, name)
    columns |= {field: [entry[field] for entry in entries] for field in _IDS}
  for field, shape in shapes.items():
    if odd or not _sound(columns[field], shape):
      plain = False
      columns[field] = _column(entries, name, field, shape)
  return columns, plain


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


def _labeled(
  annotations: Sequence[Mapping], people: Mapping[str, Sequence[Any]]
) -> list[int]:
  """`num_keypoints`, counted where it is absent."""
  counts = [entry.get("num_keypoints") for entry in annotations]
  for index, count in enumerate(counts):
    if count is None:
      seen = people["keypoints"][index][2::3]
      counts[index] = sum(v > 0 for v in seen)
  return [int(count or 0) for count in counts]


def _column(
  entries: Sequence[Mapping], name: str, field: str, shape: Shape
) -> list[Any]:
  """One field of all entries as floats, or the first that is wrong."""
  try:
    values = np.array([entry[field] for entry in entries], np.float64)
    if values.shape == (len(entries), *shape) and np.isfinite(values).all():
      return values.tolist()
  except (KeyError, TypeError, ValueError):
    pass  # Entry by entry it shows which one it is.
  for index, entry in enumerate(entries):
    where = f"{_where(name, index, entry)}: {field}"
    try:
      value = np.array(entry[field], np.float64)
    except KeyError:
      raise InputError(f"{where} is missing, but others have it") from None
    except (TypeError, ValueError):
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


def _entries(
  columns: Mapping[str, Sequence[Any]],
  images: Mapping[Hashable, int],
  categories: Mapping[Hashable, int],
) -> list[dict[str, Any]]:
  """Those of the given images and categories, ids replaced by places."""
  places = dict(columns)
  for name, known in zip(_IDS, (images, categories), strict=True):
    places[name] = [known.get(key) for key in columns[name]]
  entries = [
    dict(zip(places, row, strict=True))
    for row in zip(*places.values(), strict=True)
  ]
  if all(None not in places[name] for name in _IDS):
    return entries
  return [e for e in entries if all(e[name] is not None for name in _IDS)]


def _where(name: str, index: int, entry: Mapping) -> str:
  return f"{name}[{index}] (image_id {entry.get('image_id')!r})"
