"""Codec: keypoints to heatmaps and back, on the device.

The one owner of the heatmap's coordinate system: a crop point (x, y) lies at
(x r, (y - (H - 1) / 2) r + (h - 1) / 2) with r = (w - 1) / (W - 1), for a crop
of H x W and a heatmap of h x w. This equals the original implementation's
separate affine map to the heatmap (reference 4.3); dividing by 4 does not. With
`udp` the rows have their own ratio, (h - 1) / (H - 1): x r_x and y r_y (Huang
et al., CVPR 2020: sizes count the intervals between pixel centers, so corners
map to corners). The two differ only in y, by up to 0.13 heatmap pixels at
256 x 192.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from tokenpose_jax import subpixel
from tokenpose_jax.arrays import AnyArray
from tokenpose_jax.errors import InputError, check_at_least, check_choice


class Decoder(NamedTuple):
  """A way to refine maxima.

  Attributes:
    refine: (heatmaps (B, K, h, w), points (B, K, 2) whole pixels, scores
      (B, K) the maxima) -> points (B, K, 2) float32, heatmap pixels; a point
      stays where its score is not positive.
    blur_kernel: size of the Gaussian blur, pixels; 0: none.
  """

  refine: Callable[..., Float[AnyArray, "b k 2"]]
  blur_kernel: int = 0


DECODERS = {
  "dark": Decoder(subpixel.dark, subpixel.BLUR_KERNEL),
  "argmax": Decoder(subpixel.whole),
  "quarter": Decoder(subpixel.quarter),
  "udp": Decoder(subpixel.udp, subpixel.BLUR_KERNEL),
}


@dataclasses.dataclass(frozen=True)
class Codec:
  """Keypoints in a crop as heatmaps, and back.

  Attributes:
    input_hw: crop size, pixels.
    heatmap_hw: heatmap size, pixels.
    sigma: standard deviation of the Gaussian targets, heatmap pixels.
    udp: rows of crop and heatmap correspond as in UDP (this module's
      docstring).

  Raises:
    InputError: a size or sigma cannot be used.
  """

  input_hw: tuple[int, int]
  heatmap_hw: tuple[int, int]
  sigma: float = 2.0
  udp: bool = False

  def __post_init__(self) -> None:
    for field in ("input_hw", "heatmap_hw"):
      check_at_least(f"model.{field}", min(getattr(self, field)), 2)
    if not 0 < self.sigma < float("inf"):
      raise InputError(f"codec.sigma is {self.sigma}; it must be positive")

  def to_heatmap(
    self, points: Float[AnyArray, "*n 2"]
  ) -> Float[AnyArray, "*n 2"]:
    """Crop pixels to heatmap pixels, (..., 2) as x, y."""
    (rx, ry), (crop_y, map_y) = self._ratios()
    x, y = points[..., 0], points[..., 1]
    return jnp.stack([x * rx, (y - crop_y) * ry + map_y], -1)

  def to_crop(self, points: Float[AnyArray, "*n 2"]) -> Float[AnyArray, "*n 2"]:
    """Heatmap pixels to crop pixels, the inverse of `to_heatmap`."""
    (rx, ry), (crop_y, map_y) = self._ratios()
    x, y = points[..., 0], points[..., 1]
    return jnp.stack([x / rx, (y - map_y) / ry + crop_y], -1)

  def inside(self, points: Float[AnyArray, "*n 2"]) -> Float[AnyArray, "*n"]:
    """1 for crop pixels (..., 2) that lie within the crop, else 0."""
    height, width = self.input_hw
    x, y = points[..., 0], points[..., 1]
    across = (x >= -0.5) & (x < width - 0.5)
    return (across & (y >= -0.5) & (y < height - 0.5)).astype(jnp.float32)

  @property
  def pixel(self) -> float:
    """Crop pixels in a heatmap pixel, across."""
    (across, _), _ = self._ratios()
    return 1 / across

  def _ratios(self) -> tuple[tuple[float, float], tuple[float, float]]:
    """Heatmap over crop in x and y; the middle rows of crop and heatmap."""
    ry, rx = (
      (h - 1) / (c - 1)
      for h, c in zip(self.heatmap_hw, self.input_hw, strict=True)
    )
    middles = ((self.input_hw[0] - 1) / 2, (self.heatmap_hw[0] - 1) / 2)
    return (rx, ry if self.udp else rx), middles

  def encode(
    self, keypoints: Float[AnyArray, "b k 2"], visible: Float[AnyArray, "b k"]
  ) -> tuple[Float[AnyArray, "b k h w"], Float[AnyArray, "b k"]]:
    """Gaussian targets and their weights (reference 4.6).

    Args:
      keypoints: (B, K, 2) crop pixels.
      visible: (B, K) 1 where labeled, else 0.

    Returns:
      targets (B, K, h, w), neither rounded nor cut off, and weights (B, K):
      `visible`, or 0 where the square of half-size 3 sigma lies outside.
    """
    height, width = self.heatmap_hw
    centers = self.to_heatmap(keypoints)
    reach = 3 * self.sigma
    # The original implementation's int() truncates towards zero.
    low, high = jnp.trunc(centers - reach), jnp.trunc(centers + reach + 1)
    outside = (low[..., 0] >= width) | (low[..., 1] >= height)
    weights = jnp.where(outside | (high < 0).any(-1), 0.0, visible)

    def gauss(
      size: int, center: Float[AnyArray, "b k"]
    ) -> Float[AnyArray, "b k s"]:
      distance = jnp.arange(size)[None, None] - center[..., None]
      return jnp.exp(-jnp.square(distance) / (2 * self.sigma**2))

    across, down = gauss(width, centers[..., 0]), gauss(height, centers[..., 1])
    targets = down[..., :, None] * across[..., None, :]
    shown = (weights > 0.5)[..., None, None]
    return jnp.where(shown, targets, 0.0), weights

  def decode(
    self, heatmaps: Float[AnyArray, "b k h w"], decoder: str = "dark"
  ) -> tuple[Float[AnyArray, "b k 2"], Float[AnyArray, "b k"]]:
    """Locates the peak of each heatmap in the crop.

    Args:
      heatmaps: (B, K, h, w).
      decoder: as for the function `decode`.

    Returns:
      points (B, K, 2) as x, y in crop pixels, and scores (B, K), the maxima.

    Raises:
      InputError: the decoder is not known.
    """
    points, scores = decode(heatmaps, decoder)
    return self.to_crop(points), scores


def maxima(
  heatmaps: Float[AnyArray, "b k h w"],
) -> tuple[Int[AnyArray, "b k 2"], Float[AnyArray, "b k"]]:
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
  heatmaps: Float[AnyArray, "b k h w"], decoder: str = "dark"
) -> tuple[Float[AnyArray, "b k 2"], Float[AnyArray, "b k"]]:
  """Locates the peak of each heatmap.

  Args:
    heatmaps: (B, K, h, w).
    decoder: one of `DECODERS`. dark: sub-pixel, as in the original
      implementation (reference 5.1); argmax: whole pixels; quarter: moved by a
      quarter pixel towards the higher neighbors; udp: UDP's variant of DARK.
      See subpixel.py.

  Returns:
    points (B, K, 2) as x, y in heatmap pixels, and scores (B, K), the maxima.
    (0, 0) where no value is positive.

  Raises:
    InputError: the decoder is not known.
  """
  check_choice("eval.decoder", decoder, DECODERS)
  points, scores = maxima(heatmaps)
  return DECODERS[decoder].refine(heatmaps, points, scores), scores


def flip(
  heatmaps: Float[AnyArray, "b k h w"],
  permutation: Sequence[int] | np.ndarray,
  *,
  shift: bool = False,
) -> Float[AnyArray, "b k h w"]:
  """Maps of a mirrored image, as maps of the image: for the flip test.

  Args:
    heatmaps: (B, K, h, w) of the mirrored image.
    permutation: (K,) the keypoint that each becomes in a mirror
      (`Skeleton.flip_permutation`).
    shift: move them one pixel to the right, the first column staying, as
      networks with unaligned heatmaps need it (SHIFT_HEATMAP of HRNet).
      TokenPose's are aligned: the original implementation does not shift
      (reference 5.2).
  """
  back = heatmaps[:, np.asarray(permutation), :, ::-1]
  if not shift:
    return back
  return jnp.concatenate([back[..., :1], back[..., :-1]], axis=-1)
