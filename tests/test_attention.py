"""Every form of attention against a softmax written out in NumPy."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from tokenpose_jax import checkpoint, network, sharding
from tokenpose_jax.errors import InputError
from tokenpose_jax.models import attention, devices
from tokenpose_jax.models.config import ModelConfig
from tokenpose_jax.models.published import PUBLISHED

SHAPES = {
  (m.num_keypoints + m.grid_hw[0] * m.grid_hw[1], m.heads, m.dim // m.heads)
  for m in PUBLISHED.values()
}


def drawn(*shape: int) -> np.ndarray:
  return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def by_hand(qkv: np.ndarray, scale: float) -> np.ndarray:
  """In float64, image by image and head by head."""
  b, n, _, h, d = qkv.shape
  mixed = np.empty((b, n, h, d))
  for i in range(b):
    for j in range(h):
      q, k, v = qkv[i, :, :, j].astype(np.float64).swapaxes(0, 1)
      logits = scale * q @ k.T
      shares = np.exp(logits - logits.max(1, keepdims=True))
      mixed[i, :, j] = shares / shares.sum(1, keepdims=True) @ v
  return mixed.reshape(b, n, h * d)


def both(form: str, qkv: np.ndarray, scale: float, of: np.ndarray) -> tuple:
  """The outcome, and the gradient of qkv."""

  @jax.jit
  def run(qkv, of):
    mixed, back = jax.vjp(lambda x: attention.attend(x, scale, form), qkv)
    return mixed, back(of)[0]

  return run(qkv, of)


@pytest.mark.parametrize("shape", sorted(SHAPES), ids=str)
def test_forms_agree(shape):
  n, heads, width = shape
  qkv, of = drawn(2, n, 3, heads, width), drawn(2, n, heads * width)
  scale = width**-0.5
  plain, auto = (both(form, qkv, scale, of) for form in ("plain", "auto"))
  np.testing.assert_allclose(auto[0], by_hand(qkv, scale), atol=2e-6)
  for one, other in zip(plain, auto, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("form", ["plain", "auto"])
def test_gradients_are_those_of_small_steps(form):
  qkv, of = drawn(1, 5, 3, 2, 3), drawn(1, 5, 6)
  step = np.random.default_rng(1).standard_normal(qkv.shape)
  _, gradient = both(form, qkv, 0.7, of)
  near = [by_hand(qkv + e * step, 0.7) for e in (1e-4, -1e-4)]
  change = ((near[0] - near[1]) * of).sum() / 2e-4
  np.testing.assert_allclose((gradient * step).sum(), change, rtol=1e-4)


@pytest.mark.parametrize("form", ["plain", "auto"])
def test_large_logits_do_not_overflow(form):
  qkv = 100 * drawn(1, 7, 3, 2, 4)
  mixed, gradient = both(form, qkv, 1.0, np.ones((1, 7, 8), np.float32))
  np.testing.assert_allclose(mixed, by_hand(qkv, 1.0), rtol=1e-4)
  assert np.isfinite(gradient).all()


def test_bfloat16_stays_bfloat16():
  qkv = jnp.asarray(drawn(1, 7, 3, 2, 4), jnp.bfloat16)
  of = jnp.ones((1, 7, 8), jnp.bfloat16)
  for found in both("auto", qkv, 0.5, of):
    assert found.dtype == jnp.bfloat16


def test_devices_attend_to_their_own_images():
  mesh = sharding.create_mesh()
  rows = sharding.by_batch(mesh)
  qkv, of = drawn(16, 21, 3, 4, 8), drawn(16, 21, 32)

  def of_plain(qkv, of, form):
    mixed, back = jax.vjp(lambda x: attention.attend(x, 0.3, form), qkv)
    return mixed, back(of)[0]

  known = sharding.knowing(mesh, lambda q, o: of_plain(q, o, "auto"))
  run = jax.jit(known, in_shardings=rows, out_shardings=rows)
  compiled = run.lower(qkv, of).compile()
  assert "all-" not in compiled.as_text()
  found = compiled(*jax.device_put((qkv, of), rows))
  for one, other in zip(found, of_plain(qkv, of, "plain"), strict=True):
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_fused_is_the_kernel_or_an_error(monkeypatch):
  model = dataclasses.replace(PUBLISHED["tokenpose_t"], attention="fused")
  weights = network.abstract(model)
  images = jax.ShapeDtypeStruct((1, *model.input_hw, 3), jnp.float32)

  def traced(model):
    apply = functools.partial(network.apply, model)
    return jax.make_jaxpr(apply)(*weights, images)

  says = "no kernel for 16 heads of 12, 273 tokens, in float32 on cpu; take 'a"
  with pytest.raises(InputError, match=says):
    traced(model)
  monkeypatch.setattr(devices, "kind", lambda: "TPU v5 lite")
  with pytest.raises(InputError, match="in float32 on TPU v5 lite"):
    traced(model)
  jaxpr = traced(dataclasses.replace(model, dtype="bfloat16"))
  assert "attention_forward" in str(jaxpr)


@pytest.mark.parametrize("function", ["attend", "attend_columns"])
def test_inside_of_somebodys_shard_map(function):
  mesh = sharding.create_mesh()
  rows = jax.sharding.PartitionSpec(mesh.axis_names)

  def attend(x):
    if function == "attend":
      return attention.attend(x, 0.3, "auto")
    q, k, v = jnp.moveaxis(x, (2, 1), (0, -1))
    mixed = attention.attend_columns(q * 0.3, k, v)
    return jnp.moveaxis(mixed, -1, 1).reshape(*x.shape[:2], -1)

  split = jax.shard_map(
    attend,
    mesh=mesh,
    in_specs=rows,
    out_specs=rows,
    check_vma=function == "attend",  # Pallas kernels refuse the check.
  )
  qkv = drawn(8, 9, 3, 2, 4)
  np.testing.assert_allclose(jax.jit(split)(qkv), by_hand(qkv, 0.3), atol=1e-5)


def test_a_network_is_the_same_in_every_form():
  model = ModelConfig.of(tiny.config().model)
  plain = dataclasses.replace(model, attention="plain")
  weights = network.init(model, 0, "fan_in")
  images = drawn(3, *model.input_hw, 3)
  found, captured = network.apply(model, *weights, images, capture=True)
  other, same = network.apply(plain, *weights, images, capture=True)
  np.testing.assert_allclose(found, other, atol=1e-5)
  np.testing.assert_allclose(
    captured["attention.0.0"], same["attention.0.0"], atol=1e-6
  )
  assert not checkpoint.network_differences(model, plain)
