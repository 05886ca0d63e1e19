"""Drawings: skeletons on crops, contact sheets."""

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from tokenpose_jax.skeletons import Skeleton

SHOWN_HEIGHT = 256  # crops are enlarged to this before drawing, pixels
_SHIFT = 4  # OpenCV's fixed-point bits: drawn to 1/16 pixel


def draw_pose(
  image: UInt8[np.ndarray, "h w 3"],
  keypoints: Float[np.ndarray, "k 2"],
  shown: Bool[np.ndarray, " k"],
  skeleton: Skeleton,
  *,
  color: tuple[int, int, int] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
  """A copy of an RGB image with a skeleton on it.

  Args:
    image: (h, w, 3) RGB.
    keypoints: (K, 2) pixels of the image.
    shown: (K,) which are drawn; limbs are drawn between those.
    skeleton: of the keypoints.
    color: RGB of all of it, thinner; None: the skeleton's colors.
  """
  image = image.copy()
  size = max(1, round(image.shape[0] / (128 if color is None else 256)))
  colors = skeleton.colors if color is None else (color,) * len(shown)
  places = np.round(keypoints * 2**_SHIFT).astype(int)

  def draw(pen: Callable, *args: Any, color: Sequence[int], width: int) -> None:
    pen(image, *args, color, width, cv2.LINE_AA, _SHIFT)

  for a, b in skeleton.limbs:
    if shown[a] and shown[b]:
      ends = tuple(places[a].tolist()), tuple(places[b].tolist())
      mixed = np.add(colors[a], colors[b]) // 2
      draw(cv2.line, *ends, color=mixed.tolist(), width=size)
  for place, shade, visible in zip(places, colors, shown, strict=True):
    if visible:
      center, radius = tuple(place.tolist()), (size + 1) << _SHIFT
      draw(cv2.circle, center, radius, color=(0, 0, 0), width=-1)
      draw(cv2.circle, center, size << _SHIFT, color=shade, width=-1)
  return image


def draw_ids(
  image: UInt8[np.ndarray, "h w 3"],
  boxes: Float[np.ndarray, "n 4"],
  ids: Int[np.ndarray, " n"],
) -> UInt8[np.ndarray, "h w 3"]:
  """A copy of an RGB image with a number above each box.

  Args:
    image: (h, w, 3) RGB.
    boxes: (N, 4) x, y, w, h in pixels.
    ids: (N,) the numbers; below 0: none.
  """
  image = image.copy()
  size = max(0.4, image.shape[0] / 900)
  for (x, y, w, _), number in zip(boxes.tolist(), ids.tolist(), strict=True):
    if number >= 0:
      at = round(x + w / 2), max(round(16 * size), round(y) - 4)
      for color, width in (((0, 0, 0), 4), ((255, 255, 255), 1)):
        cv2.putText(
          image,
          str(number),
          at,
          cv2.FONT_HERSHEY_SIMPLEX,
          size,
          color,
          max(1, round(width * size)),
          cv2.LINE_AA,
        )
  return image


def draw_comparison(
  crop: UInt8[np.ndarray, "h w 3"],
  keypoints: Float[np.ndarray, "k 2"],
  shown: Bool[np.ndarray, " k"],
  truth: Float[np.ndarray, "k 2"],
  labeled: Bool[np.ndarray, " k"],
  skeleton: Skeleton,
) -> UInt8[np.ndarray, "hh ww 3"]:
  """An enlarged crop with the truth in white and the prediction on it.

  Args:
    crop: (h, w, 3) RGB.
    keypoints: (K, 2) predicted, crop pixels.
    shown: (K,) which of them are drawn.
    truth: (K, 2) annotated, crop pixels.
    labeled: (K,) which of them are drawn.
    skeleton: of the keypoints.
  """
  large, factor = _enlarged(crop)
  large = draw_pose(
    large, _moved(truth, factor), labeled, skeleton, color=(255, 255, 255)
  )
  return draw_pose(large, _moved(keypoints, factor), shown, skeleton)


def contact_sheet(
  crops: UInt8[np.ndarray, "n h w 3"],
  keypoints: Float[np.ndarray, "n k 2"],
  shown: Bool[np.ndarray, "n k"],
  skeleton: Skeleton,
  columns: int = 8,
) -> UInt8[np.ndarray, "hh ww 3"]:
  """Crops with their skeletons, in rows.

  Args:
    crops: (n, H, W, 3) RGB; enlarged to `SHOWN_HEIGHT`.
    keypoints: (n, K, 2) crop pixels.
    shown: (n, K) which are drawn.
    skeleton: of the keypoints.
    columns: of the sheet.
  """
  tiles = []
  for crop, points, visible in zip(crops, keypoints, shown, strict=True):
    large, factor = _enlarged(crop)
    tiles.append(draw_pose(large, _moved(points, factor), visible, skeleton))
  tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
  rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
  return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def _enlarged(
  crop: UInt8[np.ndarray, "h w 3"],
) -> tuple[UInt8[np.ndarray, "hh ww 3"], int]:
  """A crop for drawing, and how many times larger it is."""
  factor = max(1, round(SHOWN_HEIGHT / crop.shape[0]))
  size = (crop.shape[1] * factor, crop.shape[0] * factor)
  return cv2.resize(crop, size, interpolation=cv2.INTER_CUBIC), factor


def _moved(
  points: Float[np.ndarray, "k 2"], factor: int
) -> Float[np.ndarray, "k 2"]:
  """Crop pixels to those of the enlarged crop: centers are at integers."""
  return (points + 0.5) * factor - 0.5


def encode_png(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
  """An RGB image as PNG."""
  _, encoded = cv2.imencode(".png", image[..., ::-1])
  return encoded.tobytes()


def encode_jpeg(image: UInt8[np.ndarray, "h w 3"], quality: int = 85) -> bytes:
  """An RGB image as JPEG."""
  options = [cv2.IMWRITE_JPEG_QUALITY, quality]
  _, encoded = cv2.imencode(".jpg", image[..., ::-1], options)
  return encoded.tobytes()
