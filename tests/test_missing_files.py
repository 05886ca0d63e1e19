"""Image files that are not where annotations say."""

import json
import os
import shutil

import pytest

from tests import five_images, fixtures
from tests.five_images import IMAGES, records, store_of
from tokenpose_jax.errors import InputError


@pytest.fixture
def folder(tmp_path):
  return five_images.make(tmp_path)


def renamed(folder, change):
  """`file_name`s of another form."""
  path = folder / "annotations" / "person_keypoints_train.json"
  content = json.loads(path.read_text())
  for image in content["images"]:
    image["file_name"] = change(image["file_name"])
  path.write_text(json.dumps(content))


def into_folder(folder):
  (folder / "train" / "sub").mkdir()
  for name in IMAGES:
    (folder / "train" / name).rename(folder / "train" / "sub" / name)


@pytest.mark.parametrize(
  ("change", "hint"),
  [
    (lambda n: f"train/{n}", "without its folder, as c.jpg"),
    (lambda n: f"C:\\data\\{n}", "without its folder, as c.jpg"),
    (lambda n: n.replace(".", "%2E"), "without URL escapes, as c.jpg"),
    (lambda n: n.replace("jpg", "png"), "with the ending .jpg, as c.jpg"),
    (lambda n: n.removesuffix(".jpg"), "with the ending .jpg, as c.jpg"),
    (str.upper, "in lower case, as c.jpg"),
    (lambda n: f" {n}", "without spaces around it, as c.jpg"),
    (lambda n: f"COCO_{n}", "without COCO_, as c.jpg"),
    (lambda n: f"x/{n[0]}.png", "without its folder, with the ending .jpg, as"),
    (lambda n: f"x/{n.replace('e', 'f')}", "most are there without its folder"),
  ],
)
def test_what_would_fit_is_said(folder, change, hint):
  renamed(folder, change)
  fixtures.check_refused(
    lambda: store_of(folder), "lacks 5 of the 5 images", hint
  )


@pytest.mark.parametrize(
  ("change", "hint"),
  [
    (lambda n: n, "with the prefix sub/, as sub/c.jpg"),
    (lambda n: f"sub\\{n}", "with / for \\, as sub/c.jpg"),
    (lambda n: f"/home/me/{n}", "with the prefix sub/, as sub/c.jpg"),
  ],
)
def test_what_would_fit_in_a_folder_is_said(folder, change, hint):
  into_folder(folder)
  renamed(folder, change)
  fixtures.check_refused(lambda: store_of(folder), hint)


@pytest.mark.parametrize(
  ("to", "hint"),
  [
    (lambda n: f"COCO_val2014_{n}", "with the prefix COCO_val2014_, as COCO_"),
    (lambda n: f"{ord(n[0]):012d}.jpg", "with 12 digits, as 000000000099.jpg"),
  ],
)
def test_files_of_longer_names_are_found(folder, to, hint):
  for name in IMAGES:
    (folder / "train" / name).rename(folder / "train" / to(name))
  if "digits" in hint:
    renamed(folder, lambda n: f"{ord(n[0])}.jpg")
  fixtures.check_refused(lambda: store_of(folder), hint)


@pytest.mark.parametrize("to", ["train2017", "images", "images/train2017"])
@pytest.mark.parametrize("prefix", ["", "train2017/"])
def test_where_the_images_of_a_missing_folder_are(folder, to, prefix):
  (folder / to).parent.mkdir(exist_ok=True)
  (folder / "train").rename(folder / to)
  renamed(folder, lambda n: prefix + n)
  more = ["and take the folder out of file_name"] if prefix else []
  fixtures.check_refused(
    lambda: store_of(folder),
    "data/train does not exist",
    f"c.jpg is in {folder / to}: rename or link that folder",
    *more,
  )


@pytest.mark.parametrize(
  "name",
  ["", "a\0b", "..", "x" * 5000, "a\nb", "\ud800.jpg", "/dev/zero", "a.jpg/"],
)
def test_no_name_of_a_file(folder, name):
  renamed(folder, lambda n: name if n == "a.jpg" else n)
  fixtures.check_refused(lambda: store_of(folder), "lacks 1 of the 5 images")


def test_pipes_are_no_images(folder):
  """Nobody waits for what never comes."""
  (folder / "train" / "a.jpg").unlink()
  os.mkfifo(folder / "train" / "a.jpg")
  fixtures.check_refused(lambda: store_of(folder), "lacks 1 of the 5 images")


def test_files_too_large_for_images_are_refused(folder):
  with open(folder / "train" / "a.jpg", "wb") as file:
    file.truncate(3 * 2**30)  # takes no space
  fixtures.check_refused(lambda: store_of(folder), "a.jpg has 3.0 GiB")
  assert not records(folder)


def test_missing_images_are_named_before_anything_is_prepared(folder):
  (folder / "train" / "b.jpg").unlink()
  (folder / "train" / "e.jpg").unlink()
  message = r"data/train lacks 2 of the 5 images .* first b\.jpg"
  with pytest.raises(InputError, match=message) as error:
    store_of(folder)
  assert "\n" not in str(error.value)
  assert not records(folder)


def test_a_missing_image_folder_is_named(folder):
  shutil.rmtree(folder / "train")
  message = r"data/train does not exist \(nor images/"
  with pytest.raises(InputError, match=message):
    store_of(folder)
