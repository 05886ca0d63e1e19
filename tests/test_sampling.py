"""The order of people and the draws: pure functions of (seed, position)."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest

from input_pipeline import sampling

FIELDS = [field.name for field in dataclasses.fields(sampling.Draws)]
NORMAL = ("scale", "rotation")


def epoch(seed, number, people):
  start = number * people
  return [sampling.person_at(seed, start + i, people) for i in range(people)]


@pytest.fixture(scope="module")
def draws():
  """20,000 positions' draws by field."""
  drawn = [sampling.draws_at(7, position) for position in range(20_000)]
  return {f: np.array([getattr(d, f) for d in drawn]) for f in FIELDS}


def test_first_values_never_change():
  """Another algorithm would silently change every run: then say so."""
  # fmt: off
  assert epoch(0, 0, 10) == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]
  assert epoch(0, 1, 10) == [1, 9, 2, 8, 3, 5, 0, 4, 7, 6]
  # fmt: on
  found = [sampling.person_at(123, position, 1000) for position in range(7, 12)]
  assert found == [161, 676, 90, 964, 376]
  first = dataclasses.asdict(sampling.draws_at(0, 0))
  assert first == pytest.approx(
    {
      "half_body": 0.8133540609793564,
      "upper": 0.7513314251083365,
      "scale": -1.4840468912473292,
      "rotate": 0.7051952190012039,
      "rotation": 0.3171633454111596,
      "flip": 0.562886035056284,
    },
    rel=1e-12,
  )
  far = sampling.draws_at(5, 10**9)
  assert far.scale == pytest.approx(0.5776954949142348, rel=1e-12)
  assert far.flip == pytest.approx(0.9549061563635978, rel=1e-12)


def philox(counter, key):
  """One block of Philox4x64-10 (Salmon et al., SC 2011)."""
  mask = (1 << 64) - 1
  a, b, c, d = counter
  k0, k1 = key
  for _ in range(10):
    left, right = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
    a, b = (right >> 64) ^ b ^ k0, right & mask
    c, d = (left >> 64) ^ d ^ k1, left & mask
    k0 = (k0 + 0x9E3779B97F4A7C15) & mask
    k1 = (k1 + 0xBB67AE8584CAA73B) & mask
  return [a, b, c, d]


def test_is_the_algorithm_that_the_module_names():
  """NumPy counts before it draws, so the first block's counter is 1."""
  seed, position, people = 11, 345, 7
  words = [w for n in (1, 2) for w in philox([n, 0, 345, 0], [seed, 1])]
  u = [(word >> 11) * 2.0**-53 for word in words]
  draws = sampling.draws_at(seed, position)
  assert (draws.half_body, draws.upper) == (u[0], u[1])
  assert (draws.rotate, draws.flip) == (u[4], u[7])
  normal = math.sqrt(-2 * math.log(1 - u[2])) * math.cos(2 * math.pi * u[3])
  assert draws.scale == pytest.approx(normal, rel=1e-12)
  number = position // people
  words = [w for n in (1, 2) for w in philox([n, 0, number, 0], [seed, 0])]
  wanted = sorted(range(people), key=lambda person: words[person])
  assert epoch(seed, number, people) == wanted


@pytest.mark.parametrize("people", [1, 2, 17, 500])
def test_everybody_comes_once_an_epoch(people):
  for number in range(3):
    assert sorted(epoch(3, number, people)) == list(range(people))


def test_epochs_and_seeds_differ():
  orders = [epoch(seed, number, 100) for seed in (0, 1) for number in (0, 1, 9)]
  assert len(set(map(tuple, orders))) == 6


def test_every_place_sees_everybody():
  """No place of an epoch prefers a person: 2000 epochs of 5 people."""
  counts = np.zeros((5, 5))
  for number in range(2000):
    for place, person in enumerate(epoch(0, number, 5)):
      counts[place, person] += 1
  assert np.abs(counts - 400).max() < 5 * math.sqrt(400 * 0.8)


def test_no_state_is_kept_between_calls():
  positions = list(range(60))
  forwards = [
    (sampling.person_at(1, p, 13), sampling.draws_at(1, p)) for p in positions
  ]
  backwards = {
    p: (sampling.person_at(1, p, 13), sampling.draws_at(1, p))
    for p in reversed(positions)
  }
  assert forwards == [backwards[p] for p in positions]


def test_another_process_agrees():
  code = (
    "from input_pipeline import sampling;"
    "print(sampling.person_at(9, 12345, 777));"
    "print(sampling.draws_at(9, 12345).scale)"
  )
  out = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, check=True, text=True
  ).stdout.split()
  assert int(out[0]) == sampling.person_at(9, 12345, 777)
  assert float(out[1]) == sampling.draws_at(9, 12345).scale


def test_sequence_does_not_depend_on_the_batch_size():
  """A position is step * batch + slot, so batches only cut the sequence."""

  def run(batch):
    return [
      sampling.draws_at(2, step * batch + slot)
      for step in range(24 // batch)
      for slot in range(batch)
    ]

  assert run(4) == run(6) == run(24)


def test_seed_and_position_both_matter(draws):
  base = sampling.draws_at(7, 5)
  for other in (sampling.draws_at(8, 5), sampling.draws_at(7, 6)):
    for field in FIELDS:
      assert getattr(base, field) != getattr(other, field)
  for field in FIELDS:
    assert len(np.unique(draws[field])) == len(draws[field])


@pytest.mark.parametrize("field", FIELDS)
def test_moments(draws, field):
  values = draws[field]
  bound = 5 / math.sqrt(len(values))  # five deviations of the mean
  if field in NORMAL:
    assert abs(values.mean()) < bound
    assert abs(values.var() - 1) < bound * math.sqrt(2)
    assert abs((values**4).mean() - 3) < bound * math.sqrt(96)
    assert abs((values < 0.5).mean() - 0.6914624612740131) < bound / 2
  else:
    assert values.min() >= 0
    assert values.max() < 1
    assert abs(values.mean() - 1 / 2) < bound * math.sqrt(1 / 12)
    assert abs((values**2).mean() - 1 / 3) < bound * math.sqrt(4 / 45)


def test_draws_are_independent_of_each_other_and_the_next(draws):
  table = np.array([draws[f] for f in FIELDS])
  table = np.concatenate([table[:, :-1], table[:, 1:]])
  correlation = np.corrcoef(table) - np.eye(len(table))
  assert np.abs(correlation).max() < 5 / math.sqrt(table.shape[1])
