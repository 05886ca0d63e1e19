"""Losses on heatmaps."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

OHKM_TOP_K = 8


def mse(
  heatmaps: Float[Array, "b k h w"],
  targets: Float[Array, "b k h w"],
  weights: Float[Array, "b k"],
  mask: Float[Array, " b"] | None = None,
) -> Float[Array, ""]:
  """Joint-weighted mean squared error (reference 3).

  Half the mean over people, joints and pixels of (w (p - t))^2: the weight
  multiplies the difference, so it enters squared.

  Args:
    heatmaps, targets: (B, K, h, w).
    weights: (B, K).
    mask: (B,) 1 for people that count, 0 for slots whose image could not be
      read; the mean is over those that count.
  """
  per_joint = _per_joint(heatmaps, targets, weights)
  return _mean(per_joint.mean(-1), mask)


def ohkm(
  heatmaps: Float[Array, "b k h w"],
  targets: Float[Array, "b k h w"],
  weights: Float[Array, "b k"],
  mask: Float[Array, " b"] | None = None,
) -> Float[Array, ""]:
  """Online hard keypoint mining: each person's 8 worst joints (reference 3)."""
  per_joint = _per_joint(heatmaps, targets, weights)
  worst, _ = jax.lax.top_k(per_joint, min(OHKM_TOP_K, per_joint.shape[-1]))
  return _mean(worst.mean(-1), mask)


def _per_joint(heatmaps, targets, weights):
  difference = weights[..., None, None] * (heatmaps - targets)
  return 0.5 * jnp.square(difference.astype(jnp.float32)).mean((-2, -1))


def _mean(per_person, mask):
  if mask is None:
    return per_person.mean()
  return (per_person * mask).sum() / jnp.maximum(mask.sum(), 1)
