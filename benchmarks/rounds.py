"""Contenders in processes of their own, timed in turns.

A contender gets ready (imports, compiles, warms up) and then answers rounds:
seconds in, images a second out. So contenders can be timed in turns, and what
disturbs the machine does not hit one alone. Nothing but the standard library:
PyTorch's environment has no JAX, and ours need not have PyTorch.
"""

import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def serve(
  step: Callable[[], Any],
  batch: int,
  facts: Mapping[str, Any],
  after: Callable[[], Mapping[str, Any]] = dict,
) -> None:
  """The contender's side: one line for each line of the input.

  Args:
    step: works on a batch, and returns when that is done.
    batch: images in a step.
    facts: for the first line; "ready_s" is added, seconds since this module
      was imported.
    after: more facts, for the line of each round.
  """
  for _ in range(2):  # The first compiles, the second meets warm memory.
    step()
  _say({**facts, "ready_s": round(time.monotonic() - _BEGAN, 1)})
  for line in sys.stdin:
    seconds, count, start = float(line), 0, time.perf_counter()
    while not count or time.perf_counter() - start < seconds:
      step()
      count += 1
    rate = batch * count / (time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    _say({"rate": rate, "steps": count, "peak_mb": round(peak), **after()})


def _say(answer: Mapping[str, Any]) -> None:
  print(json.dumps(answer), flush=True)


READY = 900.0  # seconds that compilation may take
_BEGAN = time.monotonic()


class Failed(Exception):
  """A contender ended, or did not answer in time."""


class Contender:
  """The referee's side.

  Args:
    command: starts the contender.
    environment: of the process, all of it.
  """

  def __init__(self, command: Sequence[str], environment: Mapping[str, str]):
    self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, see close
    self._process = subprocess.Popen(
      command,
      env=dict(environment),
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self._errors,
      text=True,
    )

  def ready(self, timeout: float = READY) -> dict[str, Any]:
    """Its facts, as soon as it can be timed.

    Raises:
      Failed: it ended, or was not ready in time.
    """
    return self._answer(timeout)

  def rate(self, seconds: float, timeout: float = 600.0) -> dict[str, Any]:
    """Images a second ("rate") of one round, and the peak of its memory.

    Raises:
      Failed: it ended, or did not answer in time.
    """
    stdin = self._process.stdin
    assert stdin is not None
    try:
      stdin.write(f"{seconds}\n")
      stdin.flush()
    except BrokenPipeError:
      raise self._failed("ended") from None
    return self._answer(timeout)

  def close(self) -> None:
    """Ends it."""
    self._process.kill()
    self._process.wait()
    for stream in (self._process.stdin, self._process.stdout):
      if stream:
        stream.close()
    self._errors.close()

  def _answer(self, timeout: float) -> dict[str, Any]:
    stdout = self._process.stdout
    assert stdout is not None
    end = time.monotonic() + timeout
    # Libraries may print, too.
    while select.select([stdout], [], [], max(end - time.monotonic(), 0))[0]:
      line = stdout.readline()
      if not line:
        raise self._failed("ended")
      if line.startswith("{"):
        return json.loads(line)
    raise self._failed(f"no answer in {timeout:.0f} s")

  def _failed(self, what: str) -> Failed:
    if self._process.poll() is None:
      self._process.kill()
    self._process.wait()
    self._errors.seek(0)
    lines = self._errors.read().strip().splitlines() or [""]
    code = self._process.returncode
    return Failed(f"{what}, exit code {code}: {lines[-1][:200]}")


def alone(
  command: Sequence[str], environment: Mapping[str, str], seconds: float
) -> dict[str, Any]:
  """One round of one contender.

  Args:
    command: starts it.
    environment: of the process, all of it.
    seconds: of the round.

  Returns:
    its answers, or "error".
  """
  contender = Contender(command, environment)
  try:
    return contender.ready() | contender.rate(seconds)
  except Failed as error:
    return {"error": str(error)}
  finally:
    contender.close()


def run_alone(
  command: Sequence[str], environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
  """The JSON object that a program prints last.

  Raises:
    Failed: it has another exit code than 0.
  """
  done = subprocess.run(
    command,
    env=dict(os.environ if environment is None else environment),
    capture_output=True,
    text=True,
    check=False,
  )
  if done.returncode:
    lines = done.stderr.strip().splitlines() or [""]
    raise Failed(f"exit code {done.returncode}: {lines[-1][:200]}")
  return json.loads(done.stdout.splitlines()[-1])
