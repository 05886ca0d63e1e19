"""What a COCO annotation file must hold before anything is made of it.

Every error says what is wrong, where, and what to do.
"""

import json
from typing import Any

import numpy as np

from tokenpose_jax.errors import InputError
from tokenpose_jax.skeletons import Skeleton


def parse_json(raw: bytes, path: str) -> Any:
  try:
    return json.loads(raw)
  except ValueError as error:
    raise InputError(f"{path} is not JSON: {error}") from None


def check(content: Any, path: str, skeleton: Skeleton) -> None:
  """Is this what `annotated_people` reads?"""
  check_outline(content, path)
  ids = {image["id"] for image in content["images"]}
  if len(ids) != len(content["images"]):
    raise InputError(f"{path}: image ids repeat")
  _check_people(content["annotations"], ids, path, skeleton)


def check_outline(content: Any, path: str) -> None:
  """Are there lists of images, with their fields, and of annotations?"""
  if not isinstance(content, dict):
    raise InputError(f"{path} is no COCO annotation file: not a JSON object")
  for field in ("images", "annotations"):
    if not isinstance(content.get(field), list):
      raise InputError(f"{path} is no COCO annotation file: no {field!r} list")
  for field in ("images", "annotations"):
    for number, entry in enumerate(content[field]):
      if not isinstance(entry, dict):
        raise InputError(f"{path}: {field}[{number}] is not a JSON object")
  for image in content["images"]:
    for field in ("id", "file_name", "width", "height"):
      if field not in image:
        raise InputError(
          f"{path}: the image {image.get('id')} has no {field!r}"
        )
    size = (image["width"], image["height"])
    if not all(isinstance(v, int) and v > 0 for v in size):
      raise InputError(
        f"{path}: the image {image['id']} has width and height {size}"
      )


def _check_people(
  entries: list[dict], image_ids: set, path: str, skeleton: Skeleton
) -> None:
  k, seen = skeleton.num_keypoints, set()
  for entry in entries:
    where = f"{path}: the annotation {entry.get('id')}"
    if "keypoints" not in entry:
      raise InputError(
        f"{where} has no 'keypoints'; a person_keypoints file is needed, not"
        " instances or captions"
      )
    numbers = _numbers(entry["keypoints"])
    if len(entry["keypoints"]) != 3 * k:
      raise InputError(
        f"{where} has {len(entry['keypoints'])} keypoint numbers, expected"
        f" {3 * k}: 3 for each of the {k} of skeleton {skeleton.name};"
        " choose another with --config.data.skeleton"
      )
    if numbers is None:
      raise InputError(f"{where} has keypoints that are no finite numbers")
    visible = numbers[2::3]
    odd = visible[~np.isin(visible, (0, 1, 2))]
    if len(odd):
      raise InputError(
        f"{where} has a visibility of {odd[0]:g}; COCO's are 0 (not labelled),"
        " 1 (hidden) and 2 (visible)"
      )
    box = _numbers(entry.get("bbox", ()))
    if box is None or len(box) != 4:
      raise InputError(f"{where} has no 'bbox' of four finite numbers")
    if entry.get("image_id") not in image_ids:
      raise InputError(
        f"{where} is of image {entry.get('image_id')}, which is not listed"
      )
    if "id" in entry:
      if entry["id"] in seen:
        raise InputError(f"{where} comes twice: annotation ids repeat")
      seen.add(entry["id"])


def _numbers(values: Any) -> np.ndarray | None:
  """(n,) float64; None where they are no finite numbers."""
  try:
    numbers = np.asarray(values, np.float64)
  except (TypeError, ValueError):
    return None
  return numbers if numbers.ndim == 1 and np.isfinite(numbers).all() else None
