"""Two processes of one run: stopped, killed, failing, late and different."""

import contextlib
import json
import os
import pathlib
import random
import signal
import socket
import time
from collections.abc import Iterator

from faults import trial
from faults.trial import Ground, Run
from tests.checkpoints import checksums
from tests.command_line import free_address

_SHORT = {"train__steps": 40, "train__eval_every_epochs": 0}


def _place(address: str, index: int) -> dict[str, str]:
  return {
    "JAX_COORDINATOR_ADDRESS": address,
    "JAX_NUM_PROCESSES": "2",
    "JAX_PROCESS_ID": str(index),
  }


@contextlib.contextmanager
def two(
  ground: Ground,
  workdir: pathlib.Path,
  *more: tuple[str, ...],
  late: float = 0,
  fields: tuple[dict, dict] = ({}, {}),
  workdirs: tuple[pathlib.Path, ...] = (),
) -> Iterator[list[Run]]:
  """Two processes; what differs between them is given in pairs."""
  address, runs = free_address(), []
  try:
    for index in (0, 1):
      runs.append(
        Run(
          workdirs[index] if workdirs else workdir,
          ground.data,
          *(more[index] if more else ()),
          variables=_place(address, index),
          **(_SHORT | fields[index]),
        )
      )
      time.sleep(0 if index else late)
    yield runs
  finally:
    for run in runs:
      run.kill()


def _whole(ground: Ground, workdir: pathlib.Path) -> dict[str, str]:
  """The weights that two undisturbed processes end with."""
  if not workdir.exists():
    with two(ground, workdir) as runs:
      assert [run.end() for run in runs] == [0, 0], runs[0].said
  return checksums(workdir, 40)


def _go_on(ground: Ground, workdir: pathlib.Path) -> None:
  """The same command, to the end: the weights of an undisturbed run."""
  with two(ground, workdir) as runs:
    codes = [run.end() for run in runs]
  assert codes == [0, 0], "\n".join(run.said for run in runs)
  found = checksums(workdir, 40)
  assert found == _whole(ground, ground.folder / "two"), "other weights"


def stopped(ground: Ground, number: int, which: int) -> None:
  """One of them is told to stop: both do, at the same step."""
  with ground.workdir() as workdir:
    with two(ground, workdir) as runs:
      runs[0].until("step 10/")
      time.sleep(random.random())
      runs[which].send(number)
      sent = time.monotonic()
      codes = [run.end(60) for run in runs]
      assert time.monotonic() - sent < 30
      assert set(codes) <= {0, 128 + number}, codes
      for run in runs:
        assert "Traceback" not in run.said, run.said
        assert "stopped by" in run.said, run.said
    _go_on(ground, workdir)


def stopped_early(ground: Ground) -> None:
  """One is told to stop before the first step: both leave."""
  with ground.workdir() as workdir:
    with two(ground, workdir) as runs:
      runs[1].until("flip pairs")
      runs[1].send(signal.SIGTERM)
      codes = [run.end(60) for run in runs]
      assert codes == [143, 143], codes
    _go_on(ground, workdir)


def killed(ground: Ground, which: int) -> None:
  """One of them is killed: the other one does not wait for ever.

  It leaves by itself when a collective fails, or JAX ends it.
  """
  with ground.workdir() as workdir:
    with two(ground, workdir) as runs:
      runs[0].until("step 10/")
      time.sleep(random.random())
      runs[which].kill()
      other = runs[1 - which]
      assert other.end(150) != 0
      print("   ", other.said.splitlines()[-1][:160])
    _go_on(ground, workdir)


def failing(ground: Ground, which: int) -> None:
  """One does not find its data: both leave with the reason."""
  fields = [{}, {}]
  fields[which] = {"data__dir": "/nowhere", "data__name": "coco"}
  with (
    ground.workdir() as workdir,
    two(ground, workdir, fields=tuple(fields)) as runs,
  ):
    for index, run in enumerate(runs):
      assert run.end(90) == 1, run.said
      assert "Traceback" not in run.said, run.said
      last = run.lines()[-1]
      assert "/nowhere does not exist" in last, last
      assert ("process" in last) == (index != which), last


def late(ground: Ground) -> None:
  """One comes late: the other one says that it waits."""
  with ground.workdir() as workdir, two(ground, workdir, late=25) as runs:
    assert [run.end() for run in runs] == [0, 0], runs[0].said
    assert "waiting for the other processes, at 127" in runs[0].said


def never(ground: Ground) -> None:
  """Process 0 is not there."""
  with ground.workdir() as workdir:
    run = Run(workdir, ground.data, variables=_place(free_address(), 1))
    run.until("waiting for the other processes", 60)
    run.send(signal.SIGTERM)
    trial.plain(run, "stopped by SIGTERM before the first step", code=143)


def different(ground: Ground, name: str, value: object, says: str) -> None:
  """A field is another one: both leave before the first step."""
  fields = ({}, {name: value})
  with (
    ground.workdir() as workdir,
    two(ground, workdir, fields=fields) as runs,
  ):
    for run in runs:
      assert run.end(120) == 1, run.said
      assert says in run.lines()[-1], run.said
      assert "step 10/" not in run.said


def unshared(ground: Ground) -> None:
  """Each has a work directory of its own."""
  with ground.workdir() as workdir:
    places = (workdir, workdir.with_name("other"))
    with two(ground, workdir, workdirs=places) as runs:
      for run in runs:
        assert run.end(120) == 1, run.said
        assert "does not see what process 0 writes" in run.lines()[-1]


def own_disks(ground: Ground) -> None:
  """Each prepares the data on a disk of its own."""
  with ground.workdir() as workdir:
    fields = tuple(
      {"data__prepared_dir": workdir.parent / str(index)} for index in (0, 1)
    )
    with two(ground, workdir, fields=fields) as runs:
      assert [run.end() for run in runs] == [0, 0], runs[1].said
    found = checksums(workdir, 40)
    assert found == _whole(ground, ground.folder / "two"), "other weights"


def slurm(ground: Ground) -> None:
  """Two tasks of Slurm find each other by its variables."""
  with ground.workdir() as workdir:
    job = str(random.randrange(4000))
    runs = [
      Run(
        workdir,
        ground.data,
        variables={
          "SLURM_JOB_ID": job,
          "SLURM_NTASKS": "2",
          "SLURM_PROCID": str(index),
          "SLURM_LOCALID": str(index),
          "SLURM_STEP_NODELIST": "localhost",
        },
        **_SHORT,
      )
      for index in (0, 1)
    ]
    assert [run.end() for run in runs] == [0, 0], runs[0].said
    found = checksums(workdir, 40)
    assert found == _whole(ground, ground.folder / "two"), "other weights"


def second(ground: Ground) -> None:
  """A second run in the same work directory is refused."""
  with ground.workdir() as workdir:
    first = Run(workdir, ground.data)
    first.until("steps 0 to")
    trial.plain(
      Run(workdir, ground.data), "is in use by process", "on .*, since"
    )
    assert first.end() == 0, first.said
    ground.require_same(workdir)


def stale(ground: Ground, **owner: object) -> None:
  """A lock whose run is gone is taken over."""
  with ground.workdir() as workdir:
    workdir.mkdir()
    lock = {"host": socket.gethostname(), "pid": os.getpid(), "since": "then"}
    (workdir / ".lock").write_text(json.dumps(lock | owner))
    said = trial.finish(workdir, ground.data)
    assert "taking over from a run that is gone" in said, said
    assert not (workdir / ".lock").exists()
    ground.require_same(workdir)


CASES = {
  **{
    f"{name} of process {which}, {n}": lambda g, number=number, which=which: (
      stopped(g, number, which)
    )
    for name, number in (("SIGTERM", signal.SIGTERM), ("Ctrl-C", signal.SIGINT))
    for which in (0, 1)
    for n in (1, 2)
  },
  "SIGTERM before the first step": stopped_early,
  "SIGKILL of process 0": lambda g: killed(g, 0),
  "SIGKILL of process 1": lambda g: killed(g, 1),
  "no data in process 0": lambda g: failing(g, 0),
  "no data in process 1": lambda g: failing(g, 1),
  "a late partner": late,
  "no partner": never,
  "another learning rate": lambda g: different(
    g, "optim__learning_rate", 0.5, "optim.learning_rate is 0.5, not"
  ),
  "other save intervals": lambda g: different(
    g, "checkpoint__every_steps", 7, "checkpoint.every_steps is 7, not 10"
  ),
  "other data": lambda g: different(
    g, "data__train_split", "test", "data.train_split is test, not train"
  ),
  "a work directory for each": unshared,
  "a disk for each": own_disks,
  "Slurm": slurm,
  "a second run": second,
  "a lock of another process number": lambda g: stale(g, started="1"),
  "a lock of a process that is gone": lambda g: stale(g, pid=4194300),
  "a lock of another host": lambda g: stale(g, host="elsewhere"),
}

if __name__ == "__main__":
  trial.main(CASES, __doc__)
