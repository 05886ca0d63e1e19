"""Saving checkpoints, resuming from them, and what damage does."""

import gc
import shutil

import jax
import numpy as np
import pytest

from tests import checkpoints, tiny
from tokenpose_jax import InputError, checkpoint, saving, skeletons


def test_state_and_meta_come_back(tmp_path):
  state, meta = checkpoints.make(tmp_path)
  opened = saving.Saver(str(tmp_path))
  saved = opened.read_meta(1)
  assert {name: saved[name] for name in meta} == meta
  assert saved["config"]["model"]["dim"] == 32
  template = jax.tree.map(lambda a: a * 0, state)
  restored = opened.restore(1, template, saved)
  for one, other in zip(
    jax.tree.leaves(restored), jax.tree.leaves(state), strict=True
  ):
    np.testing.assert_array_equal(one, other)


def test_the_best_follows_the_metric_of_the_evaluation(tmp_path):
  settings = tiny.config()
  state, _, _ = tiny.training(settings, jax.devices()[:1])
  meta = checkpoint.describe(settings, skeletons.COCO_17.to_dict(), {})
  saved = saving.Saver(str(tmp_path), keep=1)
  for value in (50.0, 88.0, 70.0):  # MPII: the weighted mean PCKh
    state = state.replace(step=state.step + 1)
    metrics = {"Head": 99.0 - value, "Mean": value}
    saved.save(state, meta)
    saved.add_metrics(int(state.step), metrics, "Mean")
  saved.close()
  opened = checkpoint.Checkpoints(str(tmp_path))
  assert (opened.steps(), opened.choose("best")) == ([2, 3], 2)


def test_what_is_saved_may_be_given_away_at_once(tmp_path):
  settings = tiny.config()
  state, _, _ = tiny.training(settings, jax.devices()[:1])
  wanted = jax.tree.map(np.array, jax.device_get(state))
  meta = checkpoint.describe(settings, skeletons.COCO_17.to_dict(), {})
  step = int(state.step)
  overwrite = jax.jit(
    lambda tree: jax.tree.map(lambda a: a * 0, tree), donate_argnums=0
  )
  with saving.opened(str(tmp_path), keep=1) as saver:
    saver.save(state, meta)
    overwrite(state)
    saver.wait()
    template = jax.tree.map(np.zeros_like, wanted)
    template = jax.tree.map(jax.numpy.asarray, template)
    found = saver.restore(step, template, saver.read_meta(step))
  for one, other in zip(
    jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True
  ):
    np.testing.assert_array_equal(one, other)


def test_a_place_that_cannot_be_written(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match=r"cannot write .*/file/run/checkpoints"):
    saving.Saver(str(tmp_path / "file" / "run"))


def latest(saver, template, on_damage="previous"):
  return saving.restore_latest(saver, template, lambda *_: None, on_damage)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
  """A work directory with steps 2 and 3, and its last state."""
  path = tmp_path_factory.mktemp("run")
  return path, checkpoints.make(path, metrics=[0.1, 0.2, 0.3])[0]


@pytest.mark.parametrize("damage", checkpoints.DAMAGES)
def test_the_one_before_a_damaged_one_is_used(three, tmp_path, damage, caplog):
  path, state = three
  shutil.copytree(path, tmp_path, dirs_exist_ok=True)
  folder = tmp_path / checkpoint.FOLDER
  checkpoints.DAMAGES[damage](folder / "3")
  damaged = checkpoints.files(folder / "3")
  saver = saving.Saver(str(tmp_path))
  with pytest.raises(checkpoint.Damaged, match="checkpoints/3 is damaged"):
    latest(saver, state, "stop")
  assert saver.steps() == [2, 3]
  assert int(latest(saver, state).step) == 2
  # Kept aside, as it is; what metrics it had are damaged, too.
  kept = checkpoints.files(tmp_path / saving.ASIDE / "3")
  assert [*kept.values()] == [*damaged.values()]
  (line,) = [m for m in caplog.messages if "It is in" in m]
  assert "damaged/3 now; going on from step 2" in line
  if damage == "bit":  # The step is saved again.
    saver.save(state, saver.read_meta(2))
  saver.close()
  steps = checkpoint.Checkpoints(str(tmp_path)).steps()
  assert steps == ([2, 3] if damage == "bit" else [2])
  gc.collect()


def test_a_renamed_step_is_damage(tmp_path):
  state, _ = checkpoints.make(tmp_path, metrics=[None, None])
  folder = tmp_path / checkpoint.FOLDER
  (folder / "2").rename(folder / "20")
  saver = saving.Saver(str(tmp_path))
  assert int(latest(saver, state).step) == 1
  assert (tmp_path / saving.ASIDE / "20").is_dir()


def test_the_only_one_is_never_moved(tmp_path):
  state, _ = checkpoints.make(tmp_path)
  checkpoints.DAMAGES["bit"](tmp_path / checkpoint.FOLDER / "1")
  before = checkpoints.files(tmp_path)
  with pytest.raises(InputError, match="Move the damaged folder away to start"):
    latest(saving.Saver(str(tmp_path)), state)
  assert checkpoints.files(tmp_path) == before


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"AP": null}', "\0" * 9])
def test_broken_metrics_do_not_keep_a_training_from_going_on(tmp_path, content):
  checkpoints.make(tmp_path, metrics=[0.3, 0.5])
  file = checkpoint.Checkpoints(str(tmp_path)).metrics_file(2)
  file.write_text(content)
  saver = saving.Saver(str(tmp_path))
  assert (saver.steps(), saver.choose("best")) == ([1, 2], 1)
  assert file.with_name("metrics.damaged").read_text() == content
  saver.add_metrics(2, {"AP": 0.6}, "AP")
  assert saver.choose("best") == 2


def test_what_a_killed_save_has_left_is_removed(tmp_path):
  checkpoints.make(tmp_path)
  left = tmp_path / checkpoint.FOLDER / "2.orbax-checkpoint-tmp"
  (left / "state").mkdir(parents=True)
  (left / "state" / "data").write_text("half")
  saving.Saver(str(tmp_path)).close()
  assert not left.exists()
