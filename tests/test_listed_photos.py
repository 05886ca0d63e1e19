"""Which image of an annotation file a photo is."""

import pytest

from tokenpose_jax import InputError
from tokenpose_jax.predict.listed import ListedPhotos
from tokenpose_jax.predict.sources import Source

LISTED = ListedPhotos(
  "--images",
  [("x/a.jpg", 1), ("y/a.jpg", 2), ("val/b.jpg", 3), ("c.jpg", 4), (None, 5)],
)


def _photo(path: str) -> Source:
  return Source(path, path.rpartition("/")[2], "photo")


@pytest.mark.parametrize(
  ("path", "value"),
  [("x/a.jpg", 1), ("/photos/y/a.jpg", 2), ("b.jpg", 3), ("/any/c.jpg", 4)],
)
def test_by_name_and_folder(path, value):
  assert LISTED(_photo(path)) == value


def test_relative_paths_are_those_of_this_folder(tmp_path, monkeypatch):
  (tmp_path / "y").mkdir()
  monkeypatch.chdir(tmp_path / "y")
  assert LISTED(_photo("a.jpg")) == 2


@pytest.mark.parametrize(
  ("path", "wanted"),
  [
    ("d.jpg", "d.jpg is not in the file of --images"),
    ("z/a.jpg", "several images a.jpg; z/a.jpg is in the folder of none"),
  ],
)
def test_photos_that_are_not_listed(path, wanted):
  with pytest.raises(InputError, match=wanted):
    LISTED(_photo(path))


def test_one_name_twice():
  listed = ListedPhotos("--images", [("a.jpg", 1), ("a.jpg", 2)])
  with pytest.raises(InputError, match="may be any of them"):
    listed(_photo("/photos/a.jpg"))
