"""Boxes, crops and the affine maps between image, crop and heatmap.

Pure NumPy functions. Points are (x, y) pixels with pixel centres at integers,
sizes (height, width); a `scale` is (w, h) / 200 pixels, the unit of the
original (SPEC.md 4.1).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

SCALE_UNIT = 200.0
CROP_PADDING = 1.25


def box_to_center_scale(
  boxes: Float[np.ndarray, "*n 4"],
  input_hw: Sequence[int],
  padding: float = CROP_PADDING,
) -> tuple[Float[np.ndarray, "*n 2"], Float[np.ndarray, "*n 2"]]:
  """The crop of a box: its centre and its padded size (SPEC.md 4.1).

  Args:
    boxes: x, y, w, h in pixels.
    input_hw: crop size; the box is widened or heightened about its centre to
      this aspect ratio.
    padding: crop size over box size.

  Returns:
    center (*n, 2) pixels and scale (*n, 2), both float32.
  """
  x, y, w, h = np.moveaxis(np.asarray(boxes, np.float64), -1, 0)
  center = np.stack([x + (w - 1) * 0.5, y + (h - 1) * 0.5], -1)
  size = to_aspect(np.stack([w, h], -1), input_hw)
  scale = (size / SCALE_UNIT).astype(np.float32) * np.float32(padding)
  return center.astype(np.float32), scale.astype(np.float32)


def to_aspect(
  size_wh: Float[np.ndarray, "*n 2"], input_hw: Sequence[int]
) -> Float[np.ndarray, "*n 2"]:
  """The smallest size (w, h) of the crop's aspect that covers `size_wh`."""
  aspect = input_hw[1] / input_hw[0]
  w, h = np.moveaxis(np.asarray(size_wh, np.float64), -1, 0)
  return np.stack([np.maximum(w, h * aspect), np.maximum(h, w / aspect)], -1)


def crop_affine(
  center: Float[np.ndarray, "2"],
  scale: Float[np.ndarray, "2"],
  degrees: float,
  output_hw: Sequence[int],
) -> Float[np.ndarray, "2 3"]:
  """The map from image pixels to output pixels (SPEC.md 4.3).

  The exact solution of three point pairs, each rounded to float32 as in the
  original. Only the horizontal scale matters.

  Args:
    center: of the crop, image pixels.
    scale: of the crop, in units of 200 pixels.
    degrees: rotation.
    output_hw: size of the crop, or of the heatmap.
  """
  height, width = output_hw
  turn = np.deg2rad(degrees)
  up = -(SCALE_UNIT * float(scale[0]) - 1) * 0.5
  source = np.empty((3, 2), np.float32)
  target = np.empty((3, 2), np.float32)
  source[0] = center
  source[1] = (
    center[0] - up * np.sin(turn),
    center[1] + up * np.cos(turn),
  )
  target[0] = (width - 1) * 0.5, (height - 1) * 0.5
  target[1] = target[0] + (0, -(width - 1) * 0.5)
  for points in (source, target):
    along = points[0] - points[1]
    points[2] = points[1] + (-along[1], along[0])
  corners = np.concatenate([source.astype(np.float64), np.ones((3, 1))], 1)
  return np.linalg.solve(corners, target.astype(np.float64)).T


def invert(affine: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2 3"]:
  """The inverse of an affine map."""
  linear = np.linalg.inv(affine[:, :2])
  return np.concatenate([linear, -linear @ affine[:, 2:]], axis=1)


def mirror(width: float) -> Float[np.ndarray, "2 3"]:
  """The map x -> width - 1 - x that mirrors an image."""
  return np.array([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0]])


def compose(
  outer: Float[np.ndarray, "2 3"], inner: Float[np.ndarray, "2 3"]
) -> Float[np.ndarray, "2 3"]:
  """The map that applies `inner`, then `outer`."""
  linear = outer[:, :2] @ inner[:, :2]
  shift = outer[:, :2] @ inner[:, 2:] + outer[:, 2:]
  return np.concatenate([linear, shift], axis=1)


def transform(
  affine: Float[np.ndarray, "2 3"], points: Float[np.ndarray, "*n 2"]
) -> Float[np.ndarray, "*n 2"]:
  """Applies an affine map to points (x, y)."""
  return points @ affine[:, :2].T + affine[:, 2]


def source_window(
  affine: Float[np.ndarray, "2 3"],
  output_hw: Sequence[int],
  image_hw: Sequence[int],
  margin: int = 2,
) -> tuple[int, int, int, int]:
  """The part of an image that a bilinear warp reads.

  Args:
    affine: image to output.
    output_hw: size of the output.
    image_hw: size of the image.
    margin: pixels kept around, so that the window's edge is never mistaken
      for the image's.

  Returns:
    (y, x, height, width), inside the image; height or width 0 where the output
    lies wholly outside.
  """
  height, width = output_hw
  corners = np.array(
    [[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]],
    np.float64,
  )
  seen = transform(invert(affine), corners)
  low = np.floor(seen.min(0)) - margin
  high = np.ceil(seen.max(0)) + margin + 1
  limit = np.array([image_hw[1], image_hw[0]])
  x0, y0 = np.clip(low, 0, limit).astype(int)
  x1, y1 = np.clip(high, 0, limit).astype(int)
  return int(y0), int(x0), int(y1 - y0), int(x1 - x0)
