"""How far a keypoint is to be trusted: what the heads of `model.doubt` say.

Presence, visibility and quality of a keypoint as figures of their own are
ProbPose's (Purkrabek and Matas, CVPR 2025); here one linear layer, on the
keypoint token and its heatmap's maximum, says each. The definitions are ours.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from tokenpose_jax.arrays import AnyArray

# exp beyond is no distance, and more than half precision holds.
_MOST = 8.0


class Doubt(NamedTuple):
  """What is known of B people's K keypoints besides their places.

  Attributes:
    presence: (B, K) probability that the keypoint lies in the crop and that
      annotators would label it.
    visibility: (B, K) probability that it is to be seen, if it is present.
    similarity: (B, K) expected similarity of the place found to the true one,
      if it is present: its term in OKS (MPII: 1 at no distance, 0.5 at half a
      head length).
    error: (B, K) expected distance of the place found from the true one, if it
      is present, pixels (each owner says of what).
  """

  presence: Float[AnyArray, "b k"]
  visibility: Float[AnyArray, "b k"]
  similarity: Float[AnyArray, "b k"]
  error: Float[AnyArray, "b k"]

  @property
  def scores(self) -> Float[AnyArray, "b k"]:
    """(B, K) expected similarity, 0 of what is not present."""
    return self.presence * self.similarity


def of_logits(logits: Float[AnyArray, "b k 4"], pixel: float = 1.0) -> Doubt:
  """What the heads say, from their numbers.

  Args:
    logits: (B, K, 4), in the order of `Doubt`; the last one is the logarithm of
      an error in heatmap pixels.
    pixel: size of a heatmap pixel in the pixels that are wanted.
  """
  presence, visibility, similarity = jnp.moveaxis(
    jax.nn.sigmoid(logits[..., :3]), -1, 0
  )
  error = jnp.exp(log_error(logits))
  return Doubt(presence, visibility, similarity, error * pixel)


def log_error(logits: Float[AnyArray, "b k 4"]) -> Float[AnyArray, "b k"]:
  """(B, K) the logarithm of the error in heatmap pixels, within bounds."""
  return jnp.clip(logits[..., 3], -_MOST, _MOST)


def averaged(
  doubt: Doubt, mirrored: Doubt, permutation: Sequence[int] | np.ndarray
) -> Doubt:
  """With what is said of the mirrored image, for the flip test.

  Args:
    doubt: of the image.
    mirrored: of the mirrored image.
    permutation: (K,) the keypoint that each becomes in a mirror.
  """
  order = np.asarray(permutation)
  pairs = zip(doubt, mirrored, strict=True)
  return Doubt(*((one + other[:, order]) / 2 for one, other in pairs))
