"""Which keypoints a keypoint's token goes by."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from tokenpose_jax.skeletons import Skeleton

KINDS = ("mirror", "neighbor", "other")
_MIRROR, _NEIGHBOR, _OTHER = range(3)


class Similarity(NamedTuple):
  """How alike the learned keypoint tokens are, before they see an image.

  Attributes:
    inner: (K, K) their inner products over the square root of their width,
      scaled to 0 to 1 over the matrix. The paper's Figure 4 says scaled and
      normalized and not how.
    cosine: (K, K) the cosines of the angles between them.
  """

  inner: Float[np.ndarray, "k k"]
  cosine: Float[np.ndarray, "k k"]


def similarity(tokens: Float[np.ndarray, "k d"]) -> Similarity:
  """Compares keypoint tokens.

  Args:
    tokens: (K, dim) `params["keypoint_tokens"]`.
  """
  tokens = np.asarray(tokens, np.float64)
  inner = tokens @ tokens.T / np.sqrt(tokens.shape[1])
  lowest, span = inner.min(), np.ptp(inner)
  length = np.maximum(np.linalg.norm(tokens, axis=1), 1e-30)
  return Similarity(
    (inner - lowest) / (span or 1), tokens @ tokens.T / np.outer(length, length)
  )


def kinds(skeleton: Skeleton) -> Int[np.ndarray, "k k"]:
  """What each pair of keypoints is to each other.

  Args:
    skeleton: of the keypoints.

  Returns:
    (K, K) indices of `KINDS`. A pair that is both is mirror: shoulders, hips.
    The diagonal is -1.
  """
  k = skeleton.num_keypoints
  found = np.full((k, k), _OTHER)
  for pairs, kind in (
    (skeleton.limbs, _NEIGHBOR),
    (skeleton.flip_pairs, _MIRROR),
  ):
    for a, b in pairs:
      found[a, b] = found[b, a] = kind
  np.fill_diagonal(found, -1)
  return found


def top(
  attention: Float[np.ndarray, "*b k k"], count: int
) -> Int[np.ndarray, "*b k c"]:
  """The keypoints that each keypoint attends to most, itself left out.

  Args:
    attention: (..., K, K) from each keypoint token to each.
    count: how many, if there are as many others.

  Returns:
    (..., K, min(count, K - 1)) indices, from the largest weight on.
  """
  k = attention.shape[-1]
  own = np.eye(k, dtype=bool)
  others = np.where(own, -np.inf, attention)
  return np.argsort(-others, axis=-1, kind="stable")[..., : min(count, k - 1)]


def shares(
  partners: Int[np.ndarray, "*b k c"], of_pairs: Int[np.ndarray, "k k"]
) -> Float[np.ndarray, "*b s"]:
  """What the constraints are.

  Args:
    partners: (..., K, count) of `top`.
    of_pairs: (K, K) of `kinds`.

  Returns:
    (..., 3) shares of `KINDS` among all K * count; 0 where that is none.
  """
  k = len(of_pairs)
  found = of_pairs[np.arange(k)[:, None], partners]
  counts = [(found == n).sum((-2, -1)) for n in range(len(KINDS))]
  return np.stack(counts, -1) / max(k * partners.shape[-1], 1)


def chance(of_pairs: Int[np.ndarray, "k k"]) -> Float[np.ndarray, " s"]:
  """(3,) the same shares if partners were drawn without looking.

  Of one keypoint, which has no partners, 0.
  """
  pairs = of_pairs[of_pairs >= 0]
  counts = np.array([(pairs == n).sum() for n in range(len(KINDS))])
  return counts / max(len(pairs), 1)
