"""Crops of people from images, with OpenCV alone."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from tokenpose_jax import geometry


def crop_people(
  image: UInt8[np.ndarray, "h w 3"],
  boxes: Float[np.ndarray, "n 4"],
  input_hw: Sequence[int],
  padding: float = geometry.CROP_PADDING,
) -> tuple[UInt8[np.ndarray, "n hh ww 3"], Float[np.ndarray, "n 2 3"]]:
  """The crops of people, as evaluation makes them (reference 4.1, 4.3).

  Args:
    image: (h, w, 3) RGB.
    boxes: (N, 4) x, y, w, h in pixels.
    input_hw: crop size, pixels.
    padding: crop size over box size.

  Returns:
    crops (N, H, W, 3) RGB, and the maps from crop pixels to image pixels
    (N, 2, 3) float32.
  """
  height, width = input_hw
  center, scale = geometry.box_to_center_scale(boxes, input_hw, padding)
  affine = geometry.crop_affine(center, scale, 0.0, input_hw)
  crops = aligned_zeros((len(boxes), height, width, 3))
  for matrix, crop in zip(affine, crops, strict=True):
    warp(image, (0, 0), matrix, crop)
  return crops, geometry.invert(affine).astype(np.float32)


def aligned_zeros(shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
  """Zeros that TensorFlow takes over without a copy.

  It does so only from addresses that are a multiple of 64.

  Args:
    shape: of the array.
  """
  size = math.prod(shape)
  memory = np.zeros(size + 64, np.uint8)
  start = -memory.ctypes.data % 64
  return memory[start : start + size].reshape(shape)


def warp(
  image: UInt8[np.ndarray, "h w 3"],
  corner: tuple[int, int],
  affine: Float[np.ndarray, "2 3"],
  out: UInt8[np.ndarray, "hh ww 3"],
) -> None:
  """Bilinear sampling at the inverse map, 0 outside (reference 4.4).

  Args:
    image: (h, w, 3) a window of the whole image.
    corner: (x, y) of the window in the whole image.
    affine: (2, 3) pixels of the whole image to pixels of `out`.
    out: (H, W, 3) is written.
  """
  if not image.size:
    out[:] = 0
    return
  shifted = affine.copy()
  shifted[:, 2] += affine[:, :2] @ corner
  height, width, _ = out.shape
  # OpenCV warps four channels in about half the time of three, to the same
  # values.
  four = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
  four = cv2.warpAffine(four, shifted, (width, height), flags=cv2.INTER_LINEAR)
  cv2.cvtColor(four, cv2.COLOR_RGBA2RGB, dst=out)
