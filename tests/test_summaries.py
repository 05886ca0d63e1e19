"""Summaries that cannot be written cost a training nothing."""

import logging
import os
import pathlib
import sys

import numpy as np
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


def resident_mb() -> float:
  """Memory of this process."""
  pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
  return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_lines_of_the_log_take_no_memory(tmp_path):
  summaries = Summaries(str(tmp_path))
  numbers = np.random.default_rng(0).random((800, 22))
  for step, row in enumerate(numbers.tolist()):
    summaries.write_scalars(step, {f"a/{i}": v for i, v in enumerate(row)})
    if step % 50 == 0:
      summaries.flush()
    if step == 200:
      before = resident_mb()
  summaries.close()
  # 10 MB where TensorFlow is given Python's numbers.
  assert resident_mb() < before + 4
