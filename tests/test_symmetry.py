"""Do flip pairs mirror each other in the data? Drawn and real people."""

import functools
import json

import numpy as np
import pytest
import scipy.io

from input_pipeline.doctor import symmetry
from input_pipeline.doctor.symmetry import NO_MIRROR, ONE_SIDED, UNPAIRED
from tests import fixtures
from tokenpose_jax.skeletons import COCO_17, MPII_16, Skeleton

# Head, shoulders, hands, hips, feet of a person 2 by 4 who faces the camera.
PLACES = np.array(
  [
    [0, 0.2],
    *([0.6, 1], [-0.6, 1]),
    *([0.9, 2], [-0.9, 2]),
    *([0.3, 2.2], [-0.3, 2.2]),
    *([0.4, 3.8], [-0.4, 3.8]),
  ]
)
PAIRS = ((1, 2), (3, 4), (5, 6), (7, 8))
NAMES = (
  "head",
  *("l_sho", "r_sho", "l_hand", "r_hand"),
  *("l_hip", "r_hip", "l_foot", "r_foot"),
)


def unnamed(pairs, count=9):
  names = [f"point {n}" for n in range(count)]
  return Skeleton.from_dict({"keypoints": names, "flip_pairs": [*pairs]})


def people(number, places=PLACES, seed=0):
  """Arms and legs move; half of the people show their backs."""
  g = fixtures.rng(seed)
  points = places + g.normal(0, 0.15, (number, *places.shape))
  points[..., 0] = 1 + points[..., 0] * g.choice([-1, 1], (number, 1))
  size = g.uniform(10, 100, (number, 1))
  corner = g.uniform(0, 500, (number, 2))
  boxes = np.concatenate([corner, 2 * size, 4 * size], 1)
  points = corner[:, None] + size[..., None] * points
  return points, np.ones(points.shape[:2]), boxes


def found(skeleton, data):
  return [
    (finding.kind, finding.place)
    for finding in symmetry.findings(*data, skeleton, "train")
  ]


def pair(i, j):
  return f"point {i} and point {j}"


def test_pairs_that_mirror_each_other_are_left_alone():
  assert found(unnamed(PAIRS), people(200)) == []
  assert found(Skeleton.from_dict({"keypoints": NAMES}), people(200)) == []


@pytest.mark.parametrize("wrong", [(0, 7), (1, 7), (3, 5), (1, 4)])
def test_a_wrong_pair_is_an_error_and_no_other(wrong):
  pairs = [p for p in PAIRS if not {*p} & {*wrong}] + [wrong]
  assert (NO_MIRROR, pair(*wrong)) in found(unnamed(pairs), people(400))
  kinds = [kind for kind, _ in found(unnamed(pairs), people(400))]
  assert kinds.count(NO_MIRROR) == 1


def test_pairs_that_are_not_given_are_advised():
  wanted = [(UNPAIRED, pair(i, j)) for i, j in PAIRS]
  assert found(unnamed(()), people(400)) == wanted
  assert found(unnamed(PAIRS[1:]), people(400)) == wanted[:1]


def test_a_keypoint_without_a_partner_is_left_alone():
  kept = [0, 1, 3, 4, 7, 8]
  skeleton = unnamed([(2, 3), (4, 5)], 6)
  assert found(skeleton, people(400, PLACES[kept])) == []


@pytest.mark.parametrize("number", [0, 1, 19])
def test_few_people_say_nothing(number):
  assert found(unnamed([(0, 7), (1, 8)]), people(number)) == []


def test_what_names_call_left_and_right_may_differ_in_the_data():
  """Archers: one arm is stretched, the other is not."""
  archers = PLACES.copy()
  archers[3], archers[4] = [2.5, 1], [-0.5, 0.5]
  fields = {"keypoints": NAMES, "flip_pairs": PAIRS}
  skeleton = Skeleton.from_dict(fields)
  assert found(skeleton, people(400, archers)) == [
    (ONE_SIDED, "l_hand and r_hand")
  ]


def test_keypoints_in_another_order_than_the_names_are_an_error():
  order = [8, 7, 6, 5, 4, 3, 2, 1, 0]
  data = people(400, PLACES[order])
  skeleton = Skeleton.from_dict({"keypoints": NAMES, "flip_pairs": PAIRS})
  kinds = [kind for kind, _ in found(skeleton, data)]
  assert set(kinds) == {NO_MIRROR}
  assert len(kinds) > 2


def test_slips_and_what_is_not_labeled_play_no_part():
  points, visible, boxes = people(200)
  points[0, 0] = 1e308
  points[1, 1] = [-1e308, 5]
  visible[2, 3] = 0
  points[2, 3] = np.nan
  boxes[3] = [0, 0, 1e308, 1e308]
  assert found(unnamed(PAIRS), (points, visible, boxes)) == []


@pytest.mark.parametrize("count", [1, 2])
def test_few_keypoints_say_nothing(count):
  data = people(200, PLACES[:count])
  assert found(unnamed((), count), data) == []


# Real people.


@functools.cache
def real(split):
  folder = fixtures.DATA / ("lspet" if split == "lspet" else "coco")
  path = folder / "annotations" / f"person_keypoints_{split}.json"
  content = json.loads(fixtures.require(path).read_text())
  entries = [
    e
    for e in content["annotations"]
    if not e.get("iscrowd") and any(e["keypoints"])
  ]
  points = np.array([e["keypoints"] for e in entries], float)
  points = points.reshape(-1, 17, 3)
  boxes = np.array([e["bbox"] for e in entries], float)
  return points[..., :2], points[..., 2], boxes


REAL = pytest.mark.parametrize("split", ["minitrain", "minival", "lspet"])


def off_by_one():
  return [(a - 1, b - 1) for a, b in COCO_17.flip_pairs]


def changed(*pairs):
  gone = {i for pair in pairs for i in pair}
  return [p for p in COCO_17.flip_pairs if not {*p} & gone] + [*pairs]


@REAL
def test_real_people_are_left_alone(split):
  data = real(split)
  assert found(COCO_17, data) == []
  assert found(unnamed(COCO_17.flip_pairs, 17), data) == []
  half = tuple(array[::7] for array in data)
  assert found(unnamed(COCO_17.flip_pairs, 17), half) == []


@REAL
@pytest.mark.parametrize(
  ("pairs", "wrong"),
  [
    (changed((0, 15)), 1),  # nose, ankle
    (changed((5, 8), (6, 7)), 2),  # shoulders, elbows
    (changed((11, 14), (12, 13)), 2),  # hips, knees
    (changed((3, 5), (4, 6)), 2),  # ears, shoulders
    (off_by_one(), 3),
  ],
)
def test_wrong_pairs_of_real_people_are_errors(split, pairs, wrong):
  kinds = [kind for kind, _ in found(unnamed(pairs, 17), real(split))]
  assert kinds.count(NO_MIRROR) >= wrong
  named = Skeleton.from_dict({**COCO_17.to_dict(), "flip_pairs": pairs})
  assert NO_MIRROR in [kind for kind, _ in found(named, real(split))]


@REAL
def test_real_pairs_are_found_without_names(split):
  wanted = {(UNPAIRED, pair(i, j)) for i, j in COCO_17.flip_pairs}
  assert set(found(unnamed((), 17), real(split))) == wanted


def test_people_of_mpii_are_left_alone():
  path = fixtures.require(fixtures.DATA / "mpii" / "gt_valid.mat")
  content = scipy.io.loadmat(path)
  points = np.moveaxis(content["pos_gt_src"], -1, 0).astype(float)
  visible = 1.0 - content["jnt_missing"].T
  seen = np.where(visible[..., None] > 0, points, np.nan)
  several = (visible > 0).sum(1) > 4
  low, high = np.nanmin(seen[several], 1), np.nanmax(seen[several], 1)
  data = points[several], visible[several], np.hstack([low, high - low])
  assert found(MPII_16, data) == []
