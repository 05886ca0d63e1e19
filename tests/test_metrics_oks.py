"""metrics/oks.py: similarity of poses, and scores from keypoints."""

import math

import numpy as np
import pytest

from tokenpose_jax import skeletons
from tokenpose_jax.metrics import oks

SIGMAS = np.array(skeletons.COCO_17.sigmas)


def test_oks_of_a_case_done_by_hand():
  a, b = np.zeros((2, 2)), np.array([[3.0, 4.0], [0.0, 0.0]])
  # d^2 = 25, (2 sigma)^2 = 0.04, area = (800 + 200) / 2: e = 0.625.
  assert oks.oks(a, b, 800, 200, [0.1, 0.1]) == pytest.approx(
    (math.exp(-0.625) + 1) / 2, abs=1e-12
  )
  first, none = [True, False], [False, False]
  assert oks.oks(a, b, 800, 200, [0.1, 0.1], first) == pytest.approx(
    math.exp(-0.625), abs=1e-12
  )
  assert oks.oks(a, b, 800, 200, [0.1, 0.1], none) == 0
  assert oks.oks(a, a, 0, 0, [0.1, 0.1]) == 1


def test_oks_matrix_is_the_same_in_pieces():
  """So large that it is made in pieces, against all pairs at once."""
  rng = np.random.default_rng(0)
  count = 400
  keypoints = rng.uniform(0, 50, (count, 17, 3))
  areas = rng.uniform(900, 5000, count)
  visible = rng.random((count, 17)) > 0.5
  # The pieces first: reused memory could hold what the whole left there.
  pieces = oks.oks_matrix(keypoints, areas, SIGMAS, visible)
  whole = oks.oks(
    *(keypoints[:, None], keypoints, areas[:, None], areas),
    *(SIGMAS, visible),
  )
  np.testing.assert_array_equal(pieces, whole)
  for i, j in ((0, 8), (8, 0), (399, 5)):
    one = oks.oks(
      *(keypoints[i], keypoints[j], areas[i], areas[j]),
      *(SIGMAS, visible[j]),
    )
    assert whole[i, j] == pytest.approx(one, abs=1e-12)


def test_rescore_of_a_case_done_by_hand():
  scores = oks.rescore([0.5, 0.8, 1.0], [[0.9, 0.3], [0.2, 0.6], [0.1, 0.2]])
  np.testing.assert_allclose(scores, [0.3, 0.48, 0.0], atol=1e-12)
  scores = oks.rescore([0.5], [[0.9, 0.3]], min_keypoint_score=0.5)
  np.testing.assert_allclose(scores, [0.45], atol=1e-12)


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda k: oks.oks_matrix(k[0], [1.0], SIGMAS), "keypoints has"),
    (lambda k: oks.oks_matrix(k, [1.0] * 2, SIGMAS, [True]), "visible has"),
    (lambda k: oks.rescore([1.0], k[..., 0]), "do not fit"),
  ],
)
def test_shapes_that_do_not_fit(call, message):
  with pytest.raises(ValueError, match=message):
    call(np.zeros((2, 17, 2)))
