"""The learning-rate schedule and the optax chain."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from tokenpose_jax.errors import check_choice

DROP = 0.1  # reference 3: x0.1 at each of drop_epochs
SCHEDULES = ("step", "cosine")


def create_schedule(
  settings: ConfigDict,
  epochs: float,
  steps_per_epoch: float,
  batch_size: int = 0,
) -> optax.Schedule:
  """Learning rate by step.

  Args:
    settings: `config.optim`, whose unit is epochs.
    epochs: of the training.
    steps_per_epoch: need not be whole.
    batch_size: of the training, for `optim.reference_batch`; 0: the rate is
      as it is given.

  Raises:
    InputError: the schedule is not known.
  """
  check_choice("optim.schedule", settings.schedule, SCHEDULES)
  rate = settings.learning_rate
  if batch_size and settings.reference_batch:
    rate *= batch_size / settings.reference_batch
    logging.info(
      "learning rate %g for batches of %d: %g for those of %d",
      settings.learning_rate,
      settings.reference_batch,
      rate,
      batch_size,
    )
  warmup = round(settings.warmup_epochs * steps_per_epoch)
  if settings.schedule == "step":
    after = optax.piecewise_constant_schedule(
      rate,
      {
        round(epoch * steps_per_epoch) - warmup: DROP
        for epoch in settings.drop_epochs
      },
    )
  else:
    total = round(epochs * steps_per_epoch)
    after = optax.cosine_decay_schedule(rate, max(total - warmup, 1))
  if not warmup:
    return after
  rise = optax.linear_schedule(0.0, rate, warmup)
  return optax.join_schedules([rise, after], [warmup])


def create_optimizer(
  settings: ConfigDict, schedule: optax.Schedule
) -> optax.GradientTransformation:
  """Adam; where asked, with clipped gradients and decoupled weight decay.

  The state is Adam's whatever is asked, so that a training can be resumed with
  other values. By default nothing is clipped and nothing decays: the original
  implementation leaves its weight decay unused (reference 3).

  Args:
    settings: `config.optim`.
    schedule: learning rate by step.
  """
  adam = optax.scale_by_adam(settings.b1, settings.b2, settings.eps)
  clip = optax.clip_by_global_norm(settings.clip_norm)

  def update(
    gradients: Any, state: Any, params: Any = None
  ) -> tuple[Any, optax.OptState]:
    if settings.clip_norm:
      gradients, _ = clip.update(gradients, optax.EmptyState())
    updates, state = adam.update(gradients, state, params)
    if settings.weight_decay:
      updates = _add_decay(updates, params, settings.weight_decay)
    return updates, state

  chain = optax.chain(
    optax.GradientTransformation(adam.init, update),
    optax.scale_by_learning_rate(schedule),
  )

  def init(params: Any) -> optax.OptState:
    # Zeros, all of it: on the host, where nothing is compiled for each shape.
    shapes = jax.eval_shape(chain.init, params)
    return jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes)

  return optax.GradientTransformation(init, chain.update)


def norm(tree: Any) -> Float[Array, ""]:
  """The L2 norm of a tree's numbers, as if they were one vector.

  `optax.tree.norm` sums every array by itself, which for HRNet is a fifth of a
  step's operations: on a CPU they cost seconds of every start.

  Args:
    tree: of arrays.
  """
  return jnp.linalg.norm(
    jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])
  )


def decays(path: Sequence[str]) -> bool:
  """Whether a parameter decays: kernels of linear layers and convolutions.

  Biases, scales of norms, keypoint tokens and position tables do not.

  Args:
    path: of the parameter in the tree.
  """
  return path[-1] == "kernel"


def _add_decay(updates: Any, params: Any, decay: float) -> Any:
  """Loshchilov and Hutter, 2019: after Adam, before the learning rate."""

  def add(path: tuple, update: Array, value: Array) -> Array:
    return update + decay * value if decays([k.key for k in path]) else update

  return jax.tree_util.tree_map_with_path(add, updates, params)
