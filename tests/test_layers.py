"""Batch norm per device, and blocks that are computed again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from tokenpose_jax import network, sharding
from tokenpose_jax.models import layers
from tokenpose_jax.models.layers import Training


def norm(x, train):
  """(a batch norm's output, its running mean, variance and count)."""
  module = layers.BatchNorm(x.shape[-1], dtype=jnp.float32)
  y = module(jnp.asarray(x), train=train)
  return y, module.mean[...], module.var[...], module.count[...]


@pytest.mark.parametrize("replicas", [2, 4, 8])
def test_each_replica_is_normalized_by_itself(replicas):
  x = np.random.default_rng(0).standard_normal((8, 3, 2, 5)).astype(np.float32)
  x += np.arange(8, dtype=np.float32)[:, None, None, None]
  found, mean, var, count = norm(x, Training(replicas=replicas))
  alone = [norm(part, True) for part in np.split(x, replicas)]
  wanted = np.concatenate([one[0] for one in alone])
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
  # The running statistics are the mean of what each replica would have.
  for running, place in ((mean, 1), (var, 2)):
    of_each = np.mean([one[place] for one in alone], 0)
    np.testing.assert_allclose(running, of_each, rtol=1e-5, atol=1e-6)
  assert int(count) == 1
  whole, *_ = norm(x, True)
  assert np.abs(found - whole).max() > 0.1


def test_one_replica_is_the_whole_batch_to_the_bit():
  x = np.random.default_rng(0).standard_normal((4, 3, 2, 5)).astype(np.float32)
  for one, other in zip(norm(x, Training()), norm(x, True), strict=True):
    np.testing.assert_array_equal(one, other)


def test_replicas_are_the_parts_of_the_devices():
  """On eight devices, statistics in the step need no other device."""
  mesh = sharding.create_mesh()
  x = np.random.default_rng(0).standard_normal((16, 4, 3, 5)).astype(np.float32)

  def normalized(x):
    return norm(x, Training(replicas=8))[0]

  by_batch = sharding.by_batch(mesh)
  run = jax.jit(normalized, in_shardings=by_batch, out_shardings=by_batch)
  compiled = run.lower(x).compile()
  assert "all-reduce" not in compiled.as_text()
  found = compiled(jax.device_put(x, by_batch))
  np.testing.assert_allclose(found, normalized(x), rtol=1e-4, atol=1e-5)


def loss_and_gradient(model, train):
  """(loss, new statistics), their gradient, and bytes of inner values."""
  params, model_state = network.init(model, 0, "fan_in")
  images = np.random.default_rng(0).random((4, *model.input_hw, 3), np.float32)

  def loss_of(params):
    heatmaps, new = network.apply_train(
      model, params, model_state, images, train
    )
    return jnp.square(heatmaps).mean(), new

  gradient = jax.jit(jax.value_and_grad(loss_of, has_aux=True))
  compiled = gradient.lower(params).compile()
  used = compiled.memory_analysis().temp_size_in_bytes
  return compiled(params), used


@pytest.mark.parametrize("backbone", ["none", "stem", "hrnet_w32"])
def test_what_is_computed_again_is_the_same(backbone):
  fields = {"model__input_hw": (64, 64), "model__depth": 4}
  if backbone != "stem":
    fields["model__patch_hw"] = {"none": (8, 8), "hrnet_w32": (4, 4)}[backbone]
  model = tiny.config(model__backbone=backbone, **fields).model
  kept, bytes_kept = loss_and_gradient(model, True)
  again, bytes_again = loss_and_gradient(model, Training(remat=True))
  assert jax.tree.structure(kept) == jax.tree.structure(again)
  for one, other in zip(
    jax.tree.leaves(again), jax.tree.leaves(kept), strict=True
  ):
    limit = 1e-3 * np.abs(other).max()
    np.testing.assert_allclose(one, other, rtol=0, atol=max(limit, 1e-7))
  assert bytes_again < 0.8 * bytes_kept
