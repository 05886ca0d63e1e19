"""Other people's spellings of COCO's fields, and what they mean."""

import copy
import json

import numpy as np
import pytest

from configs import default
from input_pipeline import coco
from tests import fixtures
from tokenpose_jax.metrics import coco as coco_metrics
from tokenpose_jax.metrics import coco_plain
from tokenpose_jax.metrics.benchmark import Boxes, Predictions
from tokenpose_jax.skeletons import COCO_17

NAMES = ("a.jpg", "b.jpg", "c.jpg")


@pytest.fixture
def folder(tmp_path):
  """Three images, each with a person."""
  images = {
    name: fixtures.encode(fixtures.smooth_image(60, 80, (200, 90, 60)))
    for name in NAMES
  }
  path = tmp_path / "data"
  return path, fixtures.coco_folder(
    path, images, dict.fromkeys(NAMES, (60, 80))
  )


def every(**fields):
  """Sets fields of all annotations."""

  def change(content):
    for entry in content["annotations"]:
      entry.update(copy.deepcopy(fields))

  return change


def each(field, make):
  """Remakes a field of all annotations."""

  def change(content):
    for entry in content["annotations"]:
      entry[field] = make(entry[field])

  return change


def drop(*fields):
  def change(content):
    for entry in content["annotations"]:
      for field in fields:
        del entry[field]

  return change


def image_ids(make):
  def change(content):
    for image in content["images"]:
      image["id"] = make(image["id"])
    for entry in content["annotations"]:
      entry["image_id"] = make(entry["image_id"])

  return change


def no_categories(content):
  del content["categories"]
  drop("category_id")(content)


def one_category(number):
  def change(content):
    content["categories"][0]["id"] = number
    every(category_id=number)(content)

  return change


def two_categories(content):
  first = content["categories"][0]
  content["categories"].append({**first, "id": 7, "name": "child"})
  content["annotations"][1]["category_id"] = 7


def hands(content):
  """A second category, with other keypoints."""
  hand = {"id": 5, "name": "hand", "keypoints": ["palm", "thumb"]}
  content["categories"][0]["keypoints"] = list(COCO_17.keypoints)
  content["categories"].append(hand)
  content["annotations"].append(
    {**content["annotations"][0], "id": 99, "category_id": 5}
    | {"keypoints": [9, 9, 2, 12, 9, 2], "num_keypoints": 2}
  )


def nested(values):
  return np.reshape(values, (17, 3)).tolist()


def unlabeled_null(content):
  for entry in content["annotations"]:
    entry["keypoints"][:3] = [None, float("nan"), 0]
    entry["num_keypoints"] = 16


def sizes(make):
  def change(content):
    for image in content["images"]:
      image["width"], image["height"] = map(make, (80, 60))

  return change


VARIANTS = {
  "as COCO writes it": lambda content: None,
  "no area": drop("area"),
  "area null": every(area=None),
  "area text": every(area="unknown"),
  "area list": every(area=[1]),
  "no categories": no_categories,
  "category 0": one_category(0),
  "category 21": one_category(21),
  "category as text": every(category_id="1"),
  "categories named by text": one_category("person"),
  "two categories": two_categories,
  "category not listed": lambda content: content.update(categories=[]),
  "image ids as digits in text": image_ids(str),
  "image ids as names": image_ids(lambda i: f"frame_{i:04d}"),
  "image ids of 2^63": image_ids(lambda i: i + 2**63),
  "image ids as floats": image_ids(float),
  "image ids text, of people numbers": lambda content: [
    image.update(id=str(image["id"])) for image in content["images"]
  ],
  "iscrowd text": every(iscrowd="0"),
  "iscrowd null": every(iscrowd=None),
  "iscrowd bool": every(iscrowd=False),
  "no iscrowd": drop("iscrowd"),
  "num_keypoints 0": every(num_keypoints=0),
  "num_keypoints null": every(num_keypoints=None),
  "keypoints nested": each("keypoints", nested),
  "keypoints text": each("keypoints", lambda values: [*map(str, values)]),
  "visibility float": each("keypoints", lambda values: [*map(float, values)]),
  "null where v is 0": unlabeled_null,
  "box text": each("bbox", lambda box: [*map(str, box)]),
  "sizes float": sizes(float),
  "sizes text": sizes(str),
  "sizes null": sizes(lambda size: None),
  "no sizes": lambda content: [
    [image.pop(field) for field in ("width", "height")]
    for image in content["images"]
  ],
}


def opened(folder, change, category=""):
  path, content = folder
  change(content)
  file = path / "annotations" / "person_keypoints_train.json"
  file.write_text(json.dumps(content))
  config = fixtures.data_of(path, category)
  return coco.read(config, "train", COCO_17), content


@pytest.mark.parametrize("variant", VARIANTS)
def test_perfect_results_are_perfect(folder, variant):
  annotations, content = opened(folder, VARIANTS[variant])
  people = coco.annotated_people(annotations, (32, 24), 1.25)
  assert len(people) == 3
  measured = measure(annotations, people)
  assert measured.metrics["AP"] == pytest.approx(1)
  # With the file's own ids.
  own = {image["id"] for image in content["images"]}
  assert {result["image_id"] for result in measured.results} == own
  again = coco_metrics.evaluate(content, measured.results)
  assert again["AP"] == pytest.approx(1)


def measure(annotations, people):
  """The benchmark of a run, given the annotated keypoints as predictions."""
  benchmark = coco.benchmark(
    annotations, people, COCO_17, default.get_config(), None
  )
  return benchmark.measure(
    Predictions(
      boxes=Boxes(
        image_id=people.image_id,
        category_id=people.category_id,
        score=people.score,
        area=people.area,
      ),
      keypoints=people.keypoints.astype(np.float32),
      scores=np.ones(people.visible.shape, np.float32),
      peaks=np.ones(people.visible.shape, np.float32),
      valid=np.ones(len(people), bool),
    )
  )


LEFT_OUT = {
  "keypoints null": (dict(keypoints=None), "no labeled keypoint"),
  "keypoints empty": (dict(keypoints=[]), "no labeled keypoint"),
  "places without visibility": (
    dict(keypoints=[9, 9, 0] * 17),
    "no labeled keypoint",
  ),
  "area 0": (dict(area=0), "no area"),
  "a box of width 0": (dict(bbox=[9, 9, 0, 9]), "no area"),
  "a box outside": (dict(bbox=[99, 9, 9, 9]), "box outside the image"),
  "a crowd": (dict(iscrowd=1), "crowd"),
  "a ball among people": (
    dict(keypoints=None, category_id=37, bbox=None),
    "no labeled keypoint",
  ),
}


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_left_out_people_are_not_missed(folder, kind, caplog):
  fields, reason = LEFT_OUT[kind]
  change = lambda content: content["annotations"][1].update(fields)  # noqa: E731
  annotations, _ = opened(folder, change)
  with caplog.at_level("INFO", "absl"):
    people = coco.annotated_people(annotations, (32, 24), 1.25)
  assert len(people) == 2
  assert f"2 used, 1 left out: {reason} 1" in caplog.text
  assert measure(annotations, people).metrics["AP"] == pytest.approx(1)


def test_different_keypoint_sets_need_a_choice(folder):
  fixtures.check_refused(
    lambda: opened(folder, hands),
    "2 different keypoint sets",
    "data.category: person (17 keypoints), hand (2 keypoints)",
  )
  fixtures.check_refused(
    lambda: opened(folder, lambda content: None, "foot"), "no category 'foot'"
  )


@pytest.mark.parametrize("name", ["person", "1"])
def test_a_chosen_category(folder, name, caplog):
  annotations, _ = opened(folder, hands, name)
  people = coco.annotated_people(annotations, (32, 24), 1.25)
  assert len(people) == 3
  assert "1 of 4 annotations are of other categories" in caplog.text
  assert measure(annotations, people).metrics["AP"] == pytest.approx(1)
  hand = coco.skeleton_of(str(folder[0]), "train", "hand")
  assert hand.keypoints == ("palm", "thumb")
  chosen = fixtures.data_of(folder[0], "hand")
  assert len(coco.read(chosen, "train", hand).content["annotations"]) == 1


def test_keypoint_sets_that_nobody_has_play_no_part(folder):
  def listed(content):
    hands(content)
    content["annotations"].pop()

  annotations, _ = opened(folder, listed)
  assert len(annotations.content["annotations"]) == 3
  skeleton = coco.skeleton_of(str(folder[0]), "train", "")
  assert skeleton.num_keypoints == 17


def test_areas_of_boxes(folder, caplog):
  annotations, _ = opened(folder, drop("area"))
  (area,) = {entry["area"] for entry in annotations.content["annotations"]}
  assert area == pytest.approx(0.53 * 40 * 30)
  assert "3 of 3 annotations have no area" in caplog.text


REFUSED = {
  "boxes as corners": (
    each("bbox", lambda box: [40, 30, 78, 58]),
    "fit as two corners",
  ),
  "boxes as shares": (
    each("bbox", lambda box: [0.2, 0.2, 0.5, 0.5]),
    "shares of the image",
  ),
  "x and y alone": (
    each("keypoints", lambda values: values[:34]),
    "34 keypoint numbers: x and y alone",
  ),
  "a keypoint beyond all numbers": (
    each("keypoints", lambda values: [10**400, *values[1:]]),
    "keypoints that are not finite numbers",
  ),
  "box null": (every(bbox=None), "'bbox' of four finite numbers"),
  "iscrowd a word": (every(iscrowd="no"), "iscrowd 'no'"),
  "a category that is text": (every(category_id="child"), "'child'"),
  "a name of true": (
    lambda content: content["images"][1].update(file_name=True),
    "file name True",
  ),
  "a name of null": (
    lambda content: content["images"][1].update(file_name=None),
    "file name None",
  ),
  "an image id of null": (
    lambda content: content["images"][1].update(id=None),
    "id None",
  ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(folder, kind):
  change, part = REFUSED[kind]
  fixtures.check_refused(lambda: opened(folder, change), part)


@pytest.mark.parametrize("section", ["images", "annotations", "categories"])
def test_any_value_of_any_field(folder, section):
  """The right result or one line, whatever a field holds."""
  _, content = folder

  def perfect(changed):
    annotations, _ = opened((folder[0], changed), lambda content: None)
    people = coco.annotated_people(annotations, (32, 24), 1.25)
    figures = measure(annotations, people).metrics
    assert figures["AP"] == pytest.approx(1)

  count = fixtures.fuzz(content, content[section][-1], perfect)
  assert count["right"]
  assert sum(count.values()) >= 14 * len(content[section][-1])


def test_ids():
  assert coco_plain.whole("007") is None  # another image may be "7"
  assert coco_plain.whole("-3") == -3
  assert coco_plain.whole(True) is None
  assert coco_plain.key("785") == coco_plain.key(785.0) == 785
