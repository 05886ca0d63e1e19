"""Learning-rate schedules and Adam, against their formulas."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from configs import default
from tests import fixtures, tiny
from tokenpose_jax import network, optim
from tokenpose_jax.errors import InputError

EPOCHS, STEPS = 300, 7  # epochs of a run, steps of an epoch


def schedule(epochs=EPOCHS, steps_per_epoch=STEPS, batch_size=0, **changes):
  config = default.get_config().optim
  config.update(changes)
  return optim.create_schedule(config, epochs, steps_per_epoch, batch_size)


@pytest.mark.parametrize(
  ("epoch", "rate"),
  [(0, 1e-3), (199, 1e-3), (200, 1e-4), (259, 1e-4), (260, 1e-5), (299, 1e-5)],
)
def test_step_schedule_drops_at_epochs_200_and_260(epoch, rate):
  """reference 3: from the first to the last step of these epochs."""
  rates = schedule()
  for step in (epoch * STEPS, epoch * STEPS + STEPS - 1):
    np.testing.assert_allclose(rates(step), rate, rtol=1e-6)


def test_schedule_follows_epochs_that_are_no_whole_steps():
  rates = schedule(steps_per_epoch=2.5, drop_epochs=(2, 4))
  values = [float(rates(step)) for step in (0, 4, 5, 9, 10)]
  np.testing.assert_allclose(values, [1e-3, 1e-3, 1e-4, 1e-4, 1e-5], rtol=1e-6)


@pytest.mark.parametrize("kind", ["step", "cosine"])
def test_warm_up_is_linear_and_moves_no_drop(kind):
  rates = schedule(schedule=kind, warmup_epochs=10.0)
  for step in (0, 1, 35, 69, 70):
    np.testing.assert_allclose(rates(step), 1e-3 * step / 70, rtol=1e-5)
  if kind == "step":
    for step, rate in ((71, 1e-3), (1399, 1e-3), (1400, 1e-4), (1820, 1e-5)):
      np.testing.assert_allclose(rates(step), rate, rtol=1e-6)
  else:
    half = 70 + (2100 - 70) // 2
    np.testing.assert_allclose(rates(half), 5e-4, rtol=1e-5)
    assert rates(2100) < 1e-9


def test_cosine_ends_at_zero():
  rates = schedule(schedule="cosine")
  for step in (0, 500, 1050, 2000):
    wanted = 1e-3 * (1 + np.cos(np.pi * step / 2100)) / 2
    np.testing.assert_allclose(rates(step), wanted, rtol=1e-4)
  assert rates(2100) < 1e-9
  assert rates(9999) < 1e-9


@pytest.mark.parametrize("kind", ["step", "cosine"])
def test_the_rate_follows_the_batch_size_where_asked(kind, caplog):
  fields = dict(schedule=kind, warmup_epochs=2.0)
  plain = schedule(**fields)
  with caplog.at_level(logging.INFO):
    scaled = schedule(**fields, batch_size=64, reference_batch=128)
  assert "0.001 for batches of 128: 0.0005 for those of 64" in caplog.text
  for step in (0, 5, 14, 100, 1400, 1900):
    np.testing.assert_allclose(scaled(step), plain(step) / 2, rtol=1e-6)
  for one in ({"batch_size": 64}, {"reference_batch": 128}):
    assert schedule(**fields, **one)(100) == plain(100)


def test_unknown_schedule_is_refused():
  with pytest.raises(InputError, match="'linear'; allowed: step, cosine"):
    schedule(schedule="linear")


def test_adam_is_the_formula_and_decays_no_weight():
  """Also: the k-th update uses the rate of step k, counted from 0."""
  config = default.get_config().optim
  config.drop_epochs = (3, 6)
  rates = optim.create_schedule(config, 10, 1)
  optimizer = optim.create_optimizer(config, rates)
  g = fixtures.rng(0)
  start = g.standard_normal(50).astype(np.float32)
  # From far below eps to far above it.
  size = 10.0 ** g.uniform(-10, 2, 50)
  params, state = jnp.asarray(start), optimizer.init(jnp.asarray(start))
  update = jax.jit(optimizer.update)
  wanted, m, v = start.astype(np.float64), np.zeros(50), np.zeros(50)
  for step in range(8):
    gradient = (size * g.standard_normal(50)).astype(np.float32)
    change, state = update(jnp.asarray(gradient), state, params)
    params = params + change
    exact = gradient.astype(np.float64)
    m = 0.9 * m + 0.1 * exact
    v = 0.999 * v + 0.001 * exact**2
    corrected_m = m / (1 - 0.9 ** (step + 1))
    corrected_v = v / (1 - 0.999 ** (step + 1))
    rate = 1e-3 * (1.0 if step < 3 else 0.1 if step < 6 else 0.01)
    delta = -rate * corrected_m / (np.sqrt(corrected_v) + 1e-8)
    wanted = wanted + delta
    np.testing.assert_allclose(change, delta, rtol=1e-4, atol=1e-9)
  np.testing.assert_allclose(params, wanted, rtol=0, atol=2e-6)


def test_adam_leaves_weights_without_gradient_alone():
  config = default.get_config().optim
  optimizer = optim.create_optimizer(
    config, optim.create_schedule(config, 1, 1)
  )
  params = jnp.ones(3)
  change, _ = optimizer.update(jnp.zeros(3), optimizer.init(params), params)
  np.testing.assert_array_equal(change, np.zeros(3))


@pytest.mark.parametrize("field", ["b1", "b2", "eps", "learning_rate"])
def test_every_field_reaches_adam(field):
  def two_steps(**changes):
    config = default.get_config().optim
    config.update(changes)
    optimizer = optim.create_optimizer(
      config, optim.create_schedule(config, 1, 1)
    )
    params = jnp.ones(())
    state = optimizer.init(params)
    for gradient in (1.0, 0.1):
      change, state = optimizer.update(jnp.asarray(gradient), state, params)
    return float(change)

  other = {"b1": 0.5, "b2": 0.9, "eps": 0.1, "learning_rate": 1e-2}[field]
  assert abs(two_steps(**{field: other}) / two_steps() - 1) > 0.01


def trees(seed=0):
  """(params, gradients) with one parameter that decays and one that does not.

  The gradient's global norm is 5.
  """
  params = {"kernel": np.full((2, 2), 3.0), "bias": np.full(2, 2.0)}
  gradients = {"kernel": np.full((2, 2), 2.0), "bias": np.array([3.0, 0.0])}
  return jax.tree.map(
    lambda a: jnp.asarray(a, jnp.float32), (params, gradients)
  )


def steps(count=3, **changes):
  """(the updates of some steps, the state after them)."""
  config = default.get_config().optim
  config.update(changes)
  optimizer = optim.create_optimizer(
    config, optim.create_schedule(config, 1, 1)
  )
  params, gradients = trees()
  state, made = optimizer.init(params), []
  for _ in range(count):
    change, state = optimizer.update(gradients, state, params)
    params = optax.apply_updates(params, change)
    made.append(change)
  return made, state


def test_by_default_it_is_adam_to_the_bit():
  config = default.get_config().optim
  params, gradients = trees()
  adam = optax.adam(optim.create_schedule(config, 1, 1))
  state, wanted = adam.init(params), []
  for _ in range(3):
    change, state = adam.update(gradients, state, params)
    params = optax.apply_updates(params, change)
    wanted.append(change)
  made = steps()
  assert jax.tree.structure(made) == jax.tree.structure((wanted, state))
  jax.tree.map(np.testing.assert_array_equal, made, (wanted, state))


def test_weight_decay_is_decoupled_and_leaves_biases_alone():
  """Of the rate times the weight, whatever the gradient's size."""
  (plain, *_), _ = steps(1)
  (decayed, *_), _ = steps(1, weight_decay=0.1)
  np.testing.assert_array_equal(decayed["bias"], plain["bias"])
  np.testing.assert_allclose(
    decayed["kernel"] - plain["kernel"], -1e-3 * 0.1 * 3.0, rtol=1e-4
  )


def test_the_state_begins_as_that_of_adam():
  settings, rates = tiny.config().optim, schedule()
  adam = optax.adam(rates, settings.b1, settings.b2, settings.eps)
  params, _ = network.init(tiny.model(), 0)
  found = optim.create_optimizer(settings, rates).init(params)
  wanted = adam.init(params)
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  for one, other in zip(
    jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True
  ):
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("backbone", ["none", "stem"])
def test_what_decays(backbone):
  model = tiny.config(
    model__backbone=backbone,
    model__patch_hw=(16, 12) if backbone == "none" else (4, 3),
    model__position="learnable",
  ).model
  params, _ = network.abstract(model)
  kept, decaying = set(), set()
  for path, leaf in traverse_util.flatten_dict(params).items():
    (decaying if optim.decays(path) else kept).add(path[-1])
    # Every matrix and every filter but those that are tables of tokens.
    tables = ("keypoint_tokens", "position_table")
    assert optim.decays(path) == (leaf.ndim > 1 and path[-1] not in tables)
  assert decaying == {"kernel"}
  assert kept == {"bias", "scale", "keypoint_tokens", "position_table"}


@pytest.mark.parametrize("norm", [2.5, 5.1])
def test_gradients_are_clipped_by_their_global_norm(norm):
  """Adam does not see their size, but its state does."""
  _, (plain, _) = steps(1)
  _, (clipped, _) = steps(1, clip_norm=norm)
  scale = min(norm / 5, 1)
  for one, other in zip(
    jax.tree.leaves(clipped.mu), jax.tree.leaves(plain.mu), strict=True
  ):
    np.testing.assert_allclose(one, scale * other, rtol=1e-6)


def test_a_training_may_go_on_with_other_decay_and_clipping():
  """Its state is the same: checkpoints of one fit the other."""
  _, one = steps(1)
  _, other = steps(1, weight_decay=0.1, clip_norm=1.0)
  assert jax.tree.structure(one) == jax.tree.structure(other)
