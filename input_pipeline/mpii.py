"""MPII Human Pose as a data set: its people, its boxes, PCKh."""

import os
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Float
from ml_collections import ConfigDict

from input_pipeline import mpii_files
from input_pipeline.builders import MpiiHumanPose
from input_pipeline.mpii_files import JOINTS
from input_pipeline.people import Annotations, People
from tokenpose_jax import geometry, skeletons
from tokenpose_jax.errors import InputError
from tokenpose_jax.metrics import error_kinds
from tokenpose_jax.metrics import mpii as mpii_metric
from tokenpose_jax.metrics.coco_plain import Plain, plain
from tokenpose_jax.metrics.mpii_pckh import MpiiPckh
from tokenpose_jax.skeletons import Skeleton

BUILDER = MpiiHumanPose
USES_SIGMAS = False  # PCKh has no OKS constants.

CENTER_DROP = 15  # the box's center is moved down by this times its scale


def read(data: ConfigDict, split: str, skeleton: Skeleton) -> Annotations:
  """Reads the annotations of a split (`mpii_files.read`).

  Args:
    data: `config.data`.
    split: of the folder.
    skeleton: MPII's.

  Raises:
    InputError: the folder, a file or what is in it cannot be used.
  """
  if skeleton.num_keypoints != JOINTS:
    raise InputError(
      f"data.skeleton: {skeleton.name} has {skeleton.num_keypoints} keypoints,"
      f" MPII {JOINTS}; set --config.data.skeleton=mpii_16"
    )
  return mpii_files.read(data.dir, split)


def splits(folder: str) -> list[str]:
  """The usual splits."""
  del folder
  return ["train", "valid"]


def skeleton_of(folder: str, split: str, category: str) -> Skeleton:
  """MPII's skeleton."""
  del folder, split, category
  return skeletons.MPII_16


def read_unchecked(
  folder: str, split: str, skeleton: Skeleton, category: str
) -> Plain:
  """As `read`, made plain for the doctor.

  Args:
    folder: of the data.
    split: of the folder.
    skeleton: MPII's.
    category: plays no part: all are people.

  Raises:
    InputError: as `read`.
  """
  del category
  content = mpii_files.read(folder, split).content
  # What is assumed of areas plays no part: PCKh does without.
  return plain(content, skeleton.num_keypoints)._replace(notes=())


def image_folder(folder: str, split: str) -> str:
  """MPII keeps the images of all splits together."""
  del split
  return os.path.join(folder, "images")


def annotated_people(
  annotations: Annotations, input_hw: tuple[int, int], padding: float
) -> People:
  """All people of the file, in its order (reference 4.2).

  Args:
    annotations: as returned by `read`.
    input_hw: plays no part: the file's scale is used for both axes.
    padding: plays no part: the padding of reference 4.2 is used.

  Raises:
    InputError: there is nobody.
  """
  del input_hw, padding
  entries = annotations.content["annotations"]
  if not entries:
    raise InputError(f"{annotations.path}: no person in this split")
  logging.info(
    "%s: %d images, %d people: all used",
    annotations.path,
    len(annotations.content["images"]),
    len(entries),
  )
  center = np.array([e["center"] for e in entries], np.float64)
  scale = np.array([e["scale"] for e in entries], np.float64)
  known = center[:, 0] != -1
  center[known, 1] += CENTER_DROP * scale[known]
  scale[known] *= geometry.CROP_PADDING
  points = np.array([e["keypoints"] for e in entries], np.float64)
  points = points.reshape(-1, JOINTS, 3)
  # An image's id is its place in the list, counted from 1.
  image_id = np.array([e["image_id"] for e in entries], np.int64)
  return People(
    image=(image_id - 1).astype(np.int32),
    image_id=image_id,
    category_id=np.array([e["category_id"] for e in entries], np.int64),
    center=center - 1,
    scale=np.stack([scale, scale], 1),
    keypoints=np.ascontiguousarray(points[..., :2]),
    visible=points[..., 2].astype(np.float32),
    hidden=np.zeros(points.shape[:2], np.float32),  # The files do not say.
    person_area=np.full(len(entries), np.nan),
    score=np.ones(len(entries)),
    head_box=np.array(
      [e["head_box"] or [np.nan] * 4 for e in entries], np.float64
    ),
  )


def reach(people: People, skeleton: Skeleton) -> Float[np.ndarray, "n k"]:
  """Half a head length, image pixels; NaN where the head is not known.

  Args:
    people: of a split.
    skeleton: MPII's.
  """
  heads = np.linalg.norm(
    people.head_box[:, 2:] - people.head_box[:, :2], axis=1
  )
  right = error_kinds.HEAD_RIGHT * mpii_metric.HEAD_SHARE * heads
  return np.repeat(right[:, None], skeleton.num_keypoints, axis=1)


def detected_people(
  path: str,
  annotations: Annotations,
  skeleton: Skeleton,
  input_hw: tuple[int, int],
  padding: float,
  min_box_score: float,
) -> People:
  """MPII has no detector boxes.

  Raises:
    InputError: always.
  """
  raise InputError("eval.boxes: MPII is evaluated on its own boxes, gt")


def detection_facts(
  path: str, annotations: Annotations, image_ids: list[int] | None
) -> dict[str, Any]:
  """MPII has no detector boxes, and nothing to say of them."""
  del path, annotations, image_ids
  return {}


def benchmark(
  annotations: Annotations,
  people: People,
  skeleton: Skeleton,
  config: ConfigDict,
  image_ids: list[int] | None,
) -> MpiiPckh:
  """What measures predictions of a split: PCKh.

  Args:
    annotations: of the split.
    people: that are evaluated.
    skeleton: MPII's.
    config: of the run.
    image_ids: that are evaluated; None: all.

  Raises:
    InputError: someone's head box is not known.
  """
  size = np.linalg.norm(people.head_box[:, 2:] - people.head_box[:, :2], axis=1)
  # NaN is not above 0 either.
  sized = (size > 0) | (~np.isnan(size) & ~(people.visible > 0).any(1))
  lacking = int((~sized).sum())
  if lacking:
    split = config.data.eval_split
    raise InputError(
      f"{config.data.dir}: {lacking} of {len(people)} people of the split"
      f" {split} have no head box, which PCKh needs; put annot/gt_{split}.mat"
      " or MPII's release .mat there"
    )
  truth = {
    "keypoints": people.keypoints,
    "visible": people.visible,
    "head_boxes": people.head_box,
  }
  images = annotations.content["images"] if image_ids is None else image_ids
  return MpiiPckh(truth, skeleton, len(images))
