"""Boxes, crops and the affine maps between image, crop and heatmap.

Pure NumPy functions. Points are (x, y) pixels with pixel centers at integers,
sizes (height, width); a `scale` is (w, h) / 200 pixels, the unit of the
original implementation (reference 4.1).
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int, Real

SCALE_UNIT = 200.0
CROP_PADDING = 1.25


def box_to_center_scale(
  boxes: Real[np.ndarray, "*n 4"],
  input_hw: Sequence[int],
  padding: float = CROP_PADDING,
) -> tuple[Float[np.ndarray, "*n 2"], Float[np.ndarray, "*n 2"]]:
  """The crop of a box: its center and its padded size (reference 4.1).

  Args:
    boxes: (*n, 4) x, y, w, h in pixels.
    input_hw: crop size, pixels; the box is widened or heightened about its
      center to this aspect ratio.
    padding: crop size over box size.

  Returns:
    center (*n, 2) pixels and scale (*n, 2), both float32.
  """
  boxes = np.asarray(boxes, np.float64)
  center = box_center(boxes)
  size = to_aspect(boxes[..., 2:], input_hw)
  scale = (size / SCALE_UNIT).astype(np.float32) * np.float32(padding)
  return center.astype(np.float32), scale.astype(np.float32)


def crop_area(scale: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n"]:
  """The area of crops, which stands for that of people (reference 5.4).

  Args:
    scale: (*n, 2) as of `box_to_center_scale`.

  Returns:
    (*n,) float64 square pixels.
  """
  return np.prod(scale.astype(np.float64) * SCALE_UNIT, axis=-1)


def box_center(
  boxes: Real[np.ndarray, "*n 4"],
) -> Float[np.ndarray, "*n 2"]:
  """The middle (x, y) of boxes x, y, w, h, between their outer pixels."""
  return boxes[..., :2] + (boxes[..., 2:] - 1) * 0.5


def to_aspect(
  size_wh: Real[np.ndarray, "*n 2"], input_hw: Sequence[int]
) -> Float[np.ndarray, "*n 2"]:
  """The smallest size (w, h) of the crop's aspect that covers `size_wh`."""
  aspect = input_hw[1] / input_hw[0]
  w, h = np.moveaxis(np.asarray(size_wh, np.float64), -1, 0)
  return np.stack([np.maximum(w, h * aspect), np.maximum(h, w / aspect)], -1)


def crop_affine(
  center: Real[np.ndarray, "*n 2"],
  scale: Real[np.ndarray, "*n 2"],
  degrees: float | Real[np.ndarray, "*n"],
  output_hw: Sequence[int],
) -> Float[np.ndarray, "*n 2 3"]:
  """The map from image pixels to output pixels (reference 4.3).

  The exact solution of three point pairs, each rounded to float32 as in the
  original implementation. Only the horizontal scale matters.

  Args:
    center: (*n, 2) of the crop, image pixels.
    scale: (*n, 2) of the crop, in units of 200 pixels.
    degrees: (*n) rotation, or one for all.
    output_hw: size of the crop, or of the heatmap, pixels.
  """
  height, width = output_hw
  center = np.asarray(center, np.float64)
  turn = np.asarray(np.deg2rad(np.asarray(degrees, np.float64)))
  up = -(SCALE_UNIT * np.asarray(scale, np.float64)[..., 0] - 1) * 0.5
  arm = np.stack([-up * _each(math.sin, turn), up * _each(math.cos, turn)], -1)
  source = np.empty((*center.shape[:-1], 3, 2), np.float32)
  target = np.empty((3, 2), np.float32)
  source[..., 0, :] = center
  source[..., 1, :] = center + arm
  target[0] = (width - 1) * 0.5, (height - 1) * 0.5
  target[1] = target[0] + (0, -(width - 1) * 0.5)
  for points in (source, target):
    along = points[..., 0, :] - points[..., 1, :]
    points[..., 2, 0] = points[..., 1, 0] - along[..., 1]
    points[..., 2, 1] = points[..., 1, 1] + along[..., 0]
  from_image = _frame(source.astype(np.float64))
  to_crop = _frame(target.astype(np.float64))
  return compose(to_crop, invert(from_image))


def _frame(
  points: Real[np.ndarray, "*n 3 2"],
) -> Float[np.ndarray, "*n 2 3"]:
  """The map that takes (0, 0), (1, 0) and (0, 1) to three points."""
  origin, right, up = np.moveaxis(points, -2, 0)
  return np.stack([right - origin, up - origin, origin], -1)


# NumPy's own sine, `@` and `linalg` may round a row differently depending on
# the batch. What follows does not, so that a person's crop is bit-identical
# whatever batch it is computed in.


def _each(
  function: Callable[[float], float], values: Float[np.ndarray, "*n"]
) -> Float[np.ndarray, "*n"]:
  found = [function(value) for value in values.flat]
  return np.array(found, np.float64).reshape(values.shape)


def invert(
  affine: Float[np.ndarray, "*n 2 3"],
) -> Float[np.ndarray, "*n 2 3"]:
  """The inverse of an affine map."""
  (a, b, x), (c, d, y) = np.moveaxis(affine, (-2, -1), (0, 1))
  det = a * d - b * c
  a, b, c, d = d / det, -b / det, -c / det, a / det
  rows = [[a, b, -(a * x + b * y)], [c, d, -(c * x + d * y)]]
  return np.moveaxis(np.array(rows), (0, 1), (-2, -1))


def mirror(
  width: float | Real[np.ndarray, "*n"],
) -> Float[np.ndarray, "*n 2 3"]:
  """The map x -> width - 1 - x that mirrors an image."""
  affine = np.zeros((*np.shape(width), 2, 3))
  affine[..., 0, 0], affine[..., 1, 1] = -1.0, 1.0
  affine[..., 0, 2] = np.asarray(width) - 1.0
  return affine


def compose(
  outer: Float[np.ndarray, "*#n 2 3"], inner: Float[np.ndarray, "*#n 2 3"]
) -> Float[np.ndarray, "*m 2 3"]:
  """The map that applies `inner`, then `outer`; leading axes broadcast."""
  left, right = outer[..., :1], outer[..., 1:2]
  product = left * inner[..., :1, :] + right * inner[..., 1:, :]
  product[..., 2] += outer[..., 2]
  return product


def transform(
  affine: Float[np.ndarray, "*n 2 3"], points: Real[np.ndarray, "*m 2"]
) -> Float[np.ndarray, "*p 2"]:
  """Applies affine maps to points (x, y).

  Args:
    affine: (2, 3): one map for all points; (*n, 2, 3): each for its K points.
    points: any number of points, or (*n, K, 2).
  """
  if affine.ndim > 2:
    affine = affine[..., None, :, :]  # the same for each of k points
  x, y = points[..., :1], points[..., 1:]
  return x * affine[..., 0] + y * affine[..., 1] + affine[..., 2]


def cell_centers(
  size_hw: Sequence[int], cells_hw: Sequence[int]
) -> Float[np.ndarray, "cells 2"]:
  """The middles of the cells that an image is cut into, x, y, row-major.

  Args:
    size_hw: of the image, pixels.
    cells_hw: rows and columns of cells.
  """
  y, x = (
    (np.arange(cells) + 0.5) * size / cells - 0.5
    for size, cells in zip(size_hw, cells_hw, strict=True)
  )
  return np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)


def source_window(
  affine: Float[np.ndarray, "*n 2 3"],
  output_hw: Sequence[int],
  image_hw: Sequence[int] | Int[np.ndarray, "*n 2"],
  margin: int = 2,
) -> Int[np.ndarray, "*n 4"]:
  """The part of an image that a bilinear warp reads.

  Args:
    affine: (*n, 2, 3) image pixels to output pixels.
    output_hw: size of the output, pixels.
    image_hw: (*n, 2) size of the images, or of one for all, pixels.
    margin: pixels kept around, so that the window's edge is never mistaken
      for the image's.

  Returns:
    y, x, height, width, inside the image; height or width 0 where the output
    lies wholly outside.
  """
  height, width = output_hw
  corners = np.array(
    [[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]],
    np.float64,
  )
  seen = transform(invert(affine), corners)
  limit = np.asarray(image_hw)
  low = np.floor(seen.min(-2))[..., ::-1] - margin
  high = np.ceil(seen.max(-2))[..., ::-1] + margin + 1
  low = np.minimum(np.maximum(low, 0), limit)
  high = np.minimum(np.maximum(high, 0), limit)
  return np.concatenate([low, high - low], -1).astype(np.int32)
