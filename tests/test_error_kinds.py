"""metrics/error_kinds.py: kinds of errors, tables by keypoint, calibration."""

import numpy as np
import pytest

from tokenpose_jax import skeletons
from tokenpose_jax.metrics import coco, error_kinds

SKELETON = skeletons.COCO_17
SIGMAS = np.array(SKELETON.sigmas)
LEFT, RIGHT = (
  SKELETON.keypoints.index(f"{s}_wrist") for s in ("left", "right")
)
AREA = 10_000.0


def off(similarity: float, k: int) -> float:
  """The distance at which a keypoint has this similarity, pixels."""
  return float(np.sqrt(-2 * np.log(similarity) * AREA * (2 * SIGMAS[k]) ** 2))


@pytest.fixture
def two():
  """Two people of an image, far apart, found perfectly."""
  rng = np.random.default_rng(0)
  truth = np.stack([np.arange(17) * 100.0, rng.random(17) * 5], -1)
  return np.stack([truth, truth + np.array([0, 3000])])


def kinds_of(found, truth, labelled=None, image=(7, 7)):
  labelled = np.ones(truth.shape[:2], bool) if labelled is None else labelled
  kinds, own = error_kinds.classify(
    found, truth, labelled, np.full(2, AREA), np.array(image), SIGMAS, SKELETON
  )
  return np.array(error_kinds.KINDS)[kinds], own


def test_perfect_is_good(two):
  kinds, own = kinds_of(two, two)
  assert (kinds == "good").all()
  assert (own == 1).all()


@pytest.mark.parametrize(
  ("similarity", "kind"),
  [(0.86, "good"), (0.84, "jitter"), (0.51, "jitter"), (0.49, "miss")],
)
def test_bounds_of_the_similarity(two, similarity, kind):
  found = two.copy()
  found[0, LEFT] += [0, off(similarity, LEFT)]
  kinds, own = kinds_of(found, two)
  assert kinds[0, LEFT] == kind
  assert own[0, LEFT] == pytest.approx(similarity)
  assert (np.delete(kinds[0], LEFT) == "good").all()


def test_inversion_swap_and_miss(two):
  found = two.copy()
  found[0, LEFT] = two[0, RIGHT]
  found[0, RIGHT] = two[1, RIGHT]
  found[1, LEFT] = two[0, RIGHT]  # the other one's, and the other side
  found[1, 0] = two[1, 0] + 1000
  kinds, _ = kinds_of(found, two)
  assert kinds[0, LEFT] == "inversion"
  assert kinds[0, RIGHT] == kinds[1, LEFT] == "swap"
  assert kinds[1, 0] == "miss"
  # In different images nothing is swapped.
  kinds, _ = kinds_of(found, two, image=(7, 8))
  assert kinds[0, RIGHT] == kinds[1, LEFT] == "miss"


def test_unlabelled_keypoints_cannot_be_mistaken(two):
  found, labelled = two.copy(), np.ones((2, 17), bool)
  found[0, LEFT] = two[0, RIGHT]
  labelled[0, RIGHT] = False
  kinds, _ = kinds_of(found, two, labelled)
  assert kinds[0, LEFT] == "miss"


def test_the_nearest_decides_and_middle_keypoints_have_no_side(two):
  truth = two.copy()
  truth[1, LEFT] = truth[0, RIGHT] + [0, off(0.6, LEFT)]
  found = truth.copy()
  found[0, LEFT] = truth[0, RIGHT]
  assert kinds_of(found, truth)[0][0, LEFT] == "inversion"
  found[0, LEFT] = truth[1, LEFT]
  assert kinds_of(found, truth)[0][0, LEFT] == "swap"
  found = two.copy()
  found[0, 0] += 800
  assert kinds_of(found, two)[0][0, 0] == "miss"


def annotation(points, number, **fields):
  seen = np.full((17, 1), 2.0)
  return {
    "id": number,
    "image_id": 1,
    "category_id": 1,
    "iscrowd": 0,
    "area": AREA,
    "bbox": [0.0, 0.0, 1000.0, 400.0],
    "num_keypoints": 17,
    "keypoints": np.concatenate([points, seen], 1).ravel().tolist(),
    **fields,
  }


def result(points, score, confidence=0.9):
  scores = np.full((17, 1), confidence)
  return {
    "image_id": 1,
    "category_id": 1,
    "score": score,
    "keypoints": np.concatenate([points, scores], 1).ravel().tolist(),
  }


def test_tables_of_a_small_evaluation(two):
  """One found, one not; an unlabelled person and a crowd count nowhere."""
  missed, crowd = two[1], two[1] + 5000
  truth = {
    "images": [{"id": 1}],
    "categories": [{"id": 1, "name": "person"}],
    "annotations": [
      annotation(crowd, 1, iscrowd=1),
      annotation(two[0], 2),
      annotation(crowd, 3, num_keypoints=0),
      annotation(missed, 4),
    ],
  }
  found = two[0].copy()
  found[LEFT] = two[0, RIGHT]
  found[0] += [0, 60]  # 0.06 of the box's longer side
  matched = coco.match(
    truth,
    [
      result(two[0] + 900, 0.8, 0.1),
      result(found, 0.9),
      result(crowd, 0.7),  # of a crowd: of somebody
    ],
  )
  tables, detection, labeled, _, similarity, _ = error_kinds.coco_errors(
    matched, SKELETON
  )
  assert tables["people"] == {
    "labelled": 2,
    "found": 1,
    "detections": 3,
    "detections_of_nobody": 1,
  }
  assert tables["errors"]["all"] == {
    "good": 15,
    "jitter": 0,
    "inversion": 1,
    "swap": 0,
    "miss": 1,
  }
  nose = tables["keypoints"][0]
  assert (nose["name"], nose["labelled"]) == ("nose", 2)
  assert (nose["PCK@0.05"], nose["PCK@0.1"]) == (0, 0.5)
  wrist = tables["keypoints"][RIGHT]
  assert (wrist["similarity"], wrist["PCK@0.05"]) == (0.5, 0.5)
  assert tables["errors"]["by_keypoint"]["left_wrist"]["inversion"] == 1
  assert matched.detections[detection[0]]["score"] == 0.9
  assert (similarity[labeled] >= 0.5).sum() == 15


def test_no_detections_and_no_people_make_tables_too(two):
  empty = {
    "images": [{"id": 1}],
    "categories": [{"id": 1, "name": "person"}],
    "annotations": [annotation(two[0], 1)],
  }
  errors = error_kinds.coco_errors(coco.match(empty, []), SKELETON)
  tables = errors.tables
  assert tables["people"]["found"] == 0
  assert tables["keypoints"][0]["similarity"] == 0
  assert len(errors.labeled) == 0
  empty["annotations"] = []
  matched = coco.match(empty, [result(two[0], 0.9)])
  tables = error_kinds.coco_errors(matched, SKELETON).tables
  assert tables["people"]["detections_of_nobody"] == 1
  assert tables["keypoints"][0]["similarity"] == -1


def test_mpii_kinds_by_head_lengths():
  names = skeletons.MPII_16.keypoints
  points = np.arange(16)[:, None] * np.array([[100.0, 0.0]])
  truth = {
    "keypoints": points[None],
    "visible": np.ones((1, 16)),
    "head_boxes": np.array([[0.0, 0, 60, 80]]),  # a head length of 60
  }
  found = points.copy()
  found[0] += [0, 5]
  found[1] += [0, 29]
  found[2] += [0, 31]
  found[names.index("left_wrist")] = points[names.index("right_wrist")]
  tables, _, labeled, _, similarity, _ = error_kinds.mpii_errors(
    found[None], truth, skeletons.MPII_16, np.ones(1, bool)
  )
  by = tables["errors"]["by_keypoint"]
  assert by["right_ankle"]["good"] == by["right_knee"]["jitter"] == 1
  assert by["right_hip"]["miss"] == by["left_wrist"]["inversion"] == 1
  assert (similarity >= 0.5).sum() == 14
  np.testing.assert_allclose(similarity[0, 0], 0.5 ** (5 / 30) ** 2)
  assert labeled.all()
  assert tables["keypoints"][1]["PCKh@0.5"] == 1
  assert tables["keypoints"][1]["PCKh@0.1"] == 0


def test_calibration():
  scores = np.array([0.05, 0.05, 0.95, 0.95, 0.95, 0.95, 1.2, -0.1])
  right = np.array([0, 0, 1, 1, 1, 0, 1, 1], bool)
  table = error_kinds.calibration(scores, right)
  first, last = table["bins"][0], table["bins"][-1]
  assert (first["count"], last["count"]) == (3, 5)
  assert first["right"] == pytest.approx(1 / 3)
  assert last["right"] == 0.8
  gap = (3 * abs(0 - 1 / 3) + 5 * abs(1.0 - 0.8)) / 8
  assert table["error"] == pytest.approx(gap)
  assert table["bins"][4]["right"] == -1
  assert error_kinds.calibration(np.zeros(0), np.zeros(0, bool))["error"] == -1
