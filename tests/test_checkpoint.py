"""Checkpoints: what they hold, which is best, and what is damaged."""

import json
import shutil

import jax
import numpy as np
import pytest

from tests import checkpoints, fixtures, tiny
from tokenpose_jax import (
  InputError,
  checkpoint,
  saving,
  skeletons,
  weight_kinds,
)


def averaged(tmp_path, **fields):
  """A run whose checkpoint has averaged weights: all ones."""
  settings = tiny.config(**fields)
  state, _, _ = tiny.training(settings, jax.devices()[:1])
  ones = jax.tree.map(np.ones_like, (state.params, state.model_state))
  meta = checkpoint.describe(settings, skeletons.COCO_17.to_dict(), {})
  saved = saving.Saver(str(tmp_path))
  saved.save(state.replace(ema=jax.tree.map(jax.numpy.asarray, ones)), meta)
  saved.close()
  return state


@pytest.mark.parametrize("usual", ["raw", "ema"])
def test_averaged_weights_come_back(tmp_path, usual):
  state = averaged(tmp_path, eval__weights=usual)
  opened = saving.Saver(str(tmp_path))
  meta = opened.read_meta(0)
  assert len(meta["checksums"]) == len(
    jax.tree.leaves(opened.restore(0, state, meta))
  )
  for kind in ("raw", "ema", ""):
    _, _, weights = checkpoint.read_weights(str(tmp_path), "best", kind)
    leaves = jax.tree.leaves(weights)
    ones = all((leaf == 1).all() for leaf in leaves)
    assert ones == ((kind or usual) == "ema")
  # Whatever the template has.
  restored = opened.restore(0, state, meta)
  assert jax.tree.structure(restored.ema) == jax.tree.structure(weights)
  with pytest.raises(InputError, match="weights is 'best'; allowed: raw, ema"):
    opened.restore_weights(0, meta, "best")


def test_an_average_that_is_not_there(tmp_path):
  state, _ = checkpoints.make(tmp_path, tiny.config(eval__weights="ema"))
  opened = saving.Saver(str(tmp_path))
  meta = opened.read_meta(1)
  assert weight_kinds.usual(meta) == "raw"
  template = state.replace(ema=(state.params, state.model_state))
  assert opened.restore(1, template, meta).ema is None
  with pytest.raises(InputError, match=r"checkpoints/1 has raw weights alone"):
    opened.restore_weights(1, meta, "ema")


def test_fields_that_were_added_do_not_differ(tmp_path):
  """An older checkpoint was trained as their defaults say."""
  _, meta = checkpoints.make(tmp_path)
  older = {**meta, "config": {**meta["config"]}}
  for section in ("optim", "train", "eval"):
    older["config"][section] = dict(meta["config"][section])
  del older["config"]["train"]["ema"], older["config"]["optim"]["clip_norm"]
  del older["config"]["eval"]["weights"], older["config"]["train"]["remat"]
  assert checkpoint.upgrade(older, "DIR") == meta


def test_latest_two_and_the_best_stay(tmp_path):
  checkpoints.make(tmp_path, metrics=[0.1, 0.5, 0.2, None, 0.3])
  opened = checkpoint.Checkpoints(str(tmp_path))
  assert opened.steps() == [2, 4, 5]
  assert opened.choose("best") == 2
  assert opened.choose("latest") == 5
  assert opened.choose("4") == 4
  with pytest.raises(InputError, match=r"best, latest or one of \[2, 4, 5\]"):
    opened.choose("3")


def test_no_checkpoint_is_named(tmp_path):
  with pytest.raises(InputError, match="holds no checkpoint"):
    checkpoint.Checkpoints(str(tmp_path)).choose("best")


def test_a_bucket_is_no_local_folder():
  bucket = checkpoint.Checkpoints("gs://bucket/run")
  assert str(bucket.path) == "gs://bucket/run/checkpoints"
  assert checkpoint.Checkpoints("runs/t").path.is_absolute()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
  """A work directory with steps 1 and 2."""
  path = tmp_path_factory.mktemp("run")
  checkpoints.make(path, metrics=[0.3, 0.5])
  return path


@pytest.mark.parametrize("damage", checkpoints.DAMAGES)
def test_damage_is_one_line_and_nothing_changes(two, tmp_path, damage):
  shutil.copytree(two, tmp_path, dirs_exist_ok=True)
  checkpoints.DAMAGES[damage](tmp_path / checkpoint.FOLDER / "2")
  before = checkpoints.files(tmp_path)
  opened = checkpoint.Checkpoints(str(tmp_path))
  if damage == "no metadata":
    # That of the optimizer is not needed: what is read is checked.
    opened.restore_weights(2, opened.read_meta(2))
    return
  with pytest.raises(checkpoint.Damaged, match="checkpoints/2 is dam") as error:
    opened.restore_weights(2, opened.read_meta(2))
  assert "\n" not in str(error.value)
  assert "Step 1 is there as well" in str(error.value)
  assert checkpoints.files(tmp_path) == before


def test_a_network_out_of_all_bounds_takes_no_memory(two, tmp_path):
  shutil.copytree(two, tmp_path, dirs_exist_ok=True)
  file = tmp_path / checkpoint.FOLDER / "2" / "meta" / "metadata"
  meta = json.loads(file.read_text())
  meta["config"]["model"]["dim"] = 10**9
  file.write_text(json.dumps(meta))
  with pytest.raises(InputError, match="larger than any of its kind"):
    checkpoint.read_weights(str(tmp_path), "2")


BROKEN = ["", "{", "[]", "null", '{"AP": "high"}', '{"AP": NaN}', "\0" * 40]
BROKEN += [fixtures.DEEP, '"\\u001b[2J\\u202e"']


@pytest.mark.parametrize("content", BROKEN, ids=lambda text: text[:9])
def test_broken_metrics_are_named_and_passed_over(
  two, tmp_path, content, caplog
):
  shutil.copytree(two, tmp_path, dirs_exist_ok=True)
  opened = checkpoint.Checkpoints(str(tmp_path))
  assert opened.choose("best") == 2
  opened.metrics_file(2).write_text(content)
  assert opened.choose("best") == 1
  (line,) = [r.getMessage() for r in caplog.records if "damaged" in r.message]
  assert "checkpoints/2/metrics/metrics is damaged" in line
  assert line.isprintable()


def test_what_is_no_step_is_passed_over(tmp_path):
  checkpoints.make(tmp_path, metrics=[None, None])
  folder = tmp_path / checkpoint.FOLDER
  shutil.copytree(folder / "2", folder / "2.bak")
  shutil.copytree(folder / "2", folder / "old")
  (folder / "٣").mkdir()
  (folder / "note.txt").write_text("mine")
  assert checkpoint.Checkpoints(str(tmp_path)).steps() == [1, 2]


def test_mismatches_name_the_fields(tmp_path):
  _, meta = checkpoints.make(tmp_path)
  other = checkpoint.describe(
    tiny.config(model__depth=3),
    skeletons.COCO_17.to_dict(),
    {"annotations_sha256": "abd"},
  )
  assert checkpoint.mismatches(meta, other) == {
    "model.depth": (2, 3),
    "data.annotations_sha256": ("abc", "abd"),
  }
  assert checkpoint.mismatches(meta, meta) == {}


def test_a_checkpoint_of_a_newer_format_is_named(tmp_path):
  _, meta = checkpoints.make(tmp_path)
  newer = {**meta, "format": checkpoint.FORMAT + 1, "software": "9.0"}
  with pytest.raises(InputError, match=r"DIR has format 2, written by .* 9\.0"):
    checkpoint.upgrade(newer, "DIR")


def test_the_fingerprint_follows_the_weights():
  weights = {"a": np.arange(3.0), "b": np.ones(2)}, {}
  same = checkpoint.fingerprint(jax.tree.map(jax.numpy.asarray, weights))
  assert len(same) == 8
  assert same == checkpoint.fingerprint(jax.tree.map(np.float32, weights))
  weights[0]["b"][0] = 2
  assert checkpoint.fingerprint(weights) != same
