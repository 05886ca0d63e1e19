"""metrics/nms.py, with oks.py beneath it, against the fixtures."""

import numpy as np
import pytest

from tests import fixtures
from tokenpose_jax import skeletons
from tokenpose_jax.metrics import nms, oks

SIGMAS = np.array(skeletons.COCO_17.sigmas)


@pytest.mark.parametrize("case", fixtures.eval_cases("oks_nms"))
def test_oks_nms_fixture(case):
  expected, arrays = fixtures.eval_case("oks_nms", case)
  keypoints, areas = arrays["keypoints"], arrays["area"]
  seen = keypoints[..., 2] > 0.2
  scores = oks.rescore(arrays["box_score"], keypoints[..., 2])
  np.testing.assert_allclose(scores, arrays["rescored"], atol=1e-9)
  for visible, name in ((None, "oks_matrix"), (seen, "oks_matrix_in_vis_0.2")):
    matrix = oks.oks_matrix(keypoints, areas, SIGMAS, visible)
    # The original subtracts coordinates in float32.
    np.testing.assert_allclose(matrix, arrays[name], atol=1e-7)
  rules = {
    "keep": (nms.oks_nms, None),
    "keep_in_vis": (nms.oks_nms, seen),
    "soft_keep": (nms.soft_oks_nms, None),
  }
  for name, (rule, visible) in rules.items():
    assert expected[name]
    for threshold, keep in expected[name].items():
      args = (keypoints, scores, areas, SIGMAS, float(threshold), visible)
      assert rule(*args).tolist() == keep, (name, threshold)
  for threshold, keep in expected["keep"].items():
    args = (keypoints, scores, areas, SIGMAS, float(threshold))
    kept = nms.oks_nms_by_image(np.zeros(len(scores), int), *args)
    assert np.flatnonzero(kept).tolist() == sorted(keep)


def test_nms_takes_the_first_of_equal_scores_and_the_bound_is_exclusive():
  keypoints, areas = np.zeros((3, 17, 2)), np.full(3, 1000.0)
  keypoints[2] += 500
  keep = nms.oks_nms(keypoints, [0.5, 0.5, 0.9], areas, SIGMAS)
  assert keep.tolist() == [2, 0]
  keep = nms.oks_nms(keypoints, [0.5, 0.6, 0.9], areas, SIGMAS, threshold=1.0)
  assert keep.tolist() == [2, 1, 0]
  keep = nms.soft_oks_nms(keypoints, [0.9, 0.8, 0.5], areas, SIGMAS)
  assert keep.tolist() == [0, 2, 1]


def test_soft_nms_stops_at_20_and_leaves_the_scores_alone():
  scores = np.linspace(1, 0.1, 30)
  keypoints, areas = np.zeros((30, 17, 2)), np.full(30, 1000.0)
  assert len(nms.soft_oks_nms(keypoints, scores, areas, SIGMAS)) == 20
  np.testing.assert_array_equal(scores, np.linspace(1, 0.1, 30))


@pytest.mark.parametrize("rule", [nms.oks_nms, nms.soft_oks_nms])
def test_nms_of_nothing_is_nothing(rule):
  assert rule(np.zeros((0, 17, 2)), [], [], SIGMAS).tolist() == []


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.75, 0.9, 0.99])
@pytest.mark.parametrize("k", [1, 2, 5, 17])
def test_nms_of_all_images_is_that_of_each(k, threshold):
  rng = np.random.default_rng(k)
  number, sigmas = 400, rng.uniform(0.02, 0.1, k)
  images = rng.choice(
    [3, 5, 8, 1000, -7], number, p=[0.5, 0.3, 0.1, 0.05, 0.05]
  )
  # People seen over and over, more and less exactly; some scores are equal.
  points = rng.uniform(0, 200, (9, k, 2))[rng.integers(0, 9, number)]
  points += rng.normal(size=points.shape) * rng.choice(
    [0, 1, 4, 30], (number, 1, 1)
  )
  scores = rng.random(number).round(2)
  areas = rng.uniform(500, 9000, number)
  found = nms.oks_nms_by_image(images, points, scores, areas, sigmas, threshold)
  wanted = np.zeros(number, bool)
  for image in np.unique(images):
    own = np.flatnonzero(images == image)
    keep = nms.oks_nms(points[own], scores[own], areas[own], sigmas, threshold)
    wanted[own[keep]] = True
  np.testing.assert_array_equal(found, wanted)
  assert 0 < found.sum() < number


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda k: nms.oks_nms(k, [1.0], [1.0, 1.0], SIGMAS), "scores has"),
    (lambda k: nms.oks_nms(k, [1.0, 0.5], [1.0], SIGMAS), "areas has"),
    (lambda k: nms.oks_nms(k, [1.0, 0.5], [1.0, 1.0], [0.1]), "sigmas has"),
  ],
)
def test_shapes_that_do_not_fit(call, message):
  with pytest.raises(ValueError, match=message):
    call(np.zeros((2, 17, 2)))
