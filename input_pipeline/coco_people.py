"""The people of COCO's annotations as arrays, and who is left out."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Float, Int

from input_pipeline import box_forms
from input_pipeline.people import Annotations, People
from tokenpose_jax import geometry, skeletons
from tokenpose_jax.errors import InputError
from tokenpose_jax.metrics import error_kinds
from tokenpose_jax.metrics.coco_plain import key, labeled
from tokenpose_jax.skeletons import Skeleton

# Why a person is left out.
CROWD = "crowd"
NO_LABEL = "no labeled keypoint"
NO_SIZE = "no area"
NOT_IN_IMAGE = "box outside the image"


def annotated_people(
  annotations: Annotations, input_hw: tuple[int, int], padding: float
) -> People:
  """The people of a split that have labeled keypoints (reference 4.1).

  In ascending order of the file's images; crowds, boxes without area and
  people without a labeled keypoint are left out.

  Args:
    annotations: as returned by `coco.read`.
    input_hw: crop size, pixels.
    padding: crop size over box size.

  Raises:
    InputError: nobody is left.
  """
  images = annotations.content["images"]
  by_image: dict[int, list[dict]] = {}
  for entry in annotations.content["annotations"]:
    by_image.setdefault(entry["image_id"], []).append(entry)
  boxes, keypoints, rows, categories, areas = [], [], [], [], []
  left_out: Counter[str] = Counter()
  for row, image in enumerate(images):
    for entry in by_image.get(image["id"], ()):
      if reason := left_out_because(entry, image):
        left_out[reason] += 1
        continue
      boxes.append(_clip(entry["bbox"], image))
      keypoints.append(np.asarray(entry["keypoints"], float).reshape(-1, 3))
      rows.append(row)
      categories.append(entry["category_id"])
      areas.append(entry["area"])
  counted = census(annotations.content, len(rows), left_out)
  if not rows:
    raise InputError(
      f"{annotations.path}: no person with a labeled keypoint and a box"
      f" ({counted})"
    )
  logging.info("%s: %s", annotations.path, counted)
  points = np.stack(keypoints)
  sizes = box_forms.sizes_of([images[row]["id"] for row in rows], images)
  # Again: the sizes may be those of the files, unknown as the rules were read.
  if found := box_forms.odd(np.array(boxes, np.float64), sizes, points):
    raise InputError(f"{annotations.path}: the file: {found}")
  return people_of(
    annotations,
    image=np.array(rows, np.int32),
    category_id=np.array(categories, np.int64),
    boxes=np.array(boxes, np.float64),
    score=np.ones(len(rows)),
    keypoints=points[..., :2],
    labels=points[..., 2],
    person_area=np.array(areas, np.float64),
    input_hw=input_hw,
    padding=padding,
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
    return CROWD
  if not labeled(entry):
    return NO_LABEL
  if entry["area"] <= 0 or min(entry["bbox"][2:]) <= 0:
    return NO_SIZE
  if _clip(entry["bbox"], image) is None:
    return NOT_IN_IMAGE
  return ""


def judged(content: Mapping[str, Any]) -> dict[str, Any]:
  """The content as an evaluation sees it: who is left out is not missed.

  Args:
    content: plain annotations.
  """
  images = {image["id"]: image for image in content["images"]}
  people = [
    {**entry, "num_keypoints": 0}
    if left_out_because(entry, images[entry["image_id"]])
    else entry
    for entry in content["annotations"]
  ]
  return {**content, "annotations": people}


def people_of(
  annotations: Annotations,
  *,
  image: Int[np.ndarray, " n"],
  category_id: Int[np.ndarray, " n"],
  boxes: Float[np.ndarray, "n 4"],
  score: Float[np.ndarray, " n"],
  keypoints: Float[np.ndarray, "n k 2"],
  labels: Float[np.ndarray, "n k"],
  person_area: Float[np.ndarray, " n"],
  input_hw: tuple[int, int],
  padding: float,
) -> People:
  """People by the boxes that they are cropped from.

  Args:
    annotations: that the images are of.
    image: (n,) places in their list.
    category_id: (n,).
    boxes: (n, 4) x, y, w, h in pixels.
    score: (n,) of the boxes.
    keypoints: (n, k, 2) image pixels.
    labels: (n, k) 0: not labeled, 1: hidden, 2: visible.
    person_area: (n,) square pixels; NaN where unknown.
    input_hw: crop size, pixels.
    padding: crop size over box size.
  """
  center, scale = geometry.box_to_center_scale(boxes, input_hw, padding)
  ids = np.array([i["id"] for i in annotations.content["images"]], np.int64)
  return People(
    image=image,
    image_id=ids[image],
    category_id=category_id,
    center=center,
    scale=scale,
    keypoints=keypoints,
    visible=np.minimum(labels, 1).astype(np.float32),
    hidden=(labels == 1).astype(np.float32),
    person_area=person_area,
    score=score,
    head_box=np.full((len(image), 4), np.nan),
  )


def reach(people: People, skeleton: Skeleton) -> Float[np.ndarray, "n k"]:
  """Distances at which a keypoint's similarity is 0.5, image pixels.

  Args:
    people: of a split.
    skeleton: of them; without sigmas: the default ones.
  """
  sigmas = np.array(skeletons.with_sigmas(skeleton).sigmas)
  right = np.sqrt(2 * np.log(1 / error_kinds.RIGHT)) * 2 * sigmas
  return np.sqrt(people.person_area)[:, None] * right


def census(
  content: Mapping[str, Any], used: int, left_out: Mapping[str, int]
) -> str:
  """ "538 images, 1201 people (person): 1003 used, 198 left out: crowd 5, ...".

  Args:
    content: plain annotations.
    used: people for a training.
    left_out: how many are not, by reason.
  """
  counts = Counter(key(e["category_id"]) for e in content["annotations"])
  names = {
    c["id"]: c.get("name", c["id"]) for c in content.get("categories", ())
  }
  categories = ", ".join(
    f"{names.get(one, one)}" + (f" {n}" if len(counts) > 1 else "")
    for one, n in counts.most_common()
  )
  line = (
    f"{len(content['images'])} images, {len(content['annotations'])} people"
    + (f" ({categories})" if categories else "")
    + f": {used} used"
  )
  if not left_out:
    return line
  reasons = ", ".join(f"{name} {n}" for name, n in sorted(left_out.items()))
  return f"{line}, {sum(left_out.values())} left out: {reasons}"


def _clip(
  box: list[float], image: Mapping[str, Any]
) -> tuple[float, float, float, float] | None:
  """A box inside its image, None where nothing is left.

  As it is where nobody knows the size: the image cannot be read.
  """
  x, y, w, h = box
  width, height = image.get("width"), image.get("height")
  if width is None or height is None:
    return x, y, w, h
  x1, y1 = max(0, x), max(0, y)
  x2 = min(width - 1, x1 + max(0, w - 1))
  y2 = min(height - 1, y1 + max(0, h - 1))
  if x2 < x1 or y2 < y1:
    return None
  return x1, y1, x2 - x1 + 1, y2 - y1 + 1
