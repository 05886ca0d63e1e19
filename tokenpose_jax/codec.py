"""Keypoints to heatmaps and back, on the device.

The one owner of the heatmap's coordinate system: a crop point (x, y) lies at
(x r, (y - (H - 1) / 2) r + (h - 1) / 2) with r = (w - 1) / (W - 1), for a crop
of H x W and a heatmap of h x w. This equals the original's separate affine map
to the heatmap (SPEC.md 4.3); dividing by 4 does not.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# Of DARK: the original blurs with 11 x 11 at both input sizes (SPEC.md 5.1, 6).
BLUR_KERNEL = 11
LOG_FLOOR = 1e-10


def crop_to_heatmap(
  points: Float[Array, "*n 2"],
  input_hw: Sequence[int],
  heatmap_hw: Sequence[int],
) -> Float[Array, "*n 2"]:
  """Crop pixels to heatmap pixels."""
  ratio, rows = _ratio(input_hw, heatmap_hw)
  x, y = points[..., 0], points[..., 1]
  return jnp.stack([x * ratio, (y - rows[0]) * ratio + rows[1]], -1)


def heatmap_to_crop(
  points: Float[Array, "*n 2"],
  input_hw: Sequence[int],
  heatmap_hw: Sequence[int],
) -> Float[Array, "*n 2"]:
  """Heatmap pixels to crop pixels, the inverse of `crop_to_heatmap`."""
  ratio, rows = _ratio(input_hw, heatmap_hw)
  x, y = points[..., 0], points[..., 1]
  return jnp.stack([x / ratio, (y - rows[1]) / ratio + rows[0]], -1)


def _ratio(
  input_hw: Sequence[int], heatmap_hw: Sequence[int]
) -> tuple[float, tuple[float, float]]:
  ratio = (heatmap_hw[1] - 1) / (input_hw[1] - 1)
  return ratio, ((input_hw[0] - 1) / 2, (heatmap_hw[0] - 1) / 2)


def encode(
  keypoints: Float[Array, "b k 2"],
  visible: Float[Array, "b k"],
  *,
  input_hw: Sequence[int],
  heatmap_hw: Sequence[int],
  sigma: float,
) -> tuple[Float[Array, "b k h w"], Float[Array, "b k"]]:
  """Gaussian targets and their weights (SPEC.md 4.6).

  Args:
    keypoints: (B, K, 2) crop pixels.
    visible: (B, K) 1 where labelled, else 0.
    input_hw, heatmap_hw: sizes of crop and heatmap.
    sigma: deviation, heatmap pixels.

  Returns:
    targets (B, K, h, w), neither rounded nor cut off, and weights (B, K):
    `visible`, or 0 where the square of half-size 3 sigma lies outside.
  """
  height, width = heatmap_hw
  centers = crop_to_heatmap(keypoints, input_hw, heatmap_hw)
  reach = 3 * sigma
  # The original's int() truncates towards zero.
  low, high = jnp.trunc(centers - reach), jnp.trunc(centers + reach + 1)
  outside = (low[..., 0] >= width) | (low[..., 1] >= height)
  weights = jnp.where(outside | (high < 0).any(-1), 0.0, visible)

  def gauss(size: int, center: Float[Array, "b k"]) -> Float[Array, "b k s"]:
    distance = jnp.arange(size)[None, None] - center[..., None]
    return jnp.exp(-jnp.square(distance) / (2 * sigma**2))

  across, down = gauss(width, centers[..., 0]), gauss(height, centers[..., 1])
  targets = down[..., :, None] * across[..., None, :]
  shown = (weights > 0.5)[..., None, None]
  return jnp.where(shown, targets, 0.0), weights


def maxima(
  heatmaps: Float[Array, "b k h w"],
) -> tuple[Int[Array, "b k 2"], Float[Array, "b k"]]:
  """The first maximum of each map in row-major order (SPEC.md 5.1).

  Returns:
    points (B, K, 2) as x, y and values (B, K); a point is (0, 0) where the
    value is not positive.
  """
  b, k, _, width = heatmaps.shape
  flat = heatmaps.reshape(b, k, -1)
  index = flat.argmax(-1)
  values = jnp.take_along_axis(flat, index[..., None], -1)[..., 0]
  points = jnp.stack([index % width, index // width], -1)
  return jnp.where((values > 0)[..., None], points, 0), values


def decode(
  heatmaps: Float[Array, "b k h w"],
) -> tuple[Float[Array, "b k 2"], Float[Array, "b k"]]:
  """Sub-pixel maxima by DARK (Zhang et al., CVPR 2020; SPEC.md 5.1).

  The map is blurred, its logarithm developed to second order about the
  maximum, and the maximum of that parabola taken. Maxima in the two outer
  pixels, and maps without a positive value, are not refined.

  Returns:
    points (B, K, 2) as x, y in heatmap pixels, and scores (B, K), the maxima.
  """
  height, width = heatmaps.shape[-2:]
  points, scores = maxima(heatmaps)
  blurred = _blur(heatmaps)
  # Rescaled to the old maximum; this decides only what LOG_FLOOR cuts off.
  peak = blurred.max((-2, -1), keepdims=True)
  blurred = blurred * (scores[..., None, None] / jnp.where(peak > 0, peak, 1.0))
  log = jnp.log(jnp.maximum(blurred, LOG_FLOOR))
  x, y = points[..., 0], points[..., 1]
  inside = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)

  def at(dx: int, dy: int) -> Float[Array, "b k"]:
    row = jnp.clip(y + dy, 0, height - 1)
    column = jnp.clip(x + dx, 0, width - 1)
    flat = log.reshape(*log.shape[:2], -1)
    index = (row * width + column)[..., None]
    return jnp.take_along_axis(flat, index, -1)[..., 0]

  gx = 0.5 * (at(1, 0) - at(-1, 0))
  gy = 0.5 * (at(0, 1) - at(0, -1))
  hxx = 0.25 * (at(2, 0) - 2 * at(0, 0) + at(-2, 0))
  hyy = 0.25 * (at(0, 2) - 2 * at(0, 0) + at(0, -2))
  hxy = 0.25 * (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1))
  det = hxx * hyy - hxy * hxy
  refine = inside & (det != 0) & (scores > 0)
  det = jnp.where(refine, det, 1.0)
  offset = jnp.stack([hxy * gy - hyy * gx, hxy * gx - hxx * gy], -1)
  offset = offset / det[..., None]
  points = points.astype(jnp.float32)
  return points + jnp.where(refine[..., None], offset, 0.0), scores


def flip(
  heatmaps: Float[Array, "b k h w"], permutation: Sequence[int] | np.ndarray
) -> Float[Array, "b k h w"]:
  """Maps of a mirrored image, as maps of the image: for the flip test.

  Args:
    permutation: (K,) the keypoint that each becomes in a mirror
      (`Skeleton.flip_permutation`).
  """
  return heatmaps[:, np.asarray(permutation), :, ::-1]


def _blur(heatmaps: Float[Array, "b k h w"]) -> Float[Array, "b k h w"]:
  """Separable Gaussian blur, zeros outside: two small matrix products."""
  rows, columns = (_blur_matrix(size) for size in heatmaps.shape[-2:])
  return jnp.einsum(
    "yi,bkij,xj->bkyx",
    rows,
    heatmaps,
    columns,
    # A reduced precision (TPU's default) would move sub-pixel maxima.
    precision=jax.lax.Precision.HIGHEST,
  )


def _blur_matrix(size: int) -> Float[np.ndarray, "s s"]:
  """The one-dimensional blur of `BLUR_KERNEL` as a banded matrix."""
  # The deviation that goes with this kernel size: 2.0 (SPEC.md 5.1).
  sigma = 0.3 * ((BLUR_KERNEL - 1) * 0.5 - 1) + 0.8
  offset = np.subtract.outer(np.arange(size), np.arange(size))
  half = BLUR_KERNEL // 2
  norm = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * sigma**2)).sum()
  band = np.exp(-(offset**2) / (2 * sigma**2)) / norm
  return np.where(np.abs(offset) <= half, band, 0.0).astype(np.float32)
