"""A work directory: one run at a time, and no way out of it."""

import json
import os
import socket
import subprocess
import sys

import pytest

from tests import fixtures
from tokenpose_jax import InputError, workdir

HOLDS = """
import sys
from tokenpose_jax import workdir
with workdir.held(sys.argv[1]):
  print("held", flush=True)
  sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def heard(caplog):
  caplog.set_level("INFO")


def lock(folder, **fields):
  owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": "then"}
  (folder / workdir.FILE).write_text(json.dumps(owner | fields))


def test_a_second_run_is_refused(tmp_path):
  with subprocess.Popen(
    [sys.executable, "-c", HOLDS, str(tmp_path)],
    cwd=fixtures.ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as other:
    assert other.stdout.readline() == "held\n"
    says = rf"in use by process {other.pid} on \S+, since \d{{4}}-.*; stop it"
    with pytest.raises(InputError, match=says), workdir.held(str(tmp_path)):
      pass
    other.kill()
  # Its lock is there, and stale.
  assert (tmp_path / workdir.FILE).exists()
  with workdir.held(str(tmp_path)):
    owner = json.loads((tmp_path / workdir.FILE).read_text())
    assert owner["pid"] == os.getpid()
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  "fields", [{"started": "1"}, {"pid": 4194300}, {"pid": 4194300, "since": 3}]
)
def test_a_lock_of_a_process_that_is_gone(tmp_path, fields, caplog):
  lock(tmp_path, **fields)
  with workdir.held(str(tmp_path)):
    pass
  assert "taking over from a run that is gone" in caplog.text


@pytest.mark.parametrize(
  "content",
  [
    *("", "{", "[]", '{"host": 1}', "null"),
    '{"host": "a", "pid": Infinity, "since": ""}',
    pytest.param(fixtures.DEEP, id="deep"),
  ],
)
def test_a_damaged_lock(tmp_path, content, caplog):
  (tmp_path / workdir.FILE).write_text(content)
  with workdir.held(str(tmp_path)):
    pass
  assert ".lock is damaged" in caplog.text


def test_another_host_is_watched(tmp_path, monkeypatch, caplog):
  lock(tmp_path, host="elsewhere\x1b[2J", pid=7)
  path = tmp_path / workdir.FILE
  ticks = iter(range(1000))

  def sleep(_):
    # Each look comes when a second has passed; the other run is alive.
    os.utime(path, ns=(0, next(ticks) * 10**9))

  monkeypatch.setattr(workdir.time, "sleep", sleep)
  with (
    pytest.raises(InputError, match="process 7 on elsewhere"),
    workdir.held(str(tmp_path)),
  ):
    pass
  monkeypatch.setattr(workdir.time, "sleep", lambda _: None)
  clock = iter(range(1000))
  monkeypatch.setattr(workdir.time, "monotonic", lambda: next(clock) * 5.0)
  with workdir.held(str(tmp_path)):
    pass
  assert "taking over" in caplog.text


def test_a_bucket_is_not_locked(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with workdir.held("gs://bucket/run"):
    workdir.require_inside("gs://bucket/run")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(tmp_path):
  with (
    pytest.raises(InputError, match="--workdir: cannot write to"),
    workdir.held(str(tmp_path / "missing")),
  ):
    pass


@pytest.mark.parametrize(
  "name",
  [
    *("checkpoints", "eval", "eval/10", "eval/10/gt/metrics.json", ".lock"),
    *("eval/10/report.html", "damaged", "profile", "skeleton.json"),
    *("events.out.tfevents.1", "checkpoints/5/metrics/metrics", "eval/..."),
  ],
)
def test_links_that_lead_out_are_refused(tmp_path, name):
  outside = tmp_path / "outside"
  outside.mkdir()
  run = tmp_path / "run"
  (run / name).parent.mkdir(parents=True)
  says = rf"{name} is a link to .*/outside"
  for target in (outside, "../" * (1 + name.count("/")) + "outside"):
    (run / name).symlink_to(target)
    with pytest.raises(InputError, match=says):
      workdir.require_inside(str(run))
    (run / name).unlink()
  # Written through, it would make a file.
  (run / name).symlink_to(outside / "not there yet")
  with pytest.raises(InputError, match=says):
    workdir.require_inside(str(run))


def test_other_links_are_fine(tmp_path):
  (tmp_path / "disk" / "run" / "checkpoints").mkdir(parents=True)
  link = tmp_path / "run"
  link.symlink_to(tmp_path / "disk" / "run")
  (link / "latest").symlink_to("checkpoints")
  workdir.require_inside(str(link))
