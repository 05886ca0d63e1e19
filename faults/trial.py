"""Runs of main.py, tiny ones on drawn people, and what became of them."""

import argparse
import contextlib
import functools
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests import tiny
from tests.checkpoints import checksums

ROOT = pathlib.Path(__file__).resolve().parents[1]
STEPS = 60

_FIELDS = tiny.FLAGS | {
  "data.synthetic_train_people": 64,
  "data.synthetic_test_people": 24,
  "train.epochs": 15,
  "train.steps": STEPS,
  "train.log_every": 10,
  "train.pictures_every": 0,
  "train.eval_every_epochs": 5,
  "checkpoint.every_steps": 10,
  "eval.bootstrap": 0,
  "eval.pictures": 0,
  "eval.best_and_worst": 0,
}


class Run:
  """A process of main.py."""

  def __init__(
    self,
    workdir: pathlib.Path,
    data: pathlib.Path,
    *more: str,
    variables: Mapping[str, str] | None = None,
    small: bool = True,
    **fields: object,
  ):
    """Starts it.

    Args:
      workdir: of the run.
      data: where people are drawn, and prepared.
      more: arguments.
      variables: of its environment.
      small: a tiny network and a few people; else all is as in the demo.
      fields: of the config, `section__field`.
    """
    changed = (_FIELDS if small else {}) | {
      "data.dir": data / "drawn",
      "data.prepared_dir": data / "prepared",
      "compile_cache": data / "compiled",
      **{name.replace("__", "."): value for name, value in fields.items()},
    }
    handle, path = tempfile.mkstemp(suffix=".log", dir=data.parent)
    self._log = pathlib.Path(path)
    self._process = subprocess.Popen(
      [
        sys.executable,
        "main.py",
        "--config=configs/demo.py",
        f"--workdir={workdir}",
        *(f"--config.{name}={value}" for name, value in changed.items()),
        *more,
      ],
      cwd=ROOT,
      env=os.environ
      | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
      | dict(variables or {}),
      stdout=handle,
      stderr=subprocess.STDOUT,
      start_new_session=True,
    )
    os.close(handle)

  @property
  def pid(self) -> int:
    """Its number."""
    return self._process.pid

  @property
  def said(self) -> str:
    """All that it has printed."""
    return self._log.read_text(errors="replace")

  def until(self, pattern: str, seconds: float = 180) -> None:
    """Waits until it says something, or has ended.

    Args:
      pattern: a regular expression.
      seconds: to wait at most.
    """
    end = time.monotonic() + seconds
    while not re.search(pattern, self.said):
      if self._process.poll() is not None:
        return
      if time.monotonic() > end:
        self.kill()
        raise AssertionError(f"no {pattern!r} in {seconds} s:\n{self.said}")
      time.sleep(0.01)

  def send(self, number: int) -> None:
    """Sends a signal, if it is alive."""
    with contextlib.suppress(ProcessLookupError):
      self._process.send_signal(number)

  def kill(self) -> None:
    """Ends it at once, as a power cut would."""
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self._process.pid, signal.SIGKILL)
    self._process.wait()

  def poll(self) -> int | None:
    """Its exit code; None while it is alive."""
    return self._process.poll()

  def end(self, seconds: float = 240) -> int:
    """Waits for its end; returns its exit code."""
    try:
      return self._process.wait(seconds)
    except subprocess.TimeoutExpired:
      self.kill()
      raise AssertionError(f"alive after {seconds} s:\n{self.said}") from None

  def is_gone(self) -> bool:
    """Has it ended, and whatever it started?"""
    try:
      os.killpg(self._process.pid, 0)
    except ProcessLookupError:
      return True
    return False

  def lines(self) -> list[str]:
    """What it said, without the log's own lines."""
    return [
      line
      for line in self.said.splitlines()
      if line and not re.match(r"[IWE]\d{4} |(AP|AR) |\s+all ", line)
    ]


def finish(
  workdir: pathlib.Path, data: pathlib.Path, *, seconds: float = 240, **fields
) -> str:
  """The same command, until it ends by itself; what it said."""
  run = Run(workdir, data, **fields)
  assert run.end(seconds) == 0, run.said
  assert "Traceback" not in run.said, run.said
  return run.said


def with_small_disks(case: Callable[..., None]) -> Callable[..., None]:
  """A case that needs `small_disk`, and is skipped by who cannot mount one."""

  @functools.wraps(case)
  def run(*arguments: Any, **options: Any) -> None:
    if os.geteuid():
      print("    skipped: a small disk needs root")
    else:
      case(*arguments, **options)

  return run


def plain(run: Run, *patterns: str, code: int = 1) -> None:
  """Checks that a run ended with a code and one line, no traceback.

  Args:
    run: that is to end.
    patterns: of the last line, regular expressions.
    code: its exit code.
  """
  found = run.end()
  lines = run.lines()
  assert found == code, f"exit code {found}, expected {code}:\n{run.said}"
  assert "Traceback" not in run.said, run.said
  assert run.is_gone(), "a process stays alive"
  assert len(lines) == 1, f"{len(lines)} lines:\n" + "\n".join(lines)
  for pattern in patterns:
    assert re.search(pattern, lines[-1]), f"no {pattern!r} in: {lines[-1]}"


@contextlib.contextmanager
def small_disk(folder: pathlib.Path, megabytes: float) -> Iterator[None]:
  """A disk of a few megabytes; needs root.

  Args:
    folder: to be made, and the disk put there.
    megabytes: of it.
  """
  folder.mkdir()
  _mount(folder, f"size={round(1024 * megabytes)}k")
  try:
    yield
  finally:
    subprocess.run(["umount", "-l", folder], check=True)


def change_disk(folder: pathlib.Path, option: str) -> None:
  """Changes a small disk: gives it space, say.

  Args:
    folder: as for `small_disk`.
    option: size=BYTES, ro or rw.
  """
  _mount(folder, f"remount,{option}")


def _mount(folder: pathlib.Path, option: str) -> None:
  command = ["mount", "-t", "tmpfs", "-o", option, "tmpfs", str(folder)]
  subprocess.run(command, check=True)


class Ground:
  """Where cases take place: data, and an undisturbed run."""

  def __init__(self, folder: pathlib.Path):
    """Draws and prepares data, and trains once.

    Args:
      folder: an empty one.
    """
    self.folder, self.data = folder, folder / "data"
    self.data.mkdir(exist_ok=True)
    self.undisturbed = folder / "undisturbed"
    finish(self.undisturbed, self.data)
    self.weights = checksums(self.undisturbed, STEPS)

  @contextlib.contextmanager
  def workdir(self) -> Iterator[pathlib.Path]:
    """A new work directory."""
    path = pathlib.Path(tempfile.mkdtemp(dir=self.folder))
    yield path / "run"
    shutil.rmtree(path, ignore_errors=True)

  def require_same(self, workdir: pathlib.Path) -> None:
    """Checks that a run ended with the undisturbed weights."""
    found = checksums(workdir, STEPS)
    different = [n for n, v in self.weights.items() if found.get(n) != v]
    assert not different, f"{len(different)} arrays differ, as {different[0]}"


def main(cases: Mapping[str, Callable[[Ground], None]], description: str):
  """Runs the cases of a module; exits with 1 where one fails.

  Args:
    cases: by name.
    description: of the module.
  """
  parser = argparse.ArgumentParser(description=description)
  parser.add_argument("--case", default="", help="only those with this word")
  arguments = parser.parse_args()
  chosen = {n: case for n, case in cases.items() if arguments.case in n}
  failed = []
  with tempfile.TemporaryDirectory() as folder:
    ground = Ground(pathlib.Path(folder))
    for name, case in chosen.items():
      start = time.monotonic()
      try:
        case(ground)
        outcome = "ok"
      except Exception as error:  # A case that fails must not end the others.
        failed.append(name)
        outcome = "FAILED"
        if not isinstance(error, AssertionError):
          traceback.print_exc()
        print(error)
      seconds = time.monotonic() - start
      print(f"{outcome:<7}{seconds:6.1f} s  {name}", flush=True)
  print(f"{len(chosen) - len(failed)} of {len(chosen)} as wanted")
  sys.exit(bool(failed))
