"""The training monitor: share of heatmap maxima near the target's."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from tokenpose_jax import codec
from tokenpose_jax.arrays import AnyArray

THRESHOLD = 0.5  # of a tenth of the heatmap's sides


def heatmap_accuracy(
  heatmaps: Float[AnyArray, "b k h w"],
  targets: Float[AnyArray, "b k h w"],
  weights: Float[AnyArray, "b k"],
) -> Float[Array, ""]:
  """PCK-style accuracy of integer maxima, averaged over joints (reference 5.3).

  A maximum counts as right within 0.5 of a tenth of the heatmap's width (x)
  and height (y). The original divides x by the height and y by the width; that
  is not copied, and its test x, y > 1 for labeled joints is `weights` > 0.

  Returns:
    () float32 from 0 to 1; 0 where nothing is labeled.
  """
  height, width = heatmaps.shape[-2:]
  found, _ = codec.maxima(heatmaps)
  truth, _ = codec.maxima(targets)
  unit = jnp.array([[[width, height]]], jnp.float32) / 10
  distance = jnp.linalg.norm((found - truth) / unit, axis=-1)
  labeled = weights > 0
  right = (distance < THRESHOLD) & labeled
  count = labeled.sum(0)
  share = right.sum(0) / jnp.maximum(count, 1)
  return share.sum() / jnp.maximum((count > 0).sum(), 1)
