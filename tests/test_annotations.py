"""COCO annotation files: records (reference 4.1), and detector files."""

import hashlib
import json

import numpy as np
import pytest

from input_pipeline import coco as coco_lib
from input_pipeline.people import Annotations
from tests import fixtures
from tokenpose_jax import skeletons

COCO = skeletons.COCO_17
INPUT_HW, PADDING = (256, 192), 1.25
SIZES = {"b.jpg": (100, 120), "a.jpg": (200, 90)}  # ids 100 and 99


@pytest.fixture
def original(tmp_path):
  """The fixtures' annotations, read from a COCO folder."""
  source = fixtures.require(fixtures.PARITY / "data" / "coco_annotations.json")
  (tmp_path / "annotations").mkdir()
  path = tmp_path / "annotations" / "person_keypoints_val2017.json"
  path.write_bytes(source.read_bytes())
  return coco_lib.read(fixtures.data_of(tmp_path), "val2017", COCO)


@pytest.fixture
def folder(tmp_path):
  path = tmp_path / "data"
  fixtures.coco_folder(path, dict.fromkeys(SIZES, b""), SIZES)
  return path


def file_of(folder):
  return folder / "annotations" / "person_keypoints_train.json"


def people_of(*persons):
  """The people of a file with two images and these annotations."""
  images = [
    {"id": 100 - n, "file_name": name, "height": h, "width": w}
    for n, (name, (h, w)) in enumerate(SIZES.items())
  ]
  content = {"images": images, "annotations": list(persons)}
  return coco_lib.annotated_people(
    Annotations("here.json", "", content), INPUT_HW, PADDING
  )


def test_people_are_the_originals(original):
  people = coco_lib.annotated_people(original, INPUT_HW, PADDING)
  cases = [
    fixtures.case(name)
    for name in fixtures.case_names()
    if name.startswith("coco") and name.endswith("eval")
  ]
  assert len(people) == len(cases) > 0
  names = [i["file_name"] for i in original.content["images"]]
  ids = [i["id"] for i in original.content["images"]]
  for number, case in enumerate(cases):
    place = names.index(case["image"])
    assert people.image[number] == place
    assert people.image_id[number] == ids[place]
    np.testing.assert_allclose(
      people.center[number], case["record_center"], rtol=1e-7
    )
    np.testing.assert_allclose(
      people.scale[number], case["record_scale"], rtol=3e-7
    )
    visible = np.array(case["record_joints_vis"])
    np.testing.assert_array_equal(people.visible[number], visible)
    np.testing.assert_array_equal(
      people.keypoints[number], case["record_joints_xy"]
    )
  assert people.center.dtype == people.scale.dtype == np.float32
  np.testing.assert_array_equal(people.score, np.ones(len(cases)))


def test_people_come_in_the_originals_order(original):
  """Found again by their keypoints."""
  wanted = fixtures.expected()["coco_annotation_ids_in_order"]
  people = coco_lib.annotated_people(original, INPUT_HW, PADDING)
  entries = {e["id"]: e for e in original.content["annotations"]}
  assert len(people) == len(wanted)
  for number, identity in enumerate(wanted):
    entry = entries[identity]
    points = np.array(entry["keypoints"]).reshape(-1, 3)
    assert people.image_id[number] == entry["image_id"]
    np.testing.assert_array_equal(people.keypoints[number], points[:, :2])


def test_boxes_are_the_originals(original):
  """Clean boxes, from centre and scale; the longer side of the two."""
  facts = fixtures.expected()
  people = coco_lib.annotated_people(original, INPUT_HW, PADDING)
  for number, name in enumerate(facts["coco_annotation_ids_in_order"]):
    x, y, w, h = facts["coco_clean_bbox"][str(name)]
    center = [x + (w - 1) / 2, y + (h - 1) / 2]
    size = np.array([max(w, h * 0.75), max(h, w / 0.75)])
    np.testing.assert_allclose(people.center[number], center, rtol=1e-6)
    np.testing.assert_allclose(
      people.scale[number], size / 200 * 1.25, rtol=1e-6
    )
    np.testing.assert_allclose(
      people.area[number], np.prod(size * 1.25), rtol=1e-6
    )


def test_detections_are_the_originals(original):
  path = fixtures.PARITY / "data" / "coco_detections.json"
  names = [i["file_name"] for i in original.content["images"]]
  records = fixtures.expected()["coco_detection_records"]
  assert records
  for key, wanted in records.items():
    people = coco_lib.detected_people(
      str(path), original, COCO, INPUT_HW, PADDING, float(key.split("_")[-1])
    )
    assert len(people) == len(wanted)
    for number, record in enumerate(wanted):
      assert names[people.image[number]] == record["image"]
      assert people.score[number] == record["score"]
      np.testing.assert_allclose(
        people.center[number], record["center"], rtol=1e-6
      )
      np.testing.assert_allclose(
        people.scale[number], record["scale"], rtol=1e-6
      )
    assert people.keypoints.shape == (len(wanted), 17, 2)
    assert not people.visible.any()


def test_people_follow_the_images_of_the_file():
  box = (10, 10, 50, 60)
  people = people_of(
    fixtures.person(99, box),
    fixtures.person(100, box),
    fixtures.person(99, box),
  )
  np.testing.assert_array_equal(people.image, [0, 1, 1])
  np.testing.assert_array_equal(people.image_id, [100, 99, 99])


@pytest.mark.parametrize(
  "changes",
  [
    {"iscrowd": 1},
    {"area": 0},
    {"keypoints": [0] * 51},
    {"bbox": [120, 10, 30, 30]},  # beyond the right edge
    {"bbox": [10, 100, 30, 30]},  # below the image
  ],
)
def test_who_is_left_out(changes):
  box = (10, 10, 50, 60)
  other = fixtures.person(100, box, **changes)
  assert len(people_of(fixtures.person(100, box), other)) == 1
  assert (
    len(
      people_of(
        fixtures.person(100, box), {**other, **fixtures.person(100, box)}
      )
    )
    == 2
  )


def test_boxes_are_clipped_to_the_image():
  people = people_of(fixtures.person(100, (-20, -10, 60, 200)))
  # x 0..59, y 0..99: the width is not shortened by what was cut off left.
  np.testing.assert_allclose(people.center, [[29.5, 49.5]])
  np.testing.assert_allclose(people.scale * 160, [[75, 100]], rtol=1e-6)


def test_visible_and_occluded_are_both_labelled():
  keypoints = np.zeros((17, 3))
  keypoints[:3] = [[1, 2, 2], [3, 4, 1], [5, 6, 0]]
  person = fixtures.person(100, (0, 0, 20, 20), keypoints=keypoints.ravel())
  people = people_of({**person, "keypoints": keypoints.ravel().tolist()})
  np.testing.assert_array_equal(people.visible[0, :4], [1, 1, 0, 0])
  assert people.visible.dtype == np.float32


def test_identity_is_the_hash_of_the_bytes(folder):
  read = coco_lib.read(fixtures.data_of(folder), "train", COCO)
  raw = file_of(folder).read_bytes()
  assert read.sha256 == hashlib.sha256(raw).hexdigest()
  assert read.path == str(file_of(folder))
  file_of(folder).write_bytes(raw + b" ")
  again = coco_lib.read(fixtures.data_of(folder), "train", COCO)
  assert again.sha256 != read.sha256
  assert again.content == read.content


@pytest.mark.parametrize(
  "persons", [[], [fixtures.person(100, (1, 1, 9, 9), iscrowd=1)]]
)
def test_nobody_is_labelled(persons):
  fixtures.check_refused(lambda: people_of(*persons), "here.json", "no person")


BOX = {"image_id": 99, "category_id": 1, "bbox": [1, 2, 30, 40], "score": 0.5}


def detected(folder, content, min_score=0.0):
  path = folder / "boxes.json"
  path.write_text(content if isinstance(content, str) else json.dumps(content))
  read = coco_lib.read(fixtures.data_of(folder), "train", COCO)
  return coco_lib.detected_people(
    str(path), read, COCO, INPUT_HW, PADDING, min_score
  )


def test_detections_below_the_threshold_and_of_others_are_left_out(folder):
  boxes = [BOX, {**BOX, "score": 0.4}, {**BOX, "category_id": 2}]
  assert len(detected(folder, boxes)) == 2
  people = detected(folder, boxes, 0.5)
  np.testing.assert_array_equal(people.score, [0.5])
  np.testing.assert_array_equal(people.image, [1])
  np.testing.assert_array_equal(people.image_id, [99])


def test_detections_are_not_clipped(folder):
  people = detected(folder, [{**BOX, "bbox": [-20, -10, 61, 81]}])
  np.testing.assert_allclose(people.center, [[10, 30]])


@pytest.mark.parametrize(
  ("content", "parts"),
  [
    ("{", ["is not JSON"]),
    ({"boxes": []}, ["list of boxes", "dict"]),
    ([BOX, {**BOX, "image_id": 5}], ["number 1", "image 5", "another split"]),
    ([{k: v for k, v in BOX.items() if k != "score"}], ["number 0", "'score'"]),
    ([BOX, 3], ["number 1", "'image_id'"]),
    ([{**BOX, "bbox": [1, 2, 3]}], ["number 0", "x, y, w, h"]),
    (
      '[{"image_id": 99, "category_id": 1, "bbox": [1, 2, 3, NaN],'
      ' "score": 1}]',
      ["number 0", "x, y, w, h"],
    ),
    ([], ["no box of category 1", "(none)"]),
    ([{**BOX, "score": "high"}], ["number 0", "'high'", "not a number"]),
    (
      [{**BOX, "bbox": [0.1, 0.1, 0.5, 0.5]}] * 3,
      ["shares of the image"],
    ),
    ([{**BOX, "category_id": 2}], ["no box of category 1"]),
  ],
)
def test_bad_detector_file(folder, content, parts):
  fixtures.check_refused(
    lambda: detected(folder, content), folder / "boxes.json", *parts
  )


def test_any_value_of_any_field_of_a_detector_file(folder):
  boxes = [dict(BOX), dict(BOX), dict(BOX)]
  count = fixtures.fuzz(boxes, boxes[-1], lambda b: detected(folder, b))
  assert count["right"] >= 10
  assert count["refused"] >= 20


def test_missing_detector_file(folder):
  read = coco_lib.read(fixtures.data_of(folder), "train", COCO)
  for path in (folder / "no.json", folder):
    fixtures.check_refused(
      lambda p=path: coco_lib.detected_people(
        str(p), read, COCO, INPUT_HW, PADDING, 0.0
      ),
      path,
      "eval.boxes",
      "does not exist",
    )
