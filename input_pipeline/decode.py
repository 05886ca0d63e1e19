"""Encoded images to pixels: decode only what a crop needs."""

import functools
import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import PIL.Image
import tensorflow as tf
from jaxtyping import Int, UInt8

JPEG = b"\xff\xd8"  # its first marker
_PNG = b"\x89PNG\r\n\x1a\n"
_FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "WEBP")  # that TensorFlow reads
# TensorFlow's decoders stop at 2^29 values, of three channels.
MAX_PIXELS = 2**29 // 3
_TOO_LARGE = (
  f"it has more than the {MAX_PIXELS:,} pixels that TensorFlow reads: shrink it"
)

Window = tuple[UInt8[np.ndarray, "h w 3"], tuple[int, int]]
"""Part of an image, RGB, and its corner (x, y) in the image."""


def reason(error: tf.errors.OpError) -> str:
  """Why an image cannot be read, without TensorFlow's internal names."""
  text = str(error.message).splitlines()[0]
  return re.sub(r"\{\{.*?\}\} *| *\[Op:.*?\]", "", text)


class Examined(NamedTuple):
  """What is known of an encoded image without decoding it.

  Attributes:
    height: pixels; 0 where it is not to be read.
    width: likewise.
    reason: why it is not to be read; "" if it is.
  """

  height: int
  width: int
  reason: str


def examine(encoded: bytes) -> Examined:
  """Reads an image's header; of 16-bit PNGs also whether they are dark.

  Never decodes what is not going to be read: a small file may hold a gigabyte.

  Args:
    encoded: the image, or anything.
  """
  if not encoded:
    return Examined(0, 0, "it has zero bytes")
  try:
    with warnings.catch_warnings(action="ignore"):  # of odd or large files
      header = PIL.Image.open(io.BytesIO(encoded))
    width, height = header.size
  except PIL.Image.DecompressionBombError:
    return Examined(0, 0, _TOO_LARGE)
  except Exception:  # Pillow's readers raise anything on odd bytes.
    return Examined(0, 0, "it is not an image, or cut off in its header")
  if header.format not in _FORMATS:
    return Examined(0, 0, f"it is {header.format}: convert it to JPEG or PNG")
  if height * width > MAX_PIXELS:
    return Examined(0, 0, _TOO_LARGE)
  if _is_dark(encoded):
    return Examined(
      0,
      0,
      "it is a 16-bit PNG with values below 4096 only, which would come out"
      " black; store 8 bits, or the values times 16",
    )
  return Examined(height, width, "")


def _is_dark(encoded: bytes) -> bool:
  """Is it a 16-bit PNG that holds 12 bits? Of those, the upper 8 are kept."""
  if not encoded.startswith(_PNG) or encoded[24:25] != b"\x10":
    return False
  try:
    return int(tf.reduce_max(tf.io.decode_png(encoded, dtype=tf.uint16))) < 4096
  except tf.errors.OpError:
    return False  # Its error is said when it is decoded.


def image_size(encoded: bytes) -> tuple[int, int]:
  """Height and width of an encoded image, (0, 0) where it is not to be read."""
  found = examine(encoded)
  return found.height, found.width


def read_pixels(path: str) -> np.ndarray | None:
  """A whole image file, (H, W, 3) uint8 RGB; None where it is not an image."""
  try:
    with tf.io.gfile.GFile(path, "rb") as file:
      encoded = file.read()
    if examine(encoded).reason:
      return None
    return tf.io.decode_image(
      encoded, channels=3, expand_animations=False
    ).numpy()
  except tf.errors.OpError:
    return None


def decode_windows(
  encoded: Sequence[bytes], windows: Int[np.ndarray, "n 4"]
) -> list[Window | tf.errors.OpError]:
  """Decodes the parts of images that crops read.

  Args:
    encoded: images of any format that TensorFlow reads.
    windows: (n, 4) y, x, height, width in each (`geometry.source_window`).

  Returns:
    of each, the window, RGB, and its corner (x, y) in the image; a window
    without pixels where there is nothing to read; or the error if the image is
    incomplete. Other formats than JPEG are decoded in full.
  """
  decoded: list[Window | tf.errors.OpError] = []
  jpegs = [
    i
    for i, image in enumerate(encoded)
    if image.startswith(JPEG) and windows[i, 2:].all()
  ]
  together = _decode_jpegs([encoded[i] for i in jpegs], windows[jpegs])
  pixels = dict(zip(jpegs, together, strict=True)) if together else {}
  for i, image in enumerate(encoded):
    if i in pixels:
      decoded.append((pixels[i], (int(windows[i, 1]), int(windows[i, 0]))))
    else:
      decoded.append(_decode_one(image, windows[i]))
  return decoded


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
  def decode(encoded: tf.Tensor, windows: tf.Tensor) -> list[tf.Tensor]:
    return [
      _decode_jpeg(encoded[i], windows[i])  # unrolled
      for i in range(number)
    ]

  return decode.get_concrete_function()


def _decode_jpeg(
  encoded: tf.Tensor | bytes, window: tf.Tensor | np.ndarray
) -> tf.Tensor:
  return tf.io.decode_and_crop_jpeg(
    # INTEGER_ACCURATE equals OpenCV's decoder to the bit; the default differs
    # by up to 7 gray levels.
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
