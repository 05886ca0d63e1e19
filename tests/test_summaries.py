"""Summaries that cannot be written cost a training nothing."""

import logging

import pytest

from input_pipeline.summaries import Summaries
from tests import fixtures


def written(folder) -> int:
  return sum(p.stat().st_size for p in folder.glob("events*"))


def warnings(caplog) -> list[str]:
  """Ours; clu's own errors are kept off the terminal."""
  return [r.message for r in caplog.records if r.levelno == logging.WARNING]


def test_they_are_written(tmp_path):
  summaries = Summaries(str(tmp_path))
  summaries.write_scalars(1, {"loss": 0.5})
  summaries.close()
  assert written(tmp_path) > 0


@pytest.mark.parametrize("step", ["flush", "close"])
def test_a_full_disk_is_said_once(tmp_path, caplog, step):
  summaries = Summaries(str(tmp_path))
  with caplog.at_level(logging.WARNING), fixtures.small_files(100):
    for number in range(3):
      summaries.write_scalars(number, {"loss": 0.5})
      summaries.flush()
    getattr(summaries, step)()
  (said,) = warnings(caplog)
  assert f"cannot write summaries to {tmp_path}: File too large. The" in said
  summaries.close()


def test_freed_space_is_used(tmp_path, caplog):
  summaries = Summaries(str(tmp_path))
  with fixtures.small_files(100):
    summaries.write_scalars(1, {"loss": 0.5})
    summaries.flush()
  summaries.write_scalars(2, {"loss": 0.25})
  summaries.close()
  assert written(tmp_path) > 100
  assert len(warnings(caplog)) == 1
