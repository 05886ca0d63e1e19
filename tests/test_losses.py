"""Losses, against the original's values and gradients (reference 5.7)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import fixtures
from tokenpose_jax import losses

CASES = [
  ("mse", "weighted"),
  ("mse", "unweighted"),
  ("ohkm8", "weighted"),
  ("ohkm8", "unweighted"),
  ("ohkm3", "weighted"),
]


def arguments(seed=0, b=3, k=17, h=6, w=5):
  g = fixtures.rng(seed)
  return (
    jnp.asarray(g.standard_normal((b, k, h, w)), jnp.float32),
    jnp.asarray(g.random((b, k, h, w)), jnp.float32),
    jnp.asarray(g.choice([0, 1, 1.2], (b, k)), jnp.float32),
  )


@pytest.mark.parametrize(("name", "weighted"), CASES)
def test_value_and_gradient_are_the_originals(monkeypatch, name, weighted):
  facts, arrays = fixtures.load("eval/loss")
  wanted = facts["loss"][f"{name}_{weighted}"]
  if name == "ohkm3":
    monkeypatch.setattr(losses, "OHKM_TOP_K", 3)
  loss = losses.mse if name == "mse" else losses.ohkm
  output, target = arrays["loss/output"], arrays["loss/target"]
  weight = arrays["loss/target_weight"][..., 0]
  if weighted == "unweighted":
    weight = np.ones_like(weight)
  value, gradient = jax.value_and_grad(loss)(output, target, weight)
  np.testing.assert_allclose(value, wanted["value"], rtol=1e-6)
  np.testing.assert_allclose(
    np.linalg.norm(gradient), wanted["grad_l2"], rtol=1e-5
  )
  first = np.asarray(gradient).ravel()[:3]
  np.testing.assert_allclose(first, wanted["grad_first"], rtol=1e-5)
  if not isinstance(wanted["batch1_value"], str):
    one = loss(output[:1], target[:1], weight[:1])
    np.testing.assert_allclose(one, wanted["batch1_value"], rtol=1e-6)


def test_mse_by_hand():
  heatmaps = jnp.zeros((1, 2, 1, 2)).at[0, 0, 0, 0].set(3.0)
  weights = jnp.array([[2.0, 1.0]])
  # One of 4 pixels differs by 2 * 3, half its square is 18.
  assert losses.mse(heatmaps, jnp.zeros((1, 2, 1, 2)), weights) == 18 / 4


def test_ohkm_counts_the_eight_worst_joints_of_each_person():
  errors = jnp.stack([jnp.arange(17.0), jnp.arange(17.0)[::-1] * 2])
  heatmaps = jnp.sqrt(2 * errors)[..., None, None] * jnp.ones((1, 1, 3, 4))
  loss = losses.ohkm(heatmaps, jnp.zeros_like(heatmaps), jnp.ones((2, 17)))
  mean = np.arange(9, 17).mean()
  np.testing.assert_allclose(loss, (mean + 2 * mean) / 2, rtol=1e-6)


def test_ohkm_of_few_joints_is_their_mse():
  few = arguments(k=5)
  np.testing.assert_allclose(losses.ohkm(*few), losses.mse(*few), rtol=1e-6)
  many = arguments(k=17)
  assert losses.ohkm(*many) > 1.1 * losses.mse(*many)


@pytest.mark.parametrize("loss", [losses.mse, losses.ohkm])
def test_mask_leaves_people_out(loss):
  heatmaps, targets, weights = arguments(b=4)
  mask = jnp.array([1.0, 0.0, 1.0, 0.0])
  kept = np.array([0, 2])
  wanted = loss(heatmaps[kept], targets[kept], weights[kept])
  value, gradient = jax.jit(jax.value_and_grad(loss))(
    heatmaps, targets, weights, mask
  )
  np.testing.assert_allclose(value, wanted, rtol=1e-6)
  assert not np.asarray(gradient)[[1, 3]].any()
  alone = jax.jit(jax.grad(loss))(heatmaps[kept], targets[kept], weights[kept])
  np.testing.assert_allclose(
    np.asarray(gradient)[kept], alone, rtol=1e-5, atol=1e-9
  )


@pytest.mark.parametrize("loss", [losses.mse, losses.ohkm])
def test_a_full_mask_changes_nothing(loss):
  given = arguments()
  np.testing.assert_allclose(loss(*given, jnp.ones(3)), loss(*given), rtol=1e-6)


@pytest.mark.parametrize("loss", [losses.mse, losses.ohkm])
def test_an_empty_mask_gives_zero(loss):
  value, gradient = jax.jit(jax.value_and_grad(loss))(
    *arguments(), jnp.zeros(3)
  )
  assert value == 0
  assert not np.asarray(gradient).any()


@pytest.mark.parametrize("loss", [losses.mse, losses.ohkm])
def test_joints_of_weight_zero_get_no_gradient(loss):
  heatmaps, targets, weights = arguments()
  gradient = np.asarray(jax.jit(jax.grad(loss))(heatmaps, targets, weights))
  assert not gradient[np.asarray(weights) == 0].any()
  assert gradient.any()
