"""A batch in parts has the loss and the gradient of the whole batch."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from tokenpose_jax import config as config_lib
from tokenpose_jax import gradients, network, sharding
from tokenpose_jax.models.config import ModelConfig

WITHOUT_NORM = {"model__backbone": "none", "model__patch_hw": (16, 12)}


def found(settings, microbatches, *, devices=1, masked=()):
  """(what a batch of noise gives in that many parts, the compiled text)."""
  mesh = sharding.create_mesh(jax.devices()[:devices])
  made = tiny.batch(settings)
  made["mask"][list(masked)] = 0
  codec = config_lib.codec_of(settings)
  model = ModelConfig.of(settings.model)
  params, model_state = network.init(model, 0)

  @functools.partial(
    jax.jit,
    in_shardings=(sharding.replicated(mesh), sharding.by_batch(mesh)),
    out_shardings=sharding.replicated(mesh),
  )
  def run(weights, batch):
    targets, joints = codec.encode(batch["keypoints"], batch["visible"])
    whole = gradients.Batch(
      batch["image"], targets, joints * batch["mask"][:, None], batch["mask"]
    )
    return gradients.of_batch(model, *weights, whole, microbatches)

  weights = sharding.put_replicated(mesh, (params, model_state))
  compiled = run.lower(weights, sharding.put_batch(mesh, made)).compile()
  given = compiled(weights, sharding.put_batch(mesh, made))
  return jax.device_get(given), compiled.as_text()


def close(one, other, rtol=1e-4):
  """Up to rounding, each array against its own largest value."""
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    limit = rtol * np.abs(b).max()
    np.testing.assert_allclose(a, b, rtol=0, atol=max(limit, 1e-9))


@pytest.mark.parametrize("microbatches", [2, 4])
@pytest.mark.parametrize("masked", [(), (0, 3, 5, 7, 8), (0, 2, 4, 6, 8, 10)])
def test_parts_sum_to_the_whole(microbatches, masked):
  """Also where the parts have more, fewer or no people that count."""
  settings = tiny.config(train__batch_size=12, **WITHOUT_NORM)
  whole, _ = found(settings, 1, masked=masked)
  parts, _ = found(settings, microbatches, masked=masked)
  assert float(parts.loss) == pytest.approx(float(whole.loss), rel=1e-5)
  close(parts.gradient, whole.gradient)
  # In the order of the batch.
  close(parts.heatmaps, whole.heatmaps)


def test_every_part_is_spread_over_all_devices():
  settings = tiny.config(train__batch_size=32, **WITHOUT_NORM)
  whole, _ = found(settings, 1)
  parts, text = found(settings, 2, devices=8, masked=())
  close(parts.gradient, whole.gradient)
  close(parts.heatmaps, whole.heatmaps)
  # Two people of each part are on each device; no image is sent to another.
  height, width = settings.model.input_hw
  assert re.search(rf"u8\[2,2,{height},{width},3\]", text)
  sent = [
    line
    for line in text.splitlines()
    if re.search(r"= u8\S+ (all-gather|all-to-all|collective-permute)", line)
  ]
  assert sent == []


def test_running_statistics_move_part_by_part():
  settings = tiny.config(train__batch_size=8)
  parts, _ = found(settings, 2)
  model = ModelConfig.of(settings.model)
  params, state = network.init(model, 0)
  images = network.normalize(jnp.asarray(tiny.batch(settings)["image"]))
  apply = jax.jit(network.apply_train, static_argnums=0)
  for half in (images[::2], images[1::2]):
    _, state = apply(model, params, state, half)
  close(parts.model_state, state)
  counts = [leaf for leaf in jax.tree.leaves(state) if leaf.dtype == jnp.int32]
  assert {int(count) for count in counts} == {2}


def test_nobody_counts():
  settings = tiny.config(train__batch_size=4, **WITHOUT_NORM)
  parts, _ = found(settings, 2, masked=range(4))
  assert float(parts.loss) == 0
  assert all(not leaf.any() for leaf in jax.tree.leaves(parts.gradient))
