"""Checkpoints: what they hold, which is best, and what damage does."""

import gc
import pathlib
import shutil

import jax
import numpy as np
import pytest

from tests import tiny
from tokenpose_jax import InputError, checkpoint, skeletons


def make(tmp_path, settings=None, metrics=None):
  """A work directory with a checkpoint per entry of `metrics`."""
  settings = settings or tiny.config()
  state, _, _ = tiny.training(settings, jax.devices()[:1])
  meta = checkpoint.describe(
    settings, skeletons.COCO_17.to_dict(), {"annotations_sha256": "abc"}
  )
  saved = checkpoint.Checkpoints(str(tmp_path), keep=2)
  for value in metrics or [None]:
    state = state.replace(step=state.step + 1)
    saved.save(state, meta)
    if value:
      saved.add_metrics(int(state.step), {"AP": value}, "AP")
  saved.close()
  return state, meta


def files(folder: pathlib.Path) -> dict[str, bytes]:
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in folder.rglob("*")
    if path.is_file()
  }


def test_state_and_meta_come_back(tmp_path):
  state, meta = make(tmp_path)
  opened = checkpoint.Checkpoints(str(tmp_path))
  saved = opened.read_meta(1)
  assert {name: saved[name] for name in meta} == meta
  assert saved["config"]["model"]["dim"] == 32
  template = jax.tree.map(lambda a: a * 0, state)
  restored = opened.restore(1, template, saved)
  for one, other in zip(
    jax.tree.leaves(restored), jax.tree.leaves(state), strict=True
  ):
    np.testing.assert_array_equal(one, other)


def averaged(tmp_path, **fields):
  """A run whose checkpoint has averaged weights: all ones."""
  settings = tiny.config(**fields)
  state, _, _ = tiny.training(settings, jax.devices()[:1])
  ones = jax.tree.map(np.ones_like, (state.params, state.model_state))
  meta = checkpoint.describe(settings, skeletons.COCO_17.to_dict(), {})
  saved = checkpoint.Checkpoints(str(tmp_path))
  saved.save(state.replace(ema=jax.tree.map(jax.numpy.asarray, ones)), meta)
  saved.close()
  return state


@pytest.mark.parametrize("usual", ["raw", "ema"])
def test_averaged_weights_come_back(tmp_path, usual):
  state = averaged(tmp_path, eval__weights=usual)
  opened = checkpoint.Checkpoints(str(tmp_path))
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
  state, _ = make(tmp_path, tiny.config(eval__weights="ema"))
  opened = checkpoint.Checkpoints(str(tmp_path))
  meta = opened.read_meta(1)
  assert checkpoint.usual_kind(meta) == "raw"
  template = state.replace(ema=(state.params, state.model_state))
  assert opened.restore(1, template, meta).ema is None
  with pytest.raises(InputError, match=r"checkpoints/1 has raw weights alone"):
    opened.restore_weights(1, meta, "ema")


def test_fields_that_were_added_do_not_differ(tmp_path):
  """An older checkpoint was trained as their defaults say."""
  _, meta = make(tmp_path)
  older = {**meta, "config": {**meta["config"]}}
  for section in ("optim", "train", "eval"):
    older["config"][section] = dict(meta["config"][section])
  del older["config"]["train"]["ema"], older["config"]["optim"]["clip_norm"]
  del older["config"]["eval"]["weights"], older["config"]["train"]["remat"]
  assert checkpoint.upgrade(older, "DIR") == meta


def test_the_best_follows_the_metric_of_the_evaluation(tmp_path):
  settings = tiny.config()
  state, _, _ = tiny.training(settings, jax.devices()[:1])
  meta = checkpoint.describe(settings, skeletons.COCO_17.to_dict(), {})
  saved = checkpoint.Checkpoints(str(tmp_path), keep=1)
  for value in (50.0, 88.0, 70.0):  # MPII: the weighted mean PCKh
    state = state.replace(step=state.step + 1)
    metrics = {"Head": 99.0 - value, "Mean": value}
    saved.save(state, meta)
    saved.add_metrics(int(state.step), metrics, "Mean")
  saved.close()
  opened = checkpoint.Checkpoints(str(tmp_path))
  assert (opened.steps(), opened.choose("best")) == ([2, 3], 2)


def test_latest_two_and_the_best_stay(tmp_path):
  make(tmp_path, metrics=[0.1, 0.5, 0.2, None, 0.3])
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


def test_a_place_that_cannot_be_written(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match=r"cannot write .*/file/run/checkpoints"):
    checkpoint.Checkpoints(str(tmp_path / "file" / "run"))


def test_a_bucket_is_no_local_folder(monkeypatch):
  made = []
  monkeypatch.setattr(
    checkpoint.ocp, "CheckpointManager", lambda path, **_: made.append(path)
  )
  checkpoint.Checkpoints("gs://bucket/run")
  checkpoint.Checkpoints("runs/t")
  assert str(made[0]) == "gs://bucket/run/checkpoints"
  assert made[1].is_absolute()


def _largest(step: pathlib.Path) -> pathlib.Path:
  """The largest file of arrays."""
  return max((step / "state").rglob("d/*"), key=lambda p: p.stat().st_size)


def _truncate(step: pathlib.Path):
  largest = _largest(step)
  largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


def _flip_bits(step: pathlib.Path):
  """Flips one bit, which Orbax itself does not notice."""
  largest = _largest(step)
  raw = bytearray(largest.read_bytes())
  raw[len(raw) // 2] ^= 1
  largest.write_bytes(bytes(raw))


@pytest.mark.parametrize(
  "damage",
  [
    _truncate,
    _flip_bits,
    lambda step: shutil.rmtree(step / "state"),
    lambda step: (step / "state" / "_METADATA").unlink(),
    lambda step: (step / "meta" / "metadata").write_text("{"),
    lambda step: shutil.rmtree(step / "meta"),
  ],
  ids=["truncated", "bit", "no state", "no metadata", "bad meta", "no meta"],
)
def test_damage_is_said_and_nothing_changes(tmp_path, damage):
  state, _ = make(tmp_path, metrics=[None, None])
  step = tmp_path / checkpoint.FOLDER / "2"
  damage(step)
  before = files(tmp_path)
  opened = checkpoint.Checkpoints(str(tmp_path))
  if opened.steps()[-1] != 2:
    # Orbax no longer counts it as a checkpoint: the one before is the latest.
    assert opened.choose("latest") == 1
    return

  def resume():
    opened.restore(2, state, opened.read_meta(2))

  with pytest.raises(InputError, match=r"checkpoints/2 is damaged") as error:
    resume()
  assert "\n" not in str(error.value)
  assert "Step 1 is intact" in str(error.value)
  assert files(tmp_path) == before
  gc.collect()  # Reads that were left behind would complain now: an error.


def test_mismatches_name_the_fields(tmp_path):
  _, meta = make(tmp_path)
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
  _, meta = make(tmp_path)
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
