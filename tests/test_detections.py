"""The command that writes detector boxes."""

import json

import numpy as np
import pytest

from configs import default
from input_pipeline import datasets, detections
from tests import fixtures
from tokenpose_jax.errors import InputError

SIZES = {"a.jpg": (60, 80), "bad.jpg": (10, 10), "b.jpg": (90, 70)}


@pytest.fixture
def folder(tmp_path):
  images = {
    name: fixtures.encode(fixtures.smooth_image(*size, (200, 90, 60)))
    for name, size in SIZES.items()
  }
  images["bad.jpg"] = b"no image"
  fixtures.coco_folder(tmp_path / "data", images, SIZES)
  return tmp_path / "data"


def middle(image):
  """One sure box in the middle, one unsure box; what a detector returns."""
  h, w, channels = image.shape
  assert image.dtype == np.uint8
  assert channels == 3
  assert image[..., 0].mean() > image[..., 2].mean()  # RGB
  return np.array(
    [[w * 0.25, h * 0.25, w * 0.5, h * 0.5, 0.9], [0, 0, 9, 9, 0.1]]
  )


def test_the_file_is_what_an_evaluation_reads(folder, tmp_path, caplog):
  path = str(tmp_path / "boxes.json")
  assert detections.write(middle, str(folder), "train", path) == 4
  assert detections.write(middle, str(folder), "train", path, 0.5) == 2
  assert "bad.jpg" in caplog.text
  found = json.loads((tmp_path / "boxes.json").read_text())
  assert found[0] == {
    "image_id": 100,
    "category_id": 1,
    "bbox": [20, 15, 40, 30],
    "score": 0.9,
  }
  config = default.get_config()
  config.data.dir = str(folder)
  config.data.prepared_dir = str(tmp_path / "prepared")
  split = fixtures.prepare(config, "train")
  people = datasets.people(split, config, boxes=path)
  np.testing.assert_array_equal(people.image_id, [100, 98])
  np.testing.assert_allclose(people.center, [[39.5, 29.5], [34.5, 44.5]])


def test_nobody_found_is_no_mistake(folder, tmp_path):
  path = str(tmp_path / "boxes.json")
  for nothing in ([], np.zeros((0, 5)), np.zeros((0,))):
    number = detections.write(
      lambda _, n=nothing: n, str(folder), "train", path
    )
    assert number == 0
    assert (tmp_path / "boxes.json").read_text() == "[]"


def annotations_of(folder):
  return folder / "annotations" / "person_keypoints_train.json"


def rewritten(folder, change):
  """Changes the annotation file; returns its content."""
  content = json.loads(annotations_of(folder).read_text())
  change(content)
  annotations_of(folder).write_text(json.dumps(content))
  return content


def all_people(**fields):
  def change(content):
    for entry in content["annotations"]:
      entry.update(fields)

  return change


def two_categories(content):
  content["categories"].append({"id": 5, "name": "hand"})


@pytest.mark.parametrize(
  ("change", "chosen", "category"),
  [
    (lambda c: None, "", 1),
    (lambda c: c.update(categories=[{"id": 7, "name": "cat"}]), "cat", 7),
    (lambda c: c.pop("categories"), "", 1),
    (all_people(category_id=3), "", 3),
    (all_people(category_id="3"), "", 3),
    (two_categories, "", 1),
    (two_categories, "hand", 5),
    (two_categories, "5", 5),
    (
      lambda c: (two_categories(c), c["annotations"][0].update(category_id=5)),
      "person",
      1,
    ),
    (lambda c: c.update(annotations=[], categories=None), "", 1),
    (
      lambda c: c.update(
        annotations=[], categories=[{"id": 2}, {"id": 4, "keypoints": ["a"]}]
      ),
      "",
      4,
    ),
    (
      lambda c: (
        c["categories"][0].update(id="person"),
        all_people(category_id="person")(c),
      ),
      "",
      "person",
    ),
  ],
)
def test_the_category_is_the_annotations_own(folder, change, chosen, category):
  rewritten(folder, change)
  path = folder / "boxes.json"
  detections.write(
    middle, str(folder), "train", str(path), category=chosen, score=0.5
  )
  found = json.loads(path.read_text())
  assert [box["category_id"] for box in found] == [category] * 2
  assert type(found[0]["category_id"]) is type(category)


def test_categories_that_nobody_knows_are_named(folder, capsys):
  def both(content):
    two_categories(content)
    content["annotations"][0]["category_id"] = 5

  rewritten(folder, both)

  def write(category):
    detections.write(
      middle, str(folder), "train", str(folder / "b.json"), category=category
    )

  fixtures.check_refused(lambda: write(""), "person, hand", "--category")
  fixtures.check_refused(lambda: write("cat"), "no category 'cat'")


def test_ids_are_the_files_own(folder):
  """As an evaluation reads them again."""

  def named(content):
    for image in content["images"]:
      image["id"] = f"id {image['id']}"
    for entry in content["annotations"]:
      entry["image_id"] = f"id {entry['image_id']}"

  rewritten(folder, named)
  path = folder / "boxes.json"
  detections.write(middle, str(folder), "train", str(path), 0.5)
  found = json.loads(path.read_text())
  assert [box["image_id"] for box in found] == ["id 100", "id 98"]


@pytest.mark.parametrize("section", ["images", "annotations", "categories"])
def test_any_value_of_any_field(folder, section):
  """The same boxes, or one line."""
  path = folder / "boxes.json"
  content = rewritten(folder, lambda c: None)

  def boxes(changed):
    annotations_of(folder).write_text(json.dumps(changed))
    assert detections.write(middle, str(folder), "train", str(path), 0.5) == 2
    found = json.loads(path.read_text())
    assert [box["bbox"] for box in found] == [
      [20, 15, 40, 30],
      [17.5, 22.5, 35, 45],
    ]

  count = fixtures.fuzz(content, content[section][-1], boxes)
  assert count["right"]
  assert sum(count.values()) == 14 * len(content[section][-1])
  outer = fixtures.fuzz(content, content, boxes)
  assert sum(outer.values()) == 14 * len(content)


def test_what_cannot_be_written_is_said_before_an_hour_of_detection(folder):
  def fail(image):
    raise AssertionError("detected")

  for path in (folder, folder / "none" / "boxes.json"):
    fixtures.check_refused(
      lambda path=path: detections.write(fail, str(folder), "train", str(path)),
      f"cannot write {path}",
    )


def test_an_image_outside_is_not_shown_to_the_detector(folder, tmp_path):
  image = folder / "train" / "a.jpg"
  secret = image.rename(tmp_path / "secret.jpg")
  image.symlink_to(secret)
  path = str(folder / "boxes.json")
  fixtures.check_refused(
    lambda: detections.write(middle, str(folder), "train", path),
    "a.jpg",
    "--allow-outside",
  )
  assert detections.write(
    middle, str(folder), "train", path, allow_outside=True
  )


@pytest.mark.parametrize("score", [np.nan, np.inf])
def test_a_score_that_is_no_number_is_named(folder, score):
  path = str(folder / "boxes.json")
  fixtures.check_refused(
    lambda: detections.write(middle, str(folder), "train", path, score),
    "the least score",
  )


@pytest.mark.parametrize(
  ("returned", "message"),
  [
    ([[1, 2, 3, 4]], r"a\.jpg.*shape \(1, 4\).*\(N, 5\)"),
    ([1, 2, 3, 4, 5], r"shape \(5,\)"),
    (None, r"shape \(\)"),
    ("x", "returned 'x'; expected finite numbers"),
    ([[1, 2], [1]], r"returned \[\[1, 2\], \[1\]\]"),
    ([[1, 2, 3, 4, {}]], "expected finite numbers"),
    ([[1, 2, 3, 4, 10**400]], "expected finite numbers"),
    ([[1, 2, np.nan, 4, 5]], "finite"),
    ([[10, 10, 0, 5, 1]], "without area.*not two corners"),
  ],
)
def test_what_is_no_box_is_named_and_nothing_written(
  folder, tmp_path, returned, message
):
  path = tmp_path / "boxes.json"
  with pytest.raises(InputError, match=message):
    detections.write(lambda _: returned, str(folder), "train", str(path))
  assert not path.exists()


def test_the_command(folder, tmp_path, monkeypatch, capsys):
  (tmp_path / "my_detector.py").write_text(
    "def find(image):\n  return [[1, 2, 30, 40, 0.5]]\nNO_FUNCTION = 3\n"
  )
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr("sys.path", ["", *__import__("sys").path])
  arguments = [str(folder), "train", "out.json"]
  assert detections.main(["my_detector:find", *arguments]) == 0
  assert "2 boxes: out.json" in capsys.readouterr().out
  assert len(json.loads((tmp_path / "out.json").read_text())) == 2
  for wrong in ("my_detector", "my_detector:nothing", "no_module:find", ":f"):
    assert detections.main([wrong, *arguments]) == 1
    assert "MODULE:FUNCTION" in capsys.readouterr().err
  assert detections.main(["my_detector:NO_FUNCTION", *arguments]) == 1
  assert "is no function" in capsys.readouterr().err
  assert detections.main(["my_detector:find", "no", "train", "o.json"]) == 1
  assert "no does not exist" in capsys.readouterr().err
