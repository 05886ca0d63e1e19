"""Synthetic people who walk: the same ones in every frame, exact labels."""

import numpy as np
import pytest

from input_pipeline.synthetic import body as body_lib
from input_pipeline.synthetic import video
from tokenpose_jax.errors import InputError

RATE, COUNT = 5.0, 100


@pytest.fixture(scope="module")
def frames():
  return list(video.draw_frames(seed=1, count=COUNT, rate=RATE))


def by_id(frame):
  return {person["id"]: person for person in frame.people}


def test_one_leaves_one_comes_and_the_others_stay(frames):
  shown = np.array([[n in by_id(f) for n in range(5)] for f in frames])
  assert shown[:, :3].all()
  # Once each: in the picture until, and from, one frame.
  changes = np.diff(shown.astype(int), axis=0)
  assert (changes[:, 3].sum(), np.abs(changes[:, 3]).sum()) == (-1, 1)
  assert (changes[:, 4].sum(), np.abs(changes[:, 4]).sum()) == (1, 1)
  assert shown.sum(1).min() == 4


def test_paths_cross(frames):
  places = np.array(
    [
      [by_id(f)[n]["joints"][11:13].mean(0)[0] for n in range(3)]
      for f in frames
    ]
  )
  order = np.sign(places[:, (0, 0, 1)] - places[:, (1, 2, 2)])
  assert (np.diff(order, axis=0) != 0).sum() >= 6
  covered = [1 - p["area"] / p["silhouette"] for f in frames for p in f.people]
  assert max(covered) > 0.6
  assert np.median(covered) < 0.1


def test_people_walk_smoothly(frames):
  fine = list(video.draw_frames(seed=1, count=50))
  for one, other in ((frames, RATE), (fine, 25.0)):
    for n in range(3):
      joints = np.array([by_id(f)[n]["joints"] for f in one])
      hips = joints[:, 11:13].mean(1)
      speed = np.abs(np.diff(hips, axis=0)) * other
      assert 30 < speed[:, 0].mean() < 200
  joints = np.array([by_id(f)[0]["joints"] for f in fine])
  # Feet that touch the ground stop, no joint jumps.
  jerks = np.abs(np.diff(joints, 2, axis=0))
  assert jerks.max() < 6
  assert jerks.mean() < 0.6


def test_labels_are_consistent(frames):
  for frame in frames:
    assert frame.image.shape == (*video.SIZE, 3)
    assert frame.image.dtype == np.uint8
    for person in frame.people:
      xy, v = person["keypoints"][:, :2], person["keypoints"][:, 2]
      low, size = np.split(person["bbox"], 2)
      assert ((xy >= low - 1) & (xy <= low + size))[v == 2].all()
      np.testing.assert_array_equal(xy[v > 0], person["joints"][v > 0])
      assert (low >= 0).all()
      assert (low + size <= video.SIZE[::-1]).all()
      assert person["area"] <= person["silhouette"] <= np.prod(size)


def test_same_seed_same_video_and_another_seed_another(frames):
  again = next(video.draw_frames(seed=1, count=COUNT, rate=RATE))
  np.testing.assert_array_equal(again.image, frames[0].image)
  other = next(video.draw_frames(seed=2, count=COUNT, rate=RATE))
  assert not np.array_equal(other.image, frames[0].image)


def test_clothes_and_build_do_not_depend_on_the_pose():
  bodies = [
    body_lib.sample_body(
      np.random.default_rng(3), video.gait(np.random.default_rng(4), step)
    )
    for step in (0.0, 0.3)
  ]
  assert len(bodies[0].solids) == len(bodies[1].solids)
  for one, other in zip(*(body.solids for body in bodies), strict=True):
    np.testing.assert_array_equal(one.fabric.color, other.fabric.color)
    assert one.fabric.pattern == other.fabric.pattern
  thighs = [
    np.linalg.norm(body.keypoints[11] - body.keypoints[13]) for body in bodies
  ]
  assert thighs[0] == pytest.approx(thighs[1])
  assert np.abs(bodies[0].keypoints - bodies[1].keypoints).max() > 0.1


@pytest.mark.parametrize(
  "bad", [{"seed": -1}, {"count": 0}, {"rate": 0.0}, {"walkers": 3}]
)
def test_what_cannot_be_drawn_is_refused(bad):
  with pytest.raises(InputError, match="expected 0 or more"):
    video.draw_frames(**bad)
