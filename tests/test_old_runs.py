"""A run of format 0, before checkpoints had a number, is still of use.

runs/format_0.tar.gz holds the checkpoint of a tiny network trained for 400
steps on 24 synthetic people by commit add310b, and the metrics and results of
its evaluation there.
"""

import json
import tarfile

import numpy as np
import pytest

from tests import command_line, fixtures
from tokenpose_jax import InputError, checkpoint
from tokenpose_jax.eval_report import Record

FLAGS = [
  "--config=configs/demo.py",
  "--config.model.input_hw=(64,48)",
  "--config.model.stem_channels=4",
  "--config.model.patch_hw=(4,3)",
  "--config.model.dim=16",
  "--config.model.depth=2",
  "--config.model.heads=2",
  "--config.model.head_dim=16",
  "--config.data.synthetic_train_people=24",
  "--config.data.synthetic_test_people=12",
  "--config.train.batch_size=8",
  "--config.eval.batch_size=8",
  "--config.checkpoint.every_steps=400",
  "--config.eval.best_and_worst=2",
  "--config.eval.bootstrap=50",
]


@pytest.fixture(scope="module")
def old(tmp_path_factory):
  """The old run, and a place for its data."""
  path = tmp_path_factory.mktemp("old")
  with tarfile.open(fixtures.ROOT / "tests/runs/format_0.tar.gz") as archive:
    archive.extractall(path / "run", filter="data")
  return path


def command(old, *more):
  done = command_line.call(
    *FLAGS,
    f"--workdir={old / 'run'}",
    f"--config.data.dir={old / 'data'}",
    f"--config.data.prepared_dir={old / 'prepared'}",
    *more,
  )
  assert done.returncode == 0, done.stderr
  return done.stderr


def test_it_is_evaluated_and_resumed(old):
  before = json.loads((old / "run/eval/400/gt/metrics.json").read_text())
  wanted = json.loads((old / "run/eval/400/gt/results.json").read_text())
  command(old, "--mode=evaluate")
  folder = old / "run/eval/400/gt-2"  # of data in another place
  found = json.loads((folder / "results.json").read_text())
  assert len(found) == len(wanted) == 13
  for one, other in zip(found, wanted, strict=True):
    assert one["image_id"] == other["image_id"]
    np.testing.assert_allclose(
      one["keypoints"], other["keypoints"], rtol=1e-3, atol=0.05
    )
  after = json.loads((folder / "metrics.json").read_text())
  assert after["format"] == 1
  assert after["made"]["weights_crc32"] == before["made"]["weights_crc32"]
  for name in ("figures", "intervals", "replicates", "errors", "people"):
    assert after[name] == before[name], name
  log = command(old, "--config.train.steps=403")
  assert "resuming from step 400" in log
  assert "resuming with a change: train.steps: 400 -> 403" in log
  saved = checkpoint.Checkpoints(str(old / "run"))
  assert saved.steps() == [400, 403]
  assert saved.choose("best") in (400, 403)
  assert saved.read_meta(403)["format"] == checkpoint.FORMAT


def test_its_metrics_are_read(tmp_path):
  with tarfile.open(fixtures.ROOT / "tests/runs/format_0.tar.gz") as archive:
    archive.extractall(tmp_path, filter="data")
  path = tmp_path / "eval/400/gt/metrics.json"
  record = Record.from_json(path.read_text(), str(path))
  assert record.made["min_keypoint_score"] == 0.2
  assert [column.name for column in record.columns] == [*record.figures]
  assert record.columns[0].factor == 100
  newer = {**json.loads(path.read_text()), "format": 2, "software": "9"}
  with pytest.raises(InputError, match=r"has format 2, written by .* 9"):
    Record.from_json(json.dumps(newer), "here")
