"""Encoded image to crop: decode only what the crop needs, warp it once."""

import re
import threading

import cv2
import numpy as np
import tensorflow as tf
from absl import logging
from jaxtyping import Float, UInt8

from input_pipeline.coco import ImageStore
from tokenpose_jax import geometry


class CropReader:
  """Reads crops of a store's images; an unreadable image is named once."""

  def __init__(self, store: ImageStore):
    self._store = store
    self._bad: set[int] = set()
    self._lock = threading.Lock()

  def read(
    self,
    number: int,
    affine: Float[np.ndarray, "2 3"],
    output_hw: tuple[int, int],
  ) -> tuple[UInt8[np.ndarray, "h w 3"], bool]:
    """One crop.

    Args:
      number: of the image in the store.
      affine: image pixels to crop pixels.
      output_hw: crop size.

    Returns:
      the crop, RGB, and whether the image could be read; zeros where not.
    """
    try:
      encoded = self._store.read(number)
      image, corner = decode_window(encoded, affine, output_hw)
    except tf.errors.OpError as error:
      self._report(number, error)
      return np.zeros((*output_hw, 3), np.uint8), False
    return warp(image, corner, affine, output_hw), True

  def _report(self, number: int, error: Exception) -> None:
    with self._lock:
      new = number not in self._bad
      self._bad.add(number)
    if new:
      # Without the names of TensorFlow's internal operations.
      text = str(getattr(error, "message", error)).splitlines()[0]
      reason = re.sub(r"\{\{.*?\}\} *| *\[Op:.*?\]", "", text)
      logging.warning(
        "cannot read the image %s, its people are skipped: %s (after"
        " repairing it, delete the prepared data in %s)",
        self._store.names[number],
        reason,
        self._store.path,
      )


def decode_window(
  encoded: bytes,
  affine: Float[np.ndarray, "2 3"],
  output_hw: tuple[int, int],
) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[int, int]]:
  """Decodes the part of an image that a crop reads.

  Returns:
    the window, RGB, and its corner (x, y) in the image; a window without
    pixels where the crop lies wholly outside.

  Raises:
    tf.errors.InvalidArgumentError: the bytes are no complete image.
  """
  if not encoded.startswith(b"\xff\xd8"):  # JPEG's first marker
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return image.numpy(), (0, 0)
  height, width, _ = tf.io.extract_jpeg_shape(encoded).numpy()
  window = geometry.source_window(affine, output_hw, (height, width))
  y, x, rows, columns = window
  if not rows or not columns:
    return np.zeros((0, 0, 3), np.uint8), (0, 0)
  image = tf.image.decode_and_crop_jpeg(
    # INTEGER_ACCURATE equals OpenCV's decoder to the bit; the default differs
    # by up to 7 grey levels.
    encoded,
    window,
    channels=3,
    dct_method="INTEGER_ACCURATE",
  )
  return image.numpy(), (x, y)


def warp(
  image: UInt8[np.ndarray, "h w 3"],
  corner: tuple[int, int],
  affine: Float[np.ndarray, "2 3"],
  output_hw: tuple[int, int],
) -> UInt8[np.ndarray, "hh ww 3"]:
  """Bilinear sampling at the inverse map, 0 outside (SPEC.md 4.4)."""
  height, width = output_hw
  if not image.size:
    return np.zeros((height, width, 3), np.uint8)
  shifted = affine.copy()
  shifted[:, 2] += affine[:, :2] @ corner
  return cv2.warpAffine(image, shifted, (width, height), flags=cv2.INTER_LINEAR)
