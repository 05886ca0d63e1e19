"""COCO folders: annotation files found, read, checked, and made into arrays.

    DIR/annotations/person_keypoints_SPLIT.json
    DIR/SPLIT/*.jpg or DIR/images/SPLIT/*.jpg

The record rules are those of reference 4.1. Every error says what is wrong,
where, and what to do.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from input_pipeline.builders import CocoKeypoints as CocoImages
from input_pipeline.coco_rules import check_outline, check_people, odd_boxes
from input_pipeline.files import read_bytes, require_file, require_folder
from input_pipeline.people import Annotations, People
from tokenpose_jax import geometry, json_files, skeletons
from tokenpose_jax.errors import InputError
from tokenpose_jax.metrics import boxes as person_boxes
from tokenpose_jax.metrics.coco_keypoints import CocoKeypoints
from tokenpose_jax.metrics.coco_plain import (
  ORIGINAL_ID,
  key,
  number,
  plain,
  whole,
)
from tokenpose_jax.skeletons import Skeleton

BUILDER = CocoImages
USES_SIGMAS = True


def read(data: ConfigDict, split: str, skeleton: Skeleton) -> Annotations:
  """Reads the annotation file of a split and checks it.

  Args:
    data: `config.data`.
    split: of the folder.
    skeleton: that its keypoints must have.

  Raises:
    InputError: the folder, the file or what is in it cannot be used.
  """
  path = _find(data.dir, split)
  raw = read_bytes(path)
  content = json_files.parse(raw, path)
  check_outline(content, path)
  content, notes = plain(content, skeleton.num_keypoints)
  check_people(content, path, skeleton)
  for note in notes:
    logging.warning("%s: %s", path, note)
  return Annotations(path, hashlib.sha256(raw).hexdigest(), content)


def image_folder(folder: str, split: str) -> str:
  """`SPLIT` or `images/SPLIT`, whichever exists."""
  candidates = [
    os.path.join(folder, split),
    os.path.join(folder, "images", split),
  ]
  for candidate in candidates:
    if tf.io.gfile.isdir(candidate):
      return candidate
  return candidates[0]


def splits(folder: str) -> list[str]:
  """The splits that a COCO folder has annotation files of.

  Raises:
    InputError: it is not a folder.
  """
  require_folder(
    folder, "a COCO folder (annotations/person_keypoints_SPLIT.json)"
  )
  names = tf.io.gfile.glob(
    os.path.join(folder, "annotations", "person_keypoints_*.json")
  )
  return sorted(
    os.path.basename(n).removeprefix("person_keypoints_")[: -len(".json")]
    for n in names
  )


def read_unchecked(folder: str, split: str) -> dict[str, Any]:
  """COCO's dict; only its outer structure has been validated.

  Args:
    folder: of the data.
    split: of the folder.

  Raises:
    InputError: the file cannot be found or read.
  """
  path = _find(folder, split)
  content = json_files.parse(read_bytes(path), path)
  check_outline(content, path)
  return content


def skeleton_of(folder: str, split: str) -> Skeleton:
  """The skeleton of the one category with keypoints of an annotation file.

  Raises:
    InputError: there is none, or several that differ.
  """
  path = _find(folder, split)
  content = json_files.parse(read_bytes(path), path)
  categories = content.get("categories") if isinstance(content, dict) else None
  defined: list[Skeleton] = []
  for category in categories if isinstance(categories, list) else ():
    if isinstance(category, dict) and category.get("keypoints"):
      try:
        skeleton = skeletons.from_category(category)
      except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: categories: {error}") from None
      if not any(s.keypoints == skeleton.keypoints for s in defined):
        defined.append(skeleton)
  if len(defined) != 1:
    raise InputError(
      f"{path}: {len(defined)} different keypoint sets in its categories, one"
      " is needed; give a skeleton file with --config.data.skeleton=FILE.json"
    )
  return defined[0]


def annotated_people(
  annotations: Annotations, input_hw: tuple[int, int], padding: float
) -> People:
  """The people of a split that have labeled keypoints (reference 4.1).

  In ascending order of the file's images; crowds, boxes without area and
  people without a labeled keypoint are left out.

  Args:
    annotations: as returned by `read`.
    input_hw: crop size, pixels.
    padding: crop size over box size.

  Raises:
    InputError: nobody is left.
  """
  images = annotations.content["images"]
  by_image: dict[int, list[dict]] = {}
  for entry in annotations.content["annotations"]:
    by_image.setdefault(entry["image_id"], []).append(entry)
  boxes, keypoints, rows, categories = [], [], [], []
  left_out: Counter[str] = Counter()
  for row, image in enumerate(images):
    for entry in by_image.get(image["id"], ()):
      if reason := left_out_because(entry, image):
        left_out[reason] += 1
        continue
      boxes.append(_clip(entry["bbox"], image["width"], image["height"]))
      keypoints.append(np.asarray(entry["keypoints"], float).reshape(-1, 3))
      rows.append(row)
      categories.append(entry["category_id"])
  census = _census(annotations.content, len(rows), left_out)
  if not rows:
    raise InputError(
      f"{annotations.path}: no person with a labeled keypoint and a box"
      f" ({census})"
    )
  logging.info("%s: %s", annotations.path, census)
  points = np.stack(keypoints)
  return _people(
    annotations,
    image=np.array(rows, np.int32),
    category_id=np.array(categories, np.int64),
    boxes=np.array(boxes, np.float64),
    score=np.ones(len(rows)),
    keypoints=points[..., :2],
    visible=np.minimum(points[..., 2], 1).astype(np.float32),
    input_hw=input_hw,
    padding=padding,
  )


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
  names = ", ".join(map(str, sorted(known)))
  if not ours:
    found = ", ".join(map(str, sorted({b["category_id"] for b in boxes})))
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
  return _people(
    annotations,
    image=np.array([rows[e["image_id"]] for e in kept], np.int32),
    category_id=np.array([e["category_id"] for e in kept], np.int64),
    boxes=np.array([e["bbox"] for e in kept], np.float64),
    score=np.array([e["score"] for e in kept], np.float64),
    keypoints=np.zeros((len(kept), k, 2)),
    visible=np.zeros((len(kept), k), np.float32),
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


def benchmark(
  annotations: Annotations,
  people: People,
  skeleton: Skeleton,
  config: ConfigDict,
  image_ids: list[int] | None,
) -> CocoKeypoints:
  """What measures predictions of a split: OKS AP.

  Args:
    annotations: of the split.
    people: play no part here: AP counts all that are annotated.
    skeleton: of the split; one without sigmas gets the default, with a warning.
    config: of the run.
    image_ids: that are evaluated; None: all.
  """
  del people
  if skeleton.sigmas is None:
    logging.warning(
      "the skeleton %s has no sigmas: OKS and AP take %s for every keypoint"
      " (docs/own_skeleton.md says how to estimate them)",
      skeleton.name,
      skeletons.DEFAULT_SIGMA,
    )
  return CocoKeypoints(
    _judged(annotations.content),
    skeleton,
    image_ids=image_ids,
    min_keypoint_score=config.eval.min_keypoint_score,
    nms_threshold=config.eval.nms_threshold,
    nms_soft=config.eval.nms_soft,
  )


def left_out_because(entry: Mapping[str, Any], image: Mapping[str, Any]) -> str:
  """Why a person is not trained on; "" if it is.

  Deliberately unlike the original, which trains on people whose keypoints have
  places but no visibility: nothing of them is labeled.

  Args:
    entry: a plain annotation.
    image: that it is of.
  """
  if entry["iscrowd"]:
    return "crowd"
  if not any(v > 0 for v in entry["keypoints"][2::3]):
    return "no labeled keypoint"
  if entry["area"] <= 0 or min(entry["bbox"][2:]) <= 0:
    return "no area"
  if _clip(entry["bbox"], image["width"], image["height"]) is None:
    return "box outside the image"
  return ""


def _judged(content: Mapping[str, Any]) -> dict[str, Any]:
  """The content; who is left out is not missed by an evaluation either."""
  images = {image["id"]: image for image in content["images"]}
  people = [
    {**entry, "num_keypoints": 0}
    if left_out_because(entry, images[entry["image_id"]])
    else entry
    for entry in content["annotations"]
  ]
  return {**content, "annotations": people}


def _census(
  content: Mapping[str, Any], used: int, left_out: Mapping[str, int]
) -> str:
  """ "538 images, 1201 people: 1003 used; left out 198: crowd 5, ..."."""
  line = (
    f"{len(content['images'])} images, {len(content['annotations'])} people:"
    f" {used} used"
  )
  if not left_out:
    return line
  reasons = ", ".join(f"{name} {n}" for name, n in sorted(left_out.items()))
  return f"{line}, {sum(left_out.values())} left out: {reasons}"


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
  place = {key(i.get(ORIGINAL_ID, i["id"])): i["id"] for i in images}
  boxes = []
  for index, entry in enumerate(content):
    box = _detection(f"{path}: box number {index}", entry)
    image = place.get(key(box["image_id"]))
    if image is None:
      raise InputError(
        f"{path}: box number {index} is of image {box['image_id']!r:.40}, which"
        f" is not in {annotations.path}; is it from another split?"
      )
    boxes.append({**box, "image_id": image})
  kept = [box for box in boxes if min(box["bbox"][2:]) > 0]
  if len(kept) < len(boxes):
    logging.warning(
      "%s: %d of %d boxes have no area and are left out",
      path,
      len(boxes) - len(kept),
      len(boxes),
    )
  if odd := odd_boxes(kept, images):
    raise InputError(f"{path}: {odd}")
  return kept


def _detection(where: str, entry: Any) -> dict[str, Any]:
  """A box with numbers for fields; `image_id` as it is."""
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
    "category_id": whole(entry["category_id"]),
    "bbox": numbers,
    "score": score,
  }


def _people(
  annotations: Annotations,
  *,
  image: Int[np.ndarray, " n"],
  category_id: Int[np.ndarray, " n"],
  boxes: Float[np.ndarray, "n 4"],
  score: Float[np.ndarray, " n"],
  keypoints: Float[np.ndarray, "n k 2"],
  visible: Float[np.ndarray, "n k"],
  input_hw: tuple[int, int],
  padding: float,
) -> People:
  center, scale = geometry.box_to_center_scale(boxes, input_hw, padding)
  ids = np.array([i["id"] for i in annotations.content["images"]], np.int64)
  return People(
    image=image,
    image_id=ids[image],
    category_id=category_id,
    center=center,
    scale=scale,
    keypoints=keypoints,
    visible=visible,
    score=score,
    head_box=np.full((len(image), 4), np.nan),
  )


def _clip(
  box: list[float], width: int, height: int
) -> tuple[float, float, float, float] | None:
  """A box inside its image, None where nothing is left."""
  x, y, w, h = box
  x1, y1 = max(0, x), max(0, y)
  x2 = min(width - 1, x1 + max(0, w - 1))
  y2 = min(height - 1, y1 + max(0, h - 1))
  if x2 < x1 or y2 < y1:
    return None
  return x1, y1, x2 - x1 + 1, y2 - y1 + 1


def _find(folder: str, split: str) -> str:
  there = splits(folder)
  path = os.path.join(folder, "annotations", f"person_keypoints_{split}.json")
  if split in there:
    return path
  raise InputError(
    f"data.dir: {path} does not exist; "
    + (
      f"the folder has the splits {', '.join(there)}: choose with"
      " --config.data.train_split and --config.data.eval_split"
      if there
      else "expected the folder's annotations/person_keypoints_SPLIT.json"
    )
  )
