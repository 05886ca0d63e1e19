"""What a prediction leaves behind, whole at any time."""

import csv
import json

import av
import cv2
import numpy as np

from tokenpose_jax.predict import writers
from tokenpose_jax.predict.estimator import Poses
from tokenpose_jax.predict.sources import Frame, Source
from tokenpose_jax.skeletons import COCO_17

PHOTO = Source("p/a.jpg", "a.jpg", "photo")
VIDEO = Source("p/v.mp4", "v.mp4", "video")
IMAGE = np.full((64, 96, 3), 90, np.uint8)


def item(source=PHOTO, number=None, count=2, lost=()):
  rng = np.random.default_rng(number or 0)
  keypoints = rng.uniform(5, 60, (count, 17, 2)).astype(np.float32)
  scores = np.full((count, 17), 0.5, np.float32)
  for n in lost:
    keypoints[n], scores[n] = np.nan, 0
  poses = Poses(
    keypoints,
    scores,
    scores.mean(1),
    np.array([[5.0, 5, 50, 50]] * count).reshape(-1, 4),
    COCO_17,
  )
  ids = np.arange(count) if number is not None else np.full(count, -1)
  return writers.Written(
    source,
    Frame(IMAGE, number, None if number is None else number / 25),
    poses,
    np.ones(count),
    ids,
    7,
    0.0 if number is None else 25.0,
  )


def made(tmp_path, *kinds):
  found = writers.writers(kinds, str(tmp_path), COCO_17, category_id=3)
  return found


def test_results_are_whole_after_every_frame(tmp_path):
  (writer,) = made(tmp_path, "coco")
  path = tmp_path / "results.json"
  assert json.loads(path.read_text()) == []
  writer.add(item(count=0))
  assert json.loads(path.read_text()) == []
  for n in range(1, 4):
    writer.add(item(VIDEO, number=n, lost=[0]))
    results = json.loads(path.read_text())
    assert len(results) == n
  writer.close()
  one = item(VIDEO, number=3)
  assert (results[2]["category_id"], results[2]["track_id"]) == (3, 1)
  flat = np.column_stack([one.poses.keypoints[1], one.poses.scores[1]])
  np.testing.assert_allclose(results[2]["keypoints"], flat.ravel())


def test_a_table_has_a_row_for_every_person(tmp_path):
  (writer,) = made(tmp_path, "csv")
  writer.add(item(lost=[1]))
  writer.add(item(VIDEO, number=5, count=1))
  with open(tmp_path / "keypoints.csv", newline="") as file:
    rows = list(csv.DictReader(file))
  writer.close()
  assert [r["image"] for r in rows] == ["a.jpg", "a.jpg", "v.mp4"]
  assert [r["person"] for r in rows] == ["0", "1", "0"]
  assert [r["track"] for r in rows] == ["", "", "0"]
  assert (rows[2]["frame"], rows[2]["time"]) == ("5", "0.2")
  points = item().poses.keypoints
  assert abs(float(rows[0]["left_hip_x"]) - points[0, 11, 0]) < 1e-3
  assert (rows[1]["nose_x"], rows[1]["nose_score"]) == ("", "0.0")
  assert rows[0]["box_w"] == "50.0"


def test_named_keypoints(tmp_path):
  (writer,) = made(tmp_path, "json")
  writer.add(item(lost=[1]))
  photo = json.loads((tmp_path / "json" / "a.jpg.json").read_text())
  for n in range(3):
    writer.add(item(VIDEO, number=n))
    lines = (tmp_path / "json" / "v.mp4.jsonl").read_text().splitlines()
    assert json.loads(lines[n])["frame"] == n
  writer.close()
  assert (photo["image"], photo["image_id"]) == ("a.jpg", 7)
  assert (photo["width"], photo["height"]) == (96, 64)
  nose = photo["people"][0]["keypoints"]["nose"]
  x, y = item().poses.keypoints[0, 0]
  assert abs(nose["x"] - x) < 1e-3
  assert abs(nose["y"] - y) < 1e-3
  assert photo["people"][1]["keypoints"]["nose"] == {
    "x": None,
    "y": None,
    "score": 0.0,
  }
  assert [p.get("track") for p in json.loads(lines[2])["people"]] == [0, 1]


def test_drawings(tmp_path):
  (writer,) = made(tmp_path, "drawn")
  nested = PHOTO._replace(name="sub/b.png")
  writer.add(item())
  writer.add(item(nested))
  writer.close()
  for name in ("a.jpg", "sub/b.png.jpg"):
    drawn = cv2.imread(str(tmp_path / "drawn" / name))
    assert drawn.shape == IMAGE.shape
    assert (np.abs(drawn.astype(int) - 90) > 60).any()


def test_a_drawn_video_plays_without_its_end(tmp_path):
  (writer,) = made(tmp_path, "drawn")
  for n in range(90):
    writer.add(item(VIDEO, number=n))
  # Killed here: the file was not closed.
  raw = (tmp_path / "drawn" / "v.mp4").read_bytes()
  writer.close()
  (tmp_path / "cut.mp4").write_bytes(raw)

  def frames(path):
    with av.open(str(path)) as container:
      return [f.time for f in container.decode(video=0)]

  whole = frames(tmp_path / "drawn" / "v.mp4")
  np.testing.assert_allclose(whole, np.arange(90) / 25, atol=1e-3)
  assert len(frames(tmp_path / "cut.mp4")) >= 20
