"""Broken input: refused in one line that names it, or skipped and named.

No kind ends in a foreign traceback, none is silently trained on.
"""

import itertools
import json
import shutil

import numpy as np
import pytest

from configs import default
from input_pipeline import datasets
from tests import fixtures
from tokenpose_jax.errors import InputError

NAMES = ("a.jpg", "b.jpg", "c.jpg")
SIZES = dict.fromkeys(NAMES, (60, 80))


class Case:
  """A small COCO folder, and what a run makes of it."""

  def __init__(self, path):
    self.path = path / "data"
    images = {
      name: fixtures.encode(fixtures.smooth_image(60, 80, (200, 90, 60)))
      for name in NAMES
    }
    self.content = fixtures.coco_folder(self.path, images, SIZES)
    self.config = default.get_config()
    self.config.model.input_hw = (32, 24)
    self.config.data.dir = str(self.path)
    self.config.data.prepared_dir = str(path / "prepared")
    self.config.train.batch_size = self.config.eval.batch_size = 3

  @property
  def file(self):
    return self.path / "annotations" / "person_keypoints_train.json"

  @property
  def person(self):
    return self.content["annotations"][1]

  def write(self):
    self.file.write_text(json.dumps(self.content))

  def image(self, name="b.jpg"):
    return self.path / "train" / name

  def run(self):
    """A training batch and an evaluation, as main.py would."""
    split = fixtures.prepare(self.config, "train")
    people = datasets.people(split, self.config)
    slots = np.arange(3)
    trained = fixtures.train_batches(self.config, split, people, slots=slots)
    (first,) = itertools.islice(trained, 1)
    trained.close()
    boxes = datasets.people(split, self.config, boxes=self.config.eval.boxes)
    (evaluated,) = fixtures.eval_batches(self.config, split, boxes, slots=slots)
    return first, evaluated


@pytest.fixture
def case(tmp_path):
  return Case(tmp_path)


def text(raw):
  """Writes that text as the annotation file."""
  return lambda case: case.file.write_text(raw)


def person(**fields):
  """Changes the second person."""

  def change(case):
    case.person.update(fields)
    case.write()

  return change


def image(**fields):
  """Changes the second image's entry."""

  def change(case):
    case.content["images"][1].update(fields)
    case.write()

  return change


def without(section, field):
  def change(case):
    del case.content[section][1][field]
    case.write()

  return change


def keypoint(number, value):
  """Changes one of the second person's 51 numbers."""

  def change(case):
    case.person["keypoints"][number] = value
    case.write()

  return change


def boxes(raw):
  """A file of detector boxes."""

  def change(case):
    path = case.path / "boxes.json"
    path.write_text(raw)
    case.config.eval.boxes = str(path)

  return change


def set_config(**fields):
  return lambda case: case.config.data.update(fields)


def resized(case):
  small = fixtures.smooth_image(30, 40, (9, 9, 9))
  case.image().write_bytes(fixtures.encode(small))


def skeleton_file(raw):
  def change(case):
    path = case.path / "skeleton.json"
    path.write_text(raw)
    case.config.data.skeleton = str(path)

  return change


REFUSED = {
  "no folder": (lambda c: shutil.rmtree(c.path), "does not exist"),
  "an empty folder": (
    lambda c: (shutil.rmtree(c.path), c.path.mkdir()),
    "empty",
  ),
  "no annotation file": (lambda c: c.file.unlink(), "does not exist"),
  "annotations that are no JSON": (text("{'images'"), "is not JSON"),
  "annotations of zero bytes": (text(""), "is not JSON"),
  "annotations that are a list": (text("[]"), "not a JSON object"),
  "annotations without images": (text('{"annotations": []}'), "'images'"),
  "captions instead of people": (
    lambda c: (
      [e.pop("keypoints") for e in c.content["annotations"]],
      c.write(),
    ),
    "a person_keypoints file is needed",
  ),
  "too few keypoint numbers": (
    person(keypoints=[1, 2, 2]),
    "annotation 2 has 3 keypoint numbers",
  ),
  "a keypoint of NaN": (keypoint(3, float("nan")), "annotation 2.*not finite"),
  "an infinite keypoint": (keypoint(3, float("inf")), "annotation 2.*finite"),
  "a keypoint that is text": (keypoint(3, "left"), "annotation 2.*not finite"),
  "a visibility of 3": (keypoint(5, 3), "annotation 2 has a visibility of 3"),
  "a visibility of -1": (keypoint(5, -1), "annotation 2 has a visibility"),
  "a box of three numbers": (person(bbox=[1, 2, 3]), "annotation 2.*'bbox'"),
  "a box of NaN": (
    person(bbox=[1, 2, 3, float("nan")]),
    "annotation 2.*'bbox' of four finite",
  ),
  "no box": (without("annotations", "bbox"), "annotation 2.*'bbox'"),
  "a person in no image": (person(image_id=7), "annotation 2 is of image 7"),
  "repeated image ids": (
    image(id=100),
    "the image 100 comes 2 times: image ids repeat",
  ),
  "repeated annotation ids": (
    person(id=1),
    "annotation 1 comes 2 times: annotation ids",
  ),
  "an image without a name": (without("images", "file_name"), "'file_name'"),
  "a missing image": (lambda c: c.image().unlink(), r"lacks 1 of.*b\.jpg"),
  "no image folder": (
    lambda c: shutil.rmtree(c.path / "train"),
    "image folder.*does not exist",
  ),
  "an image of another size": (resized, r"b\.jpg is 40x30.*as 80x60"),
  "nobody labelled": (
    lambda c: (
      [e.update(keypoints=[0] * 51) for e in c.content["annotations"]],
      c.write(),
    ),
    "no person with a labeled keypoint",
  ),
  "detector boxes that are no list": (boxes("{}"), "is a list of boxes"),
  "detector boxes of other images": (
    boxes('[{"image_id":5,"category_id":1,"bbox":[1,2,3,4],"score":1}]'),
    "another split",
  ),
  "detector boxes without a score": (
    boxes('[{"image_id":100,"category_id":1,"bbox":[1,2,3,4]}]'),
    "'score'",
  ),
  "an unknown dataset": (set_config(name="voc"), "'voc'; allowed"),
  "an unknown skeleton": (set_config(skeleton="cat"), "unknown skeleton"),
  "a skeleton of other keypoints": (
    set_config(skeleton="mpii_16"),
    "expected 48",
  ),
  "flip pairs that are no involution": (
    skeleton_file(
      '{"keypoints": ["a", "b", "c"], "flip_pairs": [[0,1],[1,2]]}'
    ),
    "names a keypoint twice",
  ),
  "annotations without a skeleton": (
    set_config(skeleton="annotations"),
    "0 different keypoint sets",
  ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_in_one_line_that_names_it(case, kind):
  make, message = REFUSED[kind]
  make(case)
  with pytest.raises(InputError, match=message) as error:
    case.run()
  assert "\n" not in str(error.value)


def noise_cut_off():
  noise = fixtures.rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
  return fixtures.encode(noise)[:900]


SKIPPED = {
  "zero bytes": b"",
  "text": b"this is no image",
  "a truncated JPEG": noise_cut_off(),
  "only a JPEG's first bytes": b"\xff\xd8\xff\xe0",
  "a truncated PNG": fixtures.encode(
    fixtures.smooth_image(60, 80, (1, 2, 3)), ".png"
  )[:60],
}


@pytest.mark.parametrize("kind", SKIPPED)
def test_skipped_and_named(case, kind, caplog):
  case.image().write_bytes(SKIPPED[kind])
  trained, evaluated = case.run()
  for batch in (trained, evaluated):
    assert sorted(batch["mask"]) == [0, 1, 1]
    assert not batch["image"][batch["mask"] == 0].any()
  named = [m for m in caplog.messages if m.startswith("cannot read the image")]
  assert len(named) == 1
  assert "b.jpg" in named[0]
