"""Images of annotations lie in the data's folder."""

import os

import pytest

from configs import default
from input_pipeline import datasets, outside
from tests import five_images, fixtures
from tokenpose_jax import skeletons


@pytest.fixture
def place(tmp_path):
  """DIR/train with images and links, DIR/other, and a secret outside."""
  train = tmp_path / "data" / "train"
  for folder in (train / "sub", tmp_path / "data" / "other", tmp_path / "gone"):
    folder.mkdir(parents=True)
  for name in ("secret.jpg", "gone/x.jpg", "data/other/x.jpg"):
    (tmp_path / name).write_text("")
  for name in ("a.jpg", "sub/b.jpg"):
    (train / name).write_text("")
  (train / "near.jpg").symlink_to("a.jpg")
  (train / "beside.jpg").symlink_to("../other/x.jpg")
  (train / "far.jpg").symlink_to(tmp_path / "secret.jpg")
  (train / "chain.jpg").symlink_to("far.jpg")
  (train / "nowhere.jpg").symlink_to("/nowhere/x.jpg")
  (train / "loop.jpg").symlink_to("loop.jpg")
  (train / "out").symlink_to(tmp_path / "gone")
  return tmp_path


INSIDE = (
  *("a.jpg", "sub/b.jpg", "./a.jpg", "sub/../a.jpg", "missing.jpg"),
  *("../other/x.jpg", "near.jpg", "beside.jpg", "loop.jpg", "sub/../../train"),
  *("", ".", "..", "no/such/folder.jpg", "..jpg", "a\\..\\b.jpg"),
  *("\0", "\ud800", "/\ud800"),  # no names of files
)
OUTSIDE = (
  *("../../secret.jpg", "sub/../../../secret.jpg", "/etc/passwd", "/dev/zero"),
  *("far.jpg", "chain.jpg", "nowhere.jpg", "out/x.jpg", "out/../secret.jpg"),
  *("../..", "/", "../../data2/a.jpg", "sub/../far.jpg"),
)


@pytest.mark.parametrize("name", INSIDE, ids=ascii)
def test_a_name_inside(place, name):
  home = str(place / "data")
  assert outside.names_outside(home, f"{home}/train", [name]) == []


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_outside(place, name):
  home = str(place / "data")
  assert outside.names_outside(home, f"{home}/train", ["a.jpg", name]) == [name]


def test_an_absolute_path_may_lead_inside(place, monkeypatch):
  home = str(place / "data")
  names = [f"{home}/train/a.jpg", f"{place}/data/other/../train/a.jpg"]
  assert not outside.names_outside(home, f"{home}/train", names)
  monkeypatch.chdir(place)
  assert not outside.names_outside("data", "data/train", [*names, "a.jpg"])
  assert outside.names_outside("data", "data/train", ["../../secret.jpg"])


def test_links_of_whoever_set_the_folder_up_are_fine(place):
  """DIR, DIR/images and DIR/images/SPLIT often lie on another disk."""
  names = ["a.jpg", "sub/b.jpg", "near.jpg"]
  (place / "link").symlink_to(place / "data")
  assert not outside.names_outside(
    f"{place}/link", f"{place}/link/train", [*names, "beside.jpg"]
  )
  (place / "set").mkdir()
  (place / "set" / "images").symlink_to(place / "data")
  (place / "set" / "train").symlink_to(place / "data" / "train")
  for folder in ("images/train", "train"):
    found = outside.names_outside(
      f"{place}/set", f"{place}/set/{folder}", [*names, "far.jpg"]
    )
    assert found == ["far.jpg"]


@pytest.mark.parametrize(
  ("name", "is_outside"),
  [
    *(("a.jpg", False), ("sub/a.jpg", False), ("sub/../a.jpg", False)),
    *(("..a.jpg", False), ("../a.jpg", True), ("sub/../../a.jpg", True)),
    *(("/etc/passwd", True), ("//etc/passwd", True), ("..", True)),
  ],
)
def test_a_bucket_has_names_alone(name, is_outside):
  found = outside.names_outside("gs://b/coco", "gs://b/coco/train", [name])
  assert bool(found) == is_outside


def test_many_images_are_not_looked_at_one_by_one(place, monkeypatch):
  asked = []
  real = os.path.realpath
  monkeypatch.setattr(
    os.path, "realpath", lambda path: asked.append(path) or real(path)
  )
  home = str(place / "data")
  names = [f"sub/{n}.jpg" for n in range(10_000)] + ["far.jpg"]
  assert outside.names_outside(home, f"{home}/train", names) == ["far.jpg"]
  assert len(asked) < 10


def test_a_folder_that_cannot_be_listed(place, monkeypatch):
  """Each of its files is looked at."""

  def refuse(path):
    raise PermissionError

  monkeypatch.setattr(os, "scandir", refuse)
  home = str(place / "data")
  names = ["a.jpg", "far.jpg"]
  assert outside.names_outside(home, f"{home}/train", names) == ["far.jpg"]


def test_a_run_refuses_them_before_it_copies(tmp_path):
  folder = five_images.make(tmp_path)
  secret = (folder / "train" / "a.jpg").rename(tmp_path / "secret.jpg")
  (folder / "train" / "a.jpg").symlink_to(secret)
  data = default.get_config().data
  data.dir, data.prepared_dir = str(folder), str(tmp_path / "prepared")

  def prepare():
    return datasets.prepare(data, "train", skeletons.COCO_17)

  fixtures.check_refused(
    prepare, "1 of the 5", "first a.jpg", "--config.data.allow_outside=True"
  )
  assert not (tmp_path / "prepared").exists()
  data.allow_outside = True
  assert prepare().store.read(1) == five_images.IMAGES["a.jpg"]
