"""The work directory of a run: one run at a time, and no way out of it."""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator

from absl import logging

from tokenpose_jax import file_kinds, json_files, stopping
from tokenpose_jax.errors import InputError, one_line

FILE = ".lock"

_BEAT = 10.0  # seconds between two signs of life
# Seconds without one, after which a run on another host is taken for dead.
_DEAD = 4 * _BEAT


@contextlib.contextmanager
def held(workdir: str) -> Iterator[None]:
  """Keeps other runs out of a work directory.

  A lock whose process is gone is taken over; that of another host, of which
  nothing else can be known, when its file is not touched for 40 seconds. Of a
  bucket (gs://) nothing is locked.

  Args:
    workdir: that is there.

  Raises:
    InputError: another run has it, or nothing can be written there.
  """
  if "://" in workdir:
    yield
    return
  path = os.path.join(workdir, FILE)
  try:
    _take(path)
  except OSError as error:
    raise InputError(
      f"--workdir: cannot write to {workdir}:"
      f" {one_line(error.strerror or error)};"
      " choose another folder"
    ) from None
  over = threading.Event()

  def beat() -> None:
    while not over.wait(_BEAT):
      with contextlib.suppress(OSError):
        os.utime(path)

  threading.Thread(target=beat, name="lock", daemon=True).start()

  def release() -> None:
    over.set()
    with contextlib.suppress(OSError):
      os.remove(path)

  with stopping.duty(release):
    try:
      yield
    finally:
      release()


def require_inside(workdir: str) -> None:
  """Checks that nothing in a work directory leads out of it.

  A run writes, replaces and deletes there. The directory itself may be a link.
  Nor may anything be a pipe or a device, which a run would wait for.

  Args:
    workdir: of a run.

  Raises:
    InputError: a link leads somewhere else, or something is no file.
  """
  if "://" in workdir:
    return
  home = os.path.realpath(workdir)
  for folder, folders, names in os.walk(workdir):
    for name in folders + names:
      path = os.path.join(folder, name)
      if os.path.islink(path):
        target = os.path.realpath(path)
        if os.path.commonpath([home, target]) != home:
          raise InputError(
            f"--workdir: {path} is a link to {target}, outside of the work"
            " directory; nothing is written through it: remove the link, or"
            " make the work directory itself one"
          )
    for name in names:
      _require_file(os.path.join(folder, name))


def _require_file(path: str) -> None:
  try:
    file_kinds.check(path)
  except FileNotFoundError:  # Another process took it away.
    pass
  except OSError as error:
    raise InputError(f"--workdir: {path}: {error}; remove it") from None


def _take(path: str) -> None:
  host = socket.gethostname()
  mine = {
    "host": host,
    "pid": os.getpid(),
    "started": _started(os.getpid()),
    "since": time.strftime("%Y-%m-%d %H:%M:%S"),
  }
  while True:
    try:
      # Made with its content at once: nobody sees an empty lock.
      beside = f"{path}.{host}.{os.getpid()}"
      with open(beside, "w") as file:
        json.dump(mine, file)
      try:
        os.link(beside, path)
      finally:
        os.remove(beside)
      return
    except FileExistsError:
      _require_stale(path, host)
      with contextlib.suppress(FileNotFoundError):
        os.remove(path)


def _require_stale(path: str, host: str) -> None:
  """Raises InputError where the run that has the lock is alive."""
  try:
    owner = json_files.load(path)
    where, pid, since = owner["host"], int(owner["pid"]), owner["since"]
  except FileNotFoundError:
    return
  except (ValueError, KeyError, TypeError, OverflowError):
    logging.warning("%s is damaged: no run is known to have it", path)
    return
  who = f"process {pid} on {one_line(where, 60)}, since {one_line(since, 20)}"
  if where == host:
    alive = _started(pid) == owner.get("started") and _started(pid) != ""
  else:
    logging.info("looking whether the run of %s is alive ...", who)
    alive = _beats(path)
  if alive:
    raise InputError(
      f"--workdir: {os.path.dirname(path)} is in use by {who}; stop it, or"
      " choose another folder"
    )
  logging.info("taking over from a run that is gone: %s", who)


def _started(pid: int) -> str:
  """When a process of this host started; "": there is none.

  Numbers of processes are used again, so the number alone says little.
  """
  try:
    with open(f"/proc/{pid}/stat") as file:
      return file.read().rpartition(")")[2].split()[19]
  except (OSError, IndexError):
    pass
  try:
    os.kill(pid, 0)
  except (ProcessLookupError, OverflowError):  # no number of a process
    return ""
  except PermissionError:
    pass
  return "" if os.path.isdir("/proc/self") else "alive"


def _beats(path: str) -> bool:
  """Is the file touched by a run on another host?"""
  with contextlib.suppress(OSError):
    first = os.stat(path).st_mtime_ns
    end = time.monotonic() + _DEAD
    while time.monotonic() < end:
      time.sleep(1)
      if os.stat(path).st_mtime_ns != first:
        return True
  return False
