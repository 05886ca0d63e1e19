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
import os
import sys
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from absl import logging
from jaxtyping import Float, UInt8
from numpy.typing import ArrayLike

from input_pipeline import coco
from input_pipeline.decode import read_pixels
from tokenpose_jax import cli
from tokenpose_jax.errors import InputError

Detector = Callable[[UInt8[np.ndarray, "h w 3"]], ArrayLike]
PERSON = 1  # COCO's category


def write(
  detector: Detector, folder: str, split: str, path: str, score: float = 0.0
) -> int:
  """Runs a detector on a split's images and writes its boxes.

  Args:
    detector: an image to boxes (N, 5): x, y, w, h, score.
    folder: a COCO folder.
    split: of the folder.
    path: of the JSON file, written at the end only.
    score: boxes below are left out.

  Returns:
    the number of boxes written.

  Raises:
    InputError: the folder cannot be used, or the detector returned no boxes
      (N, 5); naming the image.
  """
  content = coco.read_outline(folder, split)
  images = coco.image_folder(folder, split)
  found = []
  for image in content["images"]:
    pixels = read_pixels(os.path.join(images, image["file_name"]))
    if pixels is None:
      logging.warning("cannot read the image %s", image["file_name"])
      continue
    for x, y, w, h, confidence in _boxes(detector(pixels), image["file_name"]):
      if confidence >= score:
        found.append(
          {
            "image_id": image["id"],
            "category_id": PERSON,
            "bbox": [round(v, 2) for v in (x, y, w, h)],
            "score": round(confidence, 5),
          }
        )
  with tf.io.gfile.GFile(path, "w") as file:
    file.write(json.dumps(found))
  return len(found)


def _boxes(returned: ArrayLike, name: str) -> list[list[float]]:
  try:
    boxes: Float[np.ndarray, "n 5"] = np.asarray(returned, np.float64)
  except (TypeError, ValueError):
    boxes = np.zeros((0, 0))
  if boxes.size == 0 and np.size(returned) == 0:
    return []
  if boxes.ndim != 2 or boxes.shape[1] != 5 or not np.isfinite(boxes).all():
    raise InputError(
      f"{name}: the detector returned an array of shape {np.shape(returned)};"
      " expected finite numbers of shape (N, 5): x, y, w, h, score"
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
    return getattr(importlib.import_module(module), function)
  except (ImportError, AttributeError, ValueError) as error:
    raise InputError(
      f"cannot load the detector {name!r}, expected MODULE:FUNCTION: {error}"
    ) from None


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
  )
  print(f"{count} boxes: {options.out}")


if __name__ == "__main__":
  sys.exit(main())
