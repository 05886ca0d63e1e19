"""The head that teaches visual tokens, and the pyramid as a backbone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from tokenpose_jax import cost, gradients, losses, network, transfer
from tokenpose_jax.convert import export_torch, import_torch
from tokenpose_jax.convert.detect import detect
from tokenpose_jax.errors import InputError
from tokenpose_jax.models.config import ModelConfig
from tokenpose_jax.skeletons import COCO_17

WITHOUT = tiny.model()
WITH = dataclasses.replace(WITHOUT, patch_head=True)
PYRAMID = ModelConfig(
  input_hw=(96, 96),
  backbone="pyramid",
  stem_channels=4,
  dim=16,
  depth=1,
  heads=2,
  head_dim=0,
)


def test_each_token_says_its_own_part():
  """A token moves the pixels of its patch alone, of all keypoints."""
  head = tiny.built(network.abstract_module(WITH).patch_head)
  rng = np.random.default_rng(0)
  (rows, columns), (h, w) = WITH.grid_hw, WITH.heatmap_hw
  tokens = rng.standard_normal((2, rows * columns, WITH.dim), np.float32)
  before = np.asarray(head(jnp.asarray(tokens)))
  assert before.shape == (2, WITH.num_keypoints, h, w)
  row, column = 2, 1
  tokens[1, row * columns + column] = rng.standard_normal(WITH.dim)
  moved = np.asarray(head(jnp.asarray(tokens))) != before
  tall, wide = h // rows, w // columns
  inside = np.zeros_like(moved)
  inside[
    1,
    :,
    row * tall : (row + 1) * tall,
    column * wide : (column + 1) * wide,
  ] = True
  np.testing.assert_array_equal(moved, inside)


@pytest.mark.parametrize("microbatches", [1, 2])
def test_the_loss_of_a_batch(microbatches):
  """That of the maps before the first and the last block, with its weight."""
  weights = network.init(WITH, 0, "fan_in")
  batch = tiny.heatmap_batch(WITH)
  some = gradients.LossWeights(patches=0.5)
  found = tiny.of_batch(WITH, *weights, batch, microbatches, loss_weights=some)
  none = tiny.of_batch(WITH, *weights, batch, microbatches)
  assert float(found.loss) == pytest.approx(float(none.loss), rel=1e-5)
  wanted, people = 0.0, 0
  for m in range(microbatches):  # Part m has every M-th of them.
    part = jax.tree.map(lambda array, m=m: array[m::microbatches], batch)
    made, _ = tiny.train_passes(WITH, *weights, network.normalize(part.image))
    assert len(made[0].patches) == 2
    told = (part.targets, part.weights, part.mask)
    loss = sum(float(losses.mse(maps, *told)) for maps in made[0].patches)
    wanted += loss * part.mask.sum()
    people += part.mask.sum()
  assert float(found.patches) == pytest.approx(wanted / people, rel=1e-4)
  # It teaches the backbone; with no weight, nothing.
  assert np.abs(found.gradient["patch_head"]["linear"]["bias"]).min() > 0
  assert np.abs(none.gradient["patch_head"]["linear"]["bias"]).max() == 0
  apart = jax.tree.map(
    lambda one, other: float(np.abs(one - other).max()),
    found.gradient["patch_embedding"],
    none.gradient["patch_embedding"],
  )
  assert apart["kernel"] > 0


@pytest.mark.parametrize(
  ("changes", "times"),
  [
    ({"depth": 1}, [1]),
    ({"depth": 1, "stacks": 2}, [2]),
    ({"depth": 3, "keep": 0.5, "prune_before": (2,)}, [2]),
    ({"depth": 2, "keep": 0.5, "prune_before": (1,)}, [1]),
    ({"cycles": 2}, [2, 0]),
  ],
)
def test_where_it_teaches(changes, times):
  """Before the first block, and the last one that has all visual tokens."""
  model = dataclasses.replace(WITH, **changes)
  weights = network.init(model, 0)
  images = network.normalize(tiny.heatmap_batch(model).image)
  passes, _ = tiny.train_passes(model, *weights, images)
  assert [len(one.patches) for one in passes] == times


@pytest.mark.parametrize("scheme", network.SCHEMES)
def test_it_begins_near_0(scheme):
  params, state = network.init(WITH, 0, scheme)
  images = network.normalize(tiny.heatmap_batch(WITH).image)
  passes, _ = tiny.train_passes(WITH, params, state, images)
  for maps in passes[0].patches:
    assert 0 < np.abs(maps).max() < 0.05


def test_an_evaluation_does_not_ask_it():
  """The program is that of the network without, to the letter."""
  images = network.normalize(tiny.heatmap_batch(WITH).image)

  def text(model: ModelConfig) -> str:
    apply = jax.jit(functools.partial(network.apply, model))
    return apply.lower(*network.init(model, 0), images).as_text()

  assert text(WITH) == text(WITHOUT)


def test_what_does_not_fit_is_said():
  with pytest.raises(InputError, match="its h must be a multiple of the patch"):
    dataclasses.replace(WITH, heatmap_hw=(15, 12))


def test_starting_with_and_without_it():
  """A warm start keeps the network; the head starts fresh, or is left out."""
  plain = network.init(WITHOUT, 1)
  fresh = network.init(WITH, 2)
  params, _ = transfer.transfer_weights(plain, COCO_17, fresh, COCO_17)
  np.testing.assert_array_equal(
    params["keypoint_tokens"], plain[0]["keypoint_tokens"]
  )
  jax.tree.map(
    np.testing.assert_array_equal, params["patch_head"], fresh[0]["patch_head"]
  )
  params, _ = transfer.transfer_weights(fresh, COCO_17, plain, COCO_17)
  assert "patch_head" not in params
  # Of other keypoints, though as many: it starts fresh.
  names = tuple(f"a_{name}" for name in COCO_17.keypoints)
  other = dataclasses.replace(COCO_17, keypoints=names)
  taught = network.init(WITH, 3)
  params, _ = transfer.transfer_weights(taught, other, fresh, COCO_17)
  jax.tree.map(
    np.testing.assert_array_equal, params["patch_head"], fresh[0]["patch_head"]
  )


@pytest.mark.parametrize(
  "model",
  [
    PYRAMID,
    dataclasses.replace(PYRAMID, patch_head=True),
    dataclasses.replace(PYRAMID, backbone="lite0"),
  ],
)
def test_pytorch_files_hold_all_of_it(model):
  weights = network.init(model, 0)
  state_dict = export_torch(model, *weights)
  found = detect(state_dict).model
  assert (found.backbone, found.stem_channels) == (model.backbone, 4)
  assert found.patch_head == model.patch_head
  again = import_torch(model, state_dict)
  jax.tree.map(np.testing.assert_array_equal, again, weights)


def test_pyramid_sizes():
  """Its map is a quarter of the image, and each size is made of the next."""
  params, state = network.abstract(PYRAMID)
  _, captured = jax.eval_shape(
    functools.partial(network.apply, PYRAMID, capture=True),
    *(params, state, np.zeros((1, 96, 96, 3), np.float32)),
  )
  sizes = [captured[f"backbone.levels.{i}"].shape for i in range(4)]
  assert sizes == [
    (1, 24, 24, 4),
    (1, 12, 12, 8),
    (1, 6, 6, 16),
    (1, 3, 3, 24),
  ]
  assert captured["backbone.merge.0"].shape == (1, 24, 24, 4)
  parts = cost.summarize(PYRAMID, 1)
  assert parts["backbone"].parameters == sum(
    leaf.size for leaf in jax.tree.leaves(params["backbone"])
  )
  with pytest.raises(InputError, match="multiples of 32"):
    dataclasses.replace(PYRAMID, input_hw=(64, 48))
