"""Where people are: the whole image, given boxes, a file's, a detector's."""

import argparse
import importlib
import os
import pathlib
import sys
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from tokenpose_jax import json_files
from tokenpose_jax.errors import InputError, one_line
from tokenpose_jax.metrics import coco_plain
from tokenpose_jax.predict.detector import COLORS, Detector, Yolox
from tokenpose_jax.predict.listed import ListedPhotos
from tokenpose_jax.predict.sources import Source

Photo = UInt8[np.ndarray, "h w 3"]
Scored = Float[np.ndarray, "n 5"]


@runtime_checkable
class Boxes(Protocol):
  """Finds the people of a photo or a frame.

  Attributes:
    costly: worth to be spared between the frames of a video.
  """

  costly: bool

  def __call__(self, source: Source, image: Photo) -> Scored:
    """Boxes (N, 5) x, y, w, h in pixels and a score."""


class Whole:
  """Each image is one person."""

  costly = False

  def __call__(self, source: Source, image: Photo) -> Scored:
    """The box of the whole image."""
    del source
    return np.array([[0.0, 0.0, image.shape[1], image.shape[0], 1.0]])


class Given:
  """The same boxes in every image."""

  costly = False

  def __init__(self, texts: Sequence[str]):
    """Reads the boxes.

    Args:
      texts: "x,y,w,h" each, pixels.

    Raises:
      InputError: one is not four numbers.
    """
    rows = []
    for text in texts:
      numbers = [coco_plain.number(part) for part in text.split(",")]
      if len(numbers) != 4 or None in numbers:
        raise InputError(f"--box={text}: expected x,y,w,h in pixels")
      rows.append([*numbers, 1.0])
    self._boxes = np.array(rows, np.float64)

  def __call__(self, source: Source, image: Photo) -> Scored:
    """All of them."""
    del source, image
    return self._boxes


class Listed:
  """Boxes of a COCO results file."""

  costly = False

  def __init__(
    self, path: str, ids: "ImageIds", *, category_id: int, min_score: float
  ):
    """Reads the file.

    Args:
      path: of COCO results: image_id, bbox, score.
      ids: of the photos.
      category_id: boxes of others are left out.
      min_score: boxes below are left out.

    Raises:
      InputError: it cannot be read, or an entry is no box.
    """
    content = json_files.read(path, "--boxes")
    if not isinstance(content, list):
      raise InputError(
        f"--boxes: {path} holds a {type(content).__name__}, expected a list of"
        " COCO results"
      )
    self._ids = ids
    self._rows: dict[Hashable, list[list[float]]] = defaultdict(list)
    for n, entry in enumerate(content):
      row = _box_of(entry)
      if row is None:
        raise InputError(
          f"--boxes: entry {n} of {path} is no box; expected image_id, bbox"
          f" [x, y, w, h], score; got {one_line(entry, 80)}"
        )
      category = coco_plain.key(entry.get("category_id", category_id))
      if row[4] >= min_score and category == category_id:
        self._rows[coco_plain.key(entry["image_id"])].append(row)

  def __call__(self, source: Source, image: Photo) -> Scored:
    """Those of the photo; none where the file has none."""
    del image
    rows = self._rows.get(coco_plain.key(self._ids(source)), [])
    return np.array(rows, np.float64).reshape(-1, 5)


def _box_of(entry: Any) -> list[float] | None:
  """x, y, w, h, score of an entry; None: it is no box."""
  if not isinstance(entry, dict) or not isinstance(entry.get("bbox"), list):
    return None
  if coco_plain.key(entry.get("image_id")) is None or len(entry["bbox"]) != 4:
    return None
  values = [
    coco_plain.number(v) for v in (*entry["bbox"], entry.get("score", 1))
  ]
  numbers = [value for value in values if value is not None]
  return numbers if len(numbers) == 5 else None


class Detected:
  """Boxes of a detector."""

  costly = True

  def __init__(self, detector: Detector, min_score: float):
    """Takes a detector.

    Args:
      detector: a photo to boxes (N, 5).
      min_score: boxes below are left out.
    """
    self._detector, self._min_score = detector, min_score

  def __call__(self, source: Source, image: Photo) -> Scored:
    """What the detector finds.

    Raises:
      InputError: it failed, or gave something else than boxes.
    """
    try:
      boxes = np.asarray(self._detector(image), np.float64)
    except InputError:
      raise
    except Exception as error:  # Of whatever the detector is made of.
      raise InputError(
        f"the detector failed on {source.name}: {one_line(error, 200)}"
      ) from error
    if not boxes.size:
      return np.zeros((0, 5))
    if boxes.ndim != 2 or boxes.shape[1] != 5:
      raise InputError(
        f"the detector gave {boxes.shape} for {source.name}; expected (N, 5):"
        " x, y, w, h, score"
      )
    good = np.isfinite(boxes).all(1) & (boxes[:, 4] >= self._min_score)
    return boxes[good]


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the arguments that `chosen` reads, and `--images`."""
  group = parser.add_argument_group("where people are")
  group.add_argument(
    "--box", action="append", metavar="X,Y,W,H", help="pixels; repeatable"
  )
  group.add_argument("--boxes", metavar="FILE", help="COCO results")
  group.add_argument(
    "--detector", help="FILE.onnx of YOLOX, or module:function"
  )
  group.add_argument(
    "--detector-colors", choices=COLORS, default="bgr", help="of YOLOX"
  )
  group.add_argument(
    "--min-box-score",
    type=float,
    help="default: 0.3 of a detector, all of a file",
  )
  group.add_argument(
    "--images", default="", help="an annotation file with the ids of photos"
  )
  group.add_argument("--category-id", type=int, default=1, help="default: 1")


def require_one(arguments: argparse.Namespace, *others: str) -> None:
  """Checks that at most one place is named where people are.

  Args:
    arguments: of `add_arguments`.
    others: names of further arguments that say it.

  Raises:
    InputError: there are several.
  """
  given = [
    f"--{name}"
    for name in ("box", "boxes", "detector", *others)
    if getattr(arguments, name)
  ]
  if len(given) > 1:
    raise InputError(f"{' and '.join(given)} exclude each other; give one")


def chosen(arguments: argparse.Namespace, ids: "ImageIds") -> Boxes:
  """Where the arguments of a command say that people are.

  Args:
    arguments: of `add_arguments`.
    ids: of the photos.

  Raises:
    InputError: a box, a file or a detector cannot be used.
  """
  if arguments.box:
    return Given(arguments.box)
  score = arguments.min_box_score
  if arguments.boxes:
    return Listed(
      arguments.boxes,
      ids,
      category_id=arguments.category_id,
      min_score=float("-inf") if score is None else score,
    )
  if arguments.detector:
    score = 0.3 if score is None else score
    detector = detector_of(arguments.detector, arguments.detector_colors, score)
    return Detected(detector, score)
  return Whole()


def detector_of(text: str, colors: str, min_score: float) -> Detector:
  """The detector that a command names.

  Args:
    text: an .onnx file of YOLOX, or "module:function".
    colors: of YOLOX, one of `detector.COLORS`.
    min_score: boxes below are left out.

  Raises:
    InputError: there is none of that name.
  """
  if text.endswith(".onnx") or os.path.exists(text):
    return Yolox(text, colors=colors, min_score=min_score)
  module, _, name = text.partition(":")
  if not name:
    raise InputError(
      f"--detector={text}: there is no such file; give FILE.onnx or"
      " module:function"
    )
  sys.path.insert(0, os.getcwd())
  try:
    return getattr(importlib.import_module(module), name)
  except Exception as error:  # A module may raise anything.
    raise InputError(f"--detector={text}: {one_line(error, 200)}") from None


class ImageIds:
  """The ids of photos in COCO results."""

  def __init__(self, path: str = ""):
    """Reads the ids of an annotation file.

    Args:
      path: of a JSON file with `images`, each an `id` and a `file_name`; "":
        a name of digits, as COCO's, is its number, any other its own id.

    Raises:
      InputError: the file has no images.
    """
    self._listed: ListedPhotos[int | str] | None = None
    if not path:
      return
    content = json_files.read(path, "--images")
    images = content.get("images") if isinstance(content, dict) else None
    try:
      pairs = [(image["file_name"], image["id"]) for image in images or ()]
    except (AttributeError, KeyError, TypeError):
      pairs = []
    if not pairs or any(coco_plain.key(own) is None for _, own in pairs):
      raise InputError(
        f"--images: {path} lists no images with an id and a file_name"
      )
    self._listed = ListedPhotos("--images", pairs)

  def __call__(self, source: Source) -> int | str:
    """The id of a source.

    Raises:
      InputError: the annotation file does not list it, or it may be several.
    """
    if self._listed:
      return self._listed(source)
    stem = pathlib.PurePosixPath(source.name).stem
    return int(stem) if stem.isascii() and stem.isdigit() else source.name
