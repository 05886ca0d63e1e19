"""Training augmentation: a crop as an affine map (reference 4.5)."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Real
from ml_collections import ConfigDict

from input_pipeline.sampling import Draws
from tokenpose_jax import geometry
from tokenpose_jax.skeletons import Skeleton

HALF_BODY_PADDING = 1.5


@dataclasses.dataclass(frozen=True)
class Crops:
  """The crops of n people.

  Attributes:
    affine: (n, 2, 3) float64, image pixels to crop pixels, mirroring included.
    keypoints: (n, K, 2) float32 crop pixels, 0 where not labeled.
    visible: (n, K) float32, 1 where labeled.
    order: (n, K) which keypoint of the person each one is.
  """

  affine: Float[np.ndarray, "n 2 3"]
  keypoints: Float[np.ndarray, "n k 2"]
  visible: Float[np.ndarray, "n k"]
  order: Int[np.ndarray, "n k"]


def augmented_crops(
  center: Real[np.ndarray, "n 2"],
  scale: Real[np.ndarray, "n 2"],
  keypoints: Real[np.ndarray, "n k 2"],
  visible: Real[np.ndarray, "n k"],
  *,
  input_hw: Sequence[int],
  image_width: Int[np.ndarray, " n"],
  draws: Draws,
  settings: ConfigDict,
  skeleton: Skeleton,
) -> Crops:
  """The crops of a training step.

  Half body, then scale, rotation and mirroring, in the order of reference 4.5.
  The map is mirrored, not the image: the crop is the same, and no whole image
  is ever copied.

  Args:
    center: (n, 2) of the people's boxes (`geometry.box_to_center_scale`).
    scale: (n, 2) likewise.
    keypoints: (n, K, 2) image pixels.
    visible: (n, K) 1 where labeled, else 0.
    input_hw: crop size, pixels.
    image_width: (n,) of each person's image, pixels.
    draws: the random numbers, (n,) each.
    settings: `config.augment`.
    skeleton: for the halves of the body and the flip pairs.
  """
  center, scale = center.astype(np.float64), scale.astype(np.float64)
  halved = (visible.sum(1) > settings.half_body_min_keypoints) & (
    draws.half_body < settings.half_body_probability
  )
  halved &= bool(skeleton.upper_body)  # Without, there are no halves.
  want_upper = draws.upper < settings.half_body_upper_probability
  for i in np.flatnonzero(halved):
    half = half_body(
      keypoints[i], visible[i], bool(want_upper[i]), input_hw, skeleton
    )
    if half is not None:
      center[i], scale[i] = half
  spread = settings.scale
  factor = np.clip(1 + spread * draws.scale, 1 - spread, 1 + spread)
  scale *= factor[:, None]
  spread = settings.rotation_degrees
  degrees = np.where(
    draws.rotate <= settings.rotation_probability,
    np.clip(spread * draws.rotation, -2 * spread, 2 * spread),
    0.0,
  )
  # Rotation is not negated in a mirrored image (reference 4.5, step 4).
  flip = draws.flip <= settings.flip_probability
  mirrored = (image_width - 1 - center[:, 0]).astype(np.float32)
  center[:, 0] = np.where(flip, mirrored, center[:, 0])
  affine = geometry.crop_affine(center, scale, degrees, input_hw)
  affine[flip] = geometry.compose(
    affine[flip], geometry.mirror(image_width[flip])
  )
  points = geometry.transform(affine, keypoints)
  points = np.where(visible[..., None] > 0, points, 0.0).astype(np.float32)
  labeled = visible.astype(np.float32)
  mirror = skeleton.flip_permutation
  order = np.where(flip[:, None], mirror, np.arange(len(mirror)))
  own = np.arange(len(order))[:, None]
  return Crops(affine, points[own, order], labeled[own, order], order)


def reach(
  center: Real[np.ndarray, "n 2"],
  scale: Real[np.ndarray, "n 2"],
  input_hw: Sequence[int],
  settings: ConfigDict,
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n 2"]]:
  """Lowest and highest (x, y) that scaled and rotated crops can show.

  The limits are those at which `augmented_crops` clips its draws.

  Args:
    center: (n, 2) of the unaugmented crops.
    scale: (n, 2) likewise.
    input_hw: crop size, pixels.
    settings: `config.augment`.

  Returns:
    two (n, 2), image pixels.
  """
  width = scale[:, :1] * geometry.SCALE_UNIT * (1 + settings.scale)
  half = np.concatenate([width, width * input_hw[0] / input_hw[1]], 1) / 2
  turn = np.deg2rad(2 * settings.rotation_degrees)
  if settings.rotation_probability <= 0:
    turn = 0.0
  other = half[:, ::-1]
  # |x| cos + |y| sin of the angle is largest where a corner lies on the axis.
  angle = np.minimum(turn, np.arctan2(other, half))
  extent = half * np.cos(angle) + other * np.sin(angle)
  return center - extent, center + extent


def half_body(
  keypoints: Real[np.ndarray, "k 2"],
  visible: Real[np.ndarray, " k"],
  want_upper: bool,
  input_hw: Sequence[int],
  skeleton: Skeleton,
) -> tuple[Float[np.ndarray, " 2"], Float[np.ndarray, " 2"]] | None:
  """Center and scale of the upper or lower half, None where it has no points.

  The wanted half, if it has more than 2 labeled keypoints; else the lower one
  under the same condition; else the upper one, if it has 2 (reference 4.5).
  """
  # float32 as in the original implementation, in an order of memory that fixes
  # how the mean is rounded.
  keypoints = np.ascontiguousarray(keypoints, np.float32)
  upper = keypoints[(visible > 0) & skeleton.is_upper]
  lower = keypoints[(visible > 0) & ~skeleton.is_upper]
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
