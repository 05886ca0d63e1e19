"""The usual loader of pose code, written from scratch, to compare with.

One process, one image after the other: OpenCV decodes the whole image, mirrors
it, warps it; NumPy normalizes and draws the heatmaps. Nothing is done slowly on
purpose: points are moved and heatmaps drawn without loops over keypoints.
"""

from collections.abc import Mapping
from typing import NamedTuple

import cv2
import numpy as np

MEAN = 255 * np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
FACTOR = 1 / (255 * np.array([0.229, 0.224, 0.225], np.float32))[:, None, None]


class Settings(NamedTuple):
  """What examples are like.

  Attributes:
    input_hw: crop size, pixels.
    heatmap_hw: heatmap size, pixels.
    sigma: of the heatmaps' Gaussians, their pixels.
    augment: the fields of `config.augment`.
    upper_body: indices of keypoints.
    flip_permutation: (K,) the keypoint that each becomes in a mirror.
  """

  input_hw: tuple[int, int]
  heatmap_hw: tuple[int, int]
  sigma: float
  augment: Mapping[str, float]
  upper_body: tuple[int, ...]
  flip_permutation: np.ndarray


def load(
  path: str,
  center: np.ndarray,
  scale: np.ndarray,
  keypoints: np.ndarray,
  visible: np.ndarray,
  *,
  rng: np.random.Generator,
  settings: Settings,
) -> dict[str, np.ndarray]:
  """One training example of a person, augmented as the settings say."""
  (height, width), augment = settings.input_hw, settings.augment
  image = cv2.imread(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
  image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
  center, scale = center.copy(), scale.copy()
  keypoints, visible = keypoints.copy(), visible.copy()
  if (
    visible.sum() > augment["half_body_min_keypoints"]
    and rng.random() < augment["half_body_probability"]
  ):
    center, scale = _half_body(
      center, scale, keypoints, visible, rng, settings.upper_body
    )
  spread = augment["scale"]
  scale = scale * np.clip(
    spread * rng.standard_normal() + 1, 1 - spread, 1 + spread
  )
  degrees = 0.0
  if rng.random() <= augment["rotation_probability"]:
    spread = augment["rotation_degrees"]
    degrees = np.clip(spread * rng.standard_normal(), -2 * spread, 2 * spread)
  if rng.random() <= augment["flip_probability"]:
    image = cv2.flip(image, 1)  # 50 times as fast as image[:, ::-1]
    keypoints[:, 0] = image.shape[1] - 1 - keypoints[:, 0]
    order = settings.flip_permutation
    keypoints, visible = keypoints[order], visible[order]
    center[0] = image.shape[1] - 1 - center[0]
  affine = affine_of(center, scale, degrees, (width, height))
  crop = cv2.warpAffine(image, affine, (width, height), flags=cv2.INTER_LINEAR)
  to_map = affine_of(center, scale, degrees, settings.heatmap_hw[::-1])
  points = keypoints @ to_map[:, :2].T + to_map[:, 2]
  return {
    "image": normalized(crop),
    "target": _heatmaps(points, visible, settings.heatmap_hw, settings.sigma),
    "weight": visible.astype(np.float32) * _reaches(points, settings),
  }


def normalized(crop: np.ndarray) -> np.ndarray:
  """(H, W, 3) uint8 RGB to (3, H, W) float32."""
  pixels = np.ascontiguousarray(crop.transpose(2, 0, 1)).astype(np.float32)
  pixels -= MEAN
  pixels *= FACTOR
  return pixels


def _half_body(center, scale, keypoints, visible, rng, upper_body):
  upper = np.isin(np.arange(len(visible)), upper_body)
  upper = upper if rng.random() < 0.69 else ~upper
  points = keypoints[(visible > 0) & upper]
  if len(points) < 3:
    return center, scale
  w, h = np.ptp(points, axis=0) + 1
  w, h = max(w, h * 0.75), max(h, w / 0.75)
  return points.mean(0), np.array([w, h]) / 200 * 1.5


def affine_of(center, scale, degrees, size_wh) -> np.ndarray:
  """(2, 3) of the image to a crop, or a heatmap, of that (width, height)."""
  turn, half = np.deg2rad(degrees), scale[0] * 100
  w, h = size_wh
  up = np.array([half * np.sin(turn), -half * np.cos(turn)])
  source = np.array([center, center + up, center + up], np.float32)
  target = np.array([[w / 2, h / 2]] * 3, np.float32)
  target[1:, 1] -= w / 2
  for points in (source, target):
    along = points[0] - points[1]
    points[2] = points[1] + (-along[1], along[0])
  return cv2.getAffineTransform(source, target)


def _reaches(points: np.ndarray, settings: Settings) -> np.ndarray:
  """(K,) whether the square of half-size 3 sigma reaches into the heatmap."""
  height, width = settings.heatmap_hw
  low = np.trunc(points - 3 * settings.sigma)
  high = np.trunc(points + 3 * settings.sigma + 1)
  return ((low < (width, height)) & (high >= 0)).all(1)


def _heatmaps(points, visible, map_hw, sigma):
  """(K, h, w) float32: Gaussians, as the product of a row and a column."""
  h, w = map_hw
  x = np.arange(w, dtype=np.float32) - points[:, :1].astype(np.float32)
  y = np.arange(h, dtype=np.float32) - points[:, 1:].astype(np.float32)
  factor = np.float32(-0.5 / sigma**2)
  maps = np.exp(y**2 * factor)[:, :, None] * np.exp(x**2 * factor)[:, None, :]
  return maps * visible[:, None, None].astype(np.float32)
