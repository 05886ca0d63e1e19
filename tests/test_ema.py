"""The moving average of the weights: its numbers, and its way through a run."""

import dataclasses
import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import eval_run, noise_runs, tiny
from tokenpose_jax import (
  InputError,
  checkpoint,
  ema,
  evaluate,
  sharding,
  skeletons,
  weight_kinds,
)

DECAY = 0.8
# Without a backbone: it compiles in a third of the time.
NETWORK = {"model__backbone": "none", "model__patch_hw": (16, 12)}


def run(workdir, steps, evaluation=None, **fields):
  """(the state, the numbers written) of a run on noise, two steps an epoch."""
  settings = tiny.config(
    train__steps=steps,
    train__batch_size=4,
    train__eval_every_epochs=1,
    **NETWORK,
    **fields,
  )
  state, writer = noise_runs.run(
    settings, workdir, evaluation=evaluation, people=8
  )
  return jax.device_get(state), writer.scalars


def test_the_average_is_the_formula():
  g = np.random.default_rng(0)
  values = g.standard_normal((60, 5)).astype(np.float32)
  average = ({"w": jnp.asarray(values[0])}, {"count": jnp.zeros((), jnp.int32)})
  wanted = values[0].astype(np.float64)
  update = jax.jit(ema.update, static_argnums=2)
  for step in range(59):
    weights = ({"w": jnp.asarray(values[step + 1])}, {"count": jnp.int32(step)})
    average = update(average, weights, DECAY, jnp.int32(step))
    keep = min(DECAY, (1 + step) / (10 + step))
    wanted = keep * wanted + (1 - keep) * values[step + 1]
    np.testing.assert_allclose(average[0]["w"], wanted, rtol=1e-4, atol=1e-5)
  # A count has no average.
  assert int(average[1]["count"]) == 58


def test_a_step_moves_the_average_of_parameters_and_statistics():
  settings = tiny.config(train__ema=DECAY, train__batch_size=4)
  state, step, mesh = tiny.training(settings, jax.devices()[:1])
  state = ema.fit(state, DECAY)
  wanted = jax.device_get(state.ema)
  update = jax.jit(ema.update, static_argnums=2)
  for number in range(3):
    placed = sharding.put_batch(mesh, tiny.batch(settings, seed=number))
    with jax.transfer_guard("disallow"):
      state, _ = step(state, placed)
    now = jax.device_get((state.params, state.model_state))
    wanted = jax.device_get(update(wanted, now, DECAY, jnp.int32(number)))
  for one, other in zip(
    jax.tree.leaves(state.ema), jax.tree.leaves(wanted), strict=True
  ):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
  running = jax.tree.leaves(state.model_state["backbone"])
  averaged = jax.tree.leaves(state.ema[1]["backbone"])
  assert not noise_runs.same(running, averaged)
  table = "position_table"
  assert noise_runs.same(state.ema[1][table], state.model_state[table])


def test_the_average_changes_nothing_else(tmp_path):
  plain, _ = run(tmp_path / "plain", 3)
  averaged, _ = run(tmp_path / "ema", 3, train__ema=DECAY)
  assert plain.ema is None
  for one, other in zip(
    jax.tree.leaves(dataclasses.replace(averaged, ema=None)),
    jax.tree.leaves(plain),
    strict=True,
  ):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_resuming_equals_never_stopping(tmp_path):
  whole, _ = run(tmp_path / "whole", 6, train__ema=DECAY)
  run(tmp_path / "parts", 3, train__ema=DECAY)
  resumed, _ = run(tmp_path / "parts", 6, train__ema=DECAY)
  assert noise_runs.same(whole, resumed)
  assert not noise_runs.same(whole.ema[0], whole.params)


def test_an_average_that_begins_later(tmp_path, caplog):
  first, _ = run(tmp_path, 3)
  with caplog.at_level(logging.INFO):
    resumed, _ = run(tmp_path, 4, train__ema=DECAY)
  assert "the average starts from the weights of 3" in caplog.text
  keep = (1 + 3) / (10 + 3)
  for began, now, averaged in zip(
    jax.tree.leaves(first.params),
    jax.tree.leaves(resumed.params),
    jax.tree.leaves(resumed.ema[0]),
    strict=True,
  ):
    wanted = keep * began + (1 - keep) * now
    np.testing.assert_allclose(averaged, wanted, rtol=1e-4, atol=1e-6)


def test_an_average_that_ends(tmp_path, caplog):
  run(tmp_path, 3, train__ema=DECAY)
  state, _ = run(tmp_path, 4)
  assert state.ema is None
  assert "train.ema is 0: the average of step 3 is dropped" in caplog.text
  assert not weight_kinds.has_average(
    checkpoint.Checkpoints(str(tmp_path)).read_meta(4)
  )


class Evaluation(eval_run.Case):
  """Evaluations whose AP is known, by step and kind of weights."""

  def __init__(self, figures):
    super().__init__()
    self.figures, self.seen = figures, []

  def __call__(self, _, weights, *arguments, step, kind, **options):
    self.seen.append((step, kind, jax.device_get(weights)))
    return lambda: evaluate.Outcome({"AP": self.figures[step, kind]}, None)


FIGURES = {
  (2, "raw"): 0.5,
  (2, "ema"): 0.1,
  (4, "raw"): 0.2,
  (4, "ema"): 0.6,
  (6, "raw"): 0.4,
  (6, "ema"): 0.3,
}


@pytest.mark.parametrize(("decisive", "best"), [("raw", 2), ("ema", 4)])
def test_both_are_evaluated_and_one_decides(
  monkeypatch, tmp_path, decisive, best
):
  case = Evaluation(FIGURES)
  monkeypatch.setattr(evaluate, "begin", case)
  state, scalars = run(
    tmp_path, 6, case.data, train__ema=DECAY, eval__weights=decisive
  )
  assert [(step, kind) for step, kind, _ in case.seen] == list(FIGURES)
  assert noise_runs.same(case.seen[-1][2], state.ema)
  assert noise_runs.same(case.seen[-2][2], (state.params, state.model_state))
  assert scalars[4]["eval/AP"] == 0.2
  assert scalars[4]["eval_ema/AP"] == 0.6
  folder = tmp_path / checkpoint.FOLDER / str(best) / "metrics"
  metrics = json.loads((folder / "metrics").read_text())
  assert metrics["AP"] == FIGURES[best, "raw"]
  assert metrics["ema_AP"] == FIGURES[best, "ema"]
  opened = checkpoint.Checkpoints(str(tmp_path))
  assert opened.choose("best") == best


def test_without_an_average_the_raw_weights_decide(monkeypatch, tmp_path):
  case = Evaluation(FIGURES)
  monkeypatch.setattr(evaluate, "begin", case)
  run(tmp_path, 4, case.data, eval__weights="ema")
  assert [kind for _, kind, _ in case.seen] == ["raw", "raw"]
  opened = checkpoint.Checkpoints(str(tmp_path))
  assert opened.choose("best") == 2


def test_a_checkpoint_is_evaluated_by_either(monkeypatch, tmp_path):
  case = Evaluation(FIGURES)
  monkeypatch.setattr(evaluate, "begin", case)

  def evaluated(workdir, kind):
    settings = tiny.config(eval__weights=kind, **NETWORK)
    mesh = sharding.create_mesh(jax.devices()[:1])
    evaluate.evaluate_checkpoint(
      settings, skeletons.COCO_17, str(workdir), mesh=mesh, data=case.data
    )
    return case.seen[-1]

  state, _ = run(tmp_path / "ema", 2, train__ema=DECAY)
  for kind, weights in state.weights().items():
    step, named, found = evaluated(tmp_path / "ema", kind)
    assert (step, named) == (2, kind)
    assert noise_runs.same(found, weights)
  run(tmp_path / "raw", 2)
  with pytest.raises(InputError, match=r"/2 has raw weights alone.*train\.ema"):
    evaluated(tmp_path / "raw", "ema")
