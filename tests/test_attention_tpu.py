"""The TPU's attention kernels, interpreted, beside the direct formula."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tokenpose_jax.models import attention, attention_tpu, layers
from tokenpose_jax.models.published import PUBLISHED

# (heads, width, tokens) of every published network.
SHAPES = sorted(
  {
    (
      c.heads,
      c.dim // c.heads,
      c.num_keypoints + c.grid_hw[0] * c.grid_hw[1],
    )
    for c in PUBLISHED.values()
  }
)
# The largest difference over the largest value: of o, and of gradients, where
# roundings of p and ds add up. float32's is that of its sums' order.
TOLERANCE = {jnp.bfloat16: (4e-3, 8e-3), jnp.float32: (2e-6, 4e-6)}

# An interpreted kernel is a long program: compiled fast, it is run once.
quick = functools.partial(
  jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)
forward = quick(functools.partial(attention_tpu.forward, interpret=True))
backward = quick(functools.partial(attention_tpu.backward, interpret=True))


def direct(q, k, v):
  """Softmax attention of (b, heads, d, n) in float32."""
  logits = jnp.einsum("bhdk,bhdq->bhkq", k, q, precision="highest")
  weights = jax.nn.softmax(logits, axis=2)
  return jnp.einsum("bhdk,bhkq->bhdq", v, weights, precision="highest")


def drawn(shape, dtype, *, spread=1.0):
  """q, multiplied by the scale; k, v and a gradient of o."""
  values = np.random.default_rng(3).normal(size=(4, *shape))
  values[:2] *= spread
  q, k, v, do = (jnp.asarray(x, dtype) for x in values)
  return q * shape[2] ** -0.5, k, v, do


def compare(q, k, v, do, tolerances=None):
  """Checks values and gradients; returns the kernels'."""
  o, lse = forward(q, k, v)
  gradients = backward(q, k, v, o, lse, do)
  wide = [x.astype(jnp.float32) for x in (q, k, v)]
  value, pull = jax.vjp(direct, *wide)
  of_values, of_gradients = tolerances or TOLERANCE[q.dtype.type]
  assert {x.dtype for x in (o, *gradients)} == {q.dtype}
  assert lse.dtype == jnp.float32
  close(o, value, of_values)
  for got, wanted in zip(gradients, pull(do.astype(jnp.float32)), strict=True):
    close(got, wanted, of_gradients)
  assert np.isfinite(lse).all()
  return o, lse, *gradients


def close(got, wanted, tolerance):
  difference = np.abs(np.asarray(got, np.float32) - wanted).max()
  assert float(difference) <= tolerance * float(np.abs(wanted).max())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_published_shape_is_supported(shape):
  """A new one is to be compiled, then named."""
  assert attention_tpu.supports(*shape, jnp.bfloat16, "TPU v5 lite")


@pytest.mark.parametrize(("heads", "width", "tokens"), SHAPES)
def test_a_published_shape_is_as_computed_directly(heads, width, tokens):
  """In bfloat16; in float32 where the token count is not another one's."""
  for dtype in (jnp.bfloat16, jnp.float32)[: 1 + (tokens in (273, 305))]:
    check(heads, width, tokens, dtype)


def check(heads, width, tokens, dtype):
  # Two show what more do: the tokens left over share a tile.
  heads = 1 if tokens > 512 else 2
  q, k, v, do = drawn((1, heads, width, tokens), dtype)
  _, lse, *_ = compare(q, k, v, do)
  logits = jnp.einsum(
    "bhdk,bhdq->bhkq",
    *(x.astype(jnp.float32) for x in (k, q)),
    precision="highest",
  )
  wanted = jax.nn.logsumexp(logits, axis=2)[:, :, None]
  # Sums of weights in bfloat16 where they are made by a product.
  np.testing.assert_allclose(
    lse, wanted, rtol=0, atol=2e-3 if dtype == jnp.bfloat16 else 4e-6
  )


def test_images_that_share_a_grid_step_stay_apart():
  """Sixteen are two grid steps of eight, whose tiles they share."""
  q, k, v, do = drawn((16, 1, 8, 145), jnp.float32)
  together = compare(q, k, v, do)
  for i in (1, 8):
    alone = slice(i, i + 1)
    inputs = [x[alone] for x in (q, k, v)]
    o, lse = forward(*inputs)
    found = (o, lse, *backward(*inputs, o, lse, do[alone]))
    for got, wanted in zip(found, together, strict=True):
      np.testing.assert_allclose(got, wanted[alone], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tokens", [256, 257, 200])
def test_tokens_may_fill_their_tiles_or_leave_one_over(tokens):
  compare(*drawn((1, 2, 8, tokens), jnp.float32))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_large_logits_neither_overflow_nor_vanish(dtype):
  q, k, v, do = drawn((1, 2, 12, 145), dtype, spread=20.0)
  wide = [x.astype(jnp.float32) for x in (q, k, v)]
  assert jnp.einsum("bhdk,bhdq->bhkq", wide[1], wide[0]).max() > 1000
  # A weight near 1 times what bfloat16 rounded of o is multiplied by k of 60.
  exact = dtype == jnp.float32
  compare(q, k, v, do, (1e-3, 1e-3) if exact else (8e-3, 4e-2))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_equal_logits_give_the_mean_and_its_gradient(dtype):
  _, k, v, do = drawn((1, 2, 12, 145), dtype)
  q = jnp.zeros_like(k)
  _, lse, _, dk, dv = compare(q, k, v, do)
  np.testing.assert_allclose(lse, np.log(145), rtol=1e-5)
  assert not np.asarray(dk, np.float32).any()
  mean = do.astype(jnp.float32).mean(-1, keepdims=True)
  tolerance = 1e-2 if dtype == jnp.bfloat16 else 1e-5
  np.testing.assert_allclose(
    np.asarray(dv, np.float32),
    np.broadcast_to(mean, dv.shape),
    rtol=tolerance,
    atol=tolerance / 10,
  )


def test_a_layer_that_projects_to_columns_gives_the_same(monkeypatch):
  rng = np.random.default_rng(5)
  x = jnp.asarray(rng.normal(size=(2, 145, 24)), jnp.float32)

  def draw(like):
    # Large for weights: what attention adds must be seen.
    return jnp.asarray(rng.normal(0, 0.3, like.shape), like.dtype)

  layer = layers.Attention(24, 2, 0.3, form="plain", dtype=jnp.float32)
  values = jax.tree.map(draw, nnx.split(layer)[1])

  def outcome(form):
    layer.form = form
    graph, _ = nnx.split(layer)

    def loss(values, x):
      y = nnx.merge(graph, values)(x, {}, "a")
      return jnp.square(y + 1).sum(), y

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(values, x)

  wanted = outcome("plain")
  called = []

  def uses_kernel(*asked):
    called.append(asked)
    return True

  monkeypatch.setattr(attention, "uses_kernel", uses_kernel)
  found = outcome("auto")
  assert called == [("auto", 2, 12, 145, jnp.float32)]
  jax.tree.map(lambda a, b: close(a, b, 1e-5), found, wanted)


@pytest.mark.parametrize(
  ("heads", "width", "tokens", "dtype", "kind"),
  [
    (16, 12, 273, jnp.float32, "TPU v5 lite"),
    (16, 12, 274, jnp.bfloat16, "TPU v5 lite"),
    (4, 64, 273, jnp.bfloat16, "TPU v5 lite"),
    (16, 12, 273, jnp.bfloat16, "TPU v4"),
    (16, 12, 273, jnp.bfloat16, "cpu"),
  ],
)
def test_what_was_not_compiled_is_not_supported(
  heads, width, tokens, dtype, kind
):
  assert not attention_tpu.supports(heads, width, tokens, dtype, kind)
