"""Sigmas from repeated annotations."""

import json

import numpy as np
import pytest

from input_pipeline import sigmas
from tests import fixtures

TRUE = np.array([0.025, 0.08, 0.1])


def repeated(annotators, people, seed=0):
  """Annotators who miss by a known sigma times the root of the area."""
  g = fixtures.rng(seed)
  areas = g.uniform(1e3, 1e5, people)
  places = g.uniform(0, 500, (people, 3, 2))
  # A distance in two dimensions has twice the variance of a coordinate.
  spread = TRUE[:, None] * np.sqrt(areas / 2)[:, None, None]
  points = places + spread * g.standard_normal((annotators, people, 3, 2))
  visible = np.full((annotators, people, 3, 1), 2.0)
  return np.concatenate([points, visible], -1), areas


@pytest.mark.parametrize("annotators", [2, 5])
def test_known_sigmas_are_found(annotators):
  found, count = sigmas.estimate(*repeated(annotators, 20_000))
  np.testing.assert_allclose(found, TRUE, rtol=0.02)
  np.testing.assert_array_equal(count, [20_000] * 3)


def test_only_who_is_labelled_twice_counts():
  keypoints, areas = repeated(3, 5000)
  g = fixtures.rng(1)
  keypoints[g.random((3, 5000, 3)) < 0.4] = 0
  keypoints[:, :, 2] = 0
  found, count = sigmas.estimate(keypoints, areas)
  np.testing.assert_allclose(found[:2], TRUE[:2], rtol=0.06)
  assert np.isnan(found[2])
  assert count[2] == 0
  assert 2500 < count[0] < 4000


def write(path, keypoints, areas, skip=()):
  entries = [
    {"id": n, "keypoints": k.ravel().tolist(), "area": float(a), "iscrowd": 0}
    for n, (k, a) in enumerate(zip(keypoints, areas, strict=True))
    if n not in skip
  ]
  path.write_text(json.dumps({"annotations": entries}))
  return str(path)


def test_the_command(tmp_path, capsys):
  keypoints, areas = repeated(2, 300)
  one = write(tmp_path / "one.json", keypoints[0], areas)
  two = write(tmp_path / "two.json", keypoints[1], areas, skip=(0, 1, 2))
  assert sigmas.main([one, two]) == 0
  out, err = capsys.readouterr()
  np.testing.assert_allclose(json.loads(out), TRUE, rtol=0.2)
  assert "[297, 297, 297]" in err
  assert sigmas.main([one]) == 1
  assert "two files" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("{", "is not JSON"),
    ("[]", "is not a file of keypoint annotations"),
    ('{"annotations": []}', "share no annotation id"),
    ('{"annotations": [{"id": 1, "keypoints": [1, 2, 2]}]}', "with areas"),
    (
      '{"annotations": [{"id": 1, "keypoints": [1, 2, 2], "area": 4}]}',
      "of one skeleton",
    ),
    (
      '{"annotations": [{"id": 1, "keypoints": [1,1,1,1,1,1,1,1,1],'
      ' "area": -1e9}]}',
      "has no area",
    ),
  ],
)
def test_bad_files_are_named(tmp_path, capsys, text, message):
  keypoints, areas = repeated(2, 3)
  one = write(tmp_path / "one.json", keypoints[0], areas)
  (tmp_path / "two.json").write_text(text)
  for other in (str(tmp_path / "two.json"), str(tmp_path / "missing.json")):
    assert sigmas.main([one, other]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert (message if "two" in other else "missing.json") in error
