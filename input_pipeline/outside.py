"""Do the image files that annotations name lie in the data's folder?

Annotations come from strangers, and what they name is copied and drawn: a name
such as ../../home/me/passport.jpg, or a link among the images, is not theirs to
give.
"""

import functools
import os
import posixpath
from collections.abc import Sequence

from input_pipeline import image_files
from input_pipeline.missing_files import shown
from tokenpose_jax.errors import InputError


def names_outside(home: str, folder: str, names: Sequence[str]) -> list[str]:
  """The names of files that do not lie in the data's folder.

  Links are followed. That of the data's folder itself, and that of its image
  folder, are of whoever put them there: what they lead to is inside.

  Args:
    home: the data's folder.
    folder: of the images.
    names: of the files.
  """
  if image_files.is_remote(folder):
    return [name for name in names if _climbs(name)]
  homes = {os.path.realpath(home), os.path.realpath(folder)}

  def is_inside(path: str) -> bool:
    real = os.path.realpath(path)
    return any(os.path.commonpath([home, real]) == home for home in homes)

  # Of 118,000 images only those that are links are looked at one by one.
  folder_is_inside = functools.cache(is_inside)
  links = functools.cache(_links)
  outside = []
  for name in names:
    if not image_files.is_name(name):
      continue
    place, base = os.path.split(os.path.join(folder, name))
    found = links(place)
    alone = found is None or base in found or base in (os.curdir, os.pardir)
    inside = (
      is_inside(os.path.join(place, base)) if alone else folder_is_inside(place)
    )
    if not inside:
      outside.append(name)
  return outside


def require_inside(
  home: str, folder: str, names: Sequence[str], remedy: str
) -> None:
  """Checks that image files lie in the data's folder.

  Args:
    home: the data's folder.
    folder: of the images.
    names: of the files.
    remedy: what lets them lie elsewhere, for the error.

  Raises:
    InputError: some do not.
  """
  outside = names_outside(home, folder, names)
  if outside:
    raise InputError(
      f"{len(outside)} of the {len(names)} images of {folder} lie outside of"
      f" {home}, first {shown(outside[0])}: by their names or by links, a"
      f" stranger's annotations reach any file; {remedy} if you trust them"
    )


def _links(folder: str) -> set[str] | None:
  """The names of the links in a folder; None: it cannot be listed."""
  try:
    with os.scandir(folder) as entries:
      return {entry.name for entry in entries if entry.is_symlink()}
  except FileNotFoundError:
    return set()
  except (OSError, ValueError):
    return None


def _climbs(name: str) -> bool:
  """Does a name lead out of a remote folder, which has no links?"""
  plain = posixpath.normpath(name)
  return posixpath.isabs(plain) or plain.split("/")[0] == posixpath.pardir
