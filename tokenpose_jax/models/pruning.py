"""Fewer visual tokens on the way through a stack (PPT, Ma et al., ECCV 2022).

Before some blocks only the visual tokens stay that keypoint tokens attended to
most in the block before; the others keep the values that they had. Shapes are
known from the config.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Kept = Int[Array, "b n"]
"""(B, n) which visual tokens are there, ascending."""


def largest(received: Float[Array, "b v"], count: int) -> Kept:
  """The visual tokens to keep.

  Args:
    received: (B, V) attention that each has from the keypoint tokens.
    count: how many stay.

  Returns:
    (B, count) indices, ascending.
  """
  return jnp.sort(jax.lax.top_k(received, count)[1], axis=-1)


def taken(
  x: Float[Array, "b t d"], kept: Int[Array, "b n"], keypoints: int
) -> Float[Array, "b s d"]:
  """The keypoint tokens, and of the visual ones those that stay.

  Args:
    x: (B, K + V, d).
    kept: (B, n) indices of visual tokens.
    keypoints: K.
  """
  visual = jnp.take_along_axis(x[:, keypoints:], kept[..., None], axis=1)
  return jnp.concatenate([x[:, :keypoints], visual], axis=1)


def put_back(
  whole: Float[Array, "b t d"],
  kept: Int[Array, "b n"],
  x: Float[Array, "b s d"],
) -> Float[Array, "b t d"]:
  """All tokens, those that stayed with their new values.

  Args:
    whole: (B, K + V, d) all of them, as they were.
    kept: (B, n) indices of the visual tokens that stayed.
    x: (B, K + n, d) their new values, and those of the keypoint tokens.
  """
  keypoints = x.shape[1] - kept.shape[1]
  first = jnp.broadcast_to(jnp.arange(keypoints)[None], (len(x), keypoints))
  places = jnp.concatenate([first, kept + keypoints], axis=1)
  rows = jnp.arange(len(x))[:, None]
  return whole.at[rows, places].set(x)
