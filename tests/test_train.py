"""The training step and the loop around it."""

import logging
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import eval_run, noise_runs, tiny
from tokenpose_jax import (
  InputError,
  checkpoint,
  evaluate,
  sharding,
  train,
)
from tokenpose_jax.progress import StepMetrics

# One step of the tiny network on noise, from seed 0.
GOLDEN = {
  "loss": 0.025111163035035133,
  "grad_norm": 0.05622220039367676,
  "param_norm": 18.04657554626465,
}


def test_golden_step():
  settings = tiny.config()
  state, step, mesh = tiny.training(settings, jax.devices()[:1])
  placed = sharding.put_batch(mesh, tiny.batch(settings))
  state, _ = step(state, placed)
  # The second step's numbers show the first update.
  state, metrics = step(state, placed)
  found = {
    "loss": float(metrics.scalars["loss"]),
    "grad_norm": float(metrics.scalars["grad_norm"]),
    "param_norm": float(optax.tree.norm(state.params)),
  }
  assert found == pytest.approx(GOLDEN, rel=1e-5), (
    "one training step has other numbers than before: find out why (network,"
    " initialization, targets, loss, update), then write the new ones to"
    " GOLDEN in the same commit"
  )


def test_eight_devices_equal_one():
  """Losses and weights up to f32 rounding; one compile; no hidden transfer.

  Weights after the first step: later ones make much of its rounding, because
  Adam turns that of a tiny gradient into up to a step of the rate.
  """
  settings = tiny.config()
  weights, losses = {}, {}
  for count in (1, 8):
    state, step, mesh = tiny.training(settings, jax.devices()[:count])
    losses[count] = []
    for number in range(4):
      placed = sharding.put_batch(mesh, tiny.batch(settings, seed=number))
      with jax.transfer_guard("disallow"):
        state, metrics = step(state, placed)
      losses[count].append(float(metrics.scalars["loss"]))
      if not number:
        weights[count] = jax.device_get(state.params)
    # JAX has no public count of a function's compilations.
    assert step._cache_size() == 1
  np.testing.assert_allclose(losses[8], losses[1], rtol=2e-5)
  leaves = map(jax.tree.leaves, (weights[1], weights[8]))
  for one, eight in zip(*leaves, strict=True):
    np.testing.assert_allclose(eight, one, rtol=1e-4, atol=1e-5)


def test_masked_people_do_not_count():
  settings = tiny.config()
  state, step, mesh = tiny.training(settings, jax.devices()[:1])
  masked = tiny.batch(settings)
  masked["mask"][3] = 0
  other = {name: value.copy() for name, value in masked.items()}
  other["keypoints"][3] += 5
  outcomes = [
    step(jax.tree.map(jnp.copy, state), sharding.put_batch(mesh, made))
    for made in (masked, other)
  ]
  assert noise_runs.same(outcomes[0][0], outcomes[1][0])
  assert float(outcomes[0][1].scalars["unreadable"]) == 1


def test_loss_falls_and_is_written(tmp_path, caplog):
  settings = tiny.config(
    train__steps=30, train__log_every=10, train__pictures_every=20
  )
  with caplog.at_level(logging.INFO):
    state, writer = noise_runs.run(settings, tmp_path)
  assert int(state.step) == 30
  assert sorted(writer.scalars) == [10, 20, 30]
  losses = [values["train/loss"] for values in writer.scalars.values()]
  assert losses[2] < losses[0]
  assert {
    "train/accuracy",
    "train/grad_norm",
    "train/learning_rate",
    "train/images_per_second",
  } <= set(writer.scalars[10])
  assert writer.images[20]["train/people"].dtype == np.uint8
  assert "step 30/30" in caplog.text


def test_resuming_equals_never_stopping(tmp_path):
  whole, _ = noise_runs.run(tiny.config(train__steps=12), tmp_path / "whole")
  noise_runs.run(tiny.config(train__steps=5), tmp_path / "parts")
  resumed, _ = noise_runs.run(tiny.config(train__steps=12), tmp_path / "parts")
  assert noise_runs.same(whole, resumed)


def test_a_loss_that_is_not_finite_stops_and_is_not_saved(tmp_path):
  settings = tiny.config(train__steps=9, checkpoint__every_steps=3)
  with pytest.raises(InputError, match=r"loss is nan at step 5.*learning_rate"):
    noise_runs.run(settings, tmp_path, first_bad=4)
  state, _ = noise_runs.run(settings, tmp_path)
  assert int(state.step) == 9
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_a_step_that_is_not_finite_changes_nothing_when_skipped(tmp_path):
  fields = dict(train__on_nonfinite="skip", checkpoint__every_steps=3)
  good, _ = noise_runs.run(
    tiny.config(train__steps=4, **fields), tmp_path / "good"
  )
  state, writer = noise_runs.run(
    tiny.config(train__steps=9, **fields), tmp_path / "bad", first_bad=4
  )
  assert int(state.step) == 9
  assert noise_runs.same(state.replace(step=good.step), good)
  assert writer.scalars[9]["train/skipped_steps"] == 5


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
  settings = tiny.config(train__steps=3, optim__learning_rate=1e38)
  with pytest.raises(InputError, match="the update's norm is inf at step 1"):
    noise_runs.run(settings, tmp_path)
  assert not checkpoint.Checkpoints(str(tmp_path)).steps()


@pytest.mark.parametrize(
  ("change", "data", "named"),
  [
    ({}, {"people": 81}, "data.people"),
    ({"model__attention_scale": "width"}, {}, "model.attention_scale"),
    ({"model__dim": 64}, {}, "model.dim"),
  ],
)
def test_resuming_on_something_else_is_refused(tmp_path, change, data, named):
  noise_runs.run(tiny.config(train__steps=2), tmp_path)
  with pytest.raises(InputError, match=named):
    noise_runs.run(tiny.config(train__steps=4, **change), tmp_path, **data)


def test_resuming_on_other_data_is_possible_when_asked_for(tmp_path):
  noise_runs.run(tiny.config(train__steps=2), tmp_path)
  settings = tiny.config(train__steps=4, checkpoint__accept_mismatch=True)
  state, _ = noise_runs.run(settings, tmp_path, people=81)
  assert int(state.step) == 4


class Evaluation(eval_run.Case):
  """Evaluations whose AP is known; some fail."""

  sheet = None

  def __init__(self, figures):
    super().__init__()
    self.figures, self.steps = dict(figures), []

  def __call__(self, *arguments, step, **options):
    self.steps.append(step)
    found = self.figures[step]
    if isinstance(found, BaseException):
      raise found
    return lambda: evaluate.Outcome({"AP": found}, self.sheet)


# Every fifth step: 80 people are five batches.
EVERY = dict(train__steps=15, train__eval_every_epochs=1)


def counting(*_):
  """A step that only counts: what is tried is the loop around it."""
  add_one = jax.jit(lambda step: step + 1)
  names = ("loss", "accuracy", "grad_norm", "update_norm", "learning_rate")
  nothing = StepMetrics(
    dict.fromkeys(names, 0.0) | {"unreadable": 0, "labeled": 1},
    np.zeros((1, 17, 2)),
    np.zeros((1, 17)),
  )
  return lambda state, _: (
    state.replace(step=add_one(state.step)),
    nothing,
  )


def trained(monkeypatch, tmp_path, figures, **fields):
  """(evaluated steps, checkpoints) of a run."""
  case = Evaluation(figures)
  monkeypatch.setattr(evaluate, "begin", case)
  monkeypatch.setattr(train, "jit_train_step", counting)
  settings = tiny.config(**{**EVERY, **fields})
  try:
    noise_runs.run(settings, tmp_path, evaluation=case.data)
  finally:
    saved = checkpoint.Checkpoints(str(tmp_path))
  return case.steps, saved


def test_the_best_is_that_of_the_evaluations(monkeypatch, tmp_path):
  steps, saved = trained(monkeypatch, tmp_path, {5: 0.1, 10: 0.6, 15: 0.2})
  assert steps == [5, 10, 15]
  assert (saved.choose("best"), saved.steps()) == (10, [10, 15])


def test_reports_are_made_beside_the_next_steps(monkeypatch, tmp_path):
  """And recorded before the next save."""
  case, stepped = Evaluation({5: 0.1, 10: 0.6}), threading.Event()

  def waits_for_the_next_step(*arguments, step, **options):
    finish = case(*arguments, step=step, **options)
    if step == 10:
      return finish
    stepped.clear()
    return lambda: finish() if stepped.wait(60) else None

  def seen(*arguments):
    step = counting(*arguments)
    return lambda *given: (stepped.set(), step(*given))[1]

  monkeypatch.setattr(evaluate, "begin", waits_for_the_next_step)
  monkeypatch.setattr(train, "jit_train_step", seen)
  settings = tiny.config(**EVERY | {"train__steps": 10, "checkpoint__keep": 1})
  noise_runs.run(settings, tmp_path, evaluation=case.data)
  saved = checkpoint.Checkpoints(str(tmp_path))
  assert saved.metrics(10)["AP"] == 0.6
  assert case.steps == [5, 10]


@pytest.mark.parametrize(
  "failure", [InputError("no head box"), OSError(28, "No space left")]
)
def test_a_failing_evaluation_costs_nothing(
  monkeypatch, tmp_path, failure, caplog
):
  figures = {5: 0.3, 10: failure, 15: 0.2}
  steps, saved = trained(monkeypatch, tmp_path, figures)
  assert steps == [5, 10, 15]
  assert (saved.choose("best"), saved.steps()) == (5, [5, 10, 15])
  (line,) = [r for r in caplog.records if r.levelname == "ERROR"]
  assert "evaluation of step 10 failed" in line.getMessage()
  assert "the training goes on" in line.getMessage()
  assert bool(line.exc_info) == (type(failure) is OSError)


def test_the_last_evaluation_fails_after_its_step_is_saved(
  monkeypatch, tmp_path
):
  figures = {5: 0.3, 10: 0.1, 15: InputError("no head box")}
  with pytest.raises(
    InputError, match="evaluation of step 15 failed: no head box"
  ):
    trained(monkeypatch, tmp_path, figures)
  saved = checkpoint.Checkpoints(str(tmp_path))
  assert (saved.choose("best"), saved.choose("latest")) == (5, 15)
  # Made up for by starting again; once is enough.
  steps, saved = trained(monkeypatch, tmp_path, {15: 0.7})
  assert (steps, saved.choose("best")) == ([15], 15)
  steps, _ = trained(monkeypatch, tmp_path, {15: 0.0})
  assert not steps


def test_a_checkpoint_that_cannot_be_saved_is_no_failed_evaluation(
  monkeypatch, tmp_path, caplog
):
  def full(_):
    raise OSError(28, "No space left on device")

  manager = checkpoint.ocp.CheckpointManager
  monkeypatch.setattr(manager, "wait_until_finished", full)
  with pytest.raises(
    InputError, match=r"cannot write a checkpoint to .*: .*No space left"
  ):
    trained(monkeypatch, tmp_path, {5: 0.3})
  assert not [r for r in caplog.records if "evaluation" in r.getMessage()]


def test_killed_while_it_was_evaluated(monkeypatch, tmp_path):
  """The step is there, and evaluated when the run goes on."""
  figures = {5: 0.3, 10: KeyboardInterrupt()}
  with pytest.raises(KeyboardInterrupt):
    trained(monkeypatch, tmp_path, figures)
  steps, saved = trained(monkeypatch, tmp_path, {10: 0.9, 15: 0.2})
  assert (steps, saved.choose("best")) == ([10, 15], 10)
  # Once is enough.
  steps, _ = trained(monkeypatch, tmp_path, {20: 0.1}, train__steps=20)
  assert steps == [20]


def test_killed_while_the_metrics_were_written(monkeypatch, tmp_path):
  trained(monkeypatch, tmp_path, {5: 0.3, 10: 0.9}, train__steps=10)
  file = tmp_path / checkpoint.FOLDER / "10" / "metrics" / "metrics"
  file.rename(f"{file}.partial")
  steps, saved = trained(monkeypatch, tmp_path, {10: 0.9, 15: 0.2})
  assert (steps, saved.choose("best")) == ([10, 15], 10)


def test_pictures_of_evaluations_get_rarer_but_for_the_last(
  monkeypatch, tmp_path
):
  case = Evaluation(dict.fromkeys(range(5, 70, 5), 0.5))
  case.sheet = np.zeros((4, 4, 3), np.uint8)
  monkeypatch.setattr(evaluate, "begin", case)
  monkeypatch.setattr(train, "jit_train_step", counting)
  settings = tiny.config(**EVERY | {"train__steps": 65})
  _, writer = noise_runs.run(settings, tmp_path, evaluation=case.data)
  assert case.steps == [*range(5, 70, 5)]
  assert [*writer.images] == [*range(5, 45, 5), 50, 60, 65]
