"""The network's arguments: what they do, and which do not go together."""

import dataclasses

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util

from tests import tiny
from tokenpose_jax import InputError, create_model, network
from tokenpose_jax.models import positions
from tokenpose_jax.models.config import POSITIONS
from tokenpose_jax.models.published import PUBLISHED


def fields(**changes):
  return tiny.config().model.to_dict() | changes


@pytest.mark.parametrize(
  ("changes", "says"),
  [
    ({"backbone": "resnet"}, "model.backbone is 'resnet'; allowed: none, stem"),
    (
      {"position": "rotary"},
      "model.position is 'rotary'; allowed: none, learn",
    ),
    ({"attention_scale": "dim"}, "model.attention_scale is 'dim'; allowed:"),
    ({"dtype": "float16"}, "model.dtype is 'float16'; allowed: float32, bfl"),
    ({"heads": 5}, "model.heads is 5; it must divide model.dim = 32"),
    ({"heads": 0}, "model.heads is 0"),
    ({"patch_hw": (5, 3)}, r"model.patch_hw is \(5, 3\); its h must divide"),
    ({"patch_hw": (4, 5)}, r"model.patch_hw is \(4, 5\); its w must divide"),
    ({"input_hw": (66, 48)}, r"model.input_hw is \(66, 48\).*multiples of 4"),
    ({"dim": 34, "heads": 2}, "model.dim is 34; a sine position table needs"),
    ({"depth": 0}, "model.depth is 0; it must be at least 1"),
    ({"stacks": 0}, "model.stacks is 0; it must be at least 1"),
    ({"num_keypoints": 0}, "model.num_keypoints is 0"),
    ({"head_dim": -1}, "model.head_dim is -1"),
    ({"mlp_ratio": 0}, "model.mlp_ratio is 0"),
  ],
)
def test_what_does_not_fit_is_named(changes, says):
  with pytest.raises(ValueError, match=says):
    create_model(fields(**changes), rngs=nnx.Rngs(0))


def images(model, batch: int = 2):
  rng = np.random.default_rng(0)
  return rng.normal(size=(batch, *model["input_hw"], 3)).astype(np.float32)


def forward(model, weights, capture: bool = False):
  """The compiled network on `images`."""

  def run(weights, x):
    return network.apply(model, *weights, x, capture=capture)

  return jax.device_get(jax.jit(run)(weights, images(model)))


HUGE = [10**9, 10**400, 10**4000]


@pytest.mark.parametrize(
  "field",
  [
    *("num_keypoints", "stem_channels", "dim", "depth", "stacks"),
    *("mlp_ratio", "head_dim", "input_hw", "heatmap_hw"),
  ],
)
@pytest.mark.parametrize("value", HUGE, ids=["9", "400", "4000"])
def test_what_is_out_of_all_bounds_is_not_built(field, value):
  """Neither with weights nor with shapes; not a block of it."""
  side = value - value % 16
  changes = {field: (side, side) if field.endswith("_hw") else value}
  if field in ("dim", "input_hw"):
    changes |= {"heads": 1, "position": "none", "patch_hw": (1, 1)}
  for build in (network.abstract, lambda model: network.init(model, 0)):
    with pytest.raises(
      InputError, match="larger than any of its kind"
    ) as error:
      build(fields(**changes))
    assert str(error.value).isprintable()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_are_far_from_all_bounds(name):
  many = dataclasses.replace(
    PUBLISHED[name], depth=3 * PUBLISHED[name].depth, num_keypoints=200
  )
  network.require_size(many)


def test_initialisation_of_the_original():
  """reference 2.7: deviations, and those of a fresh network's heatmaps."""
  model = PUBLISHED["tokenpose_t"].to_dict() | {"depth": 1}
  params, state = network.init(model, 0)
  for path, leaf in traverse_util.flatten_dict(params, sep="/").items():
    if path.endswith(("kernel", "keypoint_tokens")):
      assert leaf.std() == pytest.approx(0.02, rel=0.05), path
    else:
      assert np.all(leaf == (1 if path.endswith("scale") else 0)), path
  # The heads, which see normalised tokens: two layers (T, S, B) give 0.40, the
  # single one of L 0.47.
  assert forward(model, (params, state)).std() == pytest.approx(0.4, abs=0.02)
  model |= {"stacks": 3, "head_dim": 0}
  weights = network.init(model, 0)
  assert forward(model, weights).std() == pytest.approx(0.47, abs=0.02)


@pytest.mark.parametrize("position", POSITIONS)
def test_position_embeddings(position):
  """What each adds to the sequence of tokens, and where it is kept."""
  model = fields(position=position)
  params, state = network.init(model, 0)
  _, captured = forward(model, (params, state), capture=True)
  k = model["num_keypoints"]
  tokens = jnp.broadcast_to(params["keypoint_tokens"], (2, k, model["dim"]))
  bare = jnp.concatenate([tokens, captured["patch_embed"]], 1)
  added = np.asarray(captured["embed"] - bare)
  sine = positions.sine_table(4, 4, model["dim"])
  if position == "learnable":
    assert abs(params["position_table"].std() - 0.02) < 0.002
    np.testing.assert_allclose(added[0], params["position_table"], atol=1e-6)
  else:
    assert "position_table" not in params
    np.testing.assert_allclose(added[:, :k], 0, atol=1e-7)
    wanted = 0 * sine if position == "none" else sine
    np.testing.assert_allclose(added[0, k:], wanted, atol=1e-6)


def test_only_sine_full_adds_again():
  """With one block they agree; from the second on they do not."""
  for depth, same in ((1, True), (2, False)):
    found = []
    for position in ("sine", "sine-full"):
      model = fields(position=position, depth=depth)
      weights = network.init(model, 0)
      found.append(forward(model, weights))
    assert np.array_equal(*found) == same


def test_capture_costs_the_normal_path_nothing():
  model = fields()
  weights = network.init(model, 0)

  def flops(capture: bool) -> float:
    def run(params, state, x):
      out = network.apply(model, params, state, x, capture=capture)
      return out[0] if capture else out

    compiled = jax.jit(run).lower(*weights, images(model)).compile()
    return compiled.cost_analysis()["flops"]

  # Captured values that nobody takes are never computed; and where nothing is
  # captured nothing else is.
  assert flops(capture=False) == flops(capture=True)


def test_captured_attention_is_a_distribution():
  model = fields(stacks=2)
  weights = network.init(model, 0)
  heatmaps, captured = forward(model, weights, capture=True)
  tokens = model["num_keypoints"] + 16
  for stack in range(2):
    for block in range(model["depth"]):
      attention = captured[f"attention.{stack}.{block}"]
      assert attention.shape == (2, model["heads"], tokens, tokens)
      np.testing.assert_allclose(attention.sum(-1), 1, rtol=1e-5)
      assert captured[f"block.{stack}.{block}"].shape == (2, tokens, 32)
  assert captured["head_in"].shape == (2, model["num_keypoints"], 64)
  np.testing.assert_allclose(heatmaps, forward(model, weights), atol=1e-6)


def test_bfloat16_keeps_weights_statistics_and_softmax_in_float32():
  model = fields(dtype="bfloat16")
  params, state = network.init(model, 0)

  def heatmaps(params, state, x):
    found, new = network.apply_train(model, params, state, x)
    return found.astype(jnp.float32).mean(), (found, new)

  gradient = jax.grad(heatmaps, has_aux=True)
  arguments = params, state, images(model)
  traced = jax.make_jaxpr(gradient)(*arguments)
  grads, (found, new) = jax.eval_shape(gradient, *arguments)
  assert found.dtype == jnp.float32
  for leaf in jax.tree.leaves((params, grads)):
    assert leaf.dtype == jnp.float32
  for one, other in zip(
    jax.tree.leaves(new), jax.tree.leaves(state), strict=True
  ):
    assert one.dtype == other.dtype
  # The softmax's exponentials have four axes; GELU's derivative, three.
  for kind, axes in (("exp", (4,)), ("rsqrt", (1, 3, 4))):
    used = [
      e.invars[0].aval
      for e in _equations(traced.jaxpr)
      if e.primitive.name == kind and e.invars[0].aval.ndim in axes
    ]
    assert used
    assert all(value.dtype == jnp.float32 for value in used), kind
  products = [
    e for e in _equations(traced.jaxpr) if e.primitive.name == "dot_general"
  ]
  assert any(e.invars[0].aval.dtype == jnp.bfloat16 for e in products)


def _equations(jaxpr):
  for equation in jaxpr.eqns:
    yield equation
    for inner in jax.extend.core.jaxprs_in_params(equation.params):
      yield from _equations(inner)
