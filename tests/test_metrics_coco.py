"""metrics/coco.py, coco_files.py, oks.py, nms.py, against the fixtures.

pycocotools is the judge: every figure has to equal its own to 1e-9.
"""

import contextlib
import copy
import io
import json
import math
import pathlib
import time
import warnings

import numpy as np
import pytest

from tests import fixtures
from tokenpose_jax import skeletons
from tokenpose_jax.metrics import coco, nms, oks

SIGMAS = np.array(skeletons.COCO_17.sigmas)
# The fixtures' names for coco.FIGURES.
FIXTURE_NAMES = (
  *("AP", "Ap .5", "AP .75", "AP (M)", "AP (L)"),
  *("AR", "AR .5", "AR .75", "AR (M)", "AR (L)"),
)


def _json(path: pathlib.Path):
  return json.loads(path.read_text())


def _pycocotools(truth, results, sigmas=None, image_ids=None) -> dict:
  """The official evaluation of copies of the inputs, without its prints."""
  truth, results = copy.deepcopy((truth, results))
  with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
    warnings.simplefilter("ignore")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    ground_truth = COCO()
    ground_truth.dataset = truth
    ground_truth.createIndex()
    if results:
      detections = ground_truth.loadRes(results)
    else:  # loadRes looks at the first result.
      detections = COCO()
      detections.dataset = truth | {"annotations": []}
      detections.createIndex()
    evaluation = COCOeval(ground_truth, detections, "keypoints")
    if sigmas is not None:
      evaluation.params.kpt_oks_sigmas = np.asarray(sigmas)
    if image_ids is not None:
      evaluation.params.imgIds = list(image_ids)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
  return dict(zip(coco.FIGURES, map(float, evaluation.stats), strict=True))


def _synthetic(seed, k=17, num_images=10, num_categories=1, grid=False):
  """Random people and noisy detections of them, in COCO's layout.

  Has crowds, unlabelled people, a `num_keypoints` that the keypoints belie,
  images without people or detections, more than 20 detections in an image,
  and equal scores. `grid` takes integer coordinates and areas and spoils
  whole keypoints, which makes many equal OKS and some equal to a threshold.
  """
  rng = np.random.default_rng(seed)
  images = [{"id": 3 * int(i) + 1} for i in rng.permutation(num_images)]
  people, results = [], []
  for image in images:
    for _ in range(rng.integers(0, 6)):
      size = float(rng.choice([15, 40, 80, 150, 400]))
      corner = rng.uniform(0, 400, 2)
      points = corner + size * rng.random((k, 2))
      points = np.round(points) if grid else points
      visibility = rng.integers(0, 3, k) * (rng.random() > 0.15)
      labelled = int(np.sum(visibility > 0))
      if rng.random() < 0.05:
        labelled = 0 if labelled else 1
      ids = {
        "image_id": image["id"],
        "category_id": int(rng.integers(1, num_categories + 1)),
      }
      people.append(
        ids
        | {
          "id": len(people) + 1,
          "iscrowd": int(rng.random() < 0.12),
          "area": size**2 * (1 if grid else rng.uniform(0.4, 1)),
          "bbox": [*corner.tolist(), size, size],
          "num_keypoints": labelled,
          "keypoints": np.column_stack(
            [points * (visibility > 0)[:, None], visibility]
          )
          .ravel()
          .tolist(),
        }
      )
      for _ in range(rng.choice([0, 1, 1, 2, 3, 9])):
        if grid:
          moved = rng.random((k, 1)) < rng.choice([0, 0.1, 0.25, 0.5])
          found = points + moved * rng.choice([1000, 50, 3])
          score = float(rng.choice([0.1, 0.3, 0.5, 0.9]))
        else:
          spread = size * rng.choice([0.01, 0.03, 0.08])
          found = points + rng.normal(0, spread, (k, 2))
          score = round(rng.random(), int(rng.choice([1, 6])))
        results.append(
          ids
          | {
            "score": score,
            "keypoints": np.column_stack([found, rng.random(k)])
            .ravel()
            .tolist(),
          }
        )
  results = [results[i] for i in rng.permutation(len(results))]
  categories = [{"id": i + 1, "name": f"c{i}"} for i in range(num_categories)]
  return {
    "images": images,
    "annotations": people,
    "categories": categories,
  }, results


def _same(ours, theirs):
  assert tuple(ours) == coco.FIGURES
  assert all(type(value) is float for value in ours.values())
  assert ours == pytest.approx(theirs, abs=1e-9, rel=0)


# --- evaluate: the figures ---------------------------------------------------


@pytest.mark.parametrize("seed", range(24))
def test_figures_of_random_sets_are_those_of_pycocotools(seed):
  truth, results = _synthetic(
    seed, num_categories=1 + seed % 2, grid=seed % 3 == 0
  )
  theirs = _pycocotools(truth, results)
  assert 0 < theirs["AP"] < 1
  _same(coco.evaluate(truth, results), theirs)


@pytest.mark.parametrize("seed", range(8))
def test_another_skeleton_with_its_own_sigmas(seed):
  sigmas = np.random.default_rng(seed).uniform(0.02, 0.12, 5)
  truth, results = _synthetic(seed, k=5, grid=seed % 2 == 0)
  theirs = _pycocotools(truth, results, sigmas)
  assert theirs != _pycocotools(truth, results, sigmas * 2)
  _same(coco.evaluate(truth, results, sigmas=sigmas.tolist()), theirs)


def test_a_part_of_the_images():
  truth, results = _synthetic(3)
  some = [image["id"] for image in truth["images"][:4]]
  theirs = _pycocotools(truth, results, image_ids=some)
  assert theirs != _pycocotools(truth, results)
  _same(coco.evaluate(truth, results, image_ids=some), theirs)
  _same(coco.evaluate(truth, results, image_ids=np.array(some)), theirs)


def test_no_detections_at_all_are_zero_where_there_are_people():
  truth, _ = _synthetic(3)
  figures = coco.evaluate(truth, [])
  _same(figures, _pycocotools(truth, []))
  assert set(figures.values()) == {0.0}


@pytest.mark.parametrize("field", ["iscrowd", "num_keypoints"])
def test_minus_one_where_there_is_nobody_to_measure(field):
  truth, results = _synthetic(3)
  for person in truth["annotations"]:
    person[field] = 1 if field == "iscrowd" else 0
  figures = coco.evaluate(truth, results)
  _same(figures, _pycocotools(truth, results))
  assert set(figures.values()) == {-1.0}


@pytest.mark.parametrize("kept", ["images", "categories"])
def test_minus_one_for_an_empty_data_set(kept):
  truth, _ = _synthetic(3)
  empty = {"images": [], "annotations": [], "categories": []}
  figures = coco.evaluate(empty | {kept: truth[kept]}, [])
  assert set(figures.values()) == {-1.0}


def test_minus_one_for_a_size_that_does_not_occur():
  truth, results = _synthetic(3)
  for person in truth["annotations"]:
    person["area"] = 200.0**2
  figures = coco.evaluate(truth, results)
  _same(figures, _pycocotools(truth, results))
  assert (figures["APM"], figures["ARM"]) == (-1, -1)
  assert figures["APL"] > 0


def test_boxes_in_the_results_decide_their_areas_as_in_pycocotools():
  truth, results = _synthetic(6)
  plain = _pycocotools(truth, results)
  for result in results:
    result["bbox"] = [1.0, 2.0, 3.0, 4.0]
  theirs = _pycocotools(truth, results)
  assert theirs != plain
  _same(coco.evaluate(truth, results), theirs)
  del results[0]["bbox"]  # The first one decides.
  _same(coco.evaluate(truth, results), plain)
  results[0]["bbox"] = []
  _same(coco.evaluate(truth, results), plain)


def test_results_of_unknown_categories_are_passed_over():
  truth, results = _synthetic(6)
  for result in results[::3]:
    result["category_id"] = 99
  _same(coco.evaluate(truth, results), _pycocotools(truth, results))


def test_annotations_of_unlisted_images_are_passed_over():
  truth, results = _synthetic(6)
  for person in truth["annotations"][::3]:
    person["image_id"] = 10**6
  _same(coco.evaluate(truth, results), _pycocotools(truth, results))


def test_ids_may_be_text_or_large():
  truth, results = _synthetic(6, grid=True)
  theirs = _pycocotools(truth, results)
  for rename in ("im{:05d}".format, lambda i: 2**60 + i):
    renamed, found = copy.deepcopy((truth, results))
    for image in renamed["images"]:
      image["id"] = rename(image["id"])
    for entry in renamed["annotations"] + found:
      entry["image_id"] = rename(entry["image_id"])
    _same(coco.evaluate(renamed, found), theirs)


def test_annotation_ids_play_no_part():
  truth, results = _synthetic(6)
  theirs = _pycocotools(truth, results)
  for number, person in enumerate(truth["annotations"]):
    person["id"] = number // 2  # From 0, and every other one repeats.
  _same(coco.evaluate(truth, results), theirs)


def test_absent_counts_and_crowd_flags_are_filled_in():
  truth, results = _synthetic(7)
  for number, person in enumerate(truth["annotations"]):
    if number % 2:  # Labelled, and nothing of it in sight.
      person["keypoints"][2::3] = [
        int(v > 0) for v in person["keypoints"][2::3]
      ]
    person["num_keypoints"] = sum(v > 0 for v in person["keypoints"][2::3])
    person["iscrowd"] = 0
  theirs = _pycocotools(truth, results)
  for person in truth["annotations"]:
    del person["iscrowd"], person["num_keypoints"]
  _same(coco.evaluate(truth, results), theirs)


def test_paths_and_objects_give_the_same_and_nothing_is_printed(
  tmp_path, capfd
):
  truth, results = _synthetic(8)
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
  truth, results = _synthetic(8)
  before = copy.deepcopy((truth, results))
  coco.evaluate(truth, results, image_ids=[truth["images"][0]["id"]])
  assert (truth, results) == before


@pytest.mark.parametrize("network", ["a", "b"])
def test_published_predictions_for_minival(network):
  directory = fixtures.require(fixtures.DATA / "coco")
  name = f"network_{network}_gtbox.json"
  expected = _json(directory / "results" / "expected.json")[name]
  figures = coco.evaluate(
    directory / "annotations" / "person_keypoints_minival.json",
    directory / "results" / name,
  )
  _same(figures, dict(zip(coco.FIGURES, expected, strict=True)))


@pytest.mark.parametrize("seed", range(4))
def test_odd_but_readable_entries_give_the_same(seed):
  """The slow way and the quick way of reading, and everything between."""
  truth, results = _synthetic(seed, grid=True)
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
    _same(figures, _pycocotools(truth, _plain(odd)))


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
  truth, results = _synthetic(6, grid=True)
  theirs = _pycocotools(truth, results)
  lowest = min(image["id"] for image in truth["images"])
  for entry in truth["annotations"] + results:
    entry["image_id"] -= lowest
  for image in truth["images"]:
    image["id"] -= lowest
  _same(coco.evaluate(truth, results), theirs)


# --- evaluate: what is wrong with the input ----------------------------------


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
    (_set("results", "keypoints", ["x"] * 51), r"results\[2\].*no number"),
    (
      _set("results", "score", math.nan),
      r"results\[2\] \(image_id.*score.*NaN",
    ),
    (_set("results", "score", math.inf), r"results\[2\].*score.*NaN or inf"),
    (_set("results", "score", [0.5]), r"results\[2\].*score.*shape \(1,\)"),
    (_set("results", "score", "high"), r"results\[2\].*score is no number"),
    (_set("results", "image_id", 99999), r"results: 1 image ids.*99999"),
    (_set("results", "image_id", [1]), r"results\[2\]: image_id is \[1\]"),
    (_drop("annotations", "area"), r"annotations\[2\].*'area' is missing"),
    (_drop("annotations", "bbox"), r"annotations\[2\].*'bbox' is missing"),
    (_drop("annotations", "keypoints"), r"annotations\[2\].*'keypoints' is m"),
    (_drop("annotations", "image_id"), r"annotations\[2\].*'image_id' is mis"),
    (_set("annotations", "area", None), r"annotations\[2\].*area"),
    (_set("annotations", "area", math.nan), r"annotations\[2\].*area.*NaN"),
    (_set("annotations", "keypoints", NAN), r"annotations\[2\].*NaN"),
    (
      _set("annotations", "keypoints", [0] * 15),
      r"annotations\[2\].*15 numbers",
    ),
    (_set("annotations", "bbox", [1, 2]), r"annotations\[2\].*bbox.*shape"),
    (_drop("images", "id"), r"images\[2\].*'id' is missing"),
    (_set("images", "id", "four"), r"images: ids are partly text"),
    (lambda t, _: t.pop("images"), "annotations: 'images' is missing"),
    (lambda t, _: t.pop("annotations"), "annotations: 'annotations' is miss"),
    (lambda t, _: t.pop("categories"), "annotations: 'categories' is missing"),
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
  truth, results = _synthetic(9)
  # Otherwise the ids mix types in the results before they do in the images.
  results = [r for r in results if r["image_id"] != truth["images"][2]["id"]]
  coco.evaluate(truth, results)
  change(truth, results)
  with pytest.raises(ValueError, match=message) as caught:
    coco.evaluate(truth, results)
  assert "\n" not in str(caught.value)


def test_unknown_images_are_named():
  truth, results = _synthetic(9)
  with pytest.raises(ValueError, match=r"image_ids: 2 image ids.*777, 888"):
    coco.evaluate(truth, results, image_ids=[1, 888, 777])


@pytest.mark.parametrize("results", [{}, "{}", 7, None])
def test_results_that_are_no_list(results, tmp_path):
  truth, _ = _synthetic(9)
  if isinstance(results, str):
    path = tmp_path / "results.json"
    path.write_text(results)
    results = path
  with pytest.raises(ValueError, match="results: expected a list"):
    coco.evaluate(truth, results)


def test_annotations_that_are_no_dictionary():
  with pytest.raises(ValueError, match=r"annotations: expected a dict.*list"):
    coco.evaluate([], [])


def test_files_that_are_missing_or_no_json(tmp_path):
  truth, results = _synthetic(9)
  with pytest.raises(ValueError, match=r"results: .*nowhere\.json does not ex"):
    coco.evaluate(truth, tmp_path / "nowhere.json")
  with pytest.raises(ValueError, match="annotations: cannot read"):
    coco.evaluate(tmp_path, results)
  for content in (b"[1,", b"\xff\xfe\x81"):
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.json is not JSON"):
      coco.evaluate(tmp_path / "bad.json", results)


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
  truth, results = _synthetic(9)
  with pytest.raises(ValueError, match=message):
    coco.evaluate(truth, results, sigmas=sigmas)


# --- OKS, rescoring, OKS-NMS -------------------------------------------------


def test_oks_of_a_case_done_by_hand():
  a, b = np.zeros((2, 2)), np.array([[3.0, 4.0], [0.0, 0.0]])
  # d^2 = 25, (2 sigma)^2 = 0.04, area = (800 + 200) / 2: e = 0.625.
  assert oks.oks(a, b, 800, 200, [0.1, 0.1]) == pytest.approx(
    (math.exp(-0.625) + 1) / 2, abs=1e-12
  )
  first, none = [True, False], [False, False]
  assert oks.oks(a, b, 800, 200, [0.1, 0.1], first) == pytest.approx(
    math.exp(-0.625), abs=1e-12
  )
  assert oks.oks(a, b, 800, 200, [0.1, 0.1], none) == 0
  assert oks.oks(a, a, 0, 0, [0.1, 0.1]) == 1


def test_oks_matrix_is_the_same_in_pieces(monkeypatch):
  rng = np.random.default_rng(0)
  keypoints, areas = rng.uniform(0, 50, (9, 5, 3)), rng.uniform(900, 5000, 9)
  visible = rng.random((9, 5)) > 0.5
  # The pieces first: reused memory could hold what the whole left there.
  with monkeypatch.context() as patch:
    patch.setattr(oks, "_CHUNK", 100)  # Two rows at a time.
    pieces = oks.oks_matrix(keypoints, areas, SIGMAS[:5], visible)
  whole = oks.oks_matrix(keypoints, areas, SIGMAS[:5], visible)
  np.testing.assert_array_equal(pieces, whole)
  for i, j in ((0, 8), (8, 0), (4, 5)):
    one = oks.oks(
      *(keypoints[i], keypoints[j], areas[i], areas[j]),
      *(SIGMAS[:5], visible[j]),
    )
    assert whole[i, j] == pytest.approx(one, abs=1e-12)


def test_rescore_of_a_case_done_by_hand():
  scores = oks.rescore([0.5, 0.8, 1.0], [[0.9, 0.3], [0.2, 0.6], [0.1, 0.2]])
  np.testing.assert_allclose(scores, [0.3, 0.48, 0.0], atol=1e-12)
  scores = oks.rescore([0.5], [[0.9, 0.3]], visibility_threshold=0.5)
  np.testing.assert_allclose(scores, [0.45], atol=1e-12)


@pytest.mark.parametrize("case", fixtures.eval_cases("oks_nms"))
def test_oks_nms_fixture(case):
  expected, arrays = fixtures.eval_case("oks_nms", case)
  keypoints, areas = arrays["keypoints"], arrays["area"]
  seen = keypoints[..., 2] > 0.2
  scores = oks.rescore(arrays["box_score"], keypoints[..., 2])
  np.testing.assert_allclose(scores, arrays["rescored"], atol=1e-9)
  for visible, name in ((None, "oks_matrix"), (seen, "oks_matrix_in_vis_0.2")):
    matrix = oks.oks_matrix(keypoints, areas, SIGMAS, visible)
    # The original subtracts coordinates in float32.
    np.testing.assert_allclose(matrix, arrays[name], atol=1e-7)
  rules = {
    "keep": (nms.oks_nms, None),
    "keep_in_vis": (nms.oks_nms, seen),
    "soft_keep": (nms.soft_oks_nms, None),
  }
  for name, (rule, visible) in rules.items():
    assert expected[name]
    for threshold, keep in expected[name].items():
      args = (keypoints, scores, areas, SIGMAS, float(threshold), visible)
      assert rule(*args).tolist() == keep, (name, threshold)
  for threshold, keep in expected["keep"].items():
    args = (keypoints, scores, areas, SIGMAS, float(threshold))
    kept = nms.oks_nms_by_image(np.zeros(len(scores), int), *args)
    assert np.flatnonzero(kept).tolist() == sorted(keep)


def test_nms_takes_the_first_of_equal_scores_and_the_bound_is_exclusive():
  keypoints, areas = np.zeros((3, 17, 2)), np.full(3, 1000.0)
  keypoints[2] += 500
  keep = nms.oks_nms(keypoints, [0.5, 0.5, 0.9], areas, SIGMAS)
  assert keep.tolist() == [2, 0]
  keep = nms.oks_nms(keypoints, [0.5, 0.6, 0.9], areas, SIGMAS, threshold=1.0)
  assert keep.tolist() == [2, 1, 0]
  keep = nms.soft_oks_nms(keypoints, [0.9, 0.8, 0.5], areas, SIGMAS)
  assert keep.tolist() == [0, 2, 1]


def test_soft_nms_stops_at_20_and_leaves_the_scores_alone():
  scores = np.linspace(1, 0.1, 30)
  keypoints, areas = np.zeros((30, 17, 2)), np.full(30, 1000.0)
  assert len(nms.soft_oks_nms(keypoints, scores, areas, SIGMAS)) == 20
  np.testing.assert_array_equal(scores, np.linspace(1, 0.1, 30))


@pytest.mark.parametrize("rule", [nms.oks_nms, nms.soft_oks_nms])
def test_nms_of_nothing_is_nothing(rule):
  assert rule(np.zeros((0, 17, 2)), [], [], SIGMAS).tolist() == []


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.75, 0.9, 0.99])
@pytest.mark.parametrize("k", [1, 2, 5, 17])
def test_nms_of_all_images_is_that_of_each(k, threshold):
  rng = np.random.default_rng(k)
  number, sigmas = 400, rng.uniform(0.02, 0.1, k)
  images = rng.choice(
    [3, 5, 8, 1000, -7], number, p=[0.5, 0.3, 0.1, 0.05, 0.05]
  )
  # People seen over and over, more and less exactly; some scores are equal.
  points = rng.uniform(0, 200, (9, k, 2))[rng.integers(0, 9, number)]
  points += rng.normal(size=points.shape) * rng.choice(
    [0, 1, 4, 30], (number, 1, 1)
  )
  scores = rng.random(number).round(2)
  areas = rng.uniform(500, 9000, number)
  found = nms.oks_nms_by_image(images, points, scores, areas, sigmas, threshold)
  wanted = np.zeros(number, bool)
  for image in np.unique(images):
    own = np.flatnonzero(images == image)
    keep = nms.oks_nms(points[own], scores[own], areas[own], sigmas, threshold)
    wanted[own[keep]] = True
  np.testing.assert_array_equal(found, wanted)
  assert 0 < found.sum() < number


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda k: nms.oks_nms(k, [1.0], [1.0, 1.0], SIGMAS), "scores has"),
    (lambda k: nms.oks_nms(k, [1.0, 0.5], [1.0], SIGMAS), "areas has"),
    (lambda k: nms.oks_nms(k, [1.0, 0.5], [1.0, 1.0], [0.1]), "sigmas has"),
    (lambda k: oks.oks_matrix(k[0], [1.0], SIGMAS), "keypoints has"),
    (lambda k: oks.oks_matrix(k, [1.0] * 2, SIGMAS, [True]), "visible has"),
    (lambda k: oks.rescore([1.0], k[..., 0]), "do not fit"),
  ],
)
def test_shapes_that_do_not_fit(call, message):
  with pytest.raises(ValueError, match=message):
    call(np.zeros((2, 17, 2)))


# --- detections_to_results ---------------------------------------------------


SETTINGS = {
  "default_oks0.9_vis0.2": {},
  "oks0.5_vis0.0": {"oks_threshold": 0.5, "visibility_threshold": 0.0},
  "soft_oks0.9_vis0.2": {"soft": True},
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("case", fixtures.eval_cases("coco_ap"))
def test_coco_ap_fixture(case, setting):
  facts, arrays = fixtures.eval_case("coco_ap", case)
  expected = facts["results"][setting]
  keypoints, boxes = arrays["keypoints"], arrays["boxes"]
  results = coco.detections_to_results(
    arrays["image_id"],
    keypoints[..., :2],
    keypoints[..., 2],
    boxes[:, 5],
    boxes[:, 4],
    SIGMAS,
    **SETTINGS[setting],
  )
  scores = sorted((result["score"] for result in results), reverse=True)
  assert len(results) == expected["kept"]
  assert sum(scores) == pytest.approx(expected["score_sum"], abs=1e-4)
  assert scores[:5] == pytest.approx(expected["top_scores"], abs=1e-6)
  for image_id, number in expected["kept_per_first_images"].items():
    assert sum(r["image_id"] == int(image_id) for r in results) == number
  figures = coco.evaluate(fixtures.PARITY / "eval" / f"{case}_gt.json", results)
  stats = [expected["stats"][name] for name in FIXTURE_NAMES]
  assert list(figures.values()) == pytest.approx(stats, abs=1e-6)


@pytest.mark.parametrize("case", fixtures.eval_cases("coco_ap"))
def test_coco_ap_fixture_without_rescoring_and_nms(case):
  facts, arrays = fixtures.eval_case("coco_ap", case)
  results = [
    {"image_id": i, "category_id": 1, "keypoints": k.ravel(), "score": s}
    for i, k, s in zip(
      arrays["image_id"],
      arrays["keypoints"],
      arrays["boxes"][:, 5],
      strict=True,
    )
  ]
  figures = coco.evaluate(fixtures.PARITY / "eval" / f"{case}_gt.json", results)
  stats = facts["results"]["plain_cocoeval_no_nms"]["stats"]
  assert list(figures.values()) == pytest.approx(
    [stats[name] for name in FIXTURE_NAMES], abs=1e-6
  )


def _four_detections() -> dict:
  """Image 7: a person, somebody else, the person again; image 3: a person."""
  keypoints = np.zeros((4, 2, 2), np.float32)
  keypoints[1] = [[1, 2], [3, 4]]
  keypoints[2] += 500
  return {
    "image_ids": np.array([7, 3, 7, 7], np.int32),
    "keypoints": keypoints,
    "keypoint_scores": np.full((4, 2), 0.5, np.float32),
    "box_scores": [0.2, 0.4, 0.8, 1.0],
    "areas": [1000.0] * 4,
    "sigmas": [0.1, 0.1],
  }


def test_results_are_ordered_and_plain():
  results = coco.detections_to_results(**_four_detections(), category_id=5)
  found = [(result["image_id"], result["score"]) for result in results]
  assert found == [(7, 0.5), (7, 0.4), (3, 0.2)]
  assert results[2]["keypoints"] == [1, 2, 0.5, 3, 4, 0.5]
  assert all(result["category_id"] == 5 for result in results)
  assert json.loads(json.dumps(results)) == results


def test_soft_nms_leaves_the_results_in_order_of_their_scores():
  # It takes the other person second: the same one again is demoted.
  detections = _four_detections() | {"box_scores": [0.9, 0.4, 0.8, 1.0]}
  results = coco.detections_to_results(**detections, soft=True)
  assert [r["score"] for r in results] == [0.5, 0.45, 0.4, 0.2]


def test_images_do_not_suppress_each_other_and_nms_can_be_off():
  detections = _four_detections()
  detections["keypoints"][:] = 0
  for threshold in (None, 1.0, 1.5):
    results = coco.detections_to_results(**detections, oks_threshold=threshold)
    assert [r["score"] for r in results] == [0.5, 0.4, 0.1, 0.2]
    assert [r["image_id"] for r in results] == [7, 7, 7, 3]
  results = coco.detections_to_results(**detections)
  assert [(r["image_id"], r["score"]) for r in results] == [(7, 0.5), (3, 0.2)]


def test_image_ids_may_be_text():
  detections = _four_detections() | {"image_ids": ["b", "a", "c", "b"]}
  detections["keypoints"][3] += 500
  results = coco.detections_to_results(**detections)
  assert [r["image_id"] for r in results] == ["b", "b", "a", "c"]
  json.dumps(results)


def test_no_detections_make_no_results():
  assert coco.detections_to_results([], [], [], [], [], SIGMAS) == []


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("keypoints", np.full((4, 2, 2), np.nan), r"detection 0 \(image_id .*NaN"),
    ("box_scores", [1.0, np.inf, 1.0, 1.0], "detection 1"),
    ("areas", [1.0, 1.0, np.nan, 1.0], "detection 2"),
    ("areas", [1.0] * 5, "do not fit"),
    ("image_ids", [1, 2, 3], "do not fit"),
    ("keypoint_scores", np.ones((4, 3)), "do not fit"),
    ("box_scores", [1.0], "do not fit"),
    ("sigmas", [0.1], "sigmas"),
  ],
)
def test_detections_that_do_not_fit(field, value, message):
  with pytest.raises(ValueError, match=message):
    coco.detections_to_results(**_four_detections() | {field: value})


def test_a_whole_validation_set_takes_seconds():
  rng = np.random.default_rng(0)
  number = 100_000
  start = time.perf_counter()
  results = coco.detections_to_results(
    rng.integers(0, 5000, number),
    rng.uniform(0, 600, (number, 17, 2)),
    rng.random((number, 17)),
    rng.random(number),
    rng.uniform(1e3, 1e5, number),
    SIGMAS,
  )
  assert len(results) == number
  assert time.perf_counter() - start < 15  # 2 to 3 s alone on two cores.


# --- format_table ------------------------------------------------------------


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
  assert not coco.format_table(coco.evaluate(*_synthetic(1))).startswith("\n")
