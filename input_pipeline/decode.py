"""Encoded images to pixels: decode only what a crop needs."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Int, UInt8

from input_pipeline import image_headers
from input_pipeline.files import reason
from input_pipeline.image_headers import JPEG, Header

# TensorFlow's decoders stop at 2^29 values, of three channels.
MAX_PIXELS = 2**29 // 3
# Of larger images only the window is kept: a batch of whole ones takes
# gigabytes. All of a smaller one keeps the last bit of its crops as it was.
MANY_VALUES = 2**26

Window = tuple[UInt8[np.ndarray, "h w 3"], tuple[int, int]]
"""Part of an image, RGB, and its corner (x, y) in the image."""


class Examined(NamedTuple):
  """What is known of an encoded image before its crops are decoded.

  Attributes:
    height: pixels; 0 where it is not to be read.
    width: likewise.
    reason: why it is not to be read; "" if it is.
  """

  height: int
  width: int
  reason: str


def examine(encoded: bytes) -> Examined:
  """Whether an image can be read, and its size: a JPEG's by its header alone.

  Never decodes what is not going to be read: a small file may hold a gigabyte.

  Args:
    encoded: the image, or anything.
  """
  header = image_headers.read(encoded)
  if why := _refused(encoded, header):
    return Examined(0, 0, why)
  if header.format == "JPEG" and header.usual:
    return Examined(header.height, header.width, "")
  pixels = decode_whole(encoded)
  if isinstance(pixels, str):
    return Examined(0, 0, pixels)
  height, width, _ = pixels.shape
  return Examined(height, width, "")


def decode_whole(encoded: bytes) -> UInt8[np.ndarray, "h w 3"] | str:
  """A whole image, RGB; or why it cannot be read.

  Args:
    encoded: the image, or anything.
  """
  header = image_headers.read(encoded)
  if why := _refused(encoded, header):
    return why
  try:
    if header.format == "PNG" and header.bits == 16:
      return _decode_16_bits(encoded)
    return tf.io.decode_image(
      encoded, channels=3, expand_animations=False
    ).numpy()
  except tf.errors.OpError as error:
    if not header.usual:
      return (
        f"it is a JPEG of an unusual kind ({header.bits} bits, lossless or"
        " hierarchical): convert it to an ordinary one"
      )
    return (
      "it is cut off" if image_headers.ends_early(encoded) else reason(error)
    )


def _refused(encoded: bytes, header: Header) -> str:
  """Why an image is not decoded; "" if it is."""
  if not encoded:
    return "it has zero bytes"
  if not header.format:
    return image_headers.what_else(encoded)
  if not header.height or not header.width:
    return "it is not an image, or cut off in its header"
  if header.height * header.width > MAX_PIXELS:
    return (
      f"it is {header.width}x{header.height}, more than the {MAX_PIXELS:,}"
      " pixels that TensorFlow reads: shrink it"
    )
  if header.format == "GIF":
    pixels = image_headers.pixels_of_gif(encoded)
    if pixels > MAX_PIXELS:
      return (
        f"its frames have {pixels:,} pixels, together more than {MAX_PIXELS:,}:"
        " keep the first one alone"
      )
  return ""


def _decode_16_bits(encoded: bytes) -> UInt8[np.ndarray, "h w 3"] | str:
  """A PNG of 16 bits, of which the upper 8 are kept."""
  pixels = tf.io.decode_png(encoded, channels=3, dtype=tf.uint16).numpy()
  if pixels.max() < 4096:
    return (
      "it is a 16-bit PNG with values below 4096 only, which would come out"
      " black: store 8 bits, or the values times 16"
    )
  return (pixels >> 8).astype(np.uint8)


def image_size(encoded: bytes) -> tuple[int, int]:
  """Height and width of an encoded image, (0, 0) where it is not to be read."""
  found = examine(encoded)
  return found.height, found.width


def read_pixels(path: str) -> np.ndarray | None:
  """A whole image file, (H, W, 3) uint8 RGB; None where it is not an image."""
  try:
    with tf.io.gfile.GFile(path, "rb") as file:
      pixels = decode_whole(file.read())
  except (ValueError, tf.errors.OpError):  # no name for a file; no file
    return None
  return None if isinstance(pixels, str) else pixels


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
    incomplete. Other formats than JPEG are decoded in full, and kept in full if
    they are small.
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
      pixels = image.numpy()
      if pixels.size <= MANY_VALUES:
        return pixels, (0, 0)
      return pixels[y : y + rows, x : x + columns].copy(), (x, y)
    if not rows or not columns:
      tf.io.extract_jpeg_shape(encoded)  # Is it an image at all?
      return np.zeros((0, 0, 3), np.uint8), (0, 0)
    return _decode_jpeg(encoded, window).numpy(), (x, y)
  except tf.errors.OpError as error:
    return error
