"""The learning-rate schedule and the optax chain."""

import optax
from ml_collections import ConfigDict

from tokenpose_jax.errors import check_choice

DROP = 0.1  # reference 3: x0.1 at each of drop_epochs
SCHEDULES = ("step", "cosine")


def create_schedule(
  settings: ConfigDict, epochs: float, steps_per_epoch: float
) -> optax.Schedule:
  """Learning rate by step.

  Args:
    settings: `config.optim`, whose unit is epochs.
    epochs: of the training.
    steps_per_epoch: need not be whole.

  Raises:
    InputError: the schedule is not known.
  """
  check_choice("optim.schedule", settings.schedule, SCHEDULES)
  warmup = round(settings.warmup_epochs * steps_per_epoch)
  if settings.schedule == "step":
    after = optax.piecewise_constant_schedule(
      settings.learning_rate,
      {
        round(epoch * steps_per_epoch) - warmup: DROP
        for epoch in settings.drop_epochs
      },
    )
  else:
    total = round(epochs * steps_per_epoch)
    after = optax.cosine_decay_schedule(
      settings.learning_rate, max(total - warmup, 1)
    )
  if not warmup:
    return after
  rise = optax.linear_schedule(0.0, settings.learning_rate, warmup)
  return optax.join_schedules([rise, after], [warmup])


def create_optimizer(
  settings: ConfigDict, schedule: optax.Schedule
) -> optax.GradientTransformation:
  """Adam without weight decay: the original implementation leaves it unused.

  Args:
    settings: `config.optim`.
    schedule: learning rate by step.
  """
  return optax.adam(schedule, b1=settings.b1, b2=settings.b2, eps=settings.eps)
