"""Boxes of people from a detector: YOLOX as ONNX, or any function.

A detector is a function from a photo (H, W, 3) uint8, RGB, to boxes (N, 5):
x, y, w, h in pixels and a score from 0 to 1.
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from tokenpose_jax import exported, file_kinds, network
from tokenpose_jax.errors import InputError, check_choice, one_line

Detector = Callable[[UInt8[np.ndarray, "h w 3"]], Float[np.ndarray, "n 5"]]

# How YOLOX's exports want their pixels: today's, blue first, from 0 to 255;
# those before release 0.1.1, red first and normalized as ImageNet's.
COLORS = ("bgr", "normalized-rgb")
_MEAN = np.array(network.IMAGE_MEAN, np.float32) * 255
_DEVIATION = np.array(network.IMAGE_STD, np.float32) * 255
_STRIDES = (8, 16, 32)
_GREY = 114  # around the photo
_FREE_SIDE = 640  # of a model that takes any size, YOLOX's own
_LARGEST_LOG = 12.0  # of a box side over the stride: e^12 is out of any photo


class Yolox:
  """YOLOX with its heads' raw or decoded output, through ONNX Runtime."""

  def __init__(
    self,
    path: str,
    *,
    colors: str = "bgr",
    min_score: float = 0.3,
    max_overlap: float = 0.65,
    category: int = 0,
    threads: int = 0,
  ):
    """Reads the model.

    Args:
      path: of an .onnx file: images (1, 3, H, W) to (1, anchors, 5 + classes).
      colors: one of `COLORS`.
      min_score: boxes below are left out.
      max_overlap: of boxes that overlap more (IoU), the best one is kept.
      category: the class of people.
      threads: of ONNX Runtime; 0: all cores.

    Raises:
      InputError: the file is missing or no such model, or ONNX Runtime is not
        installed.
    """
    check_choice("colors", colors, COLORS)
    self._session = _session(path, threads)
    inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
    form = inputs[0].shape, outputs[0].shape
    if len(inputs) != 1 or len(form[0]) != 4 or form[0][1] != 3:
      raise InputError(
        f"{path} is not a YOLOX detector: its inputs are"
        f" {[i.shape for i in inputs]}, expected one of (1, 3, height, width)"
      )
    if len(form[1]) != 3:
      raise InputError(
        f"{path} is not a YOLOX detector: its first output is {form[1]},"
        " expected (1, anchors, 5 + classes)"
      )
    sides = (s if isinstance(s, int) else _FREE_SIDE for s in form[0][2:])
    self._height, self._width = sides
    self._input = inputs[0].name
    self._path = path
    self._colors = colors
    self._min_score, self._max_overlap = min_score, max_overlap
    self._category = category
    self._grid, self._stride = _anchors(self._height, self._width)

  def __call__(
    self, photo: UInt8[np.ndarray, "h w 3"]
  ) -> Float[np.ndarray, "n 5"]:
    """Boxes of people, the best first.

    Args:
      photo: (H, W, 3) RGB.

    Returns:
      boxes (N, 5) x, y, w, h in pixels of the photo, score.

    Raises:
      InputError: the model gives something else than YOLOX's heads.
    """
    ratio = min(self._height / photo.shape[0], self._width / photo.shape[1])
    pixels = self._letterbox(photo, ratio)
    (raw, *_) = self._session.run(None, {self._input: pixels})
    classes = self._category + 6
    if raw.shape[1] != len(self._grid) or raw.shape[2] < classes:
      raise InputError(
        f"{self._path} is not a YOLOX detector: it gives {raw.shape} for"
        f" {self._height} x {self._width} pixels, expected (1,"
        f" {len(self._grid)}, 5 + classes)"
      )
    boxes = self._decode(raw[0].astype(np.float32))
    boxes = boxes[boxes[:, 4] >= self._min_score]
    boxes[:, :4] /= ratio
    kept = cv2.dnn.NMSBoxes(
      boxes[:, :4].astype(float).tolist(),
      boxes[:, 4].tolist(),
      self._min_score,
      self._max_overlap,
    )
    return boxes[np.asarray(kept, int)]

  def _letterbox(
    self, photo: UInt8[np.ndarray, "h w 3"], ratio: float
  ) -> Float[np.ndarray, "1 3 hh ww"]:
    """The photo in the upper left corner, grey around it."""
    height = max(1, int(photo.shape[0] * ratio))
    width = max(1, int(photo.shape[1] * ratio))
    canvas = np.full((self._height, self._width, 3), _GREY, np.uint8)
    canvas[:height, :width] = cv2.resize(photo, (width, height))
    pixels = canvas.astype(np.float32)
    if self._colors == "bgr":
      pixels = pixels[..., ::-1]
    else:
      pixels = (pixels - _MEAN) / _DEVIATION
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])

  def _decode(self, raw: Float[np.ndarray, "a c"]) -> Float[np.ndarray, "a 5"]:
    """x, y, w, h in pixels of the canvas, score, of every anchor."""
    center, size = raw[:, :2], raw[:, 2:4]
    if not (size > 0).all():
      # Logarithms over the stride; decoded sizes are all positive.
      center = (center + self._grid) * self._stride
      size = np.exp(np.minimum(size, _LARGEST_LOG)) * self._stride
    score = raw[:, 4] * raw[:, 5 + self._category]
    return np.column_stack([center - size / 2, size, score])


def _session(path: str, threads: int) -> Any:
  try:
    file_kinds.check(path)
    with open(path, "rb"):
      pass
    return exported.onnx_session(path, threads)
  except ImportError:
    raise InputError(
      f"{path} needs ONNX Runtime: pip install onnxruntime"
    ) from None
  except Exception as error:  # Of kinds that ONNX Runtime does not export.
    raise InputError(
      f"cannot use {path} as an ONNX model: {one_line(error, 200)}"
    ) from None


def _anchors(
  height: int, width: int
) -> tuple[Float[np.ndarray, "a 2"], Float[np.ndarray, "a 1"]]:
  """Cells (x, y) and strides of all anchors, row by row, finest first."""
  grids, strides = [], []
  for stride in _STRIDES:
    y, x = np.mgrid[: height // stride, : width // stride]
    grids.append(np.column_stack([x.ravel(), y.ravel()]))
    strides.append(np.full((grids[-1].shape[0], 1), stride))
  return (
    np.concatenate(grids).astype(np.float32),
    np.concatenate(strides).astype(np.float32),
  )
