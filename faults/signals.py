"""Told to stop, or killed, at named moments."""

import functools
import signal
import time

from faults import trial
from faults.trial import Ground, Run

# A moment: what the run says just before, and seconds after that.
MOMENTS = {
  "start": ("", 0.05),
  "imports": ("", 0.7),
  "more imports": ("", 2.0),
  "TensorFlow": ("", 3.5),
  "compilation": (r"steps 0 to \d+ on", 0.5),
  "first step": (r"step 10/", 0.0),
  "a step": (r"step 20/", 0.02),
  "a save": (r"step 30/", 0.05),
  "an evaluation": (r"step 20/", 0.3),
  "the end": (r"step 60/", 0.3),
}
NUMBERS = {"SIGTERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT}
MOST = 30.0  # seconds from the signal to the end


def told(ground: Ground, number: int, moment: str) -> None:
  """Stopped at a moment, and gone on with."""
  pattern, seconds = MOMENTS[moment]
  with ground.workdir() as workdir:
    run = Run(workdir, ground.data)
    run.until(pattern)
    time.sleep(seconds)
    run.send(number)
    sent = time.monotonic()
    code = run.end()
    assert time.monotonic() - sent < MOST, f"{time.monotonic() - sent:.0f} s"
    if code:  # It may have been ready just then.
      trial.plain(run, "stopped by", "goes on", code=128 + number)
    trial.finish(workdir, ground.data)
    ground.require_same(workdir)


def killed(ground: Ground, moment: str) -> None:
  """Killed at a moment, and gone on with."""
  pattern, seconds = MOMENTS[moment]
  with ground.workdir() as workdir:
    run = Run(workdir, ground.data)
    run.until(pattern)
    time.sleep(seconds)
    run.kill()
    trial.finish(workdir, ground.data)
    ground.require_same(workdir)


def every_second(ground: Ground) -> None:
  """Stopped again and again: each start goes on a little."""
  with ground.workdir() as workdir:
    for seconds in range(1, 40):
      run = Run(workdir, ground.data)
      run.until(r"steps \d+ to|nothing to train")
      time.sleep(0.2 * seconds)
      run.send(signal.SIGTERM)
      if run.end() == 0:
        break
      trial.plain(run, "stopped by SIGTERM", code=143)
    else:
      raise AssertionError("never ready")
    ground.require_same(workdir)


def twice(ground: Ground) -> None:
  """A second Ctrl-C leaves at once; the save before is there."""
  with ground.workdir() as workdir:
    run = Run(workdir, ground.data)
    run.until(r"step 30/")
    run.send(signal.SIGINT)
    run.send(signal.SIGINT)
    sent = time.monotonic()
    trial.plain(run, "stopped by Ctrl-C", code=130)
    assert time.monotonic() - sent < 12
    names = [p.name for p in (workdir / "checkpoints").iterdir()]
    steps = [int(name) for name in names if name.isdigit()]
    assert max(steps) >= 20, steps
    trial.finish(workdir, ground.data)
    ground.require_same(workdir)


def drawing(ground: Ground) -> None:
  """Stopped while people are drawn."""
  with ground.workdir() as workdir:
    data = workdir.parent / "data"
    for seconds in (4.0, 5.0, 6.0):
      run = Run(workdir, data)
      time.sleep(seconds)
      run.send(signal.SIGTERM)
      assert run.end() in (143, 0), run.said
    trial.finish(workdir, data)
    ground.require_same(workdir)


def alone(ground: Ground) -> None:
  """Stopped in an evaluation of its own."""
  with ground.workdir() as workdir:
    trial.finish(workdir, ground.data, train__steps=10)
    run = Run(workdir, ground.data, "--mode=evaluate")
    run.until("flip pairs")
    time.sleep(0.5)
    run.send(signal.SIGTERM)
    assert run.end() in (143, 0), run.said
    assert "Traceback" not in run.said, run.said


CASES = {
  f"{name} at {moment}": functools.partial(told, number=number, moment=moment)
  for name, number in NUMBERS.items()
  for moment in MOMENTS
}
CASES |= {
  f"SIGKILL at {moment}, {n}": functools.partial(killed, moment=moment)
  for moment in MOMENTS
  for n in (1, 2, 3)
}
CASES |= {
  "SIGTERM again and again": every_second,
  "a second Ctrl-C": twice,
  "SIGTERM while drawing": drawing,
  "SIGTERM in an evaluation alone": alone,
}

if __name__ == "__main__":
  trial.main(CASES, __doc__)
