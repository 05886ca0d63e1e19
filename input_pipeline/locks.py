"""Locks of files: held by a process, and free when it is gone."""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def held(path: str, wait: Callable[[], object]) -> Iterator[bool]:
  """Holds a lock; waits for whoever has it.

  Args:
    path: of the lock's file, which is made, and removed at the end.
    wait: called before waiting.

  Yields:
    True; False where the file system has no locks.

  Raises:
    OSError: the file cannot be made.
  """
  if "://" in path:
    yield False
    return
  descriptor = _take(path, os.O_CREAT, wait)
  if descriptor is None:
    with contextlib.suppress(OSError):
      os.remove(path)
    yield False
    return
  try:
    # Without this, others cannot tell that it was a process of this host.
    with contextlib.suppress(OSError):
      os.truncate(descriptor, 0)
      os.write(descriptor, socket.gethostname().encode())
    yield True
  finally:
    with contextlib.suppress(OSError):
      os.remove(path)
    os.close(descriptor)


@contextlib.contextmanager
def left(path: str) -> Iterator[str | None]:
  """Holds the lock that a process has left behind, if it is one.

  Args:
    path: of the lock's file, which stays.

  Yields:
    the host of that process; "" if there is no such file. None if a process has
    the lock, or nobody can say.
  """
  if "://" in path or not os.path.exists(path):
    yield ""
    return
  try:
    descriptor = _take(path, 0)
  except OSError:
    descriptor = None
  if descriptor is None:
    yield None
    return
  try:
    yield os.pread(descriptor, 1000, 0).decode(errors="replace")
  finally:
    os.close(descriptor)


def _take(
  path: str, flags: int, wait: Callable[[], object] | None = None
) -> int | None:
  """A descriptor that holds the lock; None where it cannot be had."""
  while True:
    descriptor = os.open(path, os.O_RDWR | flags, 0o666)
    try:
      if not _lock(descriptor, wait):
        os.close(descriptor)
        return None
    except BaseException:
      os.close(descriptor)
      raise
    # Whoever had it may have removed the file: then it locks nothing.
    with contextlib.suppress(FileNotFoundError):
      if os.path.samestat(os.stat(path), os.fstat(descriptor)):
        return descriptor
    os.close(descriptor)


def _lock(descriptor: int, wait: Callable[[], object] | None) -> bool:
  """Whether the lock is held now."""
  try:
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      if wait is None or error.errno not in (errno.EAGAIN, errno.EACCES):
        raise
      wait()
      fcntl.flock(descriptor, fcntl.LOCK_EX)
  except OSError:  # It is another's, or the file system has none.
    return False
  return True
