"""Several passes, and fewer visual tokens on the way (SDPose, PPT)."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tokenpose_jax as tp
from tests import by_hand, noise_runs, tiny
from tokenpose_jax import (
  checkpoint,
  cost,
  gradients,
  losses,
  train,
)
from tokenpose_jax import config as config_lib
from tokenpose_jax.explanation import evidence
from tokenpose_jax.gradients import LossWeights
from tokenpose_jax.models import pruning
from tokenpose_jax.models.config import ModelConfig


def _model(**changes) -> ModelConfig:
  fields = {"depth": 4, "prune_before": (1, 3)} | changes
  return dataclasses.replace(tiny.model(), **fields)


def _images(model: ModelConfig, count: int = 2) -> jax.Array:
  rng = np.random.default_rng(0)
  return tp.normalize(
    rng.integers(0, 256, (count, *model.input_hw, 3), np.uint8)
  )


def _weights(model: ModelConfig) -> tuple:
  return tp.init(model, 0, "fan_in")


_apply = jax.jit(tp.apply, static_argnums=0, static_argnames="capture")


def test_one_pass_with_all_tokens_is_the_network_as_it_was():
  fields = {"backbone": "none", "patch_hw": (16, 12), "depth": 2}
  plain = _model(**fields)
  other = _model(**fields, prune_before=(1,), cycles=1, keep=1.0)
  weights, images = _weights(plain), _images(plain)
  np.testing.assert_array_equal(
    _apply(plain, *weights, images), _apply(other, *weights, images)
  )
  one, two = (
    tiny.of_batch(
      m, *weights, tiny.heatmap_batch(m), loss_weights=LossWeights(weight)
    )
    for m, weight in ((plain, 0.0), (other, 1.0))
  )
  jax.tree.map(np.testing.assert_array_equal, one, two)


def test_counts_are_those_published():
  counts = dataclasses.replace(
    tp.published["tokenpose_s_v1"], keep=0.7
  ).visual_counts
  assert counts == (256,) * 3 + (180,) * 3 + (126,) * 3 + (89,) * 3
  assert _model(keep=0.5).visual_counts == (16, 8, 8, 4)
  assert _model().visual_counts == (16,) * 4


@pytest.mark.parametrize("position", ["sine-full", "learnable"])
@pytest.mark.parametrize("stacks", [1, 2])
def test_tokens_that_keypoints_look_at_stay(position, stacks):
  model = _model(keep=0.5, position=position, stacks=stacks)
  params, state = jax.device_get(_weights(model))
  _, captured = jax.device_get(
    _apply(model, params, state, _images(model), capture=True)
  )
  k, counts = model.num_keypoints, model.visual_counts
  table = {**params, **state}["position_table"]
  code = np.asarray(table) if position == "sine-full" else None
  for s in range(stacks):
    there = np.tile(np.arange(16), (2, 1))
    last = captured["embed"]
    if s:  # those that were left out are back
      blocks = [captured[f"block.{s - 1}.{i}"] for i in range(4)]
      kept = [captured[f"kept.{s - 1}.{i}"] for i in (1, 2, 3)]
      last = blocks[0].copy()
      for b in range(2):
        last[b, k + kept[1][b]] = blocks[2][b, k:]
        last[b, k + kept[2][b]] = blocks[3][b, k:]
        last[b, :k] = blocks[3][b, :k]
    for i in range(4):
      if i and counts[i] < counts[i - 1]:
        received = captured[f"attention.{s}.{i - 1}"][:, :, :k, k:]
        received = received.mean(1).sum(1)
        best = np.sort(np.argsort(-received, 1)[:, : counts[i]], 1)
        there = np.take_along_axis(there, best, 1)
        np.testing.assert_array_equal(captured[f"kept.{s}.{i}"], there)
        last = np.concatenate(
          [last[:, :k], np.take_along_axis(last[:, k:], best[..., None], 1)], 1
        )
      x = np.float64(last)
      if i and code is not None:
        x[:, k:] += code[there]
      wanted = by_hand.attention(model, params["stacks"][str(s)][str(i)], x)
      found = captured[f"attention.{s}.{i}"]
      np.testing.assert_allclose(found, wanted, atol=1e-5)
      last = captured[f"block.{s}.{i}"]
      assert last.shape[1] == k + counts[i]


def test_ties_and_order():
  received = jnp.array([[1.0, 3.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
  stay = pruning.largest(received, 2)
  np.testing.assert_array_equal(pruning.indices(stay), [[1, 3], [0, 1]])
  np.testing.assert_array_equal(stay.sum(-1), 1)
  x = jnp.arange(12.0).reshape(1, 6, 2)
  some = pruning.taken(x, stay[:1])
  np.testing.assert_array_equal(some[0, :, 0], [0, 2, 6, 10])
  back = pruning.put_back(x, stay[:1], -some)
  np.testing.assert_array_equal(back[0, :, 0], [0, -2, 4, -6, 8, -10])
  again = pruning.largest(jnp.array([[1.0, 2.0]]), 1)
  both = pruning.joined(stay[:1], again)
  np.testing.assert_array_equal(pruning.indices(both), [[3]])


def test_the_largest_are_those_of_a_sort():
  received = np.random.default_rng(0).integers(0, 40, (9, 64)).astype("f4")
  for count in (1, 17, 63, 64):
    order = np.argsort(-received, 1, kind="stable")[:, :count]
    stay = pruning.largest(jnp.asarray(received), count)
    np.testing.assert_array_equal(pruning.indices(stay), np.sort(order, 1))


def test_a_second_pass_goes_on_from_the_first():
  # Without a backbone, whose batch norm knows a training.
  model = _model(cycles=2, backbone="none", patch_hw=(16, 12))
  weights = _weights(model)
  batch = tiny.heatmap_batch(model)
  images = tp.normalize(batch.image)
  (first, second), _ = tiny.train_passes(model, *weights, images)
  once = dataclasses.replace(model, cycles=1)
  (alone,), _ = tiny.train_passes(once, *weights, images)
  jax.tree.map(np.testing.assert_array_equal, first, alone)
  # Blocks that were there twice: the same weights, two stacks in a row.
  params, state = weights
  twice = dataclasses.replace(once, stacks=2)
  joined = params | {
    "stacks": {str(s): params["stacks"]["0"] for s in range(2)},
    "head": tp.init(twice, 0)[0]["head"],
  }
  _, captured = _apply(twice, joined, state, images, capture=True)
  np.testing.assert_allclose(second.tokens, captured["block.1.3"], atol=1e-5)
  found = tiny.of_batch(model, *weights, batch, loss_weights=LossWeights(0.5))
  wanted = sum(
    float(losses.mse(one.heatmaps, *batch[1:4])) for one in (first, second)
  )
  k, seen = model.num_keypoints, batch.mask > 0
  squares = np.square(np.float64(first.tokens) - second.tokens)[seen]
  wanted += 0.5 * (squares[:, :k].mean() + squares[:, k:].mean())
  np.testing.assert_allclose(found.loss, wanted, rtol=1e-5)
  np.testing.assert_allclose(found.heatmaps, first.heatmaps, atol=1e-6)
  for leaf in jax.tree.leaves(found.gradient):
    assert np.isfinite(leaf).all()
    assert np.abs(leaf).max() > 0


def test_all_of_it_at_once_compiles_once():
  model = _model(
    cycles=2,
    keep=0.5,
    stacks=2,
    backbone="none",
    patch_hw=(16, 12),
    depth=2,
    prune_before=(1,),
  )
  weights = _weights(model)

  step = jax.jit(
    functools.partial(
      gradients.of_batch, model, microbatches=2, loss_weights=LossWeights(1.0)
    )
  )
  for seed in range(3):
    found = step(*weights, tiny.heatmap_batch(model, seed))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found.gradient))
  assert step._cache_size() == 1


def test_prunings_begin_one_after_the_other(monkeypatch, tmp_path):
  """The last block's first; a program for each stretch, also after a stop."""
  counts = []
  jitted = train.jit_train_step

  def counting(*arguments):
    counts.append(arguments[-1])
    return jitted(*arguments)

  monkeypatch.setattr(train, "jit_train_step", counting)
  fields = {
    "model__depth": 4,
    "model__keep": 0.5,
    "model__prune_before": (1, 3),
    "model__backbone": "none",
    "model__patch_hw": (16, 12),
    "train__keep_epochs": 2.0,  # 10 steps
  }
  for steps in (7, 12):
    settings = tiny.config(**fields, train__steps=steps)
    noise_runs.run(settings, tmp_path, people=80)
  assert counts == [0, 1, 1, 2]
  model = ModelConfig.of(settings.model)
  assert [model.with_prunings(n).visual_counts for n in range(3)] == [
    *((16,) * 4, (16, 16, 16, 8), (16, 8, 8, 4)),
  ]
  assert train.prunings_at(tiny.config(train__keep_epochs=9.0), 1.0) == 3


def test_evidence_has_all_tokens():
  model = _model(keep=0.5)
  codec = config_lib.codec_with(model, {})
  crops = np.random.default_rng(0).integers(
    0, 256, (2, *model.input_hw, 3), np.uint8
  )
  weights = _weights(model)
  found = evidence.look(*weights, crops, model=model, codec=codec, roll=True)
  assert found.attention.shape == (4, 2, 2, 17, 17 + 16)
  np.testing.assert_allclose(found.attention.sum(-1), 1, atol=1e-5)
  np.testing.assert_allclose(found.rollout.sum(-1), 1, atol=1e-5)
  there = (found.attention > 0).any((2, 3))[..., 17:]
  np.testing.assert_array_equal(found.kept, there)
  np.testing.assert_array_equal(
    there.sum(-1), np.array([[16], [8], [8], [4]]) * [1, 1]
  )


@pytest.mark.parametrize(
  ("changes", "wanted"),
  [
    ({"cycles": 0}, "model.cycles is 0; it must be at least 1"),
    ({"keep": 0.0}, "model.keep is 0.0; it must be in (0, 1]"),
    ({"keep": 1.5}, "model.keep is 1.5; it must be in (0, 1]"),
    ({"keep": "much"}, "model.keep is 'much'; it must be a number"),
    (
      {"keep": 0.5, "prune_before": (3, 4)},
      "model.prune_before is (3, 4); with model.keep below 1 it must be"
      " ascending blocks from 1 to model.depth - 1 = 3",
    ),
    ({"keep": 0.5, "prune_before": (2, 1)}, "model.prune_before is (2, 1)"),
    ({"prune_before": "3"}, "model.prune_before is 3; it must be numbers"),
  ],
)
def test_what_cannot_be(changes, wanted):
  with pytest.raises(tp.InputError, match=re.escape(wanted)):
    _model(**changes)


def test_weights_pass_between_all_of_them():
  one = _model()
  for other in (_model(cycles=3), _model(keep=0.3, prune_before=(2,))):
    assert checkpoint.network_differences(one, other) == {}
    jax.tree.map(
      lambda a, b: np.testing.assert_array_equal(a.shape, b.shape),
      _weights(one),
      _weights(other),
    )


def test_cost_of_what_is_left():
  plain, less = (
    cost.summarize(dataclasses.replace(_model(), keep=keep), 1)
    for keep in (1.0, 0.5)
  )
  assert less["total"].parameters == plain["total"].parameters
  names = [name for name in less if "blocks" in name]
  assert names == [
    *("1 blocks, 33 tokens", "2 blocks, 25 tokens", "1 blocks, 21 tokens"),
  ]
  # Layers of a block cost by token, its products by the square.
  per_token = plain["4 blocks"].layers / (4 * 33)
  assert less["2 blocks, 25 tokens"].layers == round(2 * 25 * per_token)
  per_pair = plain["4 blocks"].attention / (4 * 33**2)
  assert less["1 blocks, 21 tokens"].attention == round(21**2 * per_pair)
