"""Data that are drawn and prepared: killed, on disks that are full or gone."""

import functools
import json
import os
import pathlib
import re
import shutil
import signal
import time

from faults import trial
from faults.trial import Ground, Run

COPIES = 48  # of each drawn image, so that there are several parts
PARTS = "prepared/coco_keypoints/train-*/incomplete.parts"
DONE = "*-of-?????"  # a whole part

_SHORT = {
  "data__name": "coco",
  "train__steps": 2,
  "train__eval_every_epochs": 0,
}


def _many(ground: Ground) -> pathlib.Path:
  """A COCO folder of thousands of images, and the same prepared."""
  data = ground.folder / "many"
  if data.exists():
    return data
  drawn, many = ground.data / "drawn", data / "drawn"
  shutil.copytree(drawn, many)
  shutil.copytree(ground.data / "compiled", data / "compiled")
  path = many / "annotations" / "person_keypoints_train.json"
  content = json.loads(path.read_text())
  for image in list(content["images"]):
    for n in range(1, COPIES):
      name = f"{n}_{image['file_name']}"
      os.link(many / "train" / image["file_name"], many / "train" / name)
      number = image["id"] + 1_000_000 * n
      content["images"].append(image | {"id": number, "file_name": name})
  path.write_text(json.dumps(content))
  with ground.workdir() as workdir:
    trial.finish(workdir, data, **_SHORT)
  return data


def _start(ground: Ground, workdir: pathlib.Path, name: str = "run") -> Run:
  """A run that prepares many images beside a work directory."""
  fields = _SHORT | {"data__prepared_dir": workdir.parent / "prepared"}
  return Run(workdir.with_name(name), _many(ground), **fields)


def _done(workdir: pathlib.Path) -> dict[str, tuple[int, int]]:
  """Inode and time of the parts that are whole, by name."""
  found = workdir.parent.glob(f"{PARTS}/{DONE}")
  return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in found}


def _until(workdir: pathlib.Path, run: Run, parts: int) -> None:
  """Waits for so many parts."""
  run.until("copying")
  end = time.monotonic() + 60
  while len(_done(workdir)) < parts and time.monotonic() < end:
    time.sleep(0.001)


def _require_prepared(ground: Ground, workdir: pathlib.Path) -> None:
  """Checks that what is prepared is what an undisturbed run prepares."""
  found, wanted = (
    {
      path.relative_to(folder): path.read_bytes()
      for path in sorted(folder.rglob("*"))
      if path.is_file() and path.name != "files.json"  # which has the time
    }
    for folder in (workdir.parent / "prepared", _many(ground) / "prepared")
  )
  assert found.keys() == wanted.keys(), found.keys() ^ wanted.keys()
  different = [name for name in found if found[name] != wanted[name]]
  assert not different, f"{len(different)} files differ, as {different[0]}"


def stopped(ground: Ground, number: int, parts: int) -> None:
  """Stopped when so many parts are there; they are not written again."""
  with ground.workdir() as workdir:
    run = _start(ground, workdir)
    _until(workdir, run, parts)
    if number == signal.SIGKILL:
      run.kill()
    else:
      run.send(number)
      trial.plain(run, "stopped by", "goes on", code=128 + number)
    done = _done(workdir)
    run = _start(ground, workdir)
    assert run.end() == 0, run.said
    (folder,) = workdir.parent.glob("prepared/coco_keypoints/train-*/1.0.0")
    kept = {
      p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.iterdir()
    }
    written = [name for name in done if kept[name] != done[name]]
    assert not written, f"written again: {written}"
    _require_prepared(ground, workdir)
    print(f"    kept: {len(done)} of {len([*folder.glob(DONE)])} parts")


def again_and_again(ground: Ground) -> None:
  """Killed at every other part."""
  with ground.workdir() as workdir:
    counts = []
    for _ in range(30):
      run = _start(ground, workdir)
      _until(workdir, run, len(_done(workdir)) + 2)
      run.kill()
      if not _done(workdir):
        break
      counts.append(len(_done(workdir)))
    assert counts == sorted(counts), counts
    assert _start(ground, workdir).end() == 0
    _require_prepared(ground, workdir)
    print("    parts:", *counts)


def two_at_once(ground: Ground) -> None:
  """Two runs prepare the same: the second waits, and finds it done."""
  with ground.workdir() as workdir:
    first = _start(ground, workdir)
    _until(workdir, first, 1)
    first.send(signal.SIGSTOP)  # until the second one is as far
    second = _start(ground, workdir, "second")
    second.until("waiting for it")
    first.send(signal.SIGCONT)
    for run in (first, second):
      assert run.end() == 0, run.said
    assert "waiting for it" in second.said, second.said
    assert not re.search(r"copying \d{4} images", second.said), second.said
    _require_prepared(ground, workdir)


@trial.with_small_disks
def full(ground: Ground, field: str, megabytes: float) -> None:
  """The disk of the data is full; with space, the same command goes on."""
  with ground.workdir() as workdir:
    disk = workdir.parent / "disk"
    with trial.small_disk(disk, megabytes):
      place = {f"data__{field}": disk / "here"}
      run = Run(workdir, ground.data, **place)
      trial.plain(run, f"data.{field}: cannot write {disk}", "No space left")
      print("   ", run.lines()[-1])
      trial.change_disk(disk, "size=100m")
      trial.finish(workdir, ground.data, **place)
    ground.require_same(workdir)


@trial.with_small_disks
def many_full(ground: Ground, megabytes: float) -> None:
  """The same with parts: those that are done are kept."""
  with ground.workdir() as workdir:
    with trial.small_disk(workdir.parent / "prepared", megabytes):
      trial.plain(_start(ground, workdir), "data.prepared_dir", "No space left")
      done = _done(workdir)
      trial.change_disk(workdir.parent / "prepared", "size=2g")
      run = _start(ground, workdir)
      assert run.end() == 0, run.said
      assert f"going on: {len(done)} of" in run.said, run.said
      _require_prepared(ground, workdir)
    print(f"    kept: {len(done)} parts")


@trial.with_small_disks
def read_only(ground: Ground, field: str) -> None:
  """The disk of the data is read-only."""
  with ground.workdir() as workdir:
    disk = workdir.parent / "disk"
    with trial.small_disk(disk, 100):
      trial.change_disk(disk, "ro")
      run = Run(workdir, ground.data, **{f"data__{field}": disk / "here"})
      trial.plain(run, f"data.{field}: cannot write {disk}", "Read-only")
      print("   ", run.lines()[-1])


def in_the_way(ground: Ground, field: str, below: str) -> None:
  """A file where a folder is to be."""
  with ground.workdir() as workdir:
    path = workdir.parent / "mine"
    path.write_text("mine")
    run = Run(workdir, ground.data, **{f"data__{field}": path / below})
    trial.plain(run, f"data.{field}: .*{path}")
    print("   ", run.lines()[-1])
    assert path.read_text() == "mine"


def removed(ground: Ground) -> None:
  """The place of prepared data is removed meanwhile."""
  with ground.workdir() as workdir:
    run = _start(ground, workdir)
    _until(workdir, run, 2)
    shutil.rmtree(workdir.parent / "prepared", ignore_errors=True)
    trial.plain(run, "data.prepared_dir: cannot write")
    print("   ", run.lines()[-1])


CASES = {
  **{
    f"SIGKILL after {parts} parts": functools.partial(
      stopped, number=signal.SIGKILL, parts=parts
    )
    for parts in (0, 1, 3, 7)
  },
  "SIGTERM after 3 parts": functools.partial(
    stopped, number=signal.SIGTERM, parts=3
  ),
  "SIGKILL again and again": again_and_again,
  "two runs at once": two_at_once,
  **{
    f"prepared_dir on {size} MB": functools.partial(
      full, field="prepared_dir", megabytes=size
    )
    for size in (0.01, 0.3, 0.8, 1.05)
  },
  **{
    f"dir on {size} MB": functools.partial(full, field="dir", megabytes=size)
    for size in (0.01, 0.3, 0.8, 1.05)
  },
  **{
    f"many on {size} MB": functools.partial(many_full, megabytes=size)
    for size in (10, 30)
  },
  **{
    f"{field} read-only": functools.partial(read_only, field=field)
    for field in ("prepared_dir", "dir")
  },
  **{
    f"{field} behind a file{'s folder' if below else ''}": functools.partial(
      in_the_way, field=field, below=below
    )
    for field in ("prepared_dir", "dir")
    for below in ("", "below")
  },
  "prepared_dir removed": removed,
}

if __name__ == "__main__":
  trial.main(CASES, __doc__)
