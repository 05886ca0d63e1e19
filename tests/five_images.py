"""A COCO folder of five images, prepared."""

import glob
import os

from input_pipeline import builders
from input_pipeline import coco as coco_lib
from input_pipeline import store as store_lib
from tests import fixtures
from tokenpose_jax import skeletons

# Neither in the order of names, nor of ids (100, 99, ...).
COLORS = {
  "c.jpg": (200, 100, 50),
  "a.jpg": (30, 160, 220),
  "d.jpg": (120, 120, 40),
  "b.jpg": (60, 60, 180),
  "e.jpg": (240, 20, 120),
}
SIZES = {name: (30 + n, 40 + 2 * n) for n, name in enumerate(COLORS)}
IMAGES = {
  name: fixtures.encode(fixtures.smooth_image(*SIZES[name], color))
  for name, color in COLORS.items()
}


def make(tmp_path):
  """The folder itself."""
  path = tmp_path / "data"
  fixtures.coco_folder(path, IMAGES, SIZES)
  return path


def builder_of(folder, split="train"):
  annotations = coco_lib.read(
    fixtures.data_of(folder), split, skeletons.COCO_17
  )
  return builders.CocoKeypoints(
    split,
    coco_lib.image_folder(str(folder), split),
    annotations.content["images"],
    str(folder.parent / "prepared"),
  )


def store_of(folder, split="train"):
  return store_lib.open_store(builder_of(folder, split), list(IMAGES))


def records(folder):
  """The prepared TFRecord files of all configs, with their times."""
  pattern = str(folder.parent / "prepared" / "**" / "*tfrecord*")
  return {
    path: os.stat(path).st_mtime_ns
    for path in glob.glob(pattern, recursive=True)
  }
