"""Training augmentation: one person's crop as an affine map (SPEC.md 4.5)."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from input_pipeline.order import Draws
from tokenpose_jax import geometry
from tokenpose_jax.skeletons import Skeleton

HALF_BODY_PADDING = 1.5


@dataclasses.dataclass(frozen=True)
class Crop:
  """What one person becomes in a crop.

  Attributes:
    affine: (2, 3) float64, image pixels to crop pixels, mirroring included.
    keypoints: (K, 2) float32 crop pixels, 0 where not labelled.
    visible: (K,) float32, 1 where labelled.
  """

  affine: np.ndarray
  keypoints: np.ndarray
  visible: np.ndarray


def plain_crop(
  center: Float[np.ndarray, "2"],
  scale: Float[np.ndarray, "2"],
  keypoints: Float[np.ndarray, "k 2"],
  visible: Float[np.ndarray, "k"],
  *,
  input_hw: Sequence[int],
) -> Crop:
  """The crop of an evaluation: no augmentation."""
  affine = geometry.crop_affine(center, scale, 0.0, input_hw)
  return _crop(affine, keypoints, visible)


def augmented_crop(
  center: Float[np.ndarray, "2"],
  scale: Float[np.ndarray, "2"],
  keypoints: Float[np.ndarray, "k 2"],
  visible: Float[np.ndarray, "k"],
  *,
  input_hw: Sequence[int],
  image_width: int,
  draws: Draws,
  settings: Any,
  skeleton: Skeleton,
) -> Crop:
  """The crop of a training step.

  Half body, then scale, rotation and mirroring, in the original's order. The
  image is not mirrored but the map: the crop is the same, and no whole image
  is ever copied.

  Args:
    center, scale: of the person's box (`geometry.box_to_center_scale`).
    keypoints: (K, 2) image pixels.
    visible: (K,) 1 where labelled, else 0.
    input_hw: crop size.
    image_width: of the image, pixels.
    draws: the random numbers.
    settings: `config.augment`.
    skeleton: for the halves of the body and the flip pairs.
  """
  half = None
  if (
    visible.sum() > settings.half_body_min_keypoints
    and draws.half_body < settings.half_body_probability
  ):
    want_upper = draws.upper < settings.half_body_upper_probability
    half = half_body(keypoints, visible, want_upper, input_hw, skeleton)
  if half is not None:
    center, scale = half
  spread = settings.scale
  factor = np.clip(1 + spread * draws.scale, 1 - spread, 1 + spread)
  degrees = 0.0
  if draws.rotate <= settings.rotation_probability:
    spread = settings.rotation_degrees
    degrees = float(np.clip(spread * draws.rotation, -2 * spread, 2 * spread))
  scale = np.asarray(scale, np.float64) * factor
  if draws.flip > settings.flip_probability:
    affine = geometry.crop_affine(center, scale, degrees, input_hw)
    return _crop(affine, keypoints, visible)
  # Rotation is not negated (SPEC.md 4.5, step 4).
  center = np.array([image_width - 1 - center[0], center[1]], np.float32)
  affine = geometry.crop_affine(center, scale, degrees, input_hw)
  affine = geometry.compose(affine, geometry.mirror(image_width))
  crop = _crop(affine, keypoints, visible)
  order = skeleton.flip_permutation
  return Crop(affine, crop.keypoints[order], crop.visible[order])


def half_body(
  keypoints: Float[np.ndarray, "k 2"],
  visible: Float[np.ndarray, "k"],
  want_upper: bool,
  input_hw: Sequence[int],
  skeleton: Skeleton,
) -> tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"]] | None:
  """Centre and scale of the upper or lower half, None where it has no points.

  The wanted half, if it has more than 2 labelled keypoints; else the lower one
  under the same condition; else the upper one, if it has 2 (SPEC.md 4.5).
  """
  is_upper = np.isin(np.arange(len(visible)), skeleton.upper_body)
  keypoints = keypoints.astype(np.float32)  # as in the original
  upper = keypoints[(visible > 0) & is_upper]
  lower = keypoints[(visible > 0) & ~is_upper]
  if want_upper and len(upper) > 2:
    chosen = upper
  else:
    chosen = lower if len(lower) > 2 else upper
  if len(chosen) < 2:
    return None
  size = chosen.max(0) - chosen.min(0) + 1
  size = geometry.to_aspect(size, input_hw)
  scale = size / geometry.SCALE_UNIT * HALF_BODY_PADDING
  return chosen.mean(0).astype(np.float32), scale.astype(np.float32)


def _crop(affine: np.ndarray, keypoints: np.ndarray, visible: np.ndarray):
  points = geometry.transform(affine, keypoints)
  points = np.where(visible[:, None] > 0, points, 0.0)
  return Crop(affine, points.astype(np.float32), visible.astype(np.float32))
