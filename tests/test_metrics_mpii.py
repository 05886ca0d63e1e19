"""metrics/mpii.py: PCKh against the original and a published network's."""

import json

import numpy as np
import pytest
import scipy.io

from tests import fixtures
from tokenpose_jax import InputError
from tokenpose_jax.metrics import mpii

# The rows of the original's table; its "Mean@0.1" is taken at 0.11.
ROWS = {name: name for name in mpii.FIGURES[:8]} | {"Mean@0.1": "Mean@0.11"}


def people(number=6, seed=0):
  """Prepared arrays; head boxes of (60, 80): head lengths of 60."""
  rng = np.random.default_rng(seed)
  corner = rng.uniform(0, 300, (number, 2))
  return {
    "keypoints": rng.uniform(0, 600, (number, 16, 2)),
    "visible": np.ones((number, 16)),
    "head_boxes": np.concatenate([corner, corner + np.array([60, 80])], axis=1),
  }


def test_figures_are_the_originals():
  facts, arrays = fixtures.load("eval/mpii_pckh")
  for name, case in facts.items():
    (truth,) = (fixtures.PARITY / "eval").glob(f"{name}_gt*.mat")
    figures = mpii.pckh(arrays[f"{name}/preds_0based"][..., :2], truth)
    assert tuple(figures) == mpii.FIGURES
    for theirs, ours in ROWS.items():
      assert figures[ours] == pytest.approx(case["table"][theirs], abs=1e-9)
    assert figures["Mean"] == pytest.approx(case["indicator"], abs=1e-9)


def test_a_published_hourglass_has_its_published_figures():
  folder = fixtures.require(fixtures.DATA / "mpii")
  path = folder / "predictions" / "hg_s2_b1.mat"
  predictions = scipy.io.loadmat(path)["preds"]
  truth = folder / "gt_valid.mat"
  figures = mpii.pckh(predictions, truth, one_based=True)
  wanted = (95.80, 94.57, 88.12, 83.31, 86.24, 80.88, 77.44)
  assert list(figures.values())[:7] == pytest.approx(wanted, abs=0.005)
  wanted = (87.299, 86.757, 23.914, 28.082)
  assert list(figures.values())[7:] == pytest.approx(wanted, abs=5e-4)
  # The same, 0-based.
  again = mpii.pckh(predictions.astype(np.float64) - 1, truth)
  assert again == pytest.approx(figures, abs=0.01)
  # And from prepared arrays.
  content = scipy.io.loadmat(truth)
  arrays = {
    "keypoints": content["pos_gt_src"].transpose(2, 0, 1) - 1,
    "visible": 1.0 - content["jnt_missing"].T,
    "head_boxes": content["headboxes_src"].transpose(2, 0, 1).reshape(-1, 4),
  }
  assert mpii.pckh(predictions, arrays, one_based=True) == pytest.approx(
    figures, abs=0.01
  )


def test_a_case_done_by_hand():
  truth = people()
  found = truth["keypoints"].copy()
  found[0, 9] += [30, 0]  # half a head length: still right
  found[1, 9] += [0, 30.1]
  found[0, 0] += 500  # right ankle
  truth["visible"][3:, 0] = 0  # annotated in three
  found[:, 6:8] += 500  # pelvis and thorax are in no mean
  figures = mpii.pckh(found, truth)
  assert figures["Head"] == pytest.approx(100 * 5 / 6)
  assert figures["Ankle"] == pytest.approx(100 * (2 / 3 + 1) / 2)
  assert figures["Wrist"] == 100
  total = 13 * 6 + 3
  assert figures["Mean"] == pytest.approx(100 * (total - 2) / total)
  assert figures["Mean_plain"] == pytest.approx(100 * (12 + 5 / 6 + 2 / 3) / 14)
  assert figures["Mean@0.1"] == pytest.approx(100 * (total - 3) / total)


def test_between_the_two_tenths():
  truth = people()
  found = truth["keypoints"] + [0.105 * 60, 0]
  figures = mpii.pckh(found, truth)
  assert (figures["Mean@0.1"], figures["Mean@0.11"]) == (0, 100)


def test_minus_one_where_nothing_is_annotated():
  truth = people()
  truth["visible"][:] = 0
  truth["head_boxes"][0] = 0  # of nobody annotated: not needed
  figures = mpii.pckh(truth["keypoints"], truth)
  assert set(figures.values()) == {-1.0}
  truth = people()
  truth["visible"][:, [0, 5]] = 0
  figures = mpii.pckh(truth["keypoints"], truth)
  assert (figures["Ankle"], figures["Mean"]) == (-1, 100)


def test_unannotated_joints_may_hold_anything():
  truth = people()
  truth["visible"][2, 4] = 0
  truth["keypoints"][2, 4] = np.nan
  found = np.nan_to_num(truth["keypoints"])
  assert mpii.pckh(found, truth)["Mean"] == 100


def test_integers_and_a_third_number_are_fine():
  truth = people()
  truth["keypoints"] = np.round(truth["keypoints"])
  found = np.concatenate([truth["keypoints"], np.ones((6, 16, 1))], axis=2)
  assert mpii.pckh(found.astype(np.uint16), truth)["Mean"] == 100


@pytest.mark.parametrize("change", ["nan", "shape", "number", "text"])
def test_predictions_that_cannot_be_used(change):
  truth, message = people(), ""
  found = truth["keypoints"].copy()
  if change == "nan":
    found[2, 3, 1], message = np.nan, "prediction 2 has NaN"
  elif change == "shape":
    found, message = found[:, :14], r"\(6, 14, 2\), expected \(N, 16, 2\)"
  elif change == "number":
    found, message = found[:5], "of 5 people.* 6"
  else:
    found, message = np.full((6, 16, 2), "x"), "expected numbers"
  with pytest.raises(InputError, match=message):
    mpii.pckh(found, truth)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda t: t.pop("visible"), "visible missing"),
    (lambda t: t.update(head_boxes=t["head_boxes"][:, :2]), "head_boxes has"),
    (lambda t: t["head_boxes"].__setitem__(4, 7.0), "head box 4 is empty"),
    (lambda t: t["keypoints"].__setitem__((1, 2), np.inf), "is NaN or inf"),
  ],
)
def test_ground_truth_that_cannot_be_used(change, message):
  truth = people()
  found = truth["keypoints"].copy()
  change(truth)
  with pytest.raises(InputError, match=message):
    mpii.pckh(found, truth)


@pytest.mark.parametrize("field", ["keypoints", "visible", "head_boxes"])
def test_any_value_of_any_array(field):
  truth = people()
  found = truth["keypoints"].copy()
  entry = {field: truth.pop(field)}
  count = fixtures.fuzz(
    entry, entry, lambda e: mpii.pckh(found, {**truth, **e})
  )
  assert count == {"refused": 14}


@pytest.mark.parametrize(
  "found",
  ["x", 5, [], [[1, 2], [3]], [[[10**400] * 2] * 16], [[[1j] * 2] * 16]],
)
def test_predictions_of_anything_are_refused(found):
  fixtures.check_refused(lambda: mpii.pckh(found, people()), "prediction")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e308, 1e-320, -1, 3e9])
@pytest.mark.parametrize(
  "field", ["predictions", "keypoints", "visible", "head_boxes"]
)
def test_any_number_in_any_array(field, value):
  """It is wrong, or refused, but never left out of the mean."""
  truth = people()
  both = {**truth, "predictions": truth["keypoints"].copy()}
  both[field][(2,) * both[field].ndim if field == "visible" else (2, 0)] = value
  message = ""
  try:
    figures = mpii.pckh(both.pop("predictions"), both)
  except InputError as error:
    message = str(error)
  if message:
    assert "\n" not in message
  else:
    assert all(0 <= figure <= 100 for figure in figures.values())
    if field in ("predictions", "keypoints"):
      assert figures["Ankle"] < 100


def test_one_person_of_a_file(tmp_path):
  """MATLAB leaves out a last axis of one."""
  truth = people(1)
  scipy.io.savemat(
    tmp_path / "gt.mat",
    {
      "pos_gt_src": truth["keypoints"][0] + 1,
      "jnt_missing": np.zeros((16, 1)),
      "headboxes_src": truth["head_boxes"].reshape(2, 2) + 1,
    },
  )
  assert mpii.pckh(truth["keypoints"], tmp_path / "gt.mat")["Mean"] == 100


@pytest.mark.parametrize(
  "field", ["pos_gt_src", "jnt_missing", "headboxes_src"]
)
@pytest.mark.parametrize(
  "value", ["x", np.zeros((0, 0)), np.nan, {"a": 1.0}, np.zeros((3, 2, 6))]
)
def test_any_variable_of_a_file(tmp_path, field, value):
  truth = people()
  content = {
    "pos_gt_src": truth["keypoints"].transpose(1, 2, 0),
    "jnt_missing": 1 - truth["visible"].T,
    "headboxes_src": truth["head_boxes"].reshape(-1, 2, 2).transpose(1, 2, 0),
  }
  scipy.io.savemat(tmp_path / "gt.mat", {**content, field: value})
  fixtures.check_refused(
    lambda: mpii.pckh(truth["keypoints"], tmp_path / "gt.mat"), "gt.mat", field
  )


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_what_is_no_path_is_refused(path):
  fixtures.check_refused(
    lambda: mpii.pckh(people()["keypoints"], path), "ground truth"
  )


def test_files_of_hdf5_are_refused(tmp_path):
  """MATLAB 7.3's, which SciPy does not read."""
  (tmp_path / "new.mat").write_bytes(
    b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(600)
  )
  fixtures.check_refused(
    lambda: mpii.pckh(people()["keypoints"], tmp_path / "new.mat"),
    "cannot read",
    "7.3",
  )


def test_files_that_cannot_be_used(tmp_path):
  found = people()["keypoints"]
  with pytest.raises(InputError, match="does not exist"):
    mpii.pckh(found, tmp_path / "none.mat")
  (tmp_path / "text.mat").write_text(json.dumps([1, 2]) * 100)
  with pytest.raises(InputError, match="cannot read"):
    mpii.pckh(found, str(tmp_path / "text.mat"))
  scipy.io.savemat(tmp_path / "other.mat", {"preds": found})
  with pytest.raises(InputError, match="has no pos_gt_src, jnt_missing"):
    mpii.pckh(found, tmp_path / "other.mat")


def test_weights_count_people_more_than_once():
  truth = people()
  found = truth["keypoints"].copy()
  found[0] += 500
  distance = mpii.distances(found, truth)
  twice = mpii.figures(distance, np.array([2.0, 1, 1, 0, 0, 0]))
  assert twice["Mean"] == pytest.approx(50)
  same = mpii.figures(np.concatenate([distance[[0, 0, 1, 2]]]))
  assert same == pytest.approx(twice)


def test_table():
  table = mpii.format_table(mpii.pckh(people()["keypoints"], people()))
  names, values = table.splitlines()
  assert names.split() == list(mpii.FIGURES)
  assert values.split() == ["100.00"] * len(mpii.FIGURES)
