"""The folder that a command writes into."""

import os

from tokenpose_jax.errors import InputError, one_line


def make_empty(path: str) -> None:
  """Makes a folder, and checks that it can be written to.

  Args:
    path: of the folder, of `--out`.

  Raises:
    InputError: there is something in it, or it cannot be made or written to.
  """
  try:
    os.makedirs(path, exist_ok=True)
    filled = bool(os.listdir(path))
    if not filled:  # What is there may be a link.
      probe = os.path.join(path, ".partial")
      with open(probe, "w"):
        pass
      os.remove(probe)
  except OSError as error:
    raise InputError(
      f"--out: cannot write to {path}: {one_line(error)}"
    ) from None
  if filled:
    raise InputError(f"--out: {path} is not empty; name a new folder")
