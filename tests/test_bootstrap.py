"""Bootstrap intervals: the replicates are evaluations of drawn images."""

import copy

import numpy as np
import pytest

from tests import coco_sets
from tokenpose_jax.metrics import bootstrap, coco, mpii


def synthetic(seed, *, ties):
  truth, results = coco_sets.random_set(
    seed, num_categories=1 + seed % 2, grid=seed % 3 == 0
  )
  if not ties:
    rng = np.random.default_rng(seed)
    for result in results:
      result["score"] = float(rng.random())
  return truth, results


@pytest.mark.parametrize("seed", range(12))
def test_images_drawn_once_give_the_figures_themselves(seed):
  truth, results = synthetic(seed, ties=True)
  matched = coco.match(truth, results)
  once = np.ones((1, len(truth["images"])), np.int32)
  found = bootstrap.coco_replicates(matched, once)
  assert {name: value[0] for name, value in found.items()} == matched.figures
  assert matched.figures == coco.evaluate(truth, results)


def drawn(truth, results, counts):
  """The set in which image i, by ascending id, occurs counts[i] times."""
  made, found = {**truth, "images": [], "annotations": []}, []
  ids = sorted(image["id"] for image in truth["images"])
  for image, count in zip(ids, counts, strict=True):
    for _ in range(count):
      number = len(made["images"]) + 1
      made["images"].append({"id": number})
      for source, target in (
        (truth["annotations"], made["annotations"]),
        (results, found),
      ):
        target += [
          copy.deepcopy(entry) | {"image_id": number}
          for entry in source
          if entry["image_id"] == image
        ]
  return made, found


@pytest.mark.parametrize("seed", range(8))
def test_a_replicate_is_the_evaluation_of_the_drawn_images(seed):
  truth, results = synthetic(seed, ties=False)
  weights = bootstrap.draws(len(truth["images"]), 3, seed)
  assert (weights == 0).any()
  found = bootstrap.coco_replicates(coco.match(truth, results), weights)
  for row, counts in enumerate(weights):
    wanted = coco.evaluate(*drawn(truth, results, counts))
    got = {name: value[row] for name, value in found.items()}
    assert got == pytest.approx(wanted, abs=1e-12)


def test_parts_of_the_replicates_are_the_whole(monkeypatch):
  truth, results = synthetic(3, ties=True)
  matched = coco.match(truth, results)
  weights = bootstrap.draws(len(truth["images"]), 20)
  whole = bootstrap.coco_replicates(matched, weights)
  monkeypatch.setattr(bootstrap, "CHUNK", 100)
  parts = bootstrap.coco_replicates(matched, weights)
  for name in coco.FIGURES:
    np.testing.assert_array_equal(whole[name], parts[name])


def test_draws_have_as_many_images_and_depend_on_the_seed():
  counts = bootstrap.draws(50, 400, seed=1)
  assert (counts.sum(1) == 50).all()
  np.testing.assert_allclose(counts.mean(0), 1, atol=0.25)
  np.testing.assert_array_equal(counts, bootstrap.draws(50, 400, seed=1))
  assert (counts != bootstrap.draws(50, 400, seed=2)).any()


def test_intervals_hold_the_figure_and_shrink_with_more_images():
  widths = []
  for number in (20, 160):
    truth, results = coco_sets.random_set(1, num_images=number)
    matched = coco.match(truth, results)
    low, high = bootstrap.coco_intervals(matched, 200)["AP"]
    assert low < matched.figures["AP"] < high
    widths.append(high - low)
  assert widths[1] < 0.6 * widths[0]


def test_the_interval_is_that_of_theory_where_theory_is_simple():
  """Of a mean over independent people: 1.96 standard errors each way."""
  rng = np.random.default_rng(0)
  number = 900
  distance = np.full((number, 16), np.nan)
  distance[:, 0] = np.where(rng.random(number) < 0.3, 0.2, 0.9)
  share = (distance[:, 0] < 0.5).mean()
  low, high = bootstrap.pckh_intervals(distance, np.arange(number))["Mean"]
  error = 100 * 1.96 * np.sqrt(share * (1 - share) / number)
  assert (low, high) == pytest.approx(
    (100 * share - error, 100 * share + error), abs=0.25 * error
  )
  # People of one image are drawn together.
  wide = bootstrap.pckh_intervals(distance, np.arange(number) // 100)["Mean"]
  assert wide[1] - wide[0] != pytest.approx(high - low, rel=0.05)


def test_figures_that_are_not_defined_have_no_interval():
  truth, results = synthetic(2, ties=True)
  for person in truth["annotations"]:
    person["area"] = 200.0**2
  intervals = bootstrap.coco_intervals(coco.match(truth, results), 20)
  assert intervals["APM"] == (-1, -1)
  assert intervals["APL"][1] > 0
  nothing = bootstrap.coco_intervals(coco.match(truth, []), 5)
  assert nothing["APL"] == (0, 0)
  distance = np.full((5, 16), np.nan)
  assert bootstrap.pckh_intervals(distance, np.arange(5), 5) == dict.fromkeys(
    mpii.FIGURES, (-1.0, -1.0)
  )
