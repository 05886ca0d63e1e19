"""What a training says of its steps, and what ends it."""

import math

import numpy as np
import pytest

from tests import tiny
from tokenpose_jax import InputError
from tokenpose_jax.progress import FINITE, Progress, StepMetrics, is_pictured
from tokenpose_jax.skeletons import COCO_17

GOOD = {
  "loss": 0.5,
  "accuracy": 0.5,
  "grad_norm": 1.0,
  "update_norm": 1.0,
  "learning_rate": 1e-3,
  "unreadable": 0,
  "labeled": 9,
}


class Writer:
  def __init__(self):
    self.scalars, self.pictured = {}, []

  def write_scalars(self, step, values):
    self.scalars[step] = values

  def write_images(self, step, values):
    assert {*values} == {"train/people"}
    self.pictured.append(step)

  def flush(self):
    pass


@pytest.fixture
def progress():
  """Makes one, which logs every fourth step."""

  def make(**fields):
    settings = tiny.config(
      train__log_every=4, train__pictures_every=0, **fields
    )
    writer = Writer()
    return writer, Progress(
      settings, writer, COCO_17, 0, 1000, lambda step: [step, 70, 80]
    )

  return make


def take(progress, count, first=1, **scalars):
  """Steps that say the same."""
  for step in range(first, first + count):
    found = {n: np.float32(v) for n, v in (GOOD | scalars).items()}
    metrics = StepMetrics(found, np.zeros((1, 17, 2)), np.zeros((1, 17)))
    progress.add(step, metrics, {})
  progress.flush()


@pytest.mark.parametrize("name", FINITE)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_stops(progress, name, value):
  _, made = progress()
  take(made, 5)
  made.saved(4)
  says = rf"the {FINITE[name]} is {value} at step 6; .*images 5, 70, 80; step 4"
  with pytest.raises(InputError, match=says) as error:
    take(made, 1, first=6, **{name: value})
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", FINITE)
def test_or_is_skipped_and_counted(progress, name):
  writer, made = progress(train__on_nonfinite="skip")
  take(made, 2)
  take(made, 2, first=3, **{name: math.nan})
  assert writer.scalars[4]["train/skipped_steps"] == 2
  assert writer.scalars[4]["train/loss"] == 0.5
  take(made, 4, first=5, **{name: math.inf})  # Nothing to take the mean of.
  assert writer.scalars[8]["train/skipped_steps"] == 6
  assert "train/loss" not in writer.scalars[8]
  with pytest.raises(InputError, match="no step was finite in 100 steps"):
    take(made, 200, first=9, **{name: math.inf})


@pytest.mark.parametrize(
  ("scalars", "says"),
  [
    ({"unreadable": 16, "labeled": 0}, "no image could be read in 100 steps"),
    ({"labeled": 0}, "no keypoint was labeled in 100 steps, up to step 103"),
  ],
)
def test_nothing_to_learn_from_is_said(progress, scalars, says):
  _, made = progress()
  take(made, 3)
  with pytest.raises(InputError, match=says):
    take(made, 101, first=4, **scalars)


def test_a_single_good_step_is_something_to_learn_from(progress):
  writer, made = progress()
  take(made, 99, labeled=0)
  take(made, 1, first=100)
  take(made, 99, first=101, labeled=0)
  assert max(writer.scalars) == 196


def test_a_loss_without_end_stops(progress):
  _, made = progress()
  take(made, 4)
  take(made, 4, first=5, loss=4.9)
  with pytest.raises(InputError, match=r"diverges: 5.1 up to step 12, and 0.5"):
    take(made, 4, first=9, loss=5.1)


def test_time_is_told_apart(progress):
  writer, made = progress()
  with made.spent("evaluation"):
    take(made, 4)
  shares = {
    n[5:]: v for n, v in writer.scalars[4].items() if n.startswith("time/")
  }
  assert shares.pop("unsaved_seconds") >= 0
  assert shares.pop("device_busy") >= 0
  assert shares.keys() == {
    *("steps", "host", "data", "compilation", "checkpoint", "evaluation"),
    "other",
  }
  made.close()
  assert made.described() == "nothing is saved yet"


def test_pictures_get_rarer():
  shown = [step for step in range(1, 351_124) if is_pictured(step, 2000)]
  assert [step // 2000 for step in shown] == [
    *range(1, 9),
    *range(10, 17, 2),
    *range(20, 33, 4),
    *range(40, 65, 8),
    *range(80, 129, 16),
    160,
  ]
  assert all(step % 2000 == 0 for step in shown)
  # Ten times as long: 13 more.
  more = sum(is_pictured(step, 2000) for step in range(2000, 3_511_240, 2000))
  assert more == len(shown) + 13
  assert not any(is_pictured(step, 0) for step in range(9))


def test_they_are_written_then():
  writer = Writer()
  settings = tiny.config(train__pictures_every=2)
  progress = Progress(settings, writer, COCO_17, 0, 1000)
  for step in range(1, 42):
    found = {n: np.float32(v) for n, v in GOOD.items()}
    metrics = StepMetrics(found, np.zeros((1, 17, 2)), np.zeros((1, 17)))
    progress.add(step, metrics, {"image": np.zeros((1, 8, 8, 3), np.uint8)})
  progress.flush()
  wanted = [2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40]
  assert writer.pictured == wanted
