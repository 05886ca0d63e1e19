r"""Writes detector boxes (COCO results format) with any detector.

    python -m input_pipeline.detections my_detector:find /data/coco val2017 \
        boxes.json --score=0.05

`my_detector.find(image)` takes an image (H, W, 3) uint8, RGB, and returns boxes
(N, 5): x, y, w, h in pixels and a score from 0 to 1. The file is what
`--config.eval.boxes=boxes.json` reads.
"""

import argparse
import importlib
import json
import math
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging
from jaxtyping import UInt8
from numpy.typing import ArrayLike

from input_pipeline import coco, coco_categories, files, image_files, outside
from input_pipeline.decode import read_pixels
from tokenpose_jax import cli
from tokenpose_jax.errors import InputError
from tokenpose_jax.metrics.coco_plain import (
  CATEGORY,
  ORIGINAL_ID,
  key,
  plain,
)
from tokenpose_jax.terminal import say

Detector = Callable[[UInt8[np.ndarray, "h w 3"]], ArrayLike]


def write(
  detector: Detector,
  folder: str,
  split: str,
  path: str,
  score: float = 0.0,
  category: str = "",
  allow_outside: bool = False,
) -> int:
  """Runs a detector on a split's images and writes its boxes.

  Args:
    detector: an image to boxes (N, 5): x, y, w, h, score.
    folder: a COCO folder.
    split: of the folder.
    path: of the JSON file, written at the end only.
    score: boxes below are left out.
    category: what the detector finds, a name or an id of the annotations'
      categories; "": the one that people are annotated with.
    allow_outside: as `data.allow_outside` of a config.

  Returns:
    the number of boxes written.

  Raises:
    InputError: the folder cannot be used, or nobody knows the category; the
      file cannot be written; or the detector returned no boxes (N, 5), naming
      the image.
  """
  if not math.isfinite(score):
    raise InputError(f"the least score is {score}, expected a number")
  content = coco.read_outline(folder, split)
  where = f"{folder}, split {split}"
  number = _category(content, category, where)
  listed = plain(content, 0).content["images"]
  if not listed:
    raise InputError(f"{where}: its annotation file lists no images")
  images = coco.image_folder(folder, split)
  names = [image["file_name"] for image in listed]
  if not allow_outside:
    outside.require_inside(folder, images, names, "give --allow-outside")
  image_files.require(images, names)
  files.require_writable(path)
  found = []
  for image in listed:
    name = image["file_name"]
    pixels = read_pixels(os.path.join(images, name))
    if pixels is None:
      logging.warning("cannot read the image %s", name)
      continue
    for x, y, w, h, confidence in _boxes(detector(pixels), name):
      if confidence >= score:
        found.append(
          {
            "image_id": image.get(ORIGINAL_ID, image["id"]),
            "category_id": number,
            "bbox": [round(v, 2) for v in (x, y, w, h)],
            "score": round(confidence, 5),
          }
        )
  files.write(path, json.dumps(found))
  return len(found)


def _category(content: dict[str, Any], wanted: str, where: str) -> int | str:
  """The id that boxes get: the annotations' own, of who is annotated."""
  if wanted:
    content, _ = coco_categories.choose(content, wanted, where)
  listed = plain(content, 0).content["categories"]
  used = {key(e.get("category_id", CATEGORY)) for e in content["annotations"]}
  own = {key(c.get(ORIGINAL_ID, c["id"])): c for c in listed}
  meant = (
    {k: c for k, c in own.items() if k in used}
    or {k: c for k, c in own.items() if c.get("keypoints")}
    or own
    or {CATEGORY: {"id": CATEGORY}}
  )
  if len(meant) > 1:
    names = ", ".join(str(c.get("name", k)) for k, c in meant.items())
    raise InputError(
      f"{where}: its categories are {names:.200}; choose the one that the"
      " detector finds with --category"
    )
  (category,) = meant.values()
  return category.get(ORIGINAL_ID, category["id"])


def _boxes(returned: Any, name: str) -> list[list[float]]:
  try:
    boxes = np.asarray(returned, np.float64)
    shape = f"an array of shape {boxes.shape}"
  except (OverflowError, TypeError, ValueError):
    boxes = np.full((), np.nan)
    shape = f"{returned!r:.60}"
  if not boxes.size:
    return []
  if boxes.ndim != 2 or boxes.shape[1] != 5 or not np.isfinite(boxes).all():
    raise InputError(
      f"{name}: the detector returned {shape}; expected finite numbers of shape"
      " (N, 5): x, y, w, h, score"
    )
  if (boxes[:, 2:4] <= 0).any():
    raise InputError(
      f"{name}: the detector returned a box without area; boxes are x, y, w, h"
      " (not two corners)"
    )
  return boxes.tolist()


def _load(name: str) -> Detector:
  """The callable that MODULE:FUNCTION names, also from the current folder."""
  module, _, function = name.partition(":")
  sys.path.insert(0, os.getcwd())
  try:
    found = getattr(importlib.import_module(module), function)
  except (ImportError, AttributeError, ValueError) as error:
    raise InputError(
      f"cannot load the detector {name!r}, expected MODULE:FUNCTION: {error}"
    ) from None
  if not callable(found):
    raise InputError(
      f"the detector {name!r} is no function: MODULE:FUNCTION is"
      f" {type(found).__name__}"
    )
  return found


def main(argv: list[str] | None = None) -> int:
  """Writes a detector-box file; returns the exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("detector", help="MODULE:FUNCTION")
  parser.add_argument("folder", help="a COCO folder")
  parser.add_argument("split")
  parser.add_argument("out", help="the file to write")
  parser.add_argument("--score", type=float, default=0.0, help="least score")
  parser.add_argument(
    "--category",
    default="",
    help="what it finds, a name or an id; default: who is annotated",
  )
  parser.add_argument(
    "--allow-outside",
    action="store_true",
    help="images may lie outside of the folder",
  )
  options = parser.parse_args(argv)
  tf.config.set_visible_devices([], "GPU")
  return cli.exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
  count = write(
    _load(options.detector),
    options.folder,
    options.split,
    options.out,
    options.score,
    options.category,
    options.allow_outside,
  )
  say(f"{count} boxes: {options.out}")


if __name__ == "__main__":
  sys.exit(main())
