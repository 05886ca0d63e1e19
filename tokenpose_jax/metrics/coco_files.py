"""COCO's annotation and results files: read, checked, and made plain.

Owns what an entry must hold. What comes out holds that and nothing else, so
that no odd field and no odd id reaches the evaluation.
"""

import json
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from tokenpose_jax.errors import InputError

_NEEDED = {
  "images": ("id",),
  "categories": ("id",),
  "annotations": ("image_id", "category_id", "keypoints", "area", "bbox"),
  "results": ("image_id", "category_id", "keypoints", "score"),
}


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
    (dataset, detections) in COCO's layout, copies. Ids of images and
    categories are their places among the sorted ids, from 1: between equal
    scores the lower image id goes first, whatever the type of the ids.
    Results of unknown categories are left out, as pycocotools does.

  Raises:
    InputError: see `coco.evaluate`.
  """
  truth = _load(annotations, "annotations")
  found = _load(results, "results")
  _check_structure(truth, found)
  known = {image["id"] for image in truth["images"]}
  chosen = known if image_ids is None else set(image_ids)
  _check_images(chosen, known, "image_ids")
  _check_images((result["image_id"] for result in found), known, "results")
  images = _places(chosen, "images")
  categories = _places((c["id"] for c in truth["categories"]), "categories")
  if found and not any(r["category_id"] in categories for r in found):
    raise InputError(
      f"results: category_id {found[0]['category_id']!r} is not a category of"
      f" the annotations, which have {list(categories)}; neither is any other"
      " result's"
    )
  dataset = {
    "images": [{"id": place} for place in images.values()],
    "categories": [{"id": i, "name": str(c)} for c, i in categories.items()],
    "annotations": _renumbered(
      _people(truth["annotations"], num_keypoints), images, categories
    ),
  }
  detections = _detections(found, num_keypoints)
  return dataset, _renumbered(detections, images, categories)


def _load(source: Any, name: str) -> Any:
  """What the file holds; anything but a path is returned as it is."""
  if not isinstance(source, str | os.PathLike):
    return source
  try:
    return json.loads(epath.Path(source).read_text())
  except FileNotFoundError:
    raise InputError(f"{name}: the file {source} does not exist") from None
  except OSError as error:
    raise InputError(f"{name}: cannot read {source}: {error}") from None
  except ValueError as error:  # Also bytes that are no text.
    raise InputError(f"{name}: {source} is not JSON: {error}") from None


def _check_structure(truth: Any, found: Any) -> None:
  """Are all the fields there that are going to be read?"""
  if not isinstance(truth, Mapping):
    raise InputError(
      "annotations: expected a dictionary with 'images', 'annotations' and"
      f" 'categories', got a {type(truth).__name__}"
    )
  if isinstance(found, str | Mapping) or not isinstance(found, Sequence):
    raise InputError(
      f"results: expected a list of detections, got a {type(found).__name__}"
    )
  for name, needed in _NEEDED.items():
    entries = found if name == "results" else truth.get(name)
    if entries is None:
      raise InputError(
        f"annotations: {name!r} is missing; found {sorted(truth)}. Give a"
        " COCO keypoint file, such as person_keypoints_val2017.json"
      )
    for index, entry in enumerate(entries):
      if not isinstance(entry, Mapping):
        raise InputError(
          f"{name}[{index}]: expected a dictionary, got {entry!r:.80}"
        )
      for field in needed:
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
  """{id: its place among all, from 1}."""
  try:
    ordered = sorted(set(ids))
  except TypeError:
    raise InputError(f"{name}: ids are partly text, partly numbers") from None
  return {key: place for place, key in enumerate(ordered, start=1)}


def _people(annotations: Sequence[Mapping], k: int) -> list[dict[str, Any]]:
  """Annotations with what hotcoco reads and nothing else."""
  people = _numeric(
    annotations,
    "annotations",
    {"keypoints": (3 * k,), "area": (), "bbox": (4,)},
  )
  for number, (person, source) in enumerate(
    zip(people, annotations, strict=True), start=1
  ):
    labelled = source.get("num_keypoints")
    if labelled is None:
      labelled = sum(v > 0 for v in person["keypoints"][2::3])
    person["num_keypoints"] = int(labelled)
    person["iscrowd"] = int(source.get("iscrowd") or 0)
    person["id"] = number
  return people


def _detections(results: Sequence[Mapping], k: int) -> list[dict[str, Any]]:
  """Results with what hotcoco reads and nothing else."""
  shapes: dict[str, tuple[int, ...]] = {"keypoints": (3 * k,), "score": ()}
  # As in pycocotools the first result decides whether the areas of all are
  # those of their boxes or those of their keypoints' extents.
  if results and np.size(results[0].get("bbox", [])):
    shapes["bbox"] = (4,)
  return _numeric(results, "results", shapes)


def _numeric(
  entries: Sequence[Mapping],
  name: str,
  shapes: Mapping[str, tuple[int, ...]],
) -> list[dict[str, Any]]:
  """Copies of the entries: the ids, and these fields as checked numbers."""
  columns = [
    _column(entries, name, field, shape) for field, shape in shapes.items()
  ]
  return [
    {
      "image_id": entry["image_id"],
      "category_id": entry["category_id"],
      **dict(zip(shapes, values, strict=True)),
    }
    for entry, *values in zip(entries, *columns, strict=True)
  ]


def _column(
  entries: Sequence[Mapping], name: str, field: str, shape: tuple[int, ...]
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
      raise InputError(f"{where} is no number or list of numbers") from None
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


def _renumbered(
  entries: list[dict[str, Any]],
  images: Mapping[Hashable, int],
  categories: Mapping[Hashable, int],
) -> list[dict[str, Any]]:
  """Those of the given images and categories, ids replaced by places."""
  chosen = []
  for entry in entries:
    image = images.get(entry["image_id"])
    category = categories.get(entry["category_id"])
    if image is not None and category is not None:
      chosen.append(entry | {"image_id": image, "category_id": category})
  return chosen


def _where(name: str, index: int, entry: Mapping) -> str:
  return f"{name}[{index}] (image_id {entry.get('image_id')!r})"
