"""MPII folders: records (reference 4.2), head boxes, the official release."""

import json

import numpy as np
import pytest
import scipy.io

from configs import default
from input_pipeline import datasets, mpii, mpii_files
from tests import fixtures
from tests.small_mpii import (
  COUNT,
  MPII,
  SIZES,
  head_box,
  person,
  write_evaluation_mat,
  write_images,
  write_json,
  write_release,
)
from tokenpose_jax import skeletons
from tokenpose_jax.errors import InputError


@pytest.fixture
def folder(tmp_path):
  path = tmp_path / "mpii"
  write_images(path)
  write_json(path, [person(n) for n in range(COUNT)])
  return path


def read_of(folder, split="valid"):
  return mpii.read(fixtures.data_of(folder), split, MPII)


def people_of(folder, split="valid"):
  return mpii.annotated_people(read_of(folder, split), (256, 256), 1.25)


def benchmark_of(config, annotations, people):
  return mpii.benchmark(annotations, people, MPII, config, None)


# Records.


def test_people_are_the_originals(tmp_path):
  source = fixtures.require(fixtures.PARITY / "data" / "mpii_annotations.json")
  (tmp_path / "annot").mkdir()
  (tmp_path / "annot" / "valid.json").write_bytes(source.read_bytes())
  annotations = mpii.read(fixtures.data_of(tmp_path), "valid", MPII)
  people = mpii.annotated_people(annotations, (256, 256), 1.25)
  cases = [
    fixtures.case(name)
    for name in fixtures.case_names()
    if name.startswith("mpii") and name.endswith("eval")
  ]
  assert len(people) == len(cases) > 0
  names = [i["file_name"] for i in annotations.content["images"]]
  for number, case in enumerate(cases):
    assert names[people.image[number]] == case["image"]
    np.testing.assert_array_equal(people.center[number], case["record_center"])
    np.testing.assert_array_equal(people.scale[number], case["record_scale"])
    np.testing.assert_array_equal(
      people.keypoints[number], case["record_joints_xy"]
    )
    np.testing.assert_array_equal(
      people.visible[number], case["record_joints_vis"]
    )
  assert people.center.dtype == people.scale.dtype == np.float64


def test_a_center_of_minus_one_is_left_alone(folder):
  write_json(folder, [person(0, center=[-1, -1])])
  people = people_of(folder)
  np.testing.assert_array_equal(people.center, [[-2, -2]])
  np.testing.assert_array_equal(people.scale, [[0.5, 0.5]])


def test_people_keep_the_files_order_and_share_images(folder):
  order = [3, 0, 5, 1, 2, 4]
  write_json(folder, [person(n) for n in order])
  annotations = mpii.read(fixtures.data_of(folder), "valid", MPII)
  people = mpii.annotated_people(annotations, (256, 256), 1.25)
  names = [i["file_name"] for i in annotations.content["images"]]
  assert len(names) == 3
  assert [names[i] for i in people.image] == [person(n)["image"] for n in order]
  wanted = np.array([person(n)["joints"] for n in order]) - 1
  np.testing.assert_allclose(people.keypoints, wanted)


def test_from_a_folder_to_batches(folder, tmp_path):
  write_evaluation_mat(folder, [person(n) for n in range(COUNT)])
  config = default.get_config()
  config.data.name, config.data.skeleton = "mpii", "mpii_16"
  config.data.dir = str(folder)
  config.data.prepared_dir = str(tmp_path / "prepared")
  config.data.eval_split = "valid"
  config.model.input_hw = (32, 32)
  config.train.batch_size = config.eval.batch_size = 4
  split = fixtures.prepare(config, "valid")
  people = datasets.people(split, config)
  np.testing.assert_array_equal(split.widths, [w for _, w in SIZES])
  found = fixtures.train_batches(config, split, people, slots=np.arange(4))
  batch = next(found)
  found.close()
  assert batch["image"].shape == (4, 32, 32, 3)
  assert batch["keypoints"].shape == (4, 16, 2)
  assert batch["mask"].all()
  passed = list(
    fixtures.eval_batches(config, split, people, slots=np.arange(4))
  )
  assert [int(b["mask"].sum()) for b in passed] == [4, 2]
  truth = benchmark_of(config, split.annotations, people).ground_truth
  assert truth["keypoints"].shape == (COUNT, 16, 2)
  wanted = np.array([head_box(n) for n in range(COUNT)]) - 1
  np.testing.assert_allclose(truth["head_boxes"], wanted)
  with pytest.raises(InputError, match="own boxes"):
    datasets.people(split, config, boxes="some.json")


def test_pckh_without_head_boxes_is_refused(folder):
  config = default.get_config()
  config.data.name, config.data.dir = "mpii", str(folder)
  config.data.eval_split = "valid"
  with pytest.raises(InputError, match=r"6 of 6 people.*annot/gt_valid\.mat"):
    benchmark_of(config, read_of(folder), people_of(folder))


# Head boxes.


def test_head_boxes_of_the_evaluation_file(folder):
  assert np.isnan(people_of(folder).head_box).all()
  write_evaluation_mat(folder, [person(n) for n in range(COUNT)])
  wanted = np.array([head_box(n) for n in range(COUNT)]) - 1
  np.testing.assert_allclose(people_of(folder).head_box, wanted)


def test_head_boxes_of_the_release(folder):
  order = [4, 1, 0]
  write_json(folder, [person(n) for n in order])
  write_release(folder, [person(n) for n in range(COUNT)])
  wanted = np.array([head_box(n) for n in order]) - 1
  np.testing.assert_allclose(people_of(folder).head_box, wanted)


def test_head_boxes_of_the_json(folder):
  write_json(folder, [person(0, head_box=head_box(9)), person(1)])
  found = people_of(folder).head_box
  np.testing.assert_allclose(found[0], np.array(head_box(9)) - 1)
  assert np.isnan(found[1]).all()


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"headboxes_src": np.zeros((2, 2, 5))}, "5 people, the annotations of 6"),
    ({"pos_gt_src": np.zeros((16, 2, 6))}, "other joints than the annotations"),
  ],
)
def test_an_evaluation_file_of_others_is_refused(folder, changes, message):
  entries = [person(n) for n in range(COUNT)]
  write_evaluation_mat(folder, entries, **changes)
  with pytest.raises(InputError, match=message):
    people_of(folder)


def test_the_real_evaluation_file_is_read(tmp_path):
  """Against joints taken from it: the structure is the toolkit's own."""
  source = fixtures.require(fixtures.DATA / "mpii" / "gt_valid.mat")
  content = scipy.io.loadmat(source)
  joints = np.moveaxis(content["pos_gt_src"], -1, 0)
  visible = 1 - content["jnt_missing"].T.astype(int)
  entries = [
    person(0, joints=j.tolist(), joints_vis=v.tolist())
    for j, v in zip(joints, visible, strict=True)
  ]
  write_json(tmp_path, entries)
  target = tmp_path / "annot" / "gt_valid.mat"
  target.write_bytes(source.read_bytes())
  people = people_of(tmp_path)
  wanted = np.moveaxis(content["headboxes_src"], -1, 0).reshape(-1, 4) - 1
  np.testing.assert_allclose(people.head_box, wanted)


# The release.


@pytest.fixture
def release(tmp_path):
  path = tmp_path / "release"
  write_images(path)
  write_release(path, [person(n) for n in range(COUNT)])
  return path


def test_the_release_gives_what_the_json_gives(folder, release):
  write_evaluation_mat(folder, [person(n) for n in range(COUNT)])
  wanted, found = people_of(folder), people_of(release, mpii_files.ALL)
  assert len(found) == COUNT
  for field in ("image", "image_id", "center", "scale", "visible", "head_box"):
    np.testing.assert_allclose(
      getattr(found, field), getattr(wanted, field), err_msg=field
    )
  seen = wanted.visible > 0
  np.testing.assert_allclose(found.keypoints[seen], wanted.keypoints[seen])


@pytest.mark.parametrize("list_file", ["valid_images.txt", "valid.json"])
def test_the_split_is_the_common_one(release, list_file):
  if list_file == "valid.json":
    write_json(release, [person(2)])
  else:
    (release / "annot" / list_file).write_text("000000001.jpg\n")
  train = mpii.read(fixtures.data_of(release), "train", MPII).content
  names = [i["file_name"] for i in train["images"]]
  assert names == ["000000000.jpg", "000000002.jpg"]
  if list_file != "valid.json":  # which would be the split itself
    valid = mpii.read(fixtures.data_of(release), "valid", MPII).content
    assert [i["file_name"] for i in valid["images"]] == ["000000001.jpg"]
    assert len(valid["annotations"]) == 2


def test_test_images_are_left_out(tmp_path):
  entries = [person(n) for n in range(COUNT)]
  write_release(tmp_path, entries, train=(1, 0, 1))
  assert len(people_of(tmp_path, mpii_files.ALL)) == 4


def test_the_release_alone_has_no_validation_split(release):
  with pytest.raises(InputError, match=r"valid_images\.txt.*trainval") as error:
    mpii.read(fixtures.data_of(release), "train", MPII)
  assert "\n" not in str(error.value)
  with pytest.raises(InputError, match="not 'test'"):
    mpii.read(fixtures.data_of(release), "test", MPII)


# Broken input.


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("[", "is not JSON"),
    ({"images": []}, "not a list of people"),
    ([{"image": "a.jpg", "center": [1, 2]}], "number 0 has no 'scale'"),
    ([person(0), person(1, joints=[[1, 2]] * 15)], "number 1: 'joints'"),
    ([person(0, joints=[["a", 2]] * 16)], "'joints'"),
    ([person(0, joints_vis=[2] * 16)], "expected 0 or 1"),
    ([person(0, scale=0)], "'scale' is 0"),
    ([person(0, center=[1, None])], "'center'"),
    ([person(0, head_box=[1, 2, 3])], "'head_box'"),
    ([], "no person"),
  ],
)
def test_bad_json_is_named(folder, content, message):
  path = folder / "annot" / "valid.json"
  text = content if isinstance(content, str) else json.dumps(content)
  path.write_text(text)
  with pytest.raises(InputError, match=message) as error:
    people_of(folder)
  assert str(path) in str(error.value)
  assert "\n" not in str(error.value)


def test_any_value_of_any_field_of_the_json(folder):
  """The sound person, or one line; a head box may be unknown."""
  entries = [person(n, head_box=head_box(n)) for n in range(COUNT)]
  write_json(folder, entries)
  sound = people_of(folder)

  def same(changed):
    write_json(folder, changed)
    people = people_of(folder)
    for field in ("center", "scale", "keypoints", "visible"):
      found, wanted = getattr(people, field), getattr(sound, field)
      np.testing.assert_array_equal(found, wanted, err_msg=field)
    known = ~np.isnan(people.head_box)
    np.testing.assert_array_equal(people.head_box[known], sound.head_box[known])

  count = fixtures.fuzz(entries, entries[-1], same)
  assert count == {"right": 4, "refused": 14 * 6 - 4}


@pytest.mark.parametrize("value", [None, float("nan"), 1e308, 10**400, "x"])
def test_the_place_of_what_is_not_labeled_plays_no_part(folder, value):
  entry = person(0)
  assert entry["joints_vis"][1] == 0
  entry["joints"][1] = [value, 0]
  write_json(folder, [entry])
  if value in ("x", 10**400):  # no numbers to read as an array
    fixtures.check_refused(lambda: people_of(folder), "'joints'")
  else:
    assert people_of(folder).visible[0, 1] == 0
  entry["joints"][0] = [value, 0]
  write_json(folder, [entry])
  fixtures.check_refused(lambda: people_of(folder), "number 0: 'joints'")


ODD_MATLAB = {
  "text": "x",
  "nothing": np.zeros((0, 0)),
  "a number": 3.0,
  "NaN": np.nan,
  "infinity": np.inf,
  "a huge number": 1e308,
  "minus one": -1.0,
  "numbers": np.arange(7.0),
  "numbers of other sizes": np.zeros((3, 2, 6)),
  "a struct": {"a": 1.0},
  "cells": np.array([1.0, "x", {"a": 1.0}], object),
}


@pytest.mark.parametrize("kind", ODD_MATLAB)
@pytest.mark.parametrize(
  "field", ["pos_gt_src", "jnt_missing", "headboxes_src"]
)
def test_any_value_of_any_field_of_the_evaluation_file(folder, field, kind):
  entries = [person(n) for n in range(COUNT)]
  write_evaluation_mat(folder, entries, **{field: ODD_MATLAB[kind]})
  fixtures.check_refused(lambda: people_of(folder), "gt_valid.mat", field)


def test_head_boxes_that_are_no_numbers_or_empty_are_not_known(folder):
  entries = [person(n) for n in range(COUNT)]
  boxes = np.stack([np.reshape(head_box(n), (2, 2)) for n in range(COUNT)], -1)
  boxes[0, 0, :3] = [np.nan, np.inf, 1e308]
  boxes[:, :, 3] = 7
  write_evaluation_mat(folder, entries, headboxes_src=boxes)
  config = default.get_config()
  config.data.dir, config.data.eval_split = str(folder), "valid"
  fixtures.check_refused(
    lambda: benchmark_of(config, read_of(folder), people_of(folder)),
    "4 of 6 people",
  )


def test_one_person_is_read_as_several_are(folder):
  write_json(folder, [person(0)])
  write_evaluation_mat(folder, [person(0)])
  wanted = np.array([head_box(0)]) - 1
  np.testing.assert_allclose(people_of(folder).head_box, wanted)
  (folder / "annot" / "valid.json").unlink()
  write_release(folder, [person(0)])
  np.testing.assert_allclose(people_of(folder, mpii_files.ALL).head_box, wanted)


def changed_release(folder, change):
  """A release with its structs changed."""
  write_release(folder, [person(n) for n in range(COUNT)])
  path = folder / "annot" / mpii_files.RELEASE
  content = scipy.io.loadmat(path)["RELEASE"][0, 0]
  fields = {name: content[name] for name in content.dtype.names}
  change(fields)
  scipy.io.savemat(path, {"RELEASE": fields})


def first(structs, *fields):
  """The arrays of structs that the fields of the first ones lead to."""
  for number, field in enumerate(fields):
    structs = (structs.ravel()[0] if number else structs)[field]
  return structs if structs.dtype.names else structs.ravel()[0]  # of cells


RECT = ("annolist", "annorect")
POINT = (*RECT, "annopoints", "point")


@pytest.mark.parametrize("kind", ODD_MATLAB)
@pytest.mark.parametrize(
  ("way", "field"),
  [
    *(((), name) for name in ("annolist", "img_train")),
    *((("annolist",), name) for name in ("image", "annorect")),
    (("annolist", "image"), "name"),
    *((RECT, n) for n in ("x1", "y2", "annopoints", "scale", "objpos")),
    ((*RECT, "objpos"), "x"),
    ((*RECT, "annopoints"), "point"),
    *((POINT, name) for name in ("x", "id")),
  ],
)
def test_any_value_of_any_field_of_the_release(tmp_path, way, field, kind):
  """One line; or a person of the background, whose head may be unknown."""

  def change(fields):
    if way:
      column = first(fields, *way)[field]
      column[(0,) * column.ndim] = ODD_MATLAB[kind]
    else:
      fields[field] = ODD_MATLAB[kind]

  changed_release(tmp_path, change)
  message = ""
  try:
    people = people_of(tmp_path, mpii_files.ALL)
  except InputError as error:
    message = str(error)
  if message:
    assert "\n" not in message
    assert mpii_files.RELEASE in message
  else:
    assert 4 <= len(people) <= 6
    assert np.isfinite(people.center).all()
    assert (people.scale > 0).all()
    assert np.isfinite(people.keypoints).all()


def test_a_list_of_images_that_is_no_text_is_named(release):
  (release / "annot" / "valid_images.txt").write_bytes(b"\xff\xfe\xff")
  fixtures.check_refused(
    lambda: people_of(release, "train"), "valid_images.txt is not UTF-8 text"
  )


def test_bad_folders_and_skeletons_are_named(folder, tmp_path):
  with pytest.raises(InputError, match="nowhere does not exist"):
    mpii.read(fixtures.data_of(tmp_path / "nowhere"), "valid", MPII)
  with pytest.raises(InputError, match=r"train\.json nor .*u12_1\.mat"):
    mpii.read(fixtures.data_of(folder), "train", MPII)
  with pytest.raises(InputError, match=r"coco_17 has 17.*mpii_16"):
    mpii.read(fixtures.data_of(folder), "valid", skeletons.COCO_17)


@pytest.mark.parametrize("raw", [b"", b"MATLAB 5.0 MAT-file, but no"])
def test_a_bad_release_is_named(tmp_path, raw):
  (tmp_path / "annot").mkdir()
  (tmp_path / "annot" / mpii_files.RELEASE).write_bytes(raw)
  with pytest.raises(InputError, match=r"u12_1\.mat is not a MATLAB"):
    mpii.read(fixtures.data_of(tmp_path), mpii_files.ALL, MPII)


def test_a_mat_of_something_else_is_named(tmp_path):
  (tmp_path / "annot").mkdir()
  scipy.io.savemat(tmp_path / "annot" / mpii_files.RELEASE, {"x": 1})
  with pytest.raises(InputError, match="is not MPII's release"):
    mpii.read(fixtures.data_of(tmp_path), mpii_files.ALL, MPII)
