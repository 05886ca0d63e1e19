"""EfficientNet-Lite0 as a backbone, and the convolutions that it brought."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from tokenpose_jax import (
  convert,
  cost,
  network,
  optim,
  sharding,
  train_state,
  transfer,
)
from tokenpose_jax.errors import InputError
from tokenpose_jax.export.function import folded
from tokenpose_jax.models import convolution, lite0
from tokenpose_jax.models.config import ModelConfig
from tokenpose_jax.skeletons import COCO_17

MODEL = ModelConfig(
  input_hw=(64, 64),
  patch_hw=(4, 4),
  backbone="lite0",
  stem_channels=4,
  dim=16,
  depth=1,
  heads=2,
  head_dim=0,
)


@pytest.fixture
def shallow(monkeypatch) -> int:
  """A block a stage, which compiles in seconds; its own stem channels."""
  stages = [
    stage._replace(blocks=1, channels=8, expansion=min(stage.expansion, 2))
    for stage in lite0.STAGES
  ]
  monkeypatch.setattr(lite0, "STAGES", tuple(stages))
  return 5  # What is kept of a network is kept by its config.


def drawn(*shape):
  values = np.random.default_rng(0).standard_normal(shape, np.float32)
  return jnp.asarray(values)


def of_both(function, x, kernel):
  """A function's value, and the gradient of something of it."""
  value, back = jax.vjp(function, x, kernel)
  return value, *back(jnp.sin(value))


@pytest.mark.parametrize(
  ("size", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2), (5, 4)]
)
def test_depthwise_is_a_convolution(size, stride):
  x, kernel = drawn(2, 8, 12, 6), drawn(size, size, 1, 6)

  def plain(x, kernel):
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      (stride, stride),
      "SAME",
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      feature_group_count=6,
    )

  def ours(x, kernel):
    return convolution.depthwise(x, kernel, stride)

  for one, other in zip(
    of_both(ours, x, kernel), of_both(plain, x, kernel), strict=True
  ):
    np.testing.assert_allclose(one, other, atol=2e-5 * np.abs(other).max())


@pytest.mark.parametrize("groups", [1, 6])
@pytest.mark.parametrize("size", [3, 5])
def test_an_odd_side_is_as_long_as_the_next_even_one(size, groups):
  """So what a pixel sees lies where it does in larger maps."""
  kernel = drawn(size, size, 6 // groups, 6)
  conv = lite0.SameConv(
    6, 6, kernel=size, stride=2, groups=groups, dtype=jnp.float32
  )
  conv = tiny.built(conv)
  conv.kernel[...] = kernel
  x = drawn(2, 8, 9, 6)
  found = conv(x)
  assert found.shape == (2, 4, 5, 6)
  longer = jnp.pad(x, ((0, 0), (0, 0), (0, 1), (0, 0)))
  np.testing.assert_array_equal(found, conv(longer))
  # Of more pixels beyond, all but the last see the same.
  much = conv(jnp.concatenate([x, drawn(2, 8, 3, 6)], axis=2))
  same = 5 - size // 2
  np.testing.assert_allclose(found[:, :, :same], much[:, :, :same], atol=1e-5)


@pytest.mark.parametrize(
  ("convolve", "kernel"),
  [
    (convolution.depthwise, drawn(3, 3, 1, 32)),
    (convolution.convolve, drawn(3, 3, 32, 4)),
  ],
)
def test_devices_convolve_their_own_images(convolve, kernel):
  mesh = sharding.create_mesh()
  rows, whole = sharding.by_batch(mesh), sharding.replicated(mesh)
  x = drawn(16, 8, 6, 32)

  def found(x, kernel):
    return of_both(lambda x, kernel: convolve(x, kernel, 1), x, kernel)

  run = jax.jit(
    sharding.knowing(mesh, found),
    in_shardings=(rows, whole),
    out_shardings=(rows, rows, whole),
  )
  compiled = run.lower(x, kernel).compile()
  # Only the kernel's gradient is everyone's.
  assert "all-gather" not in compiled.as_text()
  assert "all-reduce" in compiled.as_text()
  inputs = jax.device_put(x, rows), jax.device_put(kernel, whole)
  for one, other in zip(compiled(*inputs), found(x, kernel), strict=True):
    np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())


def test_published_weights_are_its_trunk():
  """By the names of efficientnet_lite_pytorch; the rest stays as it was."""
  taught, fresh = network.init(MODEL, 1), network.init(MODEL, 0)
  prefix = "pre_feature."
  published = {
    name.removeprefix(prefix): value
    for name, value in convert.export_torch(MODEL, *taught).items()
    if name.startswith(prefix + "_")
  }
  shapes = {name: value.shape for name, value in published.items()}
  # As in efficientnet-lite0-57934424.pth.
  assert shapes["_conv_stem.weight"] == (32, 3, 3, 3)
  assert shapes["_bn0.running_var"] == (32,)
  assert shapes["_blocks.0._depthwise_conv.weight"] == (32, 1, 3, 3)
  assert shapes["_blocks.0._project_conv.weight"] == (16, 32, 1, 1)
  assert "_blocks.0._expand_conv.weight" not in shapes
  assert shapes["_blocks.3._expand_conv.weight"] == (144, 24, 1, 1)
  assert shapes["_blocks.14._depthwise_conv.weight"] == (1152, 1, 5, 5)
  assert shapes["_blocks.14._bn2.weight"] == (192,)
  published["_conv_head.weight"] = np.zeros((1280, 320, 1, 1), np.float32)
  for got, fresh_part, taught_part in zip(
    convert.import_backbone(MODEL, published, fresh), fresh, taught, strict=True
  ):
    trunk = got["backbone"].pop("trunk")
    jax.tree.map(
      np.testing.assert_array_equal, trunk, taught_part["backbone"]["trunk"]
    )
    del fresh_part["backbone"]["trunk"]
    jax.tree.map(np.testing.assert_array_equal, got, fresh_part)
  del published["_bn0.weight"]
  with pytest.raises(InputError, match=r"do not fit .*'lite0': _bn0.weight"):
    convert.import_backbone(MODEL, published, fresh)


def test_sizes_and_cost():
  params, state = network.abstract(MODEL)
  _, captured = jax.eval_shape(
    functools.partial(network.apply, MODEL, capture=True),
    *(params, state, drawn(1, 64, 64, 3)),
  )
  sizes = [captured[f"backbone.trunk.{i}"].shape for i in range(4)]
  assert sizes == [
    (1, 16, 16, 24),
    (1, 8, 8, 40),
    (1, 4, 4, 112),
    (1, 2, 2, 192),
  ]
  assert captured["backbone.merge.0"].shape == (1, 16, 16, 4)
  part = cost.summarize(MODEL, 1)["backbone"]
  assert part.parameters == sum(
    leaf.size for leaf in jax.tree.leaves(params["backbone"])
  )
  # Stage by stage of the paper's table 1: 1x1 wider, depthwise, 1x1 narrower.
  side, inputs, wanted = 32, 32, 32 * 32 * 32 * 27
  for count, size, stride, outputs in (
    (1, 3, 1, 16),
    (2, 3, 2, 24),
    (2, 5, 2, 40),
    (3, 3, 2, 80),
    (3, 5, 1, 112),
    (4, 5, 2, 192),
  ):
    for i in range(count):
      inner = inputs * (1 if inputs == 32 else 6)
      wanted += side**2 * inputs * inner if inner > inputs else 0
      side //= 1 if i else stride
      wanted += side**2 * inner * (size**2 + outputs)
      inputs = outputs
  # And a top-down path of 4 channels.
  for side, inputs in ((16, 24), (8, 40), (4, 112), (2, 192)):
    wanted += side**2 * (inputs * 4 + 2 * 9 * 16)
  assert part.layers == wanted


def test_its_norms_have_their_own_epsilon():
  """Folded into the convolutions as well."""
  params, state = network.init(MODEL, 0, "fan_in")
  # Smaller variances, where it shows.
  state["backbone"] = jax.tree.map(lambda leaf: 0.1 * leaf, state["backbone"])
  name = "backbone.trunk.0"  # Deeper maps multiply every rounding.

  @jax.jit
  def both(images):
    _, wanted = network.apply(MODEL, params, state, images, capture=True)
    found: dict = {}
    folded(MODEL, (params, state)).backbone(images, train=False, captured=found)
    return found[name], wanted[name]

  found, wanted = both(drawn(1, 64, 64, 3))
  scale = float(np.std(wanted))
  np.testing.assert_allclose(found, wanted, atol=1e-3 * scale)


def test_frozen_stages_stay(shallow):
  """Also where weights decay; all of the next stage moves."""
  settings = tiny.config(
    model__backbone="lite0",
    model__stem_channels=shallow,
    model__input_hw=(32, 32),
    model__patch_hw=(4, 4),
    model__depth=1,
    optim__weight_decay=0.1,
    train__batch_size=4,
    train__frozen=2,
  )
  state, step, mesh = tiny.training(settings, jax.devices()[:1])
  # The original implementation's small weights vanish beside `EPSILON`.
  params, _ = network.init(settings.model, 0, "fan_in")
  state = dataclasses.replace(
    state, params=sharding.put_replicated(mesh, params)
  )
  before = jax.device_get((state.params, state.model_state))
  batch = sharding.put_batch(mesh, tiny.batch(settings))
  state, _ = step(state, batch)
  after = jax.device_get((state.params, state.model_state))
  for was, now in zip(before, after, strict=True):
    was, now = was["backbone"]["trunk"], now["backbone"]["trunk"]
    leaves = jax.tree_util.tree_leaves_with_path(was)
    for (path, one), other in zip(leaves, jax.tree.leaves(now), strict=True):
      name = [key.key for key in path]
      frozen = lite0.is_frozen(["backbone", "trunk", *name], 2)
      # Stages 1 and 2 are the stem and two blocks here.
      assert frozen == (name[0] == "stem" or int(name[1]) < 2)
      if frozen:
        np.testing.assert_array_equal(one, other)
      elif int(name[1]) < 3:  # Deeper maps have hardly a pixel here.
        assert not np.array_equal(one, other), name


def test_random_weights_are_not_frozen():
  settings = tiny.config(
    model__backbone="lite0",
    model__input_hw=(32, 32),
    model__patch_hw=(4, 4),
    train__frozen=1,
  )
  optimizer = optim.create_optimizer(settings.optim, lambda _: 0.0)
  fresh = train_state.create(settings.model, optimizer, 0)
  with pytest.raises(InputError, match="would start from random weights"):
    transfer.warm_start(settings, COCO_17, fresh)


def test_an_evaluation_has_gradients(shallow):
  """For what studies a trained network."""
  model = dataclasses.replace(MODEL, stem_channels=shallow)
  params, state = network.init(model, 0, "fan_in")
  images = drawn(1, 64, 64, 3)
  gradient = jax.jit(
    jax.grad(lambda images: network.apply(model, params, state, images).sum())
  )(images)
  assert np.abs(gradient).max() > 0


@pytest.mark.parametrize(
  ("changes", "says"),
  [
    ({"model__backbone": "stem", "train__frozen": 1}, "'stem' has 0 stages"),
    ({"model__backbone": "lite0", "train__frozen": 7}, "'lite0' has 6 stages"),
  ],
)
def test_what_cannot_be_frozen(changes, says):
  with pytest.raises(InputError, match=says):
    tiny.config(model__input_hw=(32, 32), model__patch_hw=(4, 4), **changes)
