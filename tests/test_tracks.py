"""Ids through a video, and boxes for its next frame."""

import numpy as np

from tokenpose_jax.predict import tracks
from tokenpose_jax.skeletons import COCO_17

K = 17
SHAPE = np.random.default_rng(0).uniform(0, 1, (3, K, 2)) * [40, 100]


def people(*corners, who=None):
  """(keypoints, scores, boxes) of people at these corners."""
  who = range(len(corners)) if who is None else who
  points = np.array(
    [SHAPE[w] + c for w, c in zip(who, corners, strict=True)]
  ).reshape(-1, K, 2)
  boxes = np.array([[*c, 40.0, 100.0] for c in corners]).reshape(-1, 4)
  return points, np.full(points.shape[:2], 0.9), boxes


def test_people_keep_their_ids_whatever_their_order():
  tracker = tracks.Tracker(COCO_17)
  assert tracker.update(*people((0, 0), (200, 0))).tolist() == [0, 1]
  moved = people((204, 0), (4, 0), who=[1, 0])
  assert tracker.update(*moved).tolist() == [1, 0]


def test_people_who_cross_keep_their_ids():
  tracker = tracks.Tracker(COCO_17)
  for n in range(41):
    ids = tracker.update(*people((5 * n, 0), (200 - 5 * n, 6)))
    assert ids.tolist() == [0, 1], n


def test_a_missed_frame_and_a_longer_absence():
  tracker = tracks.Tracker(COCO_17, most_missed=3)
  walk = [people((8 * n, 0)) for n in range(30)]
  for n in range(5):
    assert tracker.update(*walk[n]).tolist() == [0]
  for _ in (5, 6, 7):
    assert tracker.update(*people()).tolist() == []
  assert tracker.update(*walk[8]).tolist() == [0]
  for _ in (9, 10, 11, 12):
    tracker.update(*people())
  assert tracker.update(*walk[13]).tolist() == [1]


def test_who_comes_is_new_and_who_is_lost_has_no_id():
  tracker = tracks.Tracker(COCO_17)
  tracker.update(*people((0, 0)))
  points, scores, boxes = people((2, 0), (300, 0), (0, 300))
  points[2] = np.nan
  assert tracker.update(points, scores, boxes).tolist() == [0, 1, -1]


def test_the_next_boxes_hold_the_people():
  points, scores, boxes = people((0, 0), (200, 50))
  found, kept = tracks.boxes_of(points, scores, COCO_17)
  assert kept.tolist() == [0, 1]
  low, high = found[:, :2], found[:, :2] + found[:, 2:]
  assert (points > low[:, None]).all()
  assert (points < high[:, None]).all()
  assert (found[:, 2:] < 1.4 * boxes[:, 2:]).all()


def test_who_is_given_up():
  points, scores, _ = people((0, 0), (1, 1), (200, 50), who=[0, 0, 1])
  scores[1] = 0.95  # One pose twice: the better one.
  scores[2, 2:] = 0.1  # Two keypoints are left.
  _, kept = tracks.boxes_of(points, scores, COCO_17)
  assert kept.tolist() == [1]
  points[1, 0] = np.nan
  found, kept = tracks.boxes_of(points, scores, COCO_17)
  assert np.isfinite(found).all()
  found, kept = tracks.boxes_of(*people()[:2], COCO_17)
  assert (found.shape, kept.shape) == ((0, 4), (0,))
