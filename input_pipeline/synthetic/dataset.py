"""Synthetic people as a data set: written on first use, read as COCO's."""

from ml_collections import ConfigDict

from input_pipeline import coco
from input_pipeline.coco import (
  BUILDER,
  USES_SIGMAS,
  annotated_people,
  benchmark,
  detected_people,
  detection_facts,
  image_folder,
  reach,
  read_unchecked,
  skeleton_of,
  splits,
)
from input_pipeline.people import Annotations
from input_pipeline.synthetic import folder
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
  "read_unchecked",
  "skeleton_of",
  "splits",
]


def read(data: ConfigDict, split: str, skeleton: Skeleton) -> Annotations:
  """Writes the folder where that has not been done, and reads a split.

  Args:
    data: `config.data`.
    split: train or test.
    skeleton: COCO's.

  Raises:
    InputError: the folder cannot be used.
  """
  folder.write_coco_folder(
    data.dir,
    seed=data.synthetic_seed,
    train_people=data.synthetic_train_people,
    test_people=data.synthetic_test_people,
  )
  return coco.read(data, split, skeleton)
