"""Synthetic people: exact labels, fair pictures, an ordinary COCO folder."""

import contextlib
import functools
import hashlib
import io
import json
import os

import numpy as np
import pytest
from pycocotools.coco import COCO

from input_pipeline.synthetic import painter
from input_pipeline.synthetic import people as people_lib
from input_pipeline.synthetic.folder import write_coco_folder
from tests import fixtures
from tokenpose_jax import skeletons

NAMES = skeletons.COCO_17.keypoints
LEFT = [i for i, name in enumerate(NAMES) if name.startswith("left_")]
RIGHT = [i + 1 for i in LEFT]
FACE, BODY = slice(0, 5), slice(5, 17)
SHOULDERS = [NAMES.index("left_shoulder"), NAMES.index("right_shoulder")]


@pytest.fixture(scope="module")
def scenes():
  return [people_lib.draw_image(7, 0, number) for number in range(150)]


@pytest.fixture(scope="module")
def people(scenes):
  return [person for _, drawn in scenes for person in drawn]


@pytest.fixture(scope="module")
def visibility(people):
  """(people, 17)."""
  return np.array([person["keypoints"][:, 2] for person in people])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  path = str(tmp_path_factory.mktemp("coco") / "synthetic")
  write_coco_folder(path, seed=3, train_people=12, test_people=40)
  return path


def load(folder, split):
  path = f"{folder}/annotations/person_keypoints_{split}.json"
  with contextlib.redirect_stdout(io.StringIO()):
    return COCO(path)


def digests(folder, below=""):
  """SHA-256 of every file, by its path relative to the folder."""
  found = {}
  for root, _, names in os.walk(os.path.join(folder, below)):
    for name in names:
      path = os.path.join(root, name)
      with open(path, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
      found[os.path.relpath(path, folder)] = digest
  return found


def test_image_depends_on_its_number_alone(scenes):
  image, people = people_lib.draw_image(7, 0, 41)
  np.testing.assert_array_equal(image, scenes[41][0])
  for again, first in zip(people, scenes[41][1], strict=True):
    assert again.keys() == first.keys()
    for key in first:
      np.testing.assert_array_equal(again[key], first[key])


@pytest.mark.parametrize("other", [(8, 0, 0), (7, 1, 0), (7, 0, 1)])
def test_seed_split_and_number_matter(scenes, other):
  assert not np.array_equal(people_lib.draw_image(*other)[0], scenes[0][0])


@pytest.mark.parametrize("bad", [(-1, 0, 0), (0, -1, 0), (0, 0, 1 << 32)])
def test_refuses_numbers_out_of_range(bad):
  with pytest.raises(ValueError, match="expected integers"):
    people_lib.draw_image(*bad)


def test_images_and_numbers_of_people(scenes):
  counts = np.bincount([len(drawn) for _, drawn in scenes], minlength=4)
  assert counts[0] == 0
  assert (counts[1:] > 10).all()
  assert len(counts) == 4
  for image, _ in scenes:
    assert image.dtype == np.uint8
    assert image.shape[2] == 3
    assert all(240 <= side <= 400 for side in image.shape[:2])
    assert image.std() > 5


def test_labels_are_consistent(scenes):
  for image, drawn in scenes:
    high = np.array(image.shape[1::-1]) - 1
    for person in drawn:
      xy, v = person["keypoints"][:, :2], person["keypoints"][:, 2]
      low, size = np.split(person["bbox"], 2)
      assert np.isin(v, (0, 1, 2)).all()
      assert (xy[v == 0] == 0).all()
      assert ((xy >= 0) & (xy <= high))[v > 0].all()
      # A shown joint lies on its own silhouette, up to rounding.
      assert ((xy >= low - 1) & (xy <= low + size))[v == 2].all()
      assert (v > 0).sum() >= 5
      assert (low >= 0).all()
      assert (low + size <= high + 1).all()
      assert 400 <= person["area"] <= np.prod(size)
      head = person["head_box"]
      assert (head[2:] - head[:2] > 5).all()


def test_pixel_centres_are_integers():
  """A disc around (50, 40.5) covers as much on either side of it."""
  angles = np.linspace(0, 2 * np.pi, 90, endpoint=False)
  ring = np.stack([np.cos(angles), np.sin(angles)], 1)
  rows, columns, cover = painter.fill(
    (10 * ring + (50, 40.5)).astype(np.float32), 80, 100
  )
  y, x = np.mgrid[rows, columns]
  assert np.average(x, weights=cover) == pytest.approx(50, abs=0.05)
  assert np.average(y, weights=cover) == pytest.approx(40.5, abs=0.05)


def test_some_joints_are_hidden_but_not_most(visibility):
  body = visibility[:, BODY]
  assert 0.1 < (body == 1).mean() < 0.3
  assert 0.002 < (body == 0).mean() < 0.12
  face = visibility[:, FACE]
  assert 0.2 < (face == 0).mean() < 0.5
  assert 0.45 < (face == 2).mean() < 0.8


def test_left_is_on_the_right_in_front_views_only(people, visibility):
  points = np.array([person["keypoints"] for person in people])
  labelled = visibility > 0
  whole = labelled[:, SHOULDERS].all(1) & labelled[:, 3] & labelled[:, 4]
  # With both ears towards us: a face is a front view, none a back view.
  front = whole & labelled[:, :3].all(1)
  back = whole & ~labelled[:, :3].any(1)
  apart = points[:, SHOULDERS[0], 0] - points[:, SHOULDERS[1], 0]
  assert front.sum() > 30
  assert back.sum() > 20
  assert (apart[front] > 0).mean() > 0.97
  assert (apart[back] < 0).mean() > 0.97


def test_colours_do_not_tell_left_from_right(scenes):
  """The mean colour around left joints is that around right joints."""
  joints = [i for i in LEFT if NAMES[i].endswith(("elbow", "wrist", "knee"))]
  differences = []
  for image, drawn in scenes:
    for person in drawn:
      x, y = np.round(person["keypoints"][:, :2]).astype(int).T
      v = person["keypoints"][:, 2]
      differences += [
        image[y[i], x[i]].astype(float) - image[y[i + 1], x[i + 1]]
        for i in joints
        if v[i] == v[i + 1] == 2
      ]
  differences = np.array(differences)
  error = differences.std(0) / np.sqrt(len(differences))
  assert len(differences) > 200
  assert (np.abs(differences.mean(0)) < 4 * error).all()
  assert (np.abs(differences.mean(0)) < 6).all()


def test_folder_is_ordinary_coco(folder):
  for split, asked in (("train", 12), ("test", 40)):
    coco = load(folder, split)
    annotations = coco.loadAnns(coco.getAnnIds())
    assert asked <= len(annotations) <= asked + 2
    (category,) = coco.loadCats(coco.getCatIds())
    assert category["keypoints"] == list(NAMES)
    assert np.min(category["skeleton"]) == 1
    for annotation in annotations:
      assert len(annotation["keypoints"]) == 51
      shown = np.array(annotation["keypoints"][2::3]) > 0
      assert annotation["num_keypoints"] == shown.sum()
    for image in coco.loadImgs(coco.getImgIds()):
      assert os.path.getsize(f"{folder}/{split}/{image['file_name']}") > 1000
  ids = [set(load(folder, split).getImgIds()) for split in ("train", "test")]
  assert not ids[0] & ids[1]


def test_detections_find_most_people_and_rank_them_first(folder):
  coco = load(folder, "test")
  path = f"{folder}/person_detection_results/detections_test.json"
  with contextlib.redirect_stdout(io.StringIO()):
    detections = coco.loadRes(path)
  with open(path) as file:
    raw = json.load(file)
  found, best = 0, []
  for annotation in coco.loadAnns(coco.getAnnIds()):
    near = [
      d["score"]
      for d in detections.loadAnns(detections.getAnnIds(annotation["image_id"]))
      if np.abs(np.subtract(d["bbox"], annotation["bbox"])).max()
      < 0.15 * max(annotation["bbox"][2:])
    ]
    found += bool(near)
    best += [max(near)] if near else []
  assert found >= 0.9 * len(coco.getAnnIds())
  assert np.median(best) > 0.7
  assert len(raw) > len(coco.getAnnIds())
  assert min(d["score"] for d in raw) < 0.5
  assert all(0 < d["score"] < 1 and min(d["bbox"][2:]) >= 1 for d in raw)


def test_same_bytes_again_and_whatever_the_number_of_people(folder, tmp_path):
  few = str(tmp_path / "few")
  write_coco_folder(few, seed=3, train_people=3, test_people=40)
  first, again = digests(folder), digests(few)
  assert digests(few, "test").items() <= first.items()
  images = [name for name in again if name.endswith(".jpg")]
  assert len(images) > 20
  assert all(first[name] == again[name] for name in images)
  detections = "person_detection_results/detections_test.json"
  assert first[detections] == again[detections]


def test_complete_folder_is_left_alone_and_another_is_rebuilt(tmp_path):
  folder = str(tmp_path)
  write_coco_folder(folder, train_people=4, test_people=1)
  times = {p: os.stat(f"{folder}/{p}").st_mtime_ns for p in digests(folder)}
  write_coco_folder(folder, train_people=4, test_people=1)
  assert times == {
    p: os.stat(f"{folder}/{p}").st_mtime_ns for p in digests(folder)
  }
  write_coco_folder(folder, train_people=1, test_people=1)
  fresh = str(tmp_path / "fresh")
  write_coco_folder(fresh, train_people=1, test_people=1)
  assert digests(fresh, "train") == digests(folder, "train")


def test_interrupted_run_is_done_again(tmp_path, monkeypatch):
  draw, folder = people_lib.draw_image, str(tmp_path / "a")

  def stop(seed, split, number):
    if number == 2:
      raise KeyboardInterrupt
    return draw(seed, split, number)

  monkeypatch.setattr(people_lib, "draw_image", stop)
  with pytest.raises(KeyboardInterrupt):
    write_coco_folder(folder, train_people=8, test_people=1)
  monkeypatch.undo()
  (tmp_path / "a" / "synthetic.json").write_text(fixtures.DEEP)
  write_coco_folder(folder, train_people=8, test_people=1)
  whole = str(tmp_path / "b")
  write_coco_folder(whole, train_people=8, test_people=1)
  assert digests(folder) == digests(whole)


@pytest.mark.parametrize("name", ["holiday.jpg", "synthetic.json"])
def test_foreign_folder_is_refused_and_untouched(tmp_path, name):
  (tmp_path / name).write_text('{"mine": 1}')
  before = digests(tmp_path)
  with pytest.raises(ValueError, match="not empty"):
    write_coco_folder(str(tmp_path), train_people=1, test_people=1)
  assert digests(tmp_path) == before


def test_refuses_no_people(tmp_path):
  with pytest.raises(ValueError, match="at least 1"):
    write_coco_folder(str(tmp_path), train_people=0, test_people=1)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
  folder = str(tmp_path / "people")

  def write(folder=folder):
    write_coco_folder(folder, train_people=2, test_people=1)

  with fixtures.small_files(5000):  # as when the disk is full
    fixtures.check_refused(
      write,
      f"data.dir: cannot write {folder}: File too large; make it writable,",
      "--config.data.dir=DIR",
    )
  write()  # with room, the same
  (tmp_path / "mine").write_text("1")
  for path in (tmp_path / "mine", tmp_path / "mine" / "below"):
    refused = functools.partial(write, str(path))
    fixtures.check_refused(
      refused, "data.dir: cannot write", path, "is not a directory"
    )
  assert (tmp_path / "mine").read_text() == "1"
