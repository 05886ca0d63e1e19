"""Maps with several pixels in their channels give what others give."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from tokenpose_jax import cost, network
from tokenpose_jax.models import devices, layers, packing
from tokenpose_jax.models.backbones import enlarge
from tokenpose_jax.models.config import ModelConfig


def as_for_a_tpu(monkeypatch):
  monkeypatch.setattr(devices, "kind", lambda: "TPU v5 lite")


def drawn(*shape):
  return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
  ("channels", "width", "count"),
  [
    (32, 48, 4),
    (64, 24, 2),
    (128, 12, 1),
    (48, 48, 2),
    (192, 12, 1),
    (32, 18, 2),
    (4, 21, 1),
  ],
)
def test_pixels_fill_the_lanes_and_divide_the_row(channels, width, count):
  assert packing.pixels(channels, width) == count


@pytest.mark.parametrize(
  ("size", "stride", "widen", "inputs", "outputs"),
  [
    (3, 1, 1, 4, 4),
    (3, 1, 1, 1, 4),
    (3, 1, 1, 2, 4),
    (3, 2, 1, 1, 2),
    (3, 2, 1, 4, 2),
    (3, 2, 1, 4, 4),
    (1, 1, 1, 2, 2),
    (1, 1, 1, 1, 2),
    (1, 1, 2, 2, 4),
    (1, 1, 4, 1, 4),
  ],
)
def test_a_convolution_is_the_same(size, stride, widen, inputs, outputs):
  x, kernel = drawn(2, 6, 16, 3), drawn(size, size, 3, 5)

  def convolved(x, kernel, step, sides):
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      (stride, step),
      ((size // 2, size // 2), sides),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )

  plain = convolved(x, kernel, stride, (size // 2, size // 2))
  packed = convolved(
    x.reshape(2, 6, 16 // inputs, inputs * 3),
    *packing.kernel(
      jnp.asarray(kernel),
      stride=stride,
      widen=widen,
      inputs=inputs,
      outputs=outputs,
    ),
  )
  assert packed.shape[-1] == outputs * 5
  wanted = enlarge(plain, 1, widen)
  np.testing.assert_allclose(packed.reshape(wanted.shape), wanted, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("replicas", [1, 2])
def test_batch_norm_is_the_same(dtype, replicas):
  x = jnp.asarray(drawn(4, 6, 8, 5) + 1, dtype)
  train = layers.Training(replicas=replicas)

  def normalized(x):
    module = tiny.built(layers.BatchNorm(5, dtype=jnp.float32))
    y = module(x, train=train)
    return y, module.mean[...], module.var[...]

  packed = normalized(x.reshape(4, 6, 2, 20))
  for one, other in zip(packed, normalized(x), strict=True):
    np.testing.assert_allclose(one.reshape(other.shape), other, 1e-5, 1e-5)


# HRNet's gradient takes a minute to compile.
@pytest.mark.parametrize(
  ("backbone", "of_gradient"),
  [
    ("stem", True),
    ("hrnet_w32", False),
    ("hrnet_w48", False),
    ("pyramid", False),
    ("lite0", False),
  ],
)
def test_a_network_is_the_same(backbone, of_gradient, monkeypatch):
  """Its values, its captured maps, its statistics and its gradient."""
  settings = tiny.config(
    model__backbone=backbone,
    model__input_hw=(64, 64),
    model__depth=1,
    model__patch_hw=(4, 4),
    model__attention="plain",
  )
  model = ModelConfig.of(settings.model)
  params, state = network.init(model, 0, "fan_in")
  images = drawn(2, 64, 64, 3)
  graph, *_ = network.split_module(network.abstract_module(model))

  def found():
    def loss(params):
      module = network.merge_module(graph, params, state)
      captured = {}
      heatmaps = module(images, train=True, captured=captured)
      new = network.split_module(module)[2]
      return jnp.square(heatmaps).mean(), (captured, new)

    if of_gradient:
      return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return jax.jit(loss)(params)

  plain = found()
  as_for_a_tpu(monkeypatch)
  same(found(), plain, 1e-4)


def same(found, wanted, tolerance):
  """Arrays in a tree differ by that part of their length at most."""
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  for one, other in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
    assert one.shape == other.shape
    size = np.linalg.norm(other)
    assert np.linalg.norm(one - other) <= tolerance * size + 1e-6


def test_counts_and_exports_are_of_single_pixels(monkeypatch):
  """Also of a backbone that packs."""
  model = dataclasses.replace(
    tiny.model(), backbone="hrnet_w32", input_hw=(64, 64), patch_hw=(4, 4)
  )
  plain = cost.summarize(model, 2)

  class Tpu:
    device_kind = "TPU v5e"

  monkeypatch.setattr(devices.jax, "devices", lambda: [Tpu()])
  assert devices.kind() == "TPU v5e"
  assert packing.used()
  assert cost.summarize(model, 2) == plain
  with devices.anywhere():
    assert devices.kind() == "any"
    assert not packing.used()
