"""The exponential moving average of a training's weights."""

import dataclasses

import jax
import jax.numpy as jnp
from absl import logging
from jaxtyping import Array, Int

from tokenpose_jax.network import Tree
from tokenpose_jax.train_state import TrainState

# Early averages forget faster, because they begin with untrained weights: after
# t steps the average keeps at most (1 + t) / (10 + t) of itself.
_WARMUP = 10


def fit(state: TrainState, decay: float) -> TrainState:
  """A state with an average where one is asked for, and without elsewhere.

  A new average starts from the state's weights.

  Args:
    state: fresh, or of a checkpoint.
    decay: `config.train.ema`.
  """
  step = int(state.step)
  if decay and state.ema is None:
    if step:
      logging.info("train.ema: the average starts from the weights of %d", step)
    copies = jax.tree.map(jnp.copy, (state.params, state.model_state))
    return dataclasses.replace(state, ema=copies)
  if not decay and state.ema is not None:
    logging.warning("train.ema is 0: the average of step %d is dropped", step)
    return dataclasses.replace(state, ema=None)
  return state


def update(
  average: tuple[Tree, Tree],
  weights: tuple[Tree, Tree],
  decay: float,
  step: Int[Array, ""],
) -> tuple[Tree, Tree]:
  """The average after a step.

  Batch norm's running statistics are averaged like the parameters: those of
  the average lag behind in the same way. Counters are taken as they are.

  Args:
    average: (params, model_state) before.
    weights: (params, model_state) after the step.
    decay: share of the average that stays, once it is warm.
    step: () number of steps made before this one.
  """
  take = jnp.maximum(1 - decay, (_WARMUP - 1) / (_WARMUP + step))

  def move(old: Array, new: Array) -> Array:
    if not jnp.issubdtype(new.dtype, jnp.floating):
      return new
    return old + take * (new - old)

  return jax.tree.map(move, average, weights)
