"""The image files of a folder: are they there, and are they the same?"""

import hashlib
import json
import os
import time
import urllib.parse
from collections.abc import Callable, Sequence

import tensorflow as tf

from tokenpose_jax.errors import InputError

_LISTED = "files.json"  # beside prepared images: the files that they are of
_TRIED = 20  # missing names that a change of all must fit

Stats = dict[str, tuple[int, int]]
"""Of each file by name: its bytes, and the time of its last change in ns."""


def stats(folder: str, names: Sequence[str]) -> Stats | None:
  """What tells an image file from another under the same name.

  Args:
    folder: of the files.
    names: of the files.

  Returns:
    of those that are there; None where nobody can say: the folder is gone, or
    remote, where asking for each file would take minutes.
  """
  if "://" in folder or not os.path.isdir(folder):
    return None
  found = {}
  for name in names:
    try:
      status = os.stat(os.path.join(folder, name))
    except (OSError, ValueError):  # not there; no name for a file
      continue
    found[name] = (status.st_size, status.st_mtime_ns)
  return found


def identity(
  root: str, split: str, names: Sequence[str], files: Stats | None
) -> str:
  """What prepared images are called: the same for the same files.

  Args:
    root: where prepared images lie, a folder for each name.
    split: of the images.
    names: of the files, in order.
    files: as returned by `stats`. Where nobody can say: the newest that are
      prepared of files of these names.
  """
  named = f"{split}-{_digest(list(names))}"
  if files is not None:
    return f"{named}-{_digest(sorted(files.items()))}"
  prepared = _prepared(root, named)
  return os.path.basename(prepared[-1][0]) if prepared else named


def note(path: str, files: Stats | None) -> None:
  """Notes beside prepared images what they are of.

  Args:
    path: of the prepared images.
    files: as returned by `stats`.
  """
  noted = {"time": time.time_ns(), "files": files}
  with tf.io.gfile.GFile(os.path.join(path, _LISTED), "w") as file:
    file.write(json.dumps(noted))


def changes(root: str, split: str, files: Stats | None) -> str:
  """What is new since the images of a split were prepared last.

  Args:
    root: where prepared images lie.
    split: of the images.
    files: as returned by `stats`.

  Returns:
    "2 changed, 1 new, 0 gone (first a.jpg; before: PATH)"; "" where nothing was
    prepared, or nobody can say.
  """
  for path, before in reversed(_prepared(root, f"{split}-")):
    if before is None or files is None:
      continue
    changed = [n for n in files if n in before and [*files[n]] != before[n]]
    new = [name for name in files if name not in before]
    gone = [name for name in before if name not in files]
    first = (changed + new + gone + ["the order"])[0]
    return (
      f"{len(changed)} changed, {len(new)} new, {len(gone)} gone (first"
      f" {first}; before: {path})"
    )
  return ""


def _prepared(
  root: str, prefix: str
) -> list[tuple[str, dict[str, list[int]] | None]]:
  """Folders of prepared images whose names begin so, with their files.

  The newest is last.
  """
  found = []
  for listed in tf.io.gfile.glob(
    os.path.join(root, f"{prefix}*", "*", _LISTED)
  ):
    with tf.io.gfile.GFile(listed) as file:
      noted = json.loads(file.read())
    path = os.path.dirname(os.path.dirname(listed))
    found.append((noted["time"], path, noted["files"]))
  return [(path, files) for _, path, files in sorted(found)]


def _digest(content: object) -> str:
  return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def require(folder: str, names: Sequence[str]) -> None:
  """Checks that image files exist.

  Args:
    folder: of the files.
    names: of the files.

  Raises:
    InputError: some do not; with the change of their names that would fit.
  """
  if not tf.io.gfile.isdir(folder):
    raise InputError(
      f"data.dir: the image folder {folder} does not exist (nor images/ above"
      " it); put the images of that split there"
    )
  missing = [name for name in names if not is_file(folder, name)]
  if missing:
    hint = what_would_fit(folder, missing)
    raise InputError(
      f"{folder} lacks {len(missing)} of the {len(names)} images of its"
      f" annotation file, first {missing[0]}" + (f"; {hint}" if hint else "")
    )


def is_file(folder: str, name: str) -> bool:
  """Is there a file of that name?"""
  if not name or "\0" in name:
    return False
  path = os.path.join(folder, name)
  return tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path)


def what_would_fit(folder: str, missing: Sequence[str]) -> str:
  """The change of `file_name` that finds missing files, as words; or "".

  Args:
    folder: of the files.
    missing: names of files that are not there.
  """
  if not tf.io.gfile.isdir(folder):
    return ""
  inside = [
    name.rstrip("/")
    for name in tf.io.gfile.listdir(folder)
    if tf.io.gfile.isdir(os.path.join(folder, name))
  ]
  fits: list[tuple[str, Callable[[str], str]]] = [
    ("with / for \\", lambda name: name.replace("\\", "/")),
    ("without URL escapes", urllib.parse.unquote),
    ("without its folder", _base),
    *(
      (f"with the prefix {sub}/", lambda name, sub=sub: f"{sub}/{_base(name)}")
      for sub in sorted(inside)[:_TRIED]
    ),
    *(
      (f"with the ending {end}", lambda name, end=end: _stem(name) + end)
      for end in (".jpg", ".JPG", ".jpeg", ".png", ".PNG")
    ),
  ]
  for what, change in fits:
    if all(is_file(folder, change(name)) for name in missing[:_TRIED]):
      return f"it is there {what}, as {change(missing[0])}: correct file_name"
  return ""


def _base(name: str) -> str:
  return os.path.basename(urllib.parse.unquote(name).replace("\\", "/"))


def _stem(name: str) -> str:
  return os.path.splitext(name)[0]
