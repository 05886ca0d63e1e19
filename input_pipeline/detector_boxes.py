"""The boxes of a person detector: COCO results files, read and checked."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from input_pipeline import box_forms
from input_pipeline.coco_people import people_of
from input_pipeline.files import read_bytes, require_file
from input_pipeline.people import Annotations, People
from tokenpose_jax import json_files
from tokenpose_jax.errors import InputError
from tokenpose_jax.metrics import boxes as person_boxes
from tokenpose_jax.metrics.coco_plain import key, number, places
from tokenpose_jax.skeletons import Skeleton


def detected_people(
  path: str,
  annotations: Annotations,
  skeleton: Skeleton,
  input_hw: tuple[int, int],
  padding: float,
  min_box_score: float,
) -> People:
  """The boxes of a detector (COCO results JSON, reference 4.1).

  Those of the annotations' categories, with a score not below `min_box_score`.
  Boxes are not clipped.

  Args:
    path: of the detector-box file.
    annotations: of the split.
    skeleton: of the split.
    input_hw: crop size, pixels.
    padding: crop size over box size.
    min_box_score: of the boxes.

  Raises:
    InputError: the file cannot be used, or holds no such box.
  """
  rows = {i["id"]: n for n, i in enumerate(annotations.content["images"])}
  known = _categories(annotations.content)
  boxes = _detections(path, annotations)
  ours = [box for box in boxes if box["category_id"] in known]
  names = ", ".join(sorted(map(str, known)))
  if not ours:
    found = ", ".join(sorted({str(b["category_id"]) for b in boxes}))
    raise InputError(
      f"{path}: no box of category {names}, which {annotations.path} has people"
      f" of; its boxes are of category {found or '(none)'}"
    )
  kept = [box for box in ours if box["score"] >= min_box_score]
  if not kept:
    best = max(box["score"] for box in ours)
    raise InputError(
      f"{path}: no box of category {names} with a score of {min_box_score} or"
      f" more, the best has {best:g}; lower config.eval.min_box_score"
    )
  k = skeleton.num_keypoints
  return people_of(
    annotations,
    image=np.array([rows[e["image_id"]] for e in kept], np.int32),
    category_id=np.array([e["category_id"] for e in kept], np.int64),
    boxes=np.array([e["bbox"] for e in kept], np.float64),
    score=np.array([e["score"] for e in kept], np.float64),
    keypoints=np.zeros((len(kept), k, 2)),
    labels=np.zeros((len(kept), k)),
    person_area=np.full(len(kept), np.nan),
    input_hw=input_hw,
    padding=padding,
  )


def detection_facts(
  path: str, annotations: Annotations, image_ids: list[int] | None
) -> dict[str, Any]:
  """What the report says of a detector-box file: its hash, and its box AP.

  Args:
    path: of the file.
    annotations: of the split.
    image_ids: that are evaluated; None: all.

  Raises:
    InputError: the file cannot be used.
  """
  known = _categories(annotations.content)
  boxes = [
    box for box in _detections(path, annotations) if box["category_id"] in known
  ]
  return {
    "sha256": hashlib.sha256(read_bytes(path)).hexdigest(),
    "person_AP": person_boxes.box_ap(annotations.content, boxes, image_ids),
  }


def _categories(content: Mapping[str, Any]) -> set[int]:
  """The categories that people are annotated with."""
  return {entry["category_id"] for entry in content["annotations"]}


def _detections(path: str, annotations: Annotations) -> list[dict[str, Any]]:
  """The boxes of a file, checked; those without area are left out."""
  require_file(path, "eval.boxes")
  content = json_files.parse(read_bytes(path), path)
  if not isinstance(content, list):
    raise InputError(
      f"{path}: a detector-box file is a list of boxes, this is a"
      f" {type(content).__name__}"
    )
  images = annotations.content["images"]
  image_place = places(images)
  category_place = places(annotations.content["categories"])
  boxes = []
  for index, entry in enumerate(content):
    box = _detection(f"{path}: box number {index}", entry)
    image = image_place.get(key(box["image_id"]))
    category = key(box["category_id"])
    if image is None:
      raise InputError(
        f"{path}: box number {index} is of image {box['image_id']!r:.40}, which"
        f" is not in {annotations.path}; is it from another split?"
      )
    boxes.append(
      {
        **box,
        "image_id": image,
        "category_id": category_place.get(category, category),
      }
    )
  kept = [box for box in boxes if min(box["bbox"][2:]) > 0]
  if len(kept) < len(boxes):
    logging.warning(
      "%s: %d of %d boxes have no area and are left out",
      path,
      len(boxes) - len(kept),
      len(boxes),
    )
  if found := box_forms.odd(
    np.array([box["bbox"] for box in kept], np.float64).reshape(-1, 4),
    box_forms.sizes_of([box["image_id"] for box in kept], images),
  ):
    raise InputError(f"{path}: {found}")
  return kept


def _detection(where: str, entry: Any) -> dict[str, Any]:
  """A box with numbers for fields; its ids as they are."""
  for field in ("image_id", "category_id", "bbox", "score"):
    if not isinstance(entry, dict) or field not in entry:
      raise InputError(f"{where} has no {field!r}")
  box, score = entry["bbox"], number(entry["score"])
  numbers = [number(v) for v in box] if isinstance(box, list) else []
  if len(numbers) != 4 or None in numbers:
    raise InputError(f"{where}: bbox is {box!r:.80}, expected x, y, w, h")
  if score is None:
    raise InputError(f"{where}: score is {entry['score']!r:.40}, not a number")
  return {
    "image_id": entry["image_id"],
    "category_id": entry["category_id"],
    "bbox": numbers,
    "score": score,
  }
