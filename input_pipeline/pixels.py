"""Augmentation of the pixels of training crops: colors, and what is covered.

Neither is in the original implementation, and both are off by default: they are
for trainings that see the same few people again and again.
"""

import cv2
import numpy as np
from jaxtyping import UInt8
from ml_collections import ConfigDict

from input_pipeline.sampling import PixelDraws
from tokenpose_jax.models.config import MEAN_COLOR

# Sides of what is covered, of the crop's.
SMALLEST, LARGEST = 1 / 8, 1 / 2


def augment(
  crops: UInt8[np.ndarray, "n h w 3"], draws: PixelDraws, settings: ConfigDict
) -> None:
  """Changes the colors of crops and covers parts of them, in place.

  Args:
    crops: RGB.
    draws: the random numbers, (n, ...) each.
    settings: `config.augment`.
  """
  if settings.color:
    for crop, table in zip(crops, _tables(draws, settings.color), strict=True):
      cv2.LUT(crop, table, dst=crop)
  if settings.cover_probability:
    hw = np.array(crops.shape[1:3])
    share = SMALLEST + (LARGEST - SMALLEST) * draws.cover_size
    first = np.rint((draws.cover_center - share / 2) * hw).astype(int)
    last = np.rint((draws.cover_center + share / 2) * hw).astype(int)
    first = np.maximum(first, 0)
    for i in np.flatnonzero(draws.cover < settings.cover_probability):
      (top, left), (bottom, right) = first[i], last[i]
      crops[i, top:bottom, left:right] = MEAN_COLOR


def _tables(draws: PixelDraws, color: float) -> UInt8[np.ndarray, "n 1 256 3"]:
  """What each value becomes: gains of channels, contrast, then brightness."""
  gain, contrast, brightness = (
    color * (2 * uniform - 1)
    for uniform in (draws.gain, draws.contrast, draws.brightness)
  )
  values = np.arange(256.0)[:, None] * (1 + gain[:, None])
  values = 128 + (values - 128) * (1 + contrast[:, None, None])
  values += 128 * brightness[:, None, None]
  return np.rint(np.clip(values, 0, 255)).astype(np.uint8)[:, None]
