"""COCO folders: annotation files found, read, checked, and made into arrays.

    DIR/annotations/person_keypoints_SPLIT.json
    DIR/SPLIT/*.jpg or DIR/images/SPLIT/*.jpg

The record rules are those of reference 4.1. Every error says what is wrong,
where, and what to do.
"""

import hashlib
import os
from typing import Any

import tensorflow as tf
from absl import logging
from ml_collections import ConfigDict

from input_pipeline import coco_categories
from input_pipeline.builders import CocoKeypoints as CocoImages
from input_pipeline.coco_people import annotated_people, judged, reach
from input_pipeline.coco_rules import check_outline, check_people
from input_pipeline.detector_boxes import detected_people, detection_facts
from input_pipeline.files import read_bytes, require_folder
from input_pipeline.people import Annotations, People
from tokenpose_jax import json_files, skeletons
from tokenpose_jax.errors import InputError
from tokenpose_jax.metrics.coco_keypoints import CocoKeypoints
from tokenpose_jax.metrics.coco_plain import Plain, plain
from tokenpose_jax.skeletons import Skeleton

__all__ = [
  "BUILDER",
  "USES_SIGMAS",
  "annotated_people",
  "benchmark",
  "detected_people",
  "detection_facts",
  "image_folder",
  "reach",
  "read",
  "read_outline",
  "read_unchecked",
  "skeleton_of",
  "splits",
]

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
  path, raw = _read(data.dir, split)
  content, notes = _plain(raw, path, skeleton, data.category)
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


def read_unchecked(
  folder: str, split: str, skeleton: Skeleton, category: str
) -> Plain:
  """The annotations for the doctor, who checks the people himself.

  Args:
    folder: of the data.
    split: of the folder.
    skeleton: that the keypoints should have.
    category: `data.category`.

  Raises:
    InputError: the file cannot be found or read.
  """
  path, raw = _read(folder, split)
  return _plain(raw, path, skeleton, category)


def read_outline(folder: str, split: str) -> dict[str, Any]:
  """COCO's dict as it is; only its outer structure has been validated.

  Args:
    folder: of the data.
    split: of the folder.

  Raises:
    InputError: the file cannot be found or read.
  """
  path, raw = _read(folder, split)
  return _outline(raw, path)


def skeleton_of(folder: str, split: str, category: str) -> Skeleton:
  """The skeleton that the categories of an annotation file define.

  Args:
    folder: of the data.
    split: of the folder.
    category: `data.category`.

  Raises:
    InputError: there is none, or several that differ.
  """
  path, raw = _read(folder, split)
  content, _ = coco_categories.choose(_outline(raw, path), category, path)
  return coco_categories.skeleton_of(content, path)


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
    judged(annotations.content),
    skeleton,
    image_ids=image_ids,
    min_keypoint_score=config.eval.min_keypoint_score,
    nms_threshold=config.eval.nms_threshold,
    nms_soft=config.eval.nms_soft,
  )


def _read(folder: str, split: str) -> tuple[str, bytes]:
  """The path of a split's annotation file, and what is in it."""
  there = splits(folder)
  path = os.path.join(folder, "annotations", f"person_keypoints_{split}.json")
  if split in there:
    return path, read_bytes(path)
  raise InputError(
    f"data.dir: {path} does not exist; "
    + (
      f"the folder has the splits {', '.join(there)}: choose with"
      " --config.data.train_split and --config.data.eval_split"
      if there
      else "expected the folder's annotations/person_keypoints_SPLIT.json"
    )
  )


def _outline(raw: bytes, path: str) -> dict[str, Any]:
  content = json_files.parse(raw, path)
  check_outline(content, path)
  return content


def _plain(raw: bytes, path: str, skeleton: Skeleton, category: str) -> Plain:
  """The people of a category, made plain."""
  content, note = coco_categories.choose(_outline(raw, path), category, path)
  content, notes = plain(content, skeleton.num_keypoints)
  images = content["images"]
  lacking = sum("width" not in image for image in images)
  sizes = (
    f"{lacking} of {len(images)} images have no width and height: those of the"
    " files are taken"
    if lacking
    else ""
  )
  return Plain(content, tuple(filter(None, (note, *notes, sizes))))
