"""What a network does with crops, layer by layer.

Everything here is of the network as it is, without the flip test.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from tokenpose_jax import geometry, network
from tokenpose_jax.arrays import AnyArray
from tokenpose_jax.codec import Codec
from tokenpose_jax.models.config import ModelConfig
from tokenpose_jax.models.layers import Captured
from tokenpose_jax.network import Tree


class Evidence(NamedTuple):
  """What L layers did with B crops; tokens are K keypoints, then patches.

  Attributes:
    attention: (L, B, heads, K, N) each keypoint token's weights of all N
      tokens, which sum to 1; 0 of those that a layer does not have
      (`model.keep`).
    rollout: (L, B, K, N) the same through all layers up to this one
      (`rollout`); None where nobody asked.
    heatmaps: (L, B, K, h, w) what the head makes of a layer's tokens
      (`tokens_to_head`); the last ones are the network's.
    points: (L, B, K, 2) their maxima as x, y in crop pixels.
    scores: (L, B, K) the values of the maxima.
    kept: (L, B, P) which patches a layer has (`model.keep`); None: all.
  """

  attention: Float[AnyArray, "l *b h k n"]
  rollout: Float[AnyArray, "l *b k n"] | None
  heatmaps: Float[AnyArray, "l *b k hh ww"]
  points: Float[AnyArray, "l *b k 2"]
  scores: Float[AnyArray, "l *b k"]
  kept: Bool[AnyArray, "l *b p"] | None = None

  def of(self, person: int) -> "Evidence":
    """That of one crop, without the axis B."""
    parts: list[Any] = [None if x is None else x[:, person] for x in self]
    return Evidence(*parts)


class Outcome(NamedTuple):
  """The end of it, for many crops.

  Attributes:
    attention: (L, B, K, N) as in `Evidence`, the mean of the heads.
    points: (B, K, 2) of the last layer.
    scores: (B, K) likewise.
  """

  attention: Float[AnyArray, "l b k n"]
  points: Float[AnyArray, "b k 2"]
  scores: Float[AnyArray, "b k"]


def layer_names(model: ModelConfig) -> tuple[str, ...]:
  """What the L layers are called: "1" to "12"; with stacks "1.1" to "3.12"."""
  if model.stacks == 1:
    return tuple(str(i + 1) for i in range(model.depth))
  return tuple(
    f"{s + 1}.{i + 1}" for s in range(model.stacks) for i in range(model.depth)
  )


def patch_centers(model: ModelConfig) -> Float[np.ndarray, "p 2"]:
  """(P, 2) the middles of the patches as x, y in crop pixels, row-major."""
  return geometry.cell_centers(model.input_hw, model.grid_hw)


@functools.partial(
  jax.jit, static_argnames=("model", "codec", "decoder", "roll")
)
def look(
  params: Tree,
  model_state: Tree,
  crops: UInt8[AnyArray, "b h w 3"],
  *,
  model: ModelConfig,
  codec: Codec,
  decoder: str = "dark",
  roll: bool = False,
) -> Evidence:
  """Runs a network and keeps what it did.

  Args:
    params: of the network.
    model_state: of the network.
    crops: (B, H, W, 3) uint8 RGB.
    model: the network.
    codec: where its heatmaps lie on crops.
    decoder: one of `codec.DECODERS`.
    roll: the rollout, too.
  """
  _, captured = network.apply(
    model, params, model_state, network.normalize(crops), capture=True
  )
  k = model.num_keypoints
  weights = [_of_all(model, captured, name) for name in _blocks(model)]
  tokens = tokens_to_head(model, captured)
  layers, batch = tokens.shape[:2]
  flat = tokens.reshape(layers * batch, *tokens.shape[2:])
  heatmaps = network.heatmaps_of(model, params, model_state, flat)
  points, scores = codec.decode(heatmaps, decoder)

  def split(x: Any) -> Any:
    return x.reshape(layers, batch, *x.shape[1:])

  return Evidence(
    jnp.stack([w[:, :, :k] for w in weights]),
    rollout(weights)[:, :, :k] if roll else None,
    split(heatmaps),
    split(points),
    split(scores),
    _kept(model, captured, batch) if model.keep < 1 else None,
  )


@functools.partial(jax.jit, static_argnames=("model", "codec", "decoder"))
def outcome(
  params: Tree,
  model_state: Tree,
  crops: UInt8[AnyArray, "b h w 3"],
  *,
  model: ModelConfig,
  codec: Codec,
  decoder: str = "dark",
) -> Outcome:
  """Runs a network and keeps less; arguments as for `look`."""
  heatmaps, captured = network.apply(
    model, params, model_state, network.normalize(crops), capture=True
  )
  k = model.num_keypoints
  means = [
    _of_all(model, captured, name)[:, :, :k].mean(1) for name in _blocks(model)
  ]
  return Outcome(jnp.stack(means), *codec.decode(heatmaps, decoder))


def tokens_to_head(
  model: ModelConfig, captured: Captured
) -> Float[AnyArray, "l b k d"]:
  """Keypoint tokens of each layer as the head takes them.

  That is what it would see if the rest of the layers did nothing: the tokens
  pass unchanged through the rest of their stack, and through the stacks after
  it.

  Args:
    model: the network.
    captured: by `network.apply`.

  Returns:
    (L, B, K, stacks * dim).
  """
  k, depth = model.num_keypoints, model.depth
  each = [captured[f"block.{name}"][:, :k] for name in _blocks(model)]
  rows = []
  for i, tokens in enumerate(each):
    ended = [each[s * depth + depth - 1] for s in range(i // depth)]
    left = model.stacks - len(ended)
    rows.append(jnp.concatenate([*ended, *[tokens] * left], axis=-1))
  return jnp.stack(rows)


def rollout(
  weights: Sequence[Float[AnyArray, "b h n n"]],
) -> Float[AnyArray, "l b n n"]:
  """Attention through several layers (Abnar and Zuidema, ACL 2020).

  The mean of the heads, and as much of the token itself for the residual
  connection; the product over the layers up to each one. Tokens that were left
  out stay as they are.

  Args:
    weights: of each layer, (B, heads, N, N).

  Returns:
    (L, B, N, N); rows sum to 1.
  """
  own = jnp.eye(weights[0].shape[-1])[None]
  rows: list[Any] = []
  for layer in weights:
    # The rows of tokens that were left out are 0: they stay what they are.
    step = (layer.mean(1) + own) / 2
    step = step / step.sum(-1, keepdims=True)
    rows.append(step if not rows else step @ rows[-1])
  return jnp.stack(rows)


def settled(
  points: Float[np.ndarray, "l *b 2"], within: Float[np.ndarray, "..."]
) -> Any:
  """The layer from which on a keypoint stays where it ends.

  Args:
    points: (L, ..., 2) by layer.
    within: (...) the largest distance from the last layer's place.

  Returns:
    (...) indices of layers.
  """
  away = np.linalg.norm(points - points[-1:], axis=-1) > within
  return np.where(away.any(0), len(points) - away[::-1].argmax(0), 0)


def _kept(
  model: ModelConfig, captured: Captured, batch: int
) -> Bool[Array, "l b p"]:
  """Which patches each layer has."""
  patches = math.prod(model.grid_hw)
  rows = []
  for name in _blocks(model):
    kept = captured.get(f"kept.{name}")
    rows.append(
      jnp.ones((batch, patches), bool)
      if kept is None
      else jax.nn.one_hot(kept, patches, dtype=bool).any(1)
    )
  return jnp.stack(rows)


def _of_all(
  model: ModelConfig, captured: Captured, name: str
) -> Float[Array, "b h n n"]:
  """A block's weights of all tokens; to and from those left out 0."""
  weights = captured[f"attention.{name}"]
  kept = captured.get(f"kept.{name}")
  if kept is None:
    return weights
  k, patches = model.num_keypoints, math.prod(model.grid_hw)
  there = jax.nn.one_hot(kept, patches)  # (B, n, P)
  keypoints = jnp.broadcast_to(jnp.eye(k)[None], (len(kept), k, k))
  spread = jax.vmap(jax.scipy.linalg.block_diag)(keypoints, there)
  return jnp.einsum("bnx,bhnm,bmy->bhxy", spread, weights, spread)


def _blocks(model: ModelConfig) -> list[str]:
  """The names of the layers in what the network captures."""
  return [f"{s}.{i}" for s in range(model.stacks) for i in range(model.depth)]
