"""COCO folders and annotation files that are refused, in one line."""

import json

import pytest

from input_pipeline import coco as coco_lib
from tests import fixtures
from tokenpose_jax import skeletons

COCO = skeletons.COCO_17
SIZES = {"b.jpg": (100, 120), "a.jpg": (200, 90)}  # ids 100 and 99


@pytest.fixture
def folder(tmp_path):
  path = tmp_path / "data"
  fixtures.coco_folder(path, dict.fromkeys(SIZES, b""), SIZES)
  return path


def file_of(folder):
  return folder / "annotations" / "person_keypoints_train.json"


def edit(folder, change):
  """Applies `change` to the content of the annotation file."""
  content = json.loads(file_of(folder).read_text())
  change(content)
  file_of(folder).write_text(json.dumps(content))


def test_missing_folder(tmp_path):
  path = tmp_path / "nowhere"
  fixtures.check_refused(
    lambda: coco_lib.read(fixtures.data_of(path), "train", COCO),
    path,
    "does not exist",
    "--config.data.dir",
  )


def test_empty_folder(tmp_path):
  fixtures.check_refused(
    lambda: coco_lib.read(fixtures.data_of(tmp_path), "train", COCO),
    tmp_path,
    "empty",
    "annotations/person_keypoints_SPLIT.json",
  )


def test_file_in_place_of_the_folder(tmp_path):
  path = tmp_path / "file"
  path.write_text("text")
  fixtures.check_refused(
    lambda: coco_lib.read(fixtures.data_of(path), "train", COCO),
    path,
    "is not a folder",
  )


def test_missing_split(folder):
  fixtures.coco_folder(
    folder, dict.fromkeys(SIZES, b""), SIZES, split="minival"
  )
  fixtures.check_refused(
    lambda: coco_lib.read(fixtures.data_of(folder), "val2017", COCO),
    folder / "annotations" / "person_keypoints_val2017.json",
    "minival, train",
    "--config.data.eval_split",
  )


def test_folder_without_annotations(folder):
  file_of(folder).unlink()
  fixtures.check_refused(
    lambda: coco_lib.read(fixtures.data_of(folder), "train", COCO),
    file_of(folder),
    "annotations/person_keypoints_SPLIT.json",
  )


@pytest.mark.parametrize("raw", [b"{'images': []}", b"", b"\xff\xfe\x00", b"{"])
def test_not_json(folder, raw):
  file_of(folder).write_bytes(raw)
  fixtures.check_refused(
    lambda: coco_lib.read(fixtures.data_of(folder), "train", COCO),
    file_of(folder),
    "is not JSON",
  )


@pytest.mark.parametrize(
  ("content", "part"),
  [
    ([], "not a JSON object"),
    ({}, "'images'"),
    ({"images": []}, "'annotations'"),
    ({"images": {}, "annotations": []}, "'images'"),
  ],
)
def test_no_coco_file(folder, content, part):
  file_of(folder).write_text(json.dumps(content))
  fixtures.check_refused(
    lambda: coco_lib.read(fixtures.data_of(folder), "train", COCO),
    file_of(folder),
    part,
  )


@pytest.mark.parametrize("field", ["file_name"])
def test_image_without_a_field(folder, field):
  edit(folder, lambda content: content["images"][1].pop(field))
  fixtures.check_refused(
    lambda: coco_lib.read(fixtures.data_of(folder), "train", COCO),
    file_of(folder),
    "99",
    repr(field),
  )


def test_repeated_image_ids(folder):
  edit(folder, lambda content: content["images"][1].update(id=100))
  fixtures.check_refused(
    lambda: coco_lib.read(fixtures.data_of(folder), "train", COCO),
    file_of(folder),
    "image ids repeat",
  )


@pytest.mark.parametrize("field", ["bbox"])
def test_annotation_without_a_field(folder, field):
  edit(folder, lambda content: content["annotations"][1].pop(field))
  fixtures.check_refused(
    lambda: coco_lib.read(fixtures.data_of(folder), "train", COCO),
    file_of(folder),
    "annotation 2",
    repr(field),
  )


@pytest.mark.parametrize("image", [7, None])
def test_annotation_of_an_unknown_image(folder, image):
  edit(folder, lambda content: content["annotations"][1].update(image_id=image))
  fixtures.check_refused(
    lambda: coco_lib.read(fixtures.data_of(folder), "train", COCO),
    file_of(folder),
    "annotation 2",
    f"image {image}",
  )


def test_wrong_keypoint_count(folder):
  edit(folder, lambda content: content["annotations"][1]["keypoints"].pop())
  fixtures.check_refused(
    lambda: coco_lib.read(fixtures.data_of(folder), "train", COCO),
    file_of(folder),
    "50 keypoint numbers, expected 51",
    "--config.data.skeleton",
  )
  edit(
    folder,
    lambda content: content["annotations"][1]["keypoints"].append(2),
  )
  coco_lib.read(fixtures.data_of(folder), "train", COCO)
  fixtures.check_refused(
    lambda: coco_lib.read(fixtures.data_of(folder), "train", skeletons.MPII_16),
    "51 keypoint numbers, expected 48",
    "mpii_16",
  )
