"""Initial values: their distribution, and what they depend on."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util
from scipy import stats

from tests import fixtures, tiny
from tokenpose_jax import (
  checkpoint,
  create_model,
  network,
  optim,
  train_state,
)
from tokenpose_jax.models import initial

SHAPE = (301, 333)  # an odd count: the last pair is cut


def drawn(seed: int, name: str = "kernel", std: float = 0.02) -> np.ndarray:
  tree = {name: initial.normal(std)(None, SHAPE, jnp.float32)}
  return initial.draw(tree, seed)[name]


def test_normal_numbers_are_normal():
  values = drawn(0) / np.float32(0.02)
  assert values.dtype == np.float32
  assert values.shape == SHAPE
  assert stats.kstest(values.ravel(), "norm").pvalue > 0.01
  assert stats.kurtosis(values.ravel()) == pytest.approx(0, abs=0.05)
  # Five deviations: as many as there are to be, within Poisson's noise.
  many = initial.draw({"a": initial.normal(1)(None, (10**7,), jnp.float32)}, 1)
  assert 1 <= np.sum(np.abs(many["a"]) > 5) <= 16  # 5.7 on average


def test_neighbors_know_nothing_of_each_other():
  """Neither in a row nor in a pair, which is half an array apart."""
  values = drawn(0).ravel()
  half = (values.size + 1) // 2
  noise = values.size**-0.5
  for lag in (1, 2, SHAPE[1], half):
    correlation = np.corrcoef(values[:-lag], values[lag:])[0, 1]
    squares = np.corrcoef(values[:-lag] ** 2, values[lag:] ** 2)[0, 1]
    assert abs(correlation) < 6 * noise, lag
    assert abs(squares) < 6 * noise, lag


def test_other_seeds_and_names_draw_something_else():
  first = drawn(0)
  for other in (drawn(1), drawn(-1), drawn(2**70), drawn(0, "bias")):
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.02


def test_a_parameter_depends_on_its_path_alone():
  """Other parts of the network change nothing, nor does their order."""
  small = dataclasses.replace(tiny.model(), depth=1)
  large = dataclasses.replace(small, depth=3, num_keypoints=5, stacks=2)
  one, other = (
    traverse_util.flatten_dict(network.init(model, 3)[0], sep="/")
    for model in (small, large)
  )
  same = [
    name
    for name in one
    if name in other and one[name].shape == other[name].shape
  ]
  assert "stacks/0/0/attention/to_qkv/kernel" in same
  assert "backbone/layer1/3/conv2/conv/kernel" in same
  for name in same:
    np.testing.assert_array_equal(one[name], other[name], err_msg=name)
  assert not np.array_equal(
    other["stacks/0/0/attention/to_qkv/kernel"],
    other["stacks/1/0/attention/to_qkv/kernel"],
  )


def test_another_process_draws_the_same():
  program = (
    "from tests import tiny; from tokenpose_jax import checkpoint, network;"
    "print(checkpoint.fingerprint(network.init(tiny.model(), 7)))"
  )
  done = subprocess.run(
    [sys.executable, "-c", program],
    cwd=fixtures.ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  here = checkpoint.fingerprint(network.init(tiny.model(), 7))
  assert done.stdout.strip() == here


def test_nothing_is_compiled():
  """Not a program of JAX's, whatever the shapes."""
  heard = []

  def hear(event: str, seconds: float, **_) -> None:
    if "backend_compile" in event:
      heard.append(event)

  jax.monitoring.register_event_duration_secs_listener(hear)
  try:
    # A width that no other test has: nothing of it is compiled already.
    model = dataclasses.replace(tiny.model(), dim=52)
    optimizer = optim.create_optimizer(tiny.config().optim, lambda step: 0.1)
    state = train_state.create(model, optimizer, 0, "fan_in")
    assert heard == []
    jax.jit(lambda x: x * 52)(state.params["keypoint_tokens"])
    assert heard
  finally:
    jax.monitoring.unregister_event_duration_listener(hear)


def test_what_keeps_variance_stays_float32():
  for tree in network.init(tiny.model(), 0, "fan_in"):
    for leaf in jax.tree.leaves(tree):
      assert leaf.dtype in (jnp.float32, jnp.int32)


def test_modules_of_flax_have_weights_of_their_seed():
  one, same, other = (
    create_model(tiny.model(), rngs=nnx.Rngs(seed)) for seed in (1, 1, 2)
  )
  kernel = one.head.linear1.kernel[...]
  assert np.array_equal(kernel, same.head.linear1.kernel[...])
  assert not np.array_equal(kernel, other.head.linear1.kernel[...])
  images = jnp.zeros((1, *tiny.model().input_hw, 3))
  assert one(images, train=False).shape == (1, 17, 16, 12)
