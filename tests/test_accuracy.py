"""metrics/accuracy.py: the training monitor (reference 5.3)."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests import fixtures
from tests.heatmaps import decoding_case, gauss
from tokenpose_jax import codec
from tokenpose_jax.metrics.accuracy import heatmap_accuracy


@pytest.fixture(scope="module", params=fixtures.eval_cases("decode"))
def decoding(request):
  return decoding_case(request.param)


def test_accuracy_is_the_originals_on_square_maps(decoding):
  """There its swapped axes do not matter; ties aside it is the same."""
  flipped = codec.flip(decoding["heatmaps_flipped_input"], decoding["order"])
  height, width = decoding["heatmap_hw"]
  side = slice((height - width) // 2, (height + width) // 2)
  truth = decoding["heatmaps"][:, :, side]
  found = ((decoding["heatmaps"] + flipped) / 2)[:, :, side]
  wanted, weights = original_accuracy(np.asarray(found), np.asarray(truth))
  assert 0 < wanted < 1
  ours = heatmap_accuracy(found, truth, jnp.asarray(weights))
  np.testing.assert_allclose(ours, wanted, rtol=1e-6)


def test_accuracy_as_the_original_has_it(decoding):
  """reference 5.3, from which the module departs: our reading is right."""
  flipped = codec.flip(decoding["heatmaps_flipped_input"], decoding["order"])
  found = np.asarray((decoding["heatmaps"] + flipped) / 2)
  average, _ = original_accuracy(found, np.asarray(decoding["heatmaps"]))
  wanted = decoding["facts"]["accuracy_avg"]
  np.testing.assert_allclose(average, wanted, rtol=1e-6)


def original_accuracy(found, truth):
  """reference 5.3, axes swapped; also which joints count, as weights."""
  height, width = found.shape[-2:]

  def place(maps):
    index = maps.reshape(*maps.shape[:2], -1).argmax(-1)
    points = np.stack([index % width, index // width], -1)
    return np.where(maps.max((-2, -1))[..., None] > 0, points, 0)

  a, b = place(found), place(truth)
  counts = (b > 1).all(-1)
  distance = np.linalg.norm((a - b) / (np.array([height, width]) / 10), axis=-1)
  share = [
    (distance[c, k] < 0.5).mean() for k, c in enumerate(counts.T) if c.any()
  ]
  return np.mean(share), counts.astype(np.float32)


@pytest.mark.parametrize(
  ("dx", "dy", "right"),
  [
    (2, 0, 1),  # 2 / 4.8 < 0.5
    (3, 0, 0),  # 3 / 4.8
    (0, 3, 1),  # 3 / 6.4: the original says no, dividing by 4.8
    (0, 4, 0),  # 4 / 6.4
    (2, 2, 0),  # Euclidean
  ],
)
def test_accuracy_measures_x_by_the_width(dx, dy, right):
  truth = gauss(20, 30)[None, None]
  found = gauss(20 + dx, 30 + dy)[None, None]
  assert heatmap_accuracy(found, truth, jnp.ones((1, 1))) == right


def test_accuracy_averages_joints_that_are_labelled():
  near, far = gauss(20, 30), gauss(40, 10)
  truth = jnp.asarray(np.stack([[near] * 3] * 2))  # 2 people, 3 joints
  found = jnp.asarray(np.array([[near, near, far], [far, near, far]]))
  weights = jnp.ones((2, 3))
  got = heatmap_accuracy(found, truth, weights)
  np.testing.assert_allclose(got, (0.5 + 1 + 0) / 3, rtol=1e-6)
  got = heatmap_accuracy(found, truth, weights.at[:, 2].set(0))
  np.testing.assert_allclose(got, (0.5 + 1) / 2, rtol=1e-6)
  got = heatmap_accuracy(found, truth, weights.at[1, 0].set(0))
  np.testing.assert_allclose(got, (1 + 1 + 0) / 3, rtol=1e-6)
  assert heatmap_accuracy(found, truth, jnp.zeros((2, 3))) == 0
