"""Batch norm per device, and blocks that are computed again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests import tiny
from tokenpose_jax import network, sharding
from tokenpose_jax.models import layers
from tokenpose_jax.models.backbones import ExchangeModule
from tokenpose_jax.models.config import ModelConfig
from tokenpose_jax.models.layers import Training


def norm(x, train):
  """(a batch norm's output, its running mean, variance and count)."""
  module = tiny.built(layers.BatchNorm(x.shape[-1], dtype=jnp.float32))
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


@pytest.mark.parametrize("known", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("far", [0, 3, 30])
def test_statistics_of_bfloat16_keep_their_digits(far, known):
  """Means `far` standard deviations from 0, known to a part before."""
  drawn = np.random.default_rng(0).standard_normal((32, 32, 24, 3))
  x = jnp.asarray(drawn + far, jnp.bfloat16)
  module = tiny.built(layers.BatchNorm(3, dtype=jnp.bfloat16))
  module.mean.set_value(jnp.full(3, known * far, jnp.float32))
  module(x, train=True)
  exact = np.asarray(x, np.float64).reshape(-1, 3)
  momentum = layers.BATCH_NORM_MOMENTUM
  mean = (module.mean[...] - momentum * known * far) / (1 - momentum)
  var = (module.var[...] - momentum) / (1 - momentum)
  np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-5, atol=1e-4)
  # Of a sum of squares so many times the variance.
  squares = 1 + ((1 - known) * far) ** 2
  limit = 1e-5 * squares + 1e-6
  np.testing.assert_allclose(var, exact.var(0, ddof=1), rtol=limit)


def test_the_gradient_of_bfloat16_is_that_of_float32():
  g = np.random.default_rng(0)
  x, of = g.standard_normal((2, 8, 6, 5, 3)).astype(jnp.bfloat16)

  def gradient(x):
    graph, params, state = network.split_module(
      tiny.built(layers.BatchNorm(3, dtype=jnp.float32))
    )

    def loss(params, x):
      module = network.merge_module(graph, params, state)
      return (module(x, train=True) * of.astype(jnp.float32)).sum()

    return jax.grad(loss, argnums=(0, 1))(params, x)

  x = jnp.asarray(x + 2)
  (found, of_x), (wanted, of_wide) = (
    gradient(x.astype(t)) for t in (jnp.bfloat16, jnp.float32)
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found, wanted
  )
  np.testing.assert_allclose(of_x.astype(jnp.float32), of_wide, atol=2e-2)


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


def loss_of(backbone, patch, train):
  """(the network, its loss and new statistics as a function of weights)."""
  settings = tiny.config(
    model__backbone=backbone,
    model__input_hw=(64, 64),
    model__depth=3,
    model__patch_hw=(patch, patch),
  )
  model = ModelConfig.of(settings.model)
  images = np.random.default_rng(0).random((4, *model.input_hw, 3), np.float32)

  def loss(params, model_state):
    heatmaps, new = network.apply_train(
      model, params, model_state, images, train
    )
    return jnp.square(heatmaps).mean(), new

  return model, loss


def close(one, other):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    limit = 1e-3 * np.abs(b).max()
    np.testing.assert_allclose(a, b, rtol=0, atol=max(limit, 1e-7))


@pytest.mark.parametrize(("backbone", "patch"), [("none", 8), ("stem", 4)])
def test_what_is_computed_again_is_the_same(backbone, patch):
  def found(train):
    model, loss = loss_of(backbone, patch, train)
    weights = network.init(model, 0, "fan_in")
    return jax.jit(jax.value_and_grad(loss, has_aux=True))(*weights)

  close(found(Training(remat=True)), found(True))


def test_modules_of_hrnet_are_computed_again():
  """Of several inputs and outputs; running statistics move once."""
  g = np.random.default_rng(0)
  inputs = [
    g.standard_normal(shape).astype(np.float32)
    for shape in ((2, 8, 8, 4), (2, 4, 4, 8))
  ]

  def loss(inputs, remat):
    module = tiny.built(ExchangeModule((4, 8), 2, dtype=jnp.float32))
    outputs = layers.run(module, inputs, remat=remat, train=True)
    statistics = nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))
    return sum(jnp.square(y).sum() for y in outputs), statistics

  def found(remat):
    gradient = jax.value_and_grad(lambda x: loss(x, remat), has_aux=True)
    return jax.jit(gradient)(inputs)

  again = found(True)
  close(again, found(False))
  counts = [n for n in jax.tree.leaves(again[0][1]) if n.dtype == jnp.int32]
  assert {int(count) for count in counts} == {1}


@pytest.mark.parametrize(
  ("backbone", "patch"), [("none", 8), ("stem", 4), ("hrnet_w32", 4)]
)
def test_less_is_kept_for_the_gradient(backbone, patch):
  """Not by the compiler's memory: on a CPU it computes nothing twice."""

  def kept(train):
    model, loss = loss_of(backbone, patch, train)
    params, model_state = network.abstract(model)
    _, backward, _ = jax.eval_shape(
      lambda p, s: jax.vjp(lambda p: loss(p, s), p, has_aux=True),
      params,
      model_state,
    )
    return sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(backward))

  assert kept(Training(remat=True)) < 0.5 * kept(True)
