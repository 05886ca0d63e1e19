"""Other numbers of devices, a demo that is stopped every minute, a long run."""

import os
import pathlib
import re
import shutil
import signal
import time

import jax
import numpy as np

from faults import trial
from faults.trial import STEPS, Ground, Run
from tests.checkpoints import checksums
from tokenpose_jax import checkpoint

MINUTES = 20  # of the long run
_MIB = 2**20


def _devices(count: int) -> dict[str, str]:
  return {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}


def _losses(said: str) -> dict[int, float]:
  """Those that were logged, by step."""
  found = re.findall(r"step (\d+)/\d+  loss (\S+)", said)
  return {int(step): float(loss) for step, loss in found}


def _parameters(workdir: pathlib.Path) -> np.ndarray:
  """All of them, one after the other."""
  _, _, (params, _) = checkpoint.read_weights(str(workdir), str(STEPS))
  return np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])


def devices(ground: Ground, counts: tuple[int, ...]) -> None:
  """A quarter of the steps on so many devices each, and all on the first."""
  with ground.workdir() as workdir, ground.workdir() as whole:
    every_step = {"train__log_every": 1}
    alone = trial.finish(
      whole, ground.data, variables=_devices(counts[0]), **every_step
    )
    losses = {}
    for part, count in enumerate(counts, 1):
      said = trial.finish(
        workdir,
        ground.data,
        variables=_devices(count),
        train__steps=part * STEPS // len(counts),
        **every_step,
      )
      assert f"on {count} cpu device(s)" in said, said
      losses |= _losses(said)
    wanted = _losses(alone)
    assert len(losses) == len(wanted) == STEPS, (len(losses), len(wanted))
    apart = max(abs(losses[s] - wanted[s]) / wanted[s] for s in wanted)
    one, other = _parameters(workdir), _parameters(whole)
    distance = np.linalg.norm(one - other) / np.linalg.norm(other)
    print(f"  losses of {STEPS} steps: {apart:.1e} apart at most", end=", ")
    print(f"weights: {distance:.1e} of their norm")
    if len(set(counts)) == 1:
      assert checksums(workdir, STEPS) == checksums(whole, STEPS)
    # Other people in a batch would make the losses differ by tenths.
    assert apart < 0.01
    assert distance < 0.02


def every_minute(ground: Ground) -> None:
  """The demo, stopped every minute, ends with an undisturbed one's weights."""
  hour = 3600
  with ground.workdir() as whole, ground.workdir() as workdir:
    data = ground.folder / "demo"
    data.mkdir()
    undisturbed = trial.finish(whole, data, seconds=hour, small=False)
    last = max(_losses(undisturbed))
    starts, resumed, stopped = 0, [], []
    while True:
      starts += 1
      run = Run(workdir, data, small=False)
      deadline = time.monotonic() + 60
      code = None
      while code is None and time.monotonic() < deadline:
        code = run.poll()
        time.sleep(0.1)
      if code is None:
        run.send(signal.SIGTERM)
        code = run.end()
      assert code in (0, 143), run.said
      assert "Traceback" not in run.said, run.said
      resumed += map(int, re.findall(r"steps (\d+) to \d+ on", run.said))
      if code == 0:
        break
      stopped += map(
        int, re.findall(r"stopped by SIGTERM at step (\d+)", run.said)
      )
    print(f"  {starts} starts, stopped at {stopped}, resumed from {resumed}")
    assert resumed == [0, *stopped], "steps were lost"
    assert checksums(workdir, last) == checksums(whole, last)


def _sizes(pid: int, workdir: pathlib.Path) -> dict[str, float]:
  """What a process and its work directory take."""
  status = pathlib.Path(f"/proc/{pid}/status").read_text()
  folders = {"checkpoints": 0, "eval": 0, "events": 0}
  for path in workdir.rglob("*"):
    name = path.relative_to(workdir).parts[0]
    try:
      if path.is_file():
        folders[name if name in folders else "events"] += path.stat().st_size
    except FileNotFoundError:
      continue  # A checkpoint that was removed just now.
  return {
    "memory": int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024,
    "threads": int(re.search(r"Threads:\s+(\d+)", status)[1]),
    "files": len(os.listdir(f"/proc/{pid}/fd")),
    **{name: size / _MIB for name, size in folders.items()},
  }


def long(ground: Ground) -> None:
  """Memory, threads, open files and checkpoints do not grow."""
  with ground.workdir() as workdir:
    run = Run(
      workdir,
      ground.data,
      train__steps=10**6,
      train__epochs=10**6,
      train__eval_every_epochs=250,
      checkpoint__every_steps=200,
      train__pictures_every=500,
    )
    run.until(r"step 200/")
    start, rows = time.monotonic(), []
    while time.monotonic() < start + 60 * MINUTES:
      row = _sizes(run.pid, workdir)
      rows.append(row)
      shown = ", ".join(f"{name} {value:.4g}" for name, value in row.items())
      print(f"  minute {(time.monotonic() - start) / 60:.0f}: {shown}")
      time.sleep(60)
    run.send(signal.SIGTERM)
    trial.plain(run, "stopped by SIGTERM", code=143)
    print(f"  {max(_losses(run.said))} steps")
    shutil.rmtree(workdir)
  # The first minutes fill caches.
  first, last = rows[3], rows[-1]
  assert last["memory"] < first["memory"] * 1.05
  assert last["threads"] <= first["threads"] + 2
  assert last["files"] <= first["files"] + 5
  assert last["checkpoints"] < first["checkpoints"] * 1.5 + 1


CASES = {
  "8, 2, 1, 8 devices": lambda g: devices(g, (8, 2, 1, 8)),
  "8 devices, in four parts": lambda g: devices(g, (8, 8, 8, 8)),
  "the demo, stopped every minute": every_minute,
  f"{MINUTES} minutes": long,
}

if __name__ == "__main__":
  trial.main(CASES, __doc__)
