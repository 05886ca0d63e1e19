"""Fewer visual tokens on the way through a stack (PPT, Ma et al., ECCV 2022).

Before some blocks only the visual tokens stay that keypoint tokens attended to
most in the block before; the others keep the values that they had. Shapes are
known from the config.

Who stays is a matrix of ones and zeros, and taking and putting back are
products with it: every runtime of an export has them (LiteRT has no sort), and
on a TPU they are quicker than to gather rows.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def largest(received: Float[Array, "b v"], count: int) -> Float[Array, "b n v"]:
  """The visual tokens to keep; of equal ones the first.

  Args:
    received: (B, V) attention that each has from the keypoint tokens.
    count: n, how many stay.

  Returns:
    (B, n, V) a one in each row: which token is there, in ascending order.
  """
  number = jnp.arange(received.shape[1])
  first = number[:, None] < number[None]  # of which pairs the first is earlier
  one, other = received[:, :, None], received[:, None]
  ahead = (one > other) | ((one == other) & first[None])
  stays = ahead.astype(jnp.float32).sum(1) < count
  place = _product(stays.astype(jnp.float32)[:, None], first[None])[:, 0]
  rows = jnp.arange(count, dtype=jnp.float32)[None, :, None]
  return (stays[:, None] & (place[:, None] == rows)).astype(jnp.float32)


def indices(kept: Float[Array, "b n v"]) -> Int[Array, "b n"]:
  """(B, n) the numbers of the tokens that stay, ascending."""
  return kept.argmax(-1)


def joined(
  kept: Float[Array, "b n v"], stay: Float[Array, "b m n"]
) -> Float[Array, "b m v"]:
  """Who is there after two choices.

  Args:
    kept: (B, n, V) of the first.
    stay: (B, m, n) of the second, among those.
  """
  return _product(stay, kept)


def taken(
  x: Float[Array, "b t d"], kept: Float[Array, "b n v"]
) -> Float[Array, "b s d"]:
  """The keypoint tokens, and of the visual ones those that stay.

  Args:
    x: (B, K + V, d).
    kept: (B, n, V).
  """
  keypoints = x.shape[1] - kept.shape[2]
  visual = _product(kept, x[:, keypoints:])
  return jnp.concatenate([x[:, :keypoints], visual], axis=1)


def put_back(
  whole: Float[Array, "b t d"],
  kept: Float[Array, "b n v"],
  x: Float[Array, "b s d"],
) -> Float[Array, "b t d"]:
  """All tokens, those that stayed with their new values.

  Args:
    whole: (B, K + V, d) all of them, as they were.
    kept: (B, n, V) which visual tokens stayed.
    x: (B, K + n, d) their new values, and those of the keypoint tokens.
  """
  keypoints = whole.shape[1] - kept.shape[2]
  new = _product(jnp.swapaxes(kept, 1, 2), x[:, keypoints:])
  gone = 1 - kept.sum(1)[..., None]
  visual = whole[:, keypoints:] * gone + new
  return jnp.concatenate([x[:, :keypoints], visual], axis=1)


def _product(a: Array, b: Array) -> Array:
  """Exact: of each sum one term is not zero."""
  return jnp.matmul(
    a, b.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST
  )
