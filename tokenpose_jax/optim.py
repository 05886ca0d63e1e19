"""The learning-rate schedule and the optax chain."""

import optax
from ml_collections import ConfigDict

from tokenpose_jax.errors import InputError

DROP = 0.1  # reference 3: x0.1 at each of drop_epochs
SCHEDULES = ("step", "cosine")


def create_schedule(
  optim: ConfigDict, epochs: float, steps_per_epoch: float
) -> optax.Schedule:
  """Learning rate by step, from `config.optim`, whose unit is epochs."""
  warmup = round(optim.warmup_epochs * steps_per_epoch)
  if optim.schedule == "step":
    after = optax.piecewise_constant_schedule(
      optim.learning_rate,
      {
        round(epoch * steps_per_epoch) - warmup: DROP
        for epoch in optim.drop_epochs
      },
    )
  elif optim.schedule == "cosine":
    total = round(epochs * steps_per_epoch)
    after = optax.cosine_decay_schedule(
      optim.learning_rate, max(total - warmup, 1)
    )
  else:
    raise InputError(
      f"optim.schedule is {optim.schedule!r}; allowed: step, cosine"
    )
  if not warmup:
    return after
  rise = optax.linear_schedule(0.0, optim.learning_rate, warmup)
  return optax.join_schedules([rise, after], [warmup])


def create_optimizer(
  optim: ConfigDict, schedule: optax.Schedule
) -> optax.GradientTransformation:
  """Adam without weight decay: the original's is configured but unused."""
  return optax.adam(schedule, b1=optim.b1, b2=optim.b2, eps=optim.eps)
