"""metrics/coco_files.py: what is read, what is passed over, what is refused."""

import copy
import json
import math

import numpy as np
import pytest

from tests import coco_sets, fixtures
from tokenpose_jax import skeletons
from tokenpose_jax.metrics import coco, coco_files

SIGMAS = np.array(skeletons.COCO_17.sigmas)


def test_results_of_unknown_categories_are_passed_over():
  truth, results = coco_sets.random_set(6)
  for result in results[::3]:
    result["category_id"] = 99
  coco_sets.check_same(
    coco.evaluate(truth, results), coco_sets.official_metrics(truth, results)
  )


def test_annotations_of_unlisted_images_are_passed_over():
  truth, results = coco_sets.random_set(6)
  for person in truth["annotations"][::3]:
    person["image_id"] = 10**6
  coco_sets.check_same(
    coco.evaluate(truth, results), coco_sets.official_metrics(truth, results)
  )


def test_ids_may_be_text_or_large():
  truth, results = coco_sets.random_set(6, grid=True)
  theirs = coco_sets.official_metrics(truth, results)
  for rename in ("im{:05d}".format, lambda i: 2**60 + i):
    renamed, found = copy.deepcopy((truth, results))
    for image in renamed["images"]:
      image["id"] = rename(image["id"])
    for entry in renamed["annotations"] + found:
      entry["image_id"] = rename(entry["image_id"])
    coco_sets.check_same(coco.evaluate(renamed, found), theirs)


def test_annotation_ids_play_no_part():
  truth, results = coco_sets.random_set(6)
  theirs = coco_sets.official_metrics(truth, results)
  for number, person in enumerate(truth["annotations"]):
    person["id"] = number // 2  # From 0, and every other one repeats.
  coco_sets.check_same(coco.evaluate(truth, results), theirs)


def test_absent_counts_and_crowd_flags_are_filled_in():
  truth, results = coco_sets.random_set(7)
  for number, person in enumerate(truth["annotations"]):
    if number % 2:  # Labelled, and nothing of it in sight.
      person["keypoints"][2::3] = [
        int(v > 0) for v in person["keypoints"][2::3]
      ]
    person["num_keypoints"] = sum(v > 0 for v in person["keypoints"][2::3])
    person["iscrowd"] = 0
  theirs = coco_sets.official_metrics(truth, results)
  for person in truth["annotations"]:
    del person["iscrowd"], person["num_keypoints"]
  coco_sets.check_same(coco.evaluate(truth, results), theirs)


def test_paths_and_objects_give_the_same_and_nothing_is_printed(
  tmp_path, capfd
):
  truth, results = coco_sets.random_set(8)
  paths = tmp_path / "truth.json", tmp_path / "results.json"
  paths[0].write_text(json.dumps(truth))
  paths[1].write_text(json.dumps(results))
  figures = coco.evaluate(truth, results)
  assert figures["AP"] > 0
  assert coco.evaluate(str(paths[0]), paths[1]) == figures
  assert coco.evaluate(truth, str(paths[1])) == figures
  coco.evaluate(truth, [], sigmas=SIGMAS * 2)
  assert capfd.readouterr() == ("", "")


def test_inputs_are_not_changed():
  truth, results = coco_sets.random_set(8)
  before = copy.deepcopy((truth, results))
  coco.evaluate(truth, results, image_ids=[truth["images"][0]["id"]])
  assert (truth, results) == before


@pytest.mark.parametrize("seed", range(4))
def test_odd_but_readable_entries_give_the_same(seed):
  """The slow way and the quick way of reading, and everything between."""
  truth, results = coco_sets.random_set(seed, grid=True)
  for change in (
    lambda r: r.update(keypoints=np.array(r["keypoints"], np.float32)),
    lambda r: r.update(keypoints=[int(x) for x in r["keypoints"]]),
    lambda r: r.update(score=np.float32(r["score"])),
    lambda r: r.update(image_id=np.int64(r["image_id"])),
    lambda r: r.update(comment="other fields", center=[1, 2], id=-4),
    lambda r: r.update(keypoints=tuple(r["keypoints"])),
  ):
    odd = copy.deepcopy(results)
    for result in odd[:: 1 + seed]:
      change(result)
    before = copy.deepcopy(odd)
    figures = coco.evaluate(truth, odd)
    assert str(odd) == str(before)
    coco_sets.check_same(
      figures, coco_sets.official_metrics(truth, _plain(odd))
    )


def _plain(results):
  """What JSON would make of them."""
  return [
    {
      "image_id": int(r["image_id"]),
      "category_id": r["category_id"],
      "score": float(r["score"]),
      "keypoints": [float(x) for x in r["keypoints"]],
    }
    for r in results
  ]


def test_the_image_id_zero_is_an_id_like_others():
  truth, results = coco_sets.random_set(6, grid=True)
  theirs = coco_sets.official_metrics(truth, results)
  lowest = min(image["id"] for image in truth["images"])
  for entry in truth["annotations"] + results:
    entry["image_id"] -= lowest
  for image in truth["images"]:
    image["id"] -= lowest
  coco_sets.check_same(coco.evaluate(truth, results), theirs)


def _set(where, field, value):
  """Changes one field of the third annotation or result."""

  def change(truth, results):
    entries = results if where == "results" else truth[where]
    entries[2][field] = value

  return change


def _drop(where, field):
  def change(truth, results):
    entries = results if where == "results" else truth[where]
    del entries[2][field]

  return change


NAN = [math.nan] + [1.0] * 50
LATE_INF = [1.0] * 50 + [math.inf]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (_drop("results", "score"), r"results\[2\].*'score' is missing"),
    (_drop("results", "image_id"), r"results\[2\].*'image_id' is missing"),
    (_drop("results", "category_id"), r"results\[2\].*'category_id' is miss"),
    (_drop("results", "keypoints"), r"results\[2\].*'keypoints' is missing"),
    (
      _set("results", "keypoints", [1.0] * 48),
      r"results\[2\].*48.*expected 51",
    ),
    (_set("results", "keypoints", NAN), r"results\[2\] \(image_id \d+\).*NaN"),
    (_set("results", "keypoints", LATE_INF), r"results\[2\].*keypoints.*infin"),
    (_set("results", "keypoints", None), r"results\[2\].*keypoints"),
    (_set("results", "keypoints", ["x"] * 51), r"results\[2\].*not a number"),
    (
      _set("results", "score", math.nan),
      r"results\[2\] \(image_id.*score.*NaN",
    ),
    (_set("results", "score", math.inf), r"results\[2\].*score.*NaN or inf"),
    (_set("results", "score", [0.5]), r"results\[2\].*score.*shape \(1,\)"),
    (_set("results", "score", "high"), r"results\[2\].*score is not a number"),
    (_set("results", "image_id", 99999), r"results: 1 image ids.*99999"),
    (_set("results", "image_id", [1]), r"results\[2\]: image_id is \[1\]"),
    (_drop("annotations", "bbox"), r"annotations\[2\].*'bbox' is missing"),
    (_drop("annotations", "keypoints"), r"annotations\[2\].*'keypoints' is m"),
    (_drop("annotations", "image_id"), r"annotations\[2\].*'image_id' is mis"),
    (_set("annotations", "keypoints", NAN), r"annotations\[2\].*NaN"),
    (
      _set("annotations", "keypoints", [0] * 15),
      r"annotations\[2\].*15 numbers",
    ),
    (_set("annotations", "bbox", [1, 2]), r"annotations\[2\].*bbox.*shape"),
    (_drop("images", "id"), r"images\[2\].*'id' is missing"),
    (lambda t, _: t.pop("images"), "annotations: 'images' is missing"),
    (lambda t, _: t.pop("annotations"), "annotations: 'annotations' is miss"),
    (lambda t, _: t["annotations"].insert(0, 5), r"annotations\[0\].*got 5"),
    (lambda _, r: r.insert(1, "x"), r"results\[1\]: expected a dictionary"),
    (
      lambda _, r: [x.update(category_id=4) for x in r],
      r"category_id 4 is not a category.*\[1\]",
    ),
    (
      lambda _, r: [x.update(bbox=[1, 2, 3, 4]) for x in r[:4]],
      r"results\[4\].*bbox is missing, but others have it",
    ),
  ],
)
def test_a_bad_entry_is_named_in_one_line(change, message):
  truth, results = coco_sets.random_set(9)
  # Otherwise the ids mix types in the results before they do in the images.
  results = [r for r in results if r["image_id"] != truth["images"][2]["id"]]
  coco.evaluate(truth, results)
  change(truth, results)
  with pytest.raises(ValueError, match=message) as caught:
    coco.evaluate(truth, results)
  assert "\n" not in str(caught.value)


def test_unknown_images_are_named():
  truth, results = coco_sets.random_set(9)
  with pytest.raises(ValueError, match=r"image_ids: 2 image ids.*777, 888"):
    coco.evaluate(truth, results, image_ids=[1, 888, 777])


@pytest.mark.parametrize("results", [{}, "text", 7, None])
def test_results_that_are_no_list(results, tmp_path):
  truth, _ = coco_sets.random_set(9)
  path = tmp_path / "results.json"
  path.write_text(json.dumps(results))
  with pytest.raises(ValueError, match="results: expected a list"):
    coco.evaluate(truth, path)


def test_annotations_that_are_no_dictionary(tmp_path):
  path = tmp_path / "annotations.json"
  path.write_text("[]")
  with pytest.raises(ValueError, match=r"annotations: expected a dict.*list"):
    coco.evaluate(path, [])


def test_files_that_are_missing_or_no_json(tmp_path):
  truth, results = coco_sets.random_set(9)
  with pytest.raises(ValueError, match=r"results: .*nowhere\.json does not ex"):
    coco.evaluate(truth, tmp_path / "nowhere.json")
  with pytest.raises(ValueError, match="annotations: cannot read"):
    coco.evaluate(tmp_path, results)
  for content in (b"[1,", b"\xff\xfe\x81"):
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.json is not JSON"):
      coco.evaluate(tmp_path / "bad.json", results)


@pytest.mark.parametrize("change", [_drop, lambda *a: _set(*a, None)])
def test_an_area_that_is_missing_is_taken_from_the_box(change, caplog):
  truth, results = coco_sets.random_set(9)
  change("annotations", "area")(truth, results)
  dataset, _ = coco_files.read(truth, results, 17)
  _, _, w, h = truth["annotations"][2]["bbox"]
  assert dataset["annotations"][2]["area"] == pytest.approx(0.53 * w * h)
  assert "1 of" in caplog.text


@pytest.mark.parametrize("section", ["images", "annotations", "results"])
def test_any_value_of_any_field(section):
  """The figures of the sound file, nearly, or one line."""
  truth, results = coco_sets.random_set(9)
  sound = coco.evaluate(truth, results)
  both = {**truth, "results": results}

  def near(changed):
    figures = coco.evaluate(truth, changed["results"])
    assert figures["AP"] == pytest.approx(sound["AP"], abs=0.15)

  count = fixtures.fuzz(both, both[section][-1], near)
  assert sum(count.values()) == 14 * len(both[section][-1])
  assert count["refused"]
