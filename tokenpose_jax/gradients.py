"""The loss of a batch and its gradient, in one go or part by part."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from tokenpose_jax import losses, network
from tokenpose_jax.arrays import AnyArray
from tokenpose_jax.models.config import ModelConfig
from tokenpose_jax.models.layers import Train
from tokenpose_jax.network import Tree


class Batch(NamedTuple):
  """What the loss of a batch is made of.

  Attributes:
    image: (B, H, W, 3) uint8, RGB.
    targets: (B, K, h, w) heatmaps.
    weights: (B, K) of each.
    mask: (B,) 1 for people that count, 0 for the others.
  """

  image: AnyArray
  targets: AnyArray
  weights: AnyArray
  mask: AnyArray


class Found(NamedTuple):
  """What a batch gives.

  Attributes:
    loss: () mean over the people that count.
    gradient: of the loss, like the parameters.
    heatmaps: (B, K, h, w) predicted, by the first pass.
    model_state: the network's, after the batch.
  """

  loss: Float[Array, ""]
  gradient: Tree
  heatmaps: Float[Array, "b k h w"]
  model_state: Tree


def of_batch(
  model: ModelConfig,
  params: Tree,
  model_state: Tree,
  batch: Batch,
  microbatches: int = 1,
  train: Train = True,
  token_loss: float = 0.0,
) -> Found:
  """The loss of a batch and its gradient.

  The loss is that of the heatmaps, summed over the passes (`model.cycles`), and
  of the tokens of each two that follow each other.

  In several parts, one after the other, only one part's activations are in
  memory at a time. Loss and gradient are those of the whole batch up to
  rounding, whoever is masked; but batch norm normalizes each part by itself,
  and its running statistics move once a part.

  Args:
    model: the network.
    params: its parameters.
    model_state: its non-trainable state.
    batch: B people; the leading axis may be split over devices.
    microbatches: M parts; B must be a multiple of M times the devices.
    train: how the network is trained.
    token_loss: weight of `losses.between_passes`.
  """
  of_part = functools.partial(_of_part, model, train, token_loss)
  if microbatches == 1:
    return of_part(params, model_state, batch)
  count = jnp.maximum(batch.mask.sum(), 1)

  def add(
    before: tuple[Array, Tree, Tree], part: Batch
  ) -> tuple[tuple[Array, Tree, Tree], Array]:
    *sums, state = before
    found = of_part(params, state, part)
    # The loss of a part is the mean over its own people that count.
    share = part.mask.sum() / count
    loss, gradient = jax.tree.map(
      lambda total, new: total + share * new,
      tuple(sums),
      (found.loss, found.gradient),
    )
    return (loss, gradient, found.model_state), found.heatmaps

  start = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params), model_state)
  parts = jax.tree.map(lambda array: _split(array, microbatches), batch)
  (loss, gradient, new), heatmaps = jax.lax.scan(add, start, parts)
  return Found(loss, gradient, _join(heatmaps), new)


def _of_part(
  model: ModelConfig,
  train: Train,
  token_loss: float,
  params: Tree,
  model_state: Tree,
  part: Batch,
) -> Found:
  images = network.normalize(part.image)

  def loss_of(
    params: Tree,
  ) -> tuple[Float[Array, ""], tuple[Float[Array, "b k h w"], Tree]]:
    passes, new = network.train_passes(
      model, params, model_state, images, train
    )
    first, *others = passes
    loss = losses.mse(first.heatmaps, part.targets, part.weights, part.mask)
    for one, other in zip(passes, others, strict=False):
      loss += losses.mse(other.heatmaps, part.targets, part.weights, part.mask)
      loss += token_loss * losses.between_passes(
        one.tokens, other.tokens, model.num_keypoints, part.mask
      )
    return loss, (first.heatmaps, new)

  gradient_of = jax.value_and_grad(loss_of, has_aux=True)
  (loss, (heatmaps, new)), gradient = gradient_of(params)
  return Found(loss, gradient, heatmaps, new)


def _split(
  array: Shaped[Array, "b ..."], parts: int
) -> Shaped[Array, "m n ..."]:
  """(B, ...) to (M, B / M, ...): part i has the rows i, i + M, i + 2M, ...

  So each device has an equal share of every part, and nothing has to move.
  """
  return array.reshape(-1, parts, *array.shape[1:]).swapaxes(0, 1)


def _join(array: Float[Array, "m n ..."]) -> Float[Array, "b ..."]:
  """The inverse of `_split`."""
  return array.swapaxes(0, 1).reshape(-1, *array.shape[2:])
