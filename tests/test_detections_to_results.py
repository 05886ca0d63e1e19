"""From detections to COCO's results: rescoring, NMS, plain JSON."""

import json
import tracemalloc

import numpy as np
import pytest

from tests import fixtures
from tokenpose_jax import skeletons
from tokenpose_jax.metrics import coco

SIGMAS = np.array(skeletons.COCO_17.sigmas)
# The fixtures' names for coco.FIGURES.
FIXTURE_NAMES = (
  *("AP", "Ap .5", "AP .75", "AP (M)", "AP (L)"),
  *("AR", "AR .5", "AR .75", "AR (M)", "AR (L)"),
)
SETTINGS = {
  "default_oks0.9_vis0.2": {},
  "oks0.5_vis0.0": {"nms_threshold": 0.5, "min_keypoint_score": 0.0},
  "soft_oks0.9_vis0.2": {"soft": True},
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("case", fixtures.eval_cases("coco_ap"))
def test_coco_ap_fixture(case, setting):
  facts, arrays = fixtures.eval_case("coco_ap", case)
  expected = facts["results"][setting]
  keypoints, boxes = arrays["keypoints"], arrays["boxes"]
  results = coco.detections_to_results(
    arrays["image_id"],
    keypoints[..., :2],
    keypoints[..., 2],
    boxes[:, 5],
    boxes[:, 4],
    SIGMAS,
    **SETTINGS[setting],
  )
  scores = sorted((result["score"] for result in results), reverse=True)
  assert len(results) == expected["kept"]
  assert sum(scores) == pytest.approx(expected["score_sum"], abs=1e-4)
  assert scores[:5] == pytest.approx(expected["top_scores"], abs=1e-6)
  for image_id, number in expected["kept_per_first_images"].items():
    assert sum(r["image_id"] == int(image_id) for r in results) == number
  figures = coco.evaluate(fixtures.PARITY / "eval" / f"{case}_gt.json", results)
  stats = [expected["stats"][name] for name in FIXTURE_NAMES]
  assert list(figures.values()) == pytest.approx(stats, abs=1e-6)


@pytest.mark.parametrize("case", fixtures.eval_cases("coco_ap"))
def test_coco_ap_fixture_without_rescoring_and_nms(case):
  facts, arrays = fixtures.eval_case("coco_ap", case)
  results = [
    {"image_id": i, "category_id": 1, "keypoints": k.ravel(), "score": s}
    for i, k, s in zip(
      arrays["image_id"],
      arrays["keypoints"],
      arrays["boxes"][:, 5],
      strict=True,
    )
  ]
  figures = coco.evaluate(fixtures.PARITY / "eval" / f"{case}_gt.json", results)
  stats = facts["results"]["plain_cocoeval_no_nms"]["stats"]
  assert list(figures.values()) == pytest.approx(
    [stats[name] for name in FIXTURE_NAMES], abs=1e-6
  )


def _four_detections() -> dict:
  """Image 7: a person, somebody else, the person again; image 3: a person."""
  keypoints = np.zeros((4, 2, 2), np.float32)
  keypoints[1] = [[1, 2], [3, 4]]
  keypoints[2] += 500
  return {
    "image_ids": np.array([7, 3, 7, 7], np.int32),
    "keypoints": keypoints,
    "keypoint_scores": np.full((4, 2), 0.5, np.float32),
    "box_scores": [0.2, 0.4, 0.8, 1.0],
    "areas": [1000.0] * 4,
    "sigmas": [0.1, 0.1],
  }


def test_results_are_ordered_and_plain():
  results = coco.detections_to_results(**_four_detections(), category_ids=5)
  found = [(result["image_id"], result["score"]) for result in results]
  assert found == [(7, 0.5), (7, 0.4), (3, 0.2)]
  assert results[2]["keypoints"] == [1, 2, 0.5, 3, 4, 0.5]
  assert all(result["category_id"] == 5 for result in results)
  assert json.loads(json.dumps(results)) == results


def test_soft_nms_leaves_the_results_in_order_of_their_scores():
  # It takes the other person second: the same one again is demoted.
  detections = _four_detections() | {"box_scores": [0.9, 0.4, 0.8, 1.0]}
  results = coco.detections_to_results(**detections, soft=True)
  assert [r["score"] for r in results] == [0.5, 0.45, 0.4, 0.2]


def test_images_do_not_suppress_each_other_and_nms_can_be_off():
  detections = _four_detections()
  detections["keypoints"][:] = 0
  for threshold in (None, 1.0, 1.5):
    results = coco.detections_to_results(**detections, nms_threshold=threshold)
    assert [r["score"] for r in results] == [0.5, 0.4, 0.1, 0.2]
    assert [r["image_id"] for r in results] == [7, 7, 7, 3]
  results = coco.detections_to_results(**detections)
  assert [(r["image_id"], r["score"]) for r in results] == [(7, 0.5), (3, 0.2)]


def test_image_ids_may_be_text():
  detections = _four_detections() | {"image_ids": ["b", "a", "c", "b"]}
  detections["keypoints"][3] += 500
  results = coco.detections_to_results(**detections)
  assert [r["image_id"] for r in results] == ["b", "b", "a", "c"]
  json.dumps(results)


def test_no_detections_make_no_results():
  assert coco.detections_to_results([], [], [], [], [], SIGMAS) == []


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("keypoints", np.full((4, 2, 2), np.nan), r"detection 0 \(image_id .*NaN"),
    ("box_scores", [1.0, np.inf, 1.0, 1.0], "detection 1"),
    ("areas", [1.0, 1.0, np.nan, 1.0], "detection 2"),
    ("areas", [1.0] * 5, "do not fit"),
    ("image_ids", [1, 2, 3], "do not fit"),
    ("keypoint_scores", np.ones((4, 3)), "do not fit"),
    ("box_scores", [1.0], "do not fit"),
    ("sigmas", [0.1], "sigmas"),
  ],
)
def test_detections_that_do_not_fit(field, value, message):
  with pytest.raises(ValueError, match=message):
    coco.detections_to_results(**_four_detections() | {field: value})


def test_a_whole_validation_set_at_once():
  """Nothing is held for every pair of detections: that would be 80 GB."""
  rng = np.random.default_rng(0)
  number = 100_000
  detections = (
    rng.integers(0, 5000, number),
    rng.uniform(0, 600, (number, 17, 2)),
    rng.random((number, 17)),
    rng.random(number),
    rng.uniform(1e3, 1e5, number),
  )
  tracemalloc.start()
  results = coco.detections_to_results(*detections, SIGMAS)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert len(results) == number
  assert peak < 1e9  # measured: 0.3 GB
