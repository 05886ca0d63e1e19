"""Work directories that are damaged, and disks that are full or gone."""

import contextlib
import functools
import pathlib
import shutil
from collections.abc import Callable, Iterator

from faults import trial
from faults.trial import STEPS, Ground, Run
from tests.checkpoints import DAMAGES


@contextlib.contextmanager
def _ended(ground: Ground) -> Iterator[pathlib.Path]:
  """A copy of the undisturbed run."""
  with ground.workdir() as workdir:
    shutil.copytree(ground.undisturbed, workdir)
    yield workdir


def of_the_latest(ground: Ground, damage: Callable) -> None:
  """The latest checkpoint is damaged: the one before is used."""
  with _ended(ground) as workdir:
    damage(workdir / "checkpoints" / str(STEPS))
    said = trial.finish(workdir, ground.data)
    assert "is damaged" in said, said
    assert "going on from step" in said, said
    assert (workdir / "damaged" / str(STEPS)).is_dir()
    ground.require_same(workdir)


def and_evaluated(ground: Ground, damage: Callable) -> None:
  """The same, only evaluated: nothing is changed, another one is taken."""
  with _ended(ground) as workdir:
    damage(workdir / "checkpoints" / str(STEPS))
    before = sorted((workdir / "checkpoints").rglob("*"))
    run = Run(
      workdir, ground.data, "--mode=evaluate", eval__checkpoint="latest"
    )
    assert run.end() == 0, run.said
    assert "Traceback" not in run.said, run.said
    assert sorted((workdir / "checkpoints").rglob("*")) == before


def of_all(ground: Ground) -> None:
  """No checkpoint is whole: one line, nothing is moved."""
  with _ended(ground) as workdir:
    for step in (workdir / "checkpoints").iterdir():
      DAMAGES["zeros"](step)
    trial.plain(Run(workdir, ground.data), "is damaged")


def stops(ground: Ground) -> None:
  """With on_damage=stop it stops."""
  with _ended(ground) as workdir:
    DAMAGES["bit"](workdir / "checkpoints" / str(STEPS))
    run = Run(workdir, ground.data, checkpoint__on_damage="stop")
    trial.plain(run, "arrays differ from their checksums")


def of_a_file(ground: Ground, name: str, content: bytes) -> None:
  """A file is something else; the run goes on without it."""
  with _ended(ground) as workdir:
    shutil.rmtree(workdir / "checkpoints" / str(STEPS))
    for path in workdir.glob(name):
      path.write_bytes(content)
    trial.finish(workdir, ground.data)
    ground.require_same(workdir)


def renamed(ground: Ground, name: str, *, stays: bool) -> None:
  """The last step's folder has another name; some of these stay there."""
  with _ended(ground) as workdir:
    steps = workdir / "checkpoints"
    (steps / str(STEPS)).rename(steps / name)
    trial.finish(workdir, ground.data)
    assert (steps / name).exists() == stays
    ground.require_same(workdir)


def cache(ground: Ground) -> None:
  """The compiled programs are damaged."""
  with ground.workdir() as workdir:
    compiled = workdir.parent / "compiled"
    shutil.copytree(ground.data / "compiled", compiled)
    for path in compiled.iterdir():
      path.write_bytes(path.read_bytes()[:100])
    run = Run(workdir, ground.data, compile_cache=compiled)
    assert run.end() == 0, run.said
    ground.require_same(workdir)


def link(ground: Ground, name: str) -> None:
  """A stranger's link leads out of the work directory."""
  with _ended(ground) as workdir:
    outside = workdir.parent / "outside"
    shutil.move(workdir / name, outside)
    (workdir / name).symlink_to(outside)
    before = sorted(outside.rglob("*"))
    trial.plain(Run(workdir, ground.data), "is a link to .*/outside")
    assert sorted(outside.rglob("*")) == before


@trial.with_small_disks
def full(ground: Ground, megabytes: float) -> None:
  """The disk of the work directory is full; freed, it goes on."""
  with ground.workdir() as workdir:
    disk = workdir.parent / "disk"
    with trial.small_disk(disk, megabytes):
      run = Run(disk / "run", ground.data)
      trial.plain(run, "No space left|cannot write", "run")
      kept = disk / "run" / "checkpoints"
      shutil.copytree(disk / "run", workdir)
      steps = [p.name for p in kept.iterdir()] if kept.exists() else []
    trial.finish(workdir, ground.data)
    ground.require_same(workdir)
    print("    kept:", *sorted(name for name in steps if name.isdigit()))


def gone(ground: Ground) -> None:
  """The work directory is removed while it trains."""
  with ground.workdir() as workdir:
    run = Run(workdir, ground.data)
    run.until("step 20/")
    shutil.rmtree(workdir, ignore_errors=True)
    run.end()
    assert "Traceback" not in run.said, run.said


def in_the_way(ground: Ground) -> None:
  """A file where a folder is to be."""
  for name in ("checkpoints", "eval"):
    with ground.workdir() as workdir:
      workdir.mkdir()
      (workdir / name).write_text("mine")
      run = Run(workdir, ground.data)
      trial.plain(run, name)
      assert (workdir / name).read_text() == "mine"


def deleted_beside(ground: Ground) -> None:
  """An evaluation whose step a training deletes."""
  with _ended(ground) as workdir:
    best = workdir / "checkpoints"
    run = Run(workdir, ground.data, "--mode=evaluate")
    run.until("flip pairs|images, ")
    shutil.rmtree(best / str(STEPS))
    assert run.end() == 0, run.said


FILES = {
  "metrics of a checkpoint": "checkpoints/*/metrics/metrics",
  "metrics.json": "eval/*/*/metrics.json",
  "results.json": "eval/*/*/results.json",
  "report.html": "eval/*/report.html",
  "event files": "events.*",
}
CASES = {
  **{
    f"the latest checkpoint: {name}": functools.partial(
      of_the_latest, damage=damage
    )
    for name, damage in DAMAGES.items()
  },
  **{
    f"evaluated: {name}": functools.partial(and_evaluated, damage=damage)
    for name, damage in DAMAGES.items()
    if name in ("zeros", "bit", "no meta", "empty")
  },
  "all checkpoints": of_all,
  "on_damage=stop": stops,
  **{
    f"{kind}: {how}": functools.partial(of_a_file, name=name, content=content)
    for kind, name in FILES.items()
    for how, content in (("empty", b""), ("cut", b'{"AP": 0.'))
  },
  "a renamed step": lambda g: renamed(g, "9000", stays=False),
  "a step kept by name": lambda g: renamed(g, f"{STEPS}.bak", stays=True),
  "unfinished checkpoints": lambda g: renamed(
    g, f"{STEPS}.orbax-checkpoint-tmp", stays=False
  ),
  "compiled programs": cache,
  "a link for checkpoints": lambda g: link(g, "checkpoints"),
  "a link for eval": lambda g: link(g, "eval"),
  **{
    f"a disk of {size} MB": functools.partial(full, megabytes=size)
    for size in (0.02, 0.3, 0.8, 1.5, 2.2, 3.0)
  },
  "the work directory removed": gone,
  "a file in the way": in_the_way,
  "a step deleted beside an evaluation": deleted_beside,
}

if __name__ == "__main__":
  trial.main(CASES, __doc__)
