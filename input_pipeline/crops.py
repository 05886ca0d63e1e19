"""Encoded images to crops: decode only what a crop needs, warp it once."""

import functools
import math
import re
import threading
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import tensorflow as tf
from absl import logging
from jaxtyping import Bool, Float, Int, UInt8

from input_pipeline.images import JPEG, ImageStore
from tokenpose_jax import geometry


def reason(error: tf.errors.OpError) -> str:
  """Why an image cannot be read, without TensorFlow's internal names."""
  text = str(error.message).splitlines()[0]
  return re.sub(r"\{\{.*?\}\} *| *\[Op:.*?\]", "", text)


Window = tuple[UInt8[np.ndarray, "h w 3"], tuple[int, int]]


class CropReader:
  """Reads crops of a store's images; an unreadable image is named once."""

  def __init__(self, store: ImageStore):
    self._store = store
    self._bad: set[int] = set()
    self._lock = threading.Lock()
    # tf.data's threads work side by side already.
    cv2.setNumThreads(1)

  def read(
    self,
    numbers: Int[np.ndarray, "n"],
    affine: Float[np.ndarray, "n 2 3"],
    output_hw: tuple[int, int],
  ) -> tuple[UInt8[np.ndarray, "n h w 3"], Bool[np.ndarray, "n"]]:
    """Some crops.

    Args:
      numbers: of the images in the store.
      affine: image pixels to crop pixels.
      output_hw: crop size.

    Returns:
      the crops, RGB, and which images could be read; zeros where not.
    """
    crops = black((len(numbers), *output_hw, 3))
    good = np.zeros(len(numbers), bool)
    encoded = [self._store.read(int(number)) for number in numbers]
    windows = geometry.source_window(
      affine, output_hw, self._store.sizes[numbers]
    )
    for i, image in enumerate(decode_windows(encoded, windows)):
      if isinstance(image, tf.errors.OpError):
        self._report(int(numbers[i]), image)
      else:
        good[i] = True
        window, corner = image
        warp(window, corner, affine[i], crops[i])
    return crops, good

  def _report(self, number: int, error: tf.errors.OpError) -> None:
    with self._lock:
      new = number not in self._bad
      self._bad.add(number)
    if new:
      logging.warning(
        "cannot read the image %s, its people are skipped: %s (after"
        " repairing it, delete the prepared data in %s)",
        self._store.names[number],
        reason(error),
        self._store.path,
      )


def decode_windows(
  encoded: Sequence[bytes], windows: Int[np.ndarray, "n 4"]
) -> list[Window | tf.errors.OpError]:
  """Decodes the parts of images that crops read.

  Args:
    encoded: images of any format that TensorFlow reads.
    windows: y, x, height, width in each (`geometry.source_window`).

  Returns:
    of each, the window, RGB, and its corner (x, y) in the image; a window
    without pixels where there is nothing to read; or why it is no complete
    image. What is no JPEG is decoded whole.
  """
  found: list[Window | tf.errors.OpError] = []
  jpegs = [
    i
    for i, image in enumerate(encoded)
    if image.startswith(JPEG) and windows[i, 2:].all()
  ]
  together = _decode_jpegs([encoded[i] for i in jpegs], windows[jpegs])
  place = dict(zip(jpegs, together, strict=True)) if together else {}
  for i, image in enumerate(encoded):
    if i in place:
      found.append((place[i], (int(windows[i, 1]), int(windows[i, 0]))))
    else:
      found.append(_decode_one(image, windows[i]))
  return found


def _decode_jpegs(
  encoded: list[bytes], windows: np.ndarray
) -> list[np.ndarray] | None:
  """All the windows of complete JPEG images; None where any is broken."""
  if not encoded:
    return []
  try:
    images = _jpeg_decoder(len(encoded))(
      tf.constant(encoded), tf.constant(windows)
    )
  except tf.errors.OpError:
    return None
  return [image.numpy() for image in images]


@functools.cache
def _jpeg_decoder(number: int) -> Callable:
  """Decodes that many windows in one call, at a third of the overhead."""

  @tf.function(
    autograph=False,
    input_signature=[
      tf.TensorSpec([number], tf.string),
      tf.TensorSpec([number, 4], tf.int32),
    ],
  )
  def decode(encoded, windows):
    return [
      _decode_jpeg(encoded[i], windows[i])  # unrolled
      for i in range(number)
    ]

  return decode.get_concrete_function()


def _decode_jpeg(encoded, window):
  return tf.io.decode_and_crop_jpeg(
    # INTEGER_ACCURATE equals OpenCV's decoder to the bit; the default differs
    # by up to 7 grey levels.
    encoded,
    window,
    channels=3,
    dct_method="INTEGER_ACCURATE",
  )


def _decode_one(
  encoded: bytes, window: np.ndarray
) -> Window | tf.errors.OpError:
  y, x, rows, columns = map(int, window)
  try:
    if not encoded.startswith(JPEG):
      image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
      return image.numpy(), (0, 0)
    if not rows or not columns:
      tf.io.extract_jpeg_shape(encoded)  # Is it an image at all?
      return np.zeros((0, 0, 3), np.uint8), (0, 0)
    return _decode_jpeg(encoded, window).numpy(), (x, y)
  except tf.errors.OpError as error:
    return error


def black(shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
  """Zeros where TensorFlow takes them over without a copy.

  It does so only from addresses that are a multiple of 64.
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
    image: a window, its corner (x, y) in the whole image.
    affine: pixels of the whole image to pixels of `out`.
    out: is written.
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
