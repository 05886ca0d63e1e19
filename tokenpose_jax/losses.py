"""Losses on heatmaps, and on what is said of them."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from tokenpose_jax.arrays import AnyArray
from tokenpose_jax.models.doubt import log_error

OHKM_TOP_K = 8


def mse(
  heatmaps: Float[AnyArray, "b k h w"],
  targets: Float[AnyArray, "b k h w"],
  weights: Float[AnyArray, "b k"],
  mask: Float[AnyArray, " b"] | None = None,
) -> Float[Array, ""]:
  """Joint-weighted mean squared error (reference 3).

  Half the mean over people, joints and pixels of (w (p - t))^2: the weight
  multiplies the difference, so it enters squared.

  Args:
    heatmaps: (B, K, h, w) predicted.
    targets: (B, K, h, w).
    weights: (B, K).
    mask: (B,) 1 for people that count, 0 for slots whose image could not be
      read; the mean is over those that count.
  """
  per_joint = _per_joint(heatmaps, targets, weights)
  return _mean(per_joint.mean(-1), mask)


def ohkm(
  heatmaps: Float[AnyArray, "b k h w"],
  targets: Float[AnyArray, "b k h w"],
  weights: Float[AnyArray, "b k"],
  mask: Float[AnyArray, " b"] | None = None,
) -> Float[Array, ""]:
  """Online hard keypoint mining: each person's 8 worst joints (reference 3).

  No config selects it: it is here for parity and for research.

  Args:
    heatmaps: (B, K, h, w) predicted.
    targets: (B, K, h, w).
    weights: (B, K).
    mask: as for `mse`.
  """
  per_joint = _per_joint(heatmaps, targets, weights)
  worst, _ = jax.lax.top_k(per_joint, min(OHKM_TOP_K, per_joint.shape[-1]))
  return _mean(worst.mean(-1), mask)


def between_passes(
  one: Float[AnyArray, "b n d"],
  other: Float[AnyArray, "b n d"],
  keypoints: int,
  mask: Float[AnyArray, " b"] | None = None,
) -> Float[Array, ""]:
  """How far tokens of two passes are apart (SDPose, Chen et al., CVPR 2024).

  The mean squared difference of the keypoint tokens, and that of the visual
  ones. Gradients go into both passes, as in SDPose's code.

  Args:
    one: (B, N, d) tokens of a pass.
    other: (B, N, d) of the next one.
    keypoints: how many of them, the first ones, are keypoint tokens.
    mask: as for `mse`.
  """
  squares = jnp.square(one - other)
  parts = squares[:, :keypoints], squares[:, keypoints:]
  return sum((_mean(part.mean((1, 2)), mask) for part in parts), jnp.zeros(()))


def doubt(
  logits: Float[AnyArray, "b k 4"],
  present: Float[AnyArray, "b k"],
  hidden: Float[AnyArray, "b k"],
  distance: Float[AnyArray, "b k"],
  reach: Float[AnyArray, "b k"],
  mask: Float[AnyArray, " b"] | None = None,
) -> Float[Array, ""]:
  """How wrong the heads of `model.doubt` are.

  Cross-entropies of presence, visibility and similarity, and error / e + log e,
  which is least where e is the mean of the errors. Presence counts for every
  keypoint, the others for those that are present. The mean over people and
  keypoints.

  Args:
    logits: (B, K, 4), as for `models.doubt.of_logits`.
    present: (B, K) 1 where labeled and in the crop.
    hidden: (B, K) 1 where labeled as hidden.
    distance: (B, K) of the place found from the true one, heatmap pixels.
    reach: (B, K) distance at which its similarity is 0.5, heatmap pixels.
    mask: (B,) as for `mse`.
  """
  similarity = jnp.exp2(-jnp.square(distance / reach))
  cross_entropy = optax.sigmoid_binary_cross_entropy
  presence, visibility, quality, _ = jnp.moveaxis(logits, -1, 0)
  error = log_error(logits)
  if_present = (
    cross_entropy(visibility, 1 - hidden)
    + cross_entropy(quality, similarity)
    + distance * jnp.exp(-error)
    + error
  )
  per_keypoint = cross_entropy(presence, present) + present * if_present
  return _mean(per_keypoint.mean(-1), mask)


def _per_joint(
  heatmaps: Float[AnyArray, "b k h w"],
  targets: Float[AnyArray, "b k h w"],
  weights: Float[AnyArray, "b k"],
) -> Float[Array, "b k"]:
  difference = weights[..., None, None] * (heatmaps - targets)
  return 0.5 * jnp.square(difference.astype(jnp.float32)).mean((-2, -1))


def _mean(
  per_person: Float[Array, " b"], mask: Float[AnyArray, " b"] | None
) -> Float[Array, ""]:
  if mask is None:
    return per_person.mean()
  return (per_person * mask).sum() / jnp.maximum(mask.sum(), 1)
