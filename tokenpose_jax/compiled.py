"""Compiled programs, kept for the next start."""

import os
import sys
import tempfile
from collections.abc import Mapping

import jax
from absl import logging

USER = "user"
"""The user's own cache directory, in place of a folder's name."""


# Seconds of compiling from which on a program is kept. JAX's one second leaves
# out a small network's prediction.
_WORTHWHILE = 0.1


def keep(place: str = USER) -> None:
  """Keeps compiled programs, and uses those that were kept before.

  A place that cannot be written to is said, and nothing is kept. Of several
  processes that use it at once, each reads and writes whole programs: what
  another one has written in part is compiled again.

  Args:
    place: a folder, also gs://; USER; "": nowhere. JAX_COMPILATION_CACHE_DIR
      goes first, if it is set.
  """
  if not place or os.environ.get("JAX_COMPILATION_CACHE_DIR"):
    return
  folder = user_folder() if place == USER else os.path.expanduser(place)
  if "://" not in folder:
    try:
      # Whoever writes there has programs run: nobody but the user.
      os.makedirs(folder, mode=0o700, exist_ok=True)
      with tempfile.TemporaryFile(dir=folder):
        pass
    except OSError as error:
      logging.warning(
        "compile_cache: cannot write to %s (%s): programs are compiled at"
        " every start",
        folder,
        error.strerror,
      )
      return
  jax.config.update("jax_compilation_cache_dir", folder)
  if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _WORTHWHILE)


def user_folder(
  platform: str = sys.platform, environment: Mapping[str, str] = os.environ
) -> str:
  """Where this software's caches of the user are, by the system's rules.

  Args:
    platform: as `sys.platform`.
    environment: as `os.environ`.
  """
  if platform == "darwin":
    place = "~/Library/Caches"
  elif platform == "win32":
    place = environment.get("LOCALAPPDATA") or "~/AppData/Local"
  else:
    place = environment.get("XDG_CACHE_HOME") or ""
    # The rules of XDG: a relative one is to be ignored.
    place = place if os.path.isabs(place) else "~/.cache"
  return os.path.join(os.path.expanduser(place), "tokenpose_jax")
