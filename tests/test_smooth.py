"""The One-Euro filter: less tremble, little lag, in any size and rate."""

import numpy as np
import pytest

from tokenpose_jax.predict.smooth import Smoother

K = 17
REST = np.random.default_rng(0).uniform(0, 100, (1, K, 2))
ONE = np.array([0])
SURE = np.full((1, K), 0.9)


def filtered(path, rate=25.0, scores=SURE, **options):
  """A path (frames, 1, K, 2) after the filter."""
  smoother = Smoother(**options)
  return np.array(
    [smoother(ONE, p, scores, n / rate) for n, p in enumerate(path)]
  )


def jitter(path):
  return np.abs(np.diff(path, 2, axis=0)).mean()


def still(frames=100, spread=1.5):
  noise = np.random.default_rng(1).normal(0, spread, (frames, 1, K, 2))
  return REST + noise


def test_still_people_do_not_tremble():
  path = still()
  smooth = filtered(path)
  assert jitter(smooth) < 0.35 * jitter(path)
  # And are where they are.
  assert np.abs(smooth[30:] - REST).mean() < 0.6 * np.abs(path - REST).mean()


def test_moving_people_do_not_lag():
  # Half of their size a second.
  speed = 0.5 * np.hypot(*np.ptp(REST[0], axis=0)) / 25
  path = REST + np.arange(100)[:, None, None, None] * np.array([speed, 0.0])
  behind = (path - filtered(path))[50:, ..., 0] / speed
  assert 0 < behind.mean() < 3  # frames


def test_the_distance_to_the_camera_does_not_matter():
  path = still()
  np.testing.assert_allclose(filtered(path * 7), filtered(path) * 7)


def test_the_rate_hardly_matters():
  path = still(400, spread=0) + 0.0
  path[100:, ..., 0] += 30
  slow = filtered(path[::2], rate=25)
  fast = filtered(path, rate=50)
  assert np.abs(fast[::2] - slow).max() < 6  # of a jump by 30


def test_doubtful_keypoints_move_little():
  path = still()
  path[50:] += 40
  scores = SURE.copy()
  scores[0, 3] = 0.0
  smooth = filtered(path, scores=scores)
  np.testing.assert_allclose(smooth[:, 0, 3], path[:1, 0, 3].repeat(100, 0))


def test_people_are_apart_and_forgotten():
  smoother = Smoother()
  two = np.concatenate([REST, REST + 500])
  scores = np.concatenate([SURE, SURE])
  smoother(np.array([0, 1]), two, scores, 0.0)
  # Their order does not matter, and nobody (-1, NaN) is left as it is.
  there = smoother(np.array([1, 0]), two[::-1], scores, 0.04)
  np.testing.assert_allclose(there, two[::-1])
  away = two + 9
  away[1, 0] = np.nan
  there = smoother(np.array([-1, 1]), away, scores, 0.08)
  np.testing.assert_array_equal(there, away)
  # After seconds, a person starts anew.
  there = smoother(np.array([0, 1]), two + 99, scores, 9.0)
  np.testing.assert_allclose(there, two + 99)


@pytest.mark.parametrize("time", [0.0, -1.0])
def test_a_time_that_does_not_advance(time):
  smoother = Smoother()
  smoother(ONE, REST, SURE, 0.0)
  np.testing.assert_array_equal(smoother(ONE, REST + 5, SURE, time), REST + 5)
