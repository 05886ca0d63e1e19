"""metrics/coco.py, against the fixtures and pycocotools.

pycocotools is the judge: every figure has to equal its own to 1e-9.
"""

import json
import math
import pathlib

import numpy as np
import pytest

from tests import coco_sets, fixtures
from tokenpose_jax import skeletons
from tokenpose_jax.metrics import coco

SIGMAS = np.array(skeletons.COCO_17.sigmas)


def _json(path: pathlib.Path):
  return json.loads(path.read_text())


@pytest.mark.parametrize("seed", range(24))
def test_figures_of_random_sets_are_those_of_pycocotools(seed):
  truth, results = coco_sets.random_set(
    seed, num_categories=1 + seed % 2, grid=seed % 3 == 0
  )
  theirs = coco_sets.official_metrics(truth, results)
  assert 0 < theirs["AP"] < 1
  coco_sets.check_same(coco.evaluate(truth, results), theirs)


@pytest.mark.parametrize("seed", range(8))
def test_another_skeleton_with_its_own_sigmas(seed):
  sigmas = np.random.default_rng(seed).uniform(0.02, 0.12, 5)
  truth, results = coco_sets.random_set(seed, k=5, grid=seed % 2 == 0)
  theirs = coco_sets.official_metrics(truth, results, sigmas)
  assert theirs != coco_sets.official_metrics(truth, results, sigmas * 2)
  coco_sets.check_same(
    coco.evaluate(truth, results, sigmas=sigmas.tolist()), theirs
  )


def test_a_part_of_the_images():
  truth, results = coco_sets.random_set(3)
  some = [image["id"] for image in truth["images"][:4]]
  theirs = coco_sets.official_metrics(truth, results, image_ids=some)
  assert theirs != coco_sets.official_metrics(truth, results)
  coco_sets.check_same(coco.evaluate(truth, results, image_ids=some), theirs)
  coco_sets.check_same(
    coco.evaluate(truth, results, image_ids=np.array(some)), theirs
  )


def test_no_detections_at_all_are_zero_where_there_are_people():
  truth, _ = coco_sets.random_set(3)
  figures = coco.evaluate(truth, [])
  coco_sets.check_same(figures, coco_sets.official_metrics(truth, []))
  assert set(figures.values()) == {0.0}


@pytest.mark.parametrize("field", ["iscrowd", "num_keypoints"])
def test_minus_one_where_there_is_nobody_to_measure(field):
  truth, results = coco_sets.random_set(3)
  for person in truth["annotations"]:
    person[field] = 1 if field == "iscrowd" else 0
    if field == "num_keypoints":
      person["keypoints"][2::3] = [0] * 17
  figures = coco.evaluate(truth, results)
  coco_sets.check_same(figures, coco_sets.official_metrics(truth, results))
  assert set(figures.values()) == {-1.0}


def test_people_whom_nobody_counted_are_counted(caplog):
  truth, results = coco_sets.random_set(3)
  for person in truth["annotations"]:
    person["num_keypoints"] = sum(v > 0 for v in person["keypoints"][2::3])
  theirs = coco_sets.official_metrics(truth, results)
  for person in truth["annotations"]:
    person["num_keypoints"] = 0
  coco_sets.check_same(coco.evaluate(truth, results), theirs)
  assert "num_keypoints is 0 everywhere" in caplog.text


@pytest.mark.parametrize("kept", ["images", "categories"])
def test_minus_one_for_an_empty_data_set(kept):
  truth, _ = coco_sets.random_set(3)
  empty = {"images": [], "annotations": [], "categories": []}
  figures = coco.evaluate(empty | {kept: truth[kept]}, [])
  assert set(figures.values()) == {-1.0}


def test_minus_one_for_a_size_that_does_not_occur():
  truth, results = coco_sets.random_set(3)
  for person in truth["annotations"]:
    person["area"] = 200.0**2
  figures = coco.evaluate(truth, results)
  coco_sets.check_same(figures, coco_sets.official_metrics(truth, results))
  assert (figures["APM"], figures["ARM"]) == (-1, -1)
  assert figures["APL"] > 0


def test_boxes_in_the_results_decide_their_areas_as_in_pycocotools():
  truth, results = coco_sets.random_set(6)
  plain = coco_sets.official_metrics(truth, results)
  for result in results:
    result["bbox"] = [1.0, 2.0, 3.0, 4.0]
  theirs = coco_sets.official_metrics(truth, results)
  assert theirs != plain
  coco_sets.check_same(coco.evaluate(truth, results), theirs)
  del results[0]["bbox"]  # The first one decides.
  coco_sets.check_same(coco.evaluate(truth, results), plain)
  results[0]["bbox"] = []
  coco_sets.check_same(coco.evaluate(truth, results), plain)


@pytest.mark.parametrize("network", ["a", "b"])
def test_published_predictions_for_minival(network):
  directory = fixtures.require(fixtures.DATA / "coco")
  name = f"network_{network}_gtbox.json"
  expected = _json(directory / "results" / "expected.json")[name]
  figures = coco.evaluate(
    directory / "annotations" / "person_keypoints_minival.json",
    directory / "results" / name,
  )
  coco_sets.check_same(figures, dict(zip(coco.FIGURES, expected, strict=True)))


@pytest.mark.parametrize(
  ("sigmas", "message"),
  [
    ([0.1] * 5, r"51 numbers, expected 15: 3 for each of 5 sigmas"),
    ([0.1] * 16 + [0.0], "positive"),
    ([0.1] * 16 + [math.nan], "positive"),
    ([[0.1] * 17], "positive"),
  ],
)
def test_sigmas_that_do_not_fit(sigmas, message):
  truth, results = coco_sets.random_set(9)
  with pytest.raises(ValueError, match=message):
    coco.evaluate(truth, results, sigmas=sigmas)


def test_table():
  values = [0.5344, 0.8, 0.6, -1, 1, 0.0, 0.25, 0.125, 0.0625, -1]
  table = coco.format_table(
    dict(zip(coco.FIGURES, values, strict=True)), title="minival"
  )
  assert table.split("\n") == [
    "minival",
    "         all     .50     .75  medium   large",
    "AP     0.534   0.800   0.600       -   1.000",
    "AR     0.000   0.250   0.125   0.062       -",
  ]
  assert not coco.format_table(
    coco.evaluate(*coco_sets.random_set(1))
  ).startswith("\n")
