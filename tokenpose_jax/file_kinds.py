"""Is a path that of a file? Reading a pipe or a device may never end."""

import os
import stat

_OTHERS = (
  (stat.S_ISDIR, "a folder"),
  (stat.S_ISFIFO, "a pipe"),
  (stat.S_ISSOCK, "a socket"),
  (stat.S_ISCHR, "a device"),
  (stat.S_ISBLK, "a device"),
)


def check(path: str | os.PathLike) -> None:
  """Checks that a path leads to a file, before it is opened.

  Of a bucket (gs://) nothing is checked: there are only files.

  Args:
    path: of a file, or of a link to one.

  Raises:
    OSError: it is of something else, or of nothing.
  """
  if "://" in os.fspath(path):
    return
  mode = os.stat(path).st_mode
  for is_kind, name in _OTHERS:
    if is_kind(mode):
      raise OSError(f"it is {name}, not a file")


def check_below(folder: str | os.PathLike) -> None:
  """Checks that a folder holds files and folders alone.

  Args:
    folder: local, or in a bucket, of which nothing is checked.

  Raises:
    OSError: naming what is something else.
  """
  for place, _, names in os.walk(os.fspath(folder)):
    for name in names:
      path = os.path.join(place, name)
      try:
        check(path)
      except OSError as error:
        raise OSError(f"{path}: {error}") from None
