"""The loss of a batch and its gradient, in one go or part by part."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from tokenpose_jax import codec, losses, network
from tokenpose_jax.arrays import AnyArray
from tokenpose_jax.models.config import ModelConfig
from tokenpose_jax.models.layers import Train
from tokenpose_jax.network import Tree


class Truth(NamedTuple):
  """What is known of keypoints, for the heads of `model.doubt`.

  Attributes:
    points: (B, K, 2) x, y in heatmap pixels.
    present: (B, K) 1 where labeled and in the crop.
    hidden: (B, K) 1 where labeled as hidden.
    reach: (B, K) distance at which a place's similarity is 0.5, heatmap pixels.
  """

  points: AnyArray
  present: AnyArray
  hidden: AnyArray
  reach: AnyArray


class Batch(NamedTuple):
  """What the loss of a batch is made of.

  Attributes:
    image: (B, H, W, 3) uint8, RGB.
    targets: (B, K, h, w) heatmaps.
    weights: (B, K) of each.
    mask: (B,) 1 for people that count, 0 for the others.
    truth: for the heads of `model.doubt`, where the network has them.
  """

  image: AnyArray
  targets: AnyArray
  weights: AnyArray
  mask: AnyArray
  truth: Truth | None = None


class LossWeights(NamedTuple):
  """What losses besides that of the heatmaps are multiplied by.

  Attributes:
    tokens: `losses.between_passes`.
    doubt: `losses.doubt`, of the first pass.
    patches: `losses.mse` of what `model.patch_head` says, each time it does.
  """

  tokens: float = 0.0
  doubt: float = 0.0
  patches: float = 0.0


HEATMAPS_ALONE = LossWeights()


class Found(NamedTuple):
  """What a batch gives.

  Attributes:
    loss: () mean over the people that count, without those of other heads.
    doubt: () `losses.doubt`; None without such heads.
    patches: () loss of what `model.patch_head` says; None without it.
    gradient: of the whole loss, like the parameters.
    heatmaps: (B, K, h, w) predicted, by the first pass.
    model_state: the network's, after the batch.
  """

  loss: Float[Array, ""]
  doubt: Float[Array, ""] | None
  patches: Float[Array, ""] | None
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
  loss_weights: LossWeights = HEATMAPS_ALONE,
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
    loss_weights: of what is learned besides.
  """
  of_part = functools.partial(_of_part, model, train, loss_weights)
  if microbatches == 1:
    return of_part(params, model_state, batch)
  count = jnp.maximum(batch.mask.sum(), 1)

  def add(before: tuple[Any, ...], part: Batch) -> tuple[Any, Array]:
    *sums, state = before
    found = of_part(params, state, part)
    # The loss of a part is the mean over its own people that count.
    share = part.mask.sum() / count
    sums = jax.tree.map(
      lambda total, new: total + share * new,
      sums,
      [found.loss, found.doubt, found.patches, found.gradient],
    )
    return (*sums, found.model_state), found.heatmaps

  start = (
    jnp.zeros(()),
    jnp.zeros(()) if model.doubt else None,
    jnp.zeros(()) if model.patch_head else None,
    jax.tree.map(jnp.zeros_like, params),
    model_state,
  )
  parts = jax.tree.map(lambda array: _split(array, microbatches), batch)
  (loss, doubt, patches, gradient, new), heatmaps = jax.lax.scan(
    add, start, parts
  )
  return Found(loss, doubt, patches, gradient, _join(heatmaps), new)


def _of_part(
  model: ModelConfig,
  train: Train,
  loss_weights: LossWeights,
  params: Tree,
  model_state: Tree,
  part: Batch,
) -> Found:
  images = network.normalize(part.image)

  def loss_of(params: Tree) -> tuple[Float[Array, ""], Any]:
    passes, new = network.train_passes(
      model, params, model_state, images, train
    )
    first, *others = passes
    loss = losses.mse(first.heatmaps, part.targets, part.weights, part.mask)
    for one, other in zip(passes, others, strict=False):
      loss += losses.mse(other.heatmaps, part.targets, part.weights, part.mask)
      loss += loss_weights.tokens * losses.between_passes(
        one.tokens, other.tokens, model.num_keypoints, part.mask
      )
    total, doubt, patches = loss, None, None
    if first.doubt is not None:
      doubt = _doubt(first.doubt, first.heatmaps, part)
      total += loss_weights.doubt * doubt
    if model.patch_head:
      patches = sum(
        (
          losses.mse(heatmaps, part.targets, part.weights, part.mask)
          for heatmaps in first.patches
        ),
        jnp.zeros(()),
      )
      total += loss_weights.patches * patches
    return total, (loss, doubt, patches, first.heatmaps, new)

  gradient_of = jax.value_and_grad(loss_of, has_aux=True)
  (_, (loss, doubt, patches, heatmaps, new)), gradient = gradient_of(params)
  return Found(loss, doubt, patches, gradient, heatmaps, new)


def _doubt(
  logits: Float[Array, "b k 4"], heatmaps: Float[Array, "b k h w"], part: Batch
) -> Float[Array, ""]:
  """The loss of what is said of the places that were found."""
  truth = part.truth
  if truth is None:
    raise ValueError("model.doubt needs Batch.truth")
  # Quarter pixels are near enough, and quickly found.
  points, _ = codec.decode(jax.lax.stop_gradient(heatmaps), "quarter")
  return losses.doubt(
    logits,
    truth.present,
    truth.hidden,
    jnp.linalg.norm(points - truth.points, axis=-1),
    truth.reach,
    part.mask,
  )


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
