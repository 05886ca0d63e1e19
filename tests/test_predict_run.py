"""Sources in, people out."""

import cv2
import numpy as np
import pytest

from tests import moving
from tokenpose_jax import InputError
from tokenpose_jax.predict import boxes as boxes_lib
from tokenpose_jax.predict import run as run_lib
from tokenpose_jax.predict import sources as sources_lib


class Kept:
  """A writer that keeps what it is given."""

  def __init__(self):
    self.items = []

  def add(self, item):
    self.items.append(item)

  def close(self):
    pass


class Counting(boxes_lib.Detected):
  """A detector that counts how often it is asked."""

  def __init__(self):
    self.calls = 0
    super().__init__(self.find, 0.3)

  def find(self, image):
    self.calls += 1
    return moving.find(image)


def run(inputs, boxes, nms=1.0, **following):
  kept, steps = Kept(), []
  whole = run_lib.Run(
    moving.estimator(),
    boxes,
    boxes_lib.ImageIds(),
    [kept],
    run_lib.Following(**following),
    steps.append,
    nms,
  )
  count = whole(sources_lib.find(inputs)[0])
  assert sum(steps) == count.frames == len(kept.items)
  return kept.items, count


def off(item):
  """How far the people of a frame are from where they were drawn."""
  found = np.nanmean(item.poses.keypoints, axis=1)
  return np.abs(found - moving.centers(item.frame.number)).max()


def test_photos_come_in_order_and_broken_ones_are_named(tmp_path):
  for n in range(40):
    cv2.imwrite(str(tmp_path / f"{n:03d}.png"), moving.frame(n))
  (tmp_path / "007.png").write_text("text")
  (tmp_path / "039.png").write_text("")
  items, count = run([str(tmp_path)], Counting())
  numbers = [n for n in range(39) if n != 7]
  assert [i.image_id for i in items] == numbers
  for n, item in zip(numbers, items, strict=True):
    np.testing.assert_array_equal(item.frame.image, moving.frame(n))
    found = np.nanmean(item.poses.keypoints, axis=1)
    assert np.abs(found - moving.centers(n)).max() < 3
    # The box's score times that of the keypoints.
    assert 0.5 < item.poses.person_scores[0] <= 0.8
  assert [p[-7:] for p, _ in count.broken] == ["007.png", "039.png"]
  assert count.people == 76
  lines = run_lib.describe(count)
  assert lines[0] == "38 photos and frames, 76 people"
  assert "007.png: not an image" in lines[1]


def test_people_of_a_video_keep_their_ids(tmp_path):
  boxes = Counting()
  items, count = run([moving.video(tmp_path / "a.mp4")], boxes)
  assert (boxes.calls, count.frames, count.broken) == (20, 20, [])
  assert [i.frame.number for i in items] == list(range(20))
  assert all(i.ids.tolist() == [0, 1] for i in items)
  assert items[3].image_id == "a.mp4#3"
  assert max(map(off, items)) < 3


def test_between_detections_boxes_come_from_the_poses(tmp_path):
  boxes = Counting()
  path = moving.video(tmp_path / "a.mp4")
  items, _ = run([path], boxes, detect_every=5, track=False)
  assert boxes.calls == 4
  assert all(len(i.poses) == 2 for i in items)
  assert all((i.ids == -1).all() for i in items)


def test_an_empty_video_of_people_is_looked_at_every_frame(tmp_path):
  boxes = boxes_lib.Detected(lambda _: [], 0.3)
  items, count = run(
    [moving.video(tmp_path / "a.mp4", 6)], boxes, detect_every=3
  )
  assert (count.frames, count.people) == (6, 0)
  assert all(len(i.poses) == 0 for i in items)


def test_a_full_disk_is_one_line(tmp_path):
  class Full(Kept):
    def add(self, item):
      raise OSError(28, "No space left on device")

  whole = run_lib.Run(
    moving.estimator(),
    Counting(),
    boxes_lib.ImageIds(),
    [Full()],
    run_lib.Following(),
    lambda _: None,
  )
  sources = sources_lib.find([moving.video(tmp_path / "a.mp4", 4)])[0]
  with pytest.raises(InputError, match=r"people of a.mp4: .*No space left"):
    whole(sources)


def test_smooth_keypoints_tremble_less(tmp_path):
  path = moving.video(tmp_path / "a.mp4")

  def boxes():
    rng = np.random.default_rng(0)

    def find(image):
      found = moving.find(image)
      found[:, :2] += rng.normal(0, 1, (len(found), 2))
      return found

    return boxes_lib.Detected(find, 0.3)

  rough, _ = run([path], boxes())
  smooth, _ = run([path], boxes(), smooth=1.0)

  def jitter(items):
    points = np.array([i.poses.keypoints for i in items])
    return np.abs(np.diff(points, 2, axis=0)).mean()

  assert jitter(smooth) < 0.75 * jitter(rough)


def test_a_damaged_video_is_kept_as_far_as_it_goes(tmp_path):
  whole = tmp_path / "a.mkv"
  moving.video(whole, 40)
  raw = whole.read_bytes()
  cut = tmp_path / "b.mkv"
  cut.write_bytes(raw[: len(raw) * 2 // 3])
  items, count = run([str(cut)], Counting())
  assert 0 < count.frames < 40
  assert len(items) == count.frames
  (tmp_path / "c.mp4").write_text("text")
  items, count = run([str(tmp_path / "c.mp4"), str(whole)], Counting())
  assert count.frames == 40
  assert "c.mp4" in count.broken[0][0]


def twice(image):
  """Each person, and once more with a lower score and a smaller box."""
  found = moving.find(image)
  again = found * [1, 1, 1, 1, 0.5] + [0.5, 0.5, -1, -1, 0]
  return np.concatenate([again, found, [[200, 0, 10, 10, 0.9]]])


def test_of_two_poses_of_one_person_the_better_one_stays(tmp_path):
  cv2.imwrite(str(tmp_path / "1.png"), moving.frame(1))
  boxes = boxes_lib.Detected(twice, 0.3)
  (item,), count = run([str(tmp_path)], boxes)
  assert (len(item.poses), count.people, count.doubles) == (5, 4, 0)
  (item,), count = run([str(tmp_path)], boxes, nms=0.9)
  # The box outside of the photo is no double of anything.
  assert item.box_scores.tolist() == [0.8, 0.8, 0.9]
  assert np.isnan(item.poses.keypoints[2]).all()
  assert (count.people, count.doubles) == (2, 2)
  assert "2 poses left out" in run_lib.describe(count)[1]
