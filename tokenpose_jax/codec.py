"""Keypoints to heatmaps and back, on the device.

The one owner of the heatmap's coordinate system: a crop point (x, y) lies at
(x r, (y - (H - 1) / 2) r + (h - 1) / 2) with r = (w - 1) / (W - 1), for a crop
of H x W and a heatmap of h x w. This equals the original's separate affine map
to the heatmap (reference 4.3); dividing by 4 does not. With `udp` the rows have
their own ratio, (h - 1) / (H - 1): x r_x and y r_y (Huang et al., CVPR 2020:
sizes are measured in units between pixels, and corners lie on corners). The
two differ only in y, by up to 0.13 heatmap pixels at 256 x 192.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from tokenpose_jax import subpixel
from tokenpose_jax.errors import InputError

DECODERS = ("dark", "argmax", "quarter", "udp")


def crop_to_heatmap(
  points: Float[Array, "*n 2"],
  input_hw: Sequence[int],
  heatmap_hw: Sequence[int],
  *,
  udp: bool = False,
) -> Float[Array, "*n 2"]:
  """Crop pixels to heatmap pixels."""
  (rx, ry), (crop_y, map_y) = _ratios(input_hw, heatmap_hw, udp)
  x, y = points[..., 0], points[..., 1]
  return jnp.stack([x * rx, (y - crop_y) * ry + map_y], -1)


def heatmap_to_crop(
  points: Float[Array, "*n 2"],
  input_hw: Sequence[int],
  heatmap_hw: Sequence[int],
  *,
  udp: bool = False,
) -> Float[Array, "*n 2"]:
  """Heatmap pixels to crop pixels, the inverse of `crop_to_heatmap`."""
  (rx, ry), (crop_y, map_y) = _ratios(input_hw, heatmap_hw, udp)
  x, y = points[..., 0], points[..., 1]
  return jnp.stack([x / rx, (y - map_y) / ry + crop_y], -1)


def _ratios(
  input_hw: Sequence[int], heatmap_hw: Sequence[int], udp: bool
) -> tuple[tuple[float, float], tuple[float, float]]:
  """Heatmap over crop in x and y; the middle rows of crop and heatmap."""
  ry, rx = (
    (h - 1) / (c - 1) for h, c in zip(heatmap_hw, input_hw, strict=True)
  )
  middles = ((input_hw[0] - 1) / 2, (heatmap_hw[0] - 1) / 2)
  return (rx, ry if udp else rx), middles


def encode(
  keypoints: Float[Array, "b k 2"],
  visible: Float[Array, "b k"],
  *,
  input_hw: Sequence[int],
  heatmap_hw: Sequence[int],
  sigma: float,
  udp: bool = False,
) -> tuple[Float[Array, "b k h w"], Float[Array, "b k"]]:
  """Gaussian targets and their weights (reference 4.6).

  Args:
    keypoints: (B, K, 2) crop pixels.
    visible: (B, K) 1 where labelled, else 0.
    input_hw, heatmap_hw: sizes of crop and heatmap.
    sigma: deviation, heatmap pixels.
    udp: place them as UDP does (this module's docstring).

  Returns:
    targets (B, K, h, w), neither rounded nor cut off, and weights (B, K):
    `visible`, or 0 where the square of half-size 3 sigma lies outside.
  """
  height, width = heatmap_hw
  centers = crop_to_heatmap(keypoints, input_hw, heatmap_hw, udp=udp)
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
  """The first maximum of each map in row-major order (reference 5.1).

  Returns:
    points (B, K, 2) as x, y and values (B, K); a point is (0, 0) where the
    value is not positive.
  """
  # The first highest row, then the first highest pixel in it: much quicker
  # than one search over all pixels.
  y = heatmaps.max(-1).argmax(-1)
  row = jnp.take_along_axis(heatmaps, y[..., None, None], 2)[:, :, 0]
  x, values = row.argmax(-1), row.max(-1)
  points = jnp.stack([x, y], -1)
  return jnp.where((values > 0)[..., None], points, 0), values


def decode(
  heatmaps: Float[Array, "b k h w"], decoder: str = "dark"
) -> tuple[Float[Array, "b k 2"], Float[Array, "b k"]]:
  """The places of the maxima.

  Args:
    decoder: one of `DECODERS`. dark: sub-pixel, as the original (reference
      5.1); argmax: whole pixels; quarter: moved by a quarter pixel towards
      the higher neighbours; udp: UDP's form of DARK. See subpixel.py.

  Returns:
    points (B, K, 2) as x, y in heatmap pixels, and scores (B, K), the maxima.
    (0, 0) where no value is positive.
  """
  check_decoder(decoder)
  points, scores = maxima(heatmaps)
  if decoder == "argmax":
    return points.astype(jnp.float32), scores
  if decoder == "quarter":
    moved = subpixel.quarter(heatmaps, points)
    return jnp.where((scores > 0)[..., None], moved, 0.0), scores
  refine = subpixel.dark if decoder == "dark" else subpixel.udp
  return refine(heatmaps, points, scores), scores


def check_decoder(decoder: str) -> None:
  """Raises InputError unless it is one of `DECODERS`."""
  if decoder not in DECODERS:
    raise InputError(
      f"eval.decoder is {decoder!r}; allowed: {', '.join(DECODERS)}"
    )


def flip(
  heatmaps: Float[Array, "b k h w"],
  permutation: Sequence[int] | np.ndarray,
  *,
  shift: bool = False,
) -> Float[Array, "b k h w"]:
  """Maps of a mirrored image, as maps of the image: for the flip test.

  Args:
    permutation: (K,) the keypoint that each becomes in a mirror
      (`Skeleton.flip_permutation`).
    shift: move them one pixel to the right, the first column staying, as
      networks with unaligned heatmaps need it (SHIFT_HEATMAP of HRNet).
      TokenPose's are aligned: the original does not shift (reference 5.2).
  """
  back = heatmaps[:, np.asarray(permutation), :, ::-1]
  if not shift:
    return back
  return jnp.concatenate([back[..., :1], back[..., :-1]], axis=-1)
