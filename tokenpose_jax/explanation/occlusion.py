"""Covers parts of crops, to see what a network does without them."""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from tokenpose_jax import geometry
from tokenpose_jax.errors import check_choice
from tokenpose_jax.models.config import MEAN_COLOR

COVERS = ("gray", "blur", "noise")
SIZE = 1 / 6  # of the crop's height: a head, a hand with its wrist
ROWS, COLUMNS = 12, 9  # places of the probe


def size_of(crop: UInt8[np.ndarray, "h w 3"], size: float = SIZE) -> int:
  """The side of the covering square, pixels.

  Args:
    crop: (H, W, 3).
    size: of the crop's height.
  """
  return max(1, round(size * crop.shape[0]))


def places(
  crop: UInt8[np.ndarray, "h w 3"], rows: int = ROWS, columns: int = COLUMNS
) -> Float[np.ndarray, "p 2"]:
  """(rows * columns, 2) middles spread evenly over a crop, x, y, row-major.

  Args:
    crop: (H, W, 3).
    rows: of the places.
    columns: of the places.
  """
  return geometry.cell_centers(crop.shape[:2], (rows, columns))


def covered(
  crop: UInt8[np.ndarray, "h w 3"],
  centers: Float[np.ndarray, "p 2"],
  side: int,
  cover: str = "gray",
  seed: int = 0,
) -> UInt8[np.ndarray, "p h w 3"]:
  """Copies of a crop, each with a square that is covered.

  Args:
    crop: (H, W, 3) RGB.
    centers: (P, 2) of the squares, crop pixels; what lies outside is cut off.
    side: of the squares, pixels.
    cover: gray: the mean color of the images that networks are made for; blur:
      the crop without what is smaller than the square; noise: every value
      alike.
    seed: of the noise.

  Raises:
    InputError: the cover is not known.
  """
  check_choice("cover", cover, COVERS)
  under = _cover(crop, side, cover, seed)
  copies = np.repeat(crop[None], len(centers), axis=0)
  height, width = crop.shape[:2]
  low = np.round(np.asarray(centers) - (side - 1) / 2).astype(int)
  for copy, (x, y) in zip(copies, low, strict=True):
    rows = slice(max(y, 0), max(0, min(y + side, height)))
    columns = slice(max(x, 0), max(0, min(x + side, width)))
    copy[rows, columns] = under[rows, columns]
  return copies


def _cover(
  crop: UInt8[np.ndarray, "h w 3"], side: int, cover: str, seed: int
) -> UInt8[np.ndarray, "h w 3"]:
  if cover == "blur":
    return cv2.GaussianBlur(crop, (0, 0), side / 2)
  if cover == "noise":
    return np.random.default_rng(seed).integers(0, 256, crop.shape, np.uint8)
  return np.broadcast_to(np.array(MEAN_COLOR, np.uint8), crop.shape)
