"""COCO annotation files: found, read, checked, and made into arrays.

The record rules are those of reference 4.1. Every error says what is wrong,
where, and what to do.
"""

import dataclasses
import hashlib
import os
from typing import Any

import numpy as np
import tensorflow as tf

from input_pipeline.coco_checks import check, check_outline, parse_json
from tokenpose_jax import geometry, skeletons
from tokenpose_jax.errors import InputError
from tokenpose_jax.skeletons import Skeleton


@dataclasses.dataclass(frozen=True)
class Annotations:
  """A split's annotation file.

  Attributes:
    path: of the file.
    sha256: of its bytes: the identity of the data.
    content: COCO's dict: images, annotations, categories.
  """

  path: str
  sha256: str
  content: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class People:
  """N people (or detector boxes) of a split, as arrays.

  Attributes:
    image: (N,) int32, the image's place in the annotation file's list.
    image_id: (N,) int64 COCO's image ids.
    center: (N, 2) float32 pixels, scale: (N, 2) float32 in 200 pixels.
    keypoints: (N, K, 2) float64 image pixels; visible: (N, K) float32 1 where
      labelled. Zeros for detector boxes.
    score: (N,) float64, 1 for annotated boxes.
    head_box: (N, 4) float64 x1, y1, x2, y2 image pixels, NaN where unknown.
    area: (N,) float64 pixels, of the padded box, as OKS-NMS takes it (5.4).
  """

  image: np.ndarray
  image_id: np.ndarray
  center: np.ndarray
  scale: np.ndarray
  keypoints: np.ndarray
  visible: np.ndarray
  score: np.ndarray
  head_box: np.ndarray

  def __len__(self) -> int:
    return len(self.image)

  def first_images(self, count: int) -> "People":
    """Those of the first `count` images of the annotation file."""
    return self.select(self.image < count)

  def select(self, keep: np.ndarray) -> "People":
    """Those where (N,) `keep` is true, or at those places."""
    fields = dataclasses.fields(self)
    return People(**{f.name: getattr(self, f.name)[keep] for f in fields})

  @property
  def area(self) -> np.ndarray:
    return np.prod(self.scale.astype(np.float64) * geometry.SCALE_UNIT, axis=-1)


def read(folder: str, split: str, skeleton: Skeleton) -> Annotations:
  """Reads `folder/annotations/person_keypoints_SPLIT.json`.

  Raises:
    InputError: the folder, the file or what is in it cannot be used.
  """
  path = _find(folder, split)
  with tf.io.gfile.GFile(path, "rb") as file:
    raw = file.read()
  content = parse_json(raw, path)
  check(content, path, skeleton)
  return Annotations(path, hashlib.sha256(raw).hexdigest(), content)


def splits(folder: str) -> list[str]:
  """The splits that a COCO folder has annotation files of."""
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
  """COCO's dict, of which only the outline is known to be right."""
  path = _find(folder, split)
  with tf.io.gfile.GFile(path, "rb") as file:
    content = parse_json(file.read(), path)
  check_outline(content, path)
  return content


def skeleton_of(folder: str, split: str) -> Skeleton:
  """The skeleton of the one category with keypoints of an annotation file.

  Raises:
    InputError: there is none, or several that differ.
  """
  path = _find(folder, split)
  with tf.io.gfile.GFile(path, "rb") as file:
    content = parse_json(file.read(), path)
  categories = content.get("categories") if isinstance(content, dict) else None
  found: list[Skeleton] = []
  for category in categories if isinstance(categories, list) else ():
    if isinstance(category, dict) and category.get("keypoints"):
      try:
        skeleton = skeletons.from_category(category)
      except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: categories: {error}") from None
      if not any(s.keypoints == skeleton.keypoints for s in found):
        found.append(skeleton)
  if len(found) != 1:
    raise InputError(
      f"{path}: {len(found)} different keypoint sets in its categories, one is"
      " needed; give a skeleton file with --config.data.skeleton=FILE.json"
    )
  return found[0]


def annotated_people(
  annotations: Annotations, skeleton: Skeleton, model: Any, padding: float
) -> People:
  """The people of a split that have labelled keypoints (reference 4.1).

  In ascending order of the file's images; crowds, boxes without area and
  people without a labelled keypoint are left out.
  """
  images = annotations.content["images"]
  by_image: dict[Any, list[dict]] = {}
  for entry in annotations.content["annotations"]:
    by_image.setdefault(entry["image_id"], []).append(entry)
  boxes, keypoints, places = [], [], []
  for place, image in enumerate(images):
    for entry in by_image.get(image["id"], ()):
      box = _clip(entry["bbox"], image["width"], image["height"])
      if entry.get("iscrowd") or entry.get("area", 1) <= 0 or box is None:
        continue
      points = np.asarray(entry["keypoints"], np.float64).reshape(-1, 3)
      if not points.any():
        continue
      boxes.append(box)
      keypoints.append(points)
      places.append(place)
  if not places:
    raise InputError(
      f"{annotations.path}: no person with a labelled keypoint and a box"
    )
  points = np.stack(keypoints)
  return _people(
    annotations,
    np.array(places, np.int32),
    np.array(boxes, np.float64),
    np.ones(len(places)),
    model,
    padding,
    points[..., :2],
    np.minimum(points[..., 2], 1).astype(np.float32),
  )


def detected_people(
  path: str,
  annotations: Annotations,
  skeleton: Skeleton,
  model: Any,
  padding: float,
  min_score: float,
) -> People:
  """The boxes of a detector (COCO results JSON, reference 4.1).

  Category 1, score not below `min_score`; boxes are not clipped.
  """
  with _open(path, "eval.boxes") as file:
    content = parse_json(file.read(), path)
  if not isinstance(content, list):
    raise InputError(
      f"{path}: a detector-box file is a list of boxes, this is a"
      f" {type(content).__name__}"
    )
  place = {i["id"]: n for n, i in enumerate(annotations.content["images"])}
  kept = []
  for number, entry in enumerate(content):
    for field in ("image_id", "category_id", "bbox", "score"):
      if not isinstance(entry, dict) or field not in entry:
        raise InputError(f"{path}: box number {number} has no {field!r}")
    if entry["image_id"] not in place:
      raise InputError(
        f"{path}: box number {number} is of image {entry['image_id']}, which"
        f" is not in {annotations.path}; is it of another split?"
      )
    if entry["category_id"] == 1 and entry["score"] >= min_score:
      if len(entry["bbox"]) != 4 or not np.isfinite(entry["bbox"]).all():
        raise InputError(
          f"{path}: box number {number}: bbox is {entry['bbox']}, expected"
          " x, y, w, h"
        )
      kept.append(entry)
  if not kept:
    raise InputError(
      f"{path}: no box of category 1 with a score of {min_score} or more;"
      " lower config.eval.box_score"
    )
  k = skeleton.num_keypoints
  return _people(
    annotations,
    np.array([place[e["image_id"]] for e in kept], np.int32),
    np.array([e["bbox"] for e in kept], np.float64),
    np.array([e["score"] for e in kept], np.float64),
    model,
    padding,
    np.zeros((len(kept), k, 2)),
    np.zeros((len(kept), k), np.float32),
  )


def _people(
  annotations, image, boxes, score, model, padding, keypoints, visible
) -> People:
  center, scale = geometry.box_to_center_scale(boxes, model.input_hw, padding)
  ids = np.array([i["id"] for i in annotations.content["images"]], np.int64)
  return People(
    image=image,
    image_id=ids[image],
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


def require_folder(folder: str, kind: str) -> None:
  """Raises InputError unless `data.dir` is a folder with something in it."""
  gfile = tf.io.gfile
  if not gfile.exists(folder):
    raise InputError(
      f"data.dir: the folder {folder} does not exist; give {kind} with"
      " --config.data.dir=DIR"
    )
  if not gfile.isdir(folder) or not gfile.listdir(folder):
    raise InputError(
      f"data.dir: {folder} is not a folder or empty; expected {kind}"
    )


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


def _open(path: str, field: str):
  if not tf.io.gfile.exists(path) or tf.io.gfile.isdir(path):
    raise InputError(f"{field}: the file {path} does not exist")
  return tf.io.gfile.GFile(path, "rb")
