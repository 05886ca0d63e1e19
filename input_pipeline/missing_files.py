"""Image files that are not where annotations say: what would find them."""

import os
import urllib.parse
from collections.abc import Callable, Sequence

import tensorflow as tf

_TRIED = 20  # missing names that a change of all must fit, and folders tried
_ENDINGS = (".jpg", ".JPG", ".jpeg", ".JPEG", ".png", ".PNG")

Fit = tuple[str, Callable[[str], str]]
"""How names are changed, in words and as a function."""


def shown(name: str) -> str:
  """A file's name for a message: short, on one line, in any encoding."""
  text = name if name.isprintable() and name else repr(name)
  return text if len(text) <= 120 else f"{text[:100]}... ({len(name)} letters)"


def what_would_fit(
  folder: str, missing: Sequence[str], is_there: Callable[[str], bool]
) -> str:
  """The change of `file_name` that finds missing files, as words; or "".

  Args:
    folder: of the files.
    missing: names of files that are not there.
    is_there: whether the folder has a file of a name.
  """
  some = missing[:: max(1, len(missing) // _TRIED)][:_TRIED]
  for what, change in _fits(folder, _base(some[0])):
    found = [change(name) for name in some if is_there(change(name))]
    # A few may be missing for another reason.
    if 2 * len(found) > len(some):
      subject = "it is" if len(found) == len(some) else "most are"
      return f"{subject} there {what}, as {shown(found[0])}: correct file_name"
  return ""


def where_else(
  folder: str, names: Sequence[str], is_file: Callable[[str, str], bool]
) -> str:
  """Where the images of a folder that does not exist are, as words; or "".

  Args:
    folder: that does not exist.
    names: of its files.
    is_file: whether a folder has a file of a name.
  """
  above = os.path.dirname(folder.rstrip("/"))
  images = os.path.join(above, "images")
  if os.path.basename(above) == "images":
    above = os.path.dirname(above)
  for other in (above, images, *_folders(above), *_folders(images)):
    some = [name for name in names[:_TRIED] if is_file(other, name)]
    bases = [name for name in names[:_TRIED] if is_file(other, _base(name))]
    if some or bases:
      first = some[0] if some else _base(bases[0])
      return f"{shown(first)} is in {other}: rename or link that folder" + (
        "" if some else ", and take the folder out of file_name"
      )
  return ""


def _fits(folder: str, base: str) -> list[Fit]:
  """Changes of names that may find files, the more certain first.

  Args:
    folder: of the files.
    base: of a missing file, without its folder.
  """
  fits: list[Fit] = [
    ("with / for \\", lambda name: name.replace("\\", "/")),
    ("without URL escapes", urllib.parse.unquote),
    ("without its folder", _base),
    ("in lower case", lambda name: _base(name).lower()),
    ("in upper case", lambda name: _base(name).upper()),
    ("with 12 digits", _twelve_digits),
  ]
  for sub in _folders(folder):
    prefix = os.path.basename(sub)
    fits.append((f"with the prefix {prefix}/", _prefixed(f"{prefix}/")))
  for end in _ENDINGS:
    fits.append((f"with the ending {end}", _ending(end, lambda name: name)))
    fits.append(
      (f"without its folder, with the ending {end}", _ending(end, _base))
    )
  for name in _listed(folder) if base else ():
    if name.endswith(base) and name != base:
      prefix = name.removesuffix(base)
      fits.append((f"with the prefix {prefix}", _prefixed(prefix)))
      break
    if name and base.endswith(name) and name != base:
      prefix = base.removesuffix(name)
      fits.append((f"without {prefix}", _without(prefix)))
      break
  return fits


def _prefixed(prefix: str) -> Callable[[str], str]:
  return lambda name: prefix + _base(name)


def _without(prefix: str) -> Callable[[str], str]:
  return lambda name: _base(name).removeprefix(prefix)


def _ending(end: str, base: Callable[[str], str]) -> Callable[[str], str]:
  return lambda name: os.path.splitext(base(name))[0] + end


def _twelve_digits(name: str) -> str:
  """COCO's own names: 000000000139.jpg."""
  stem, end = os.path.splitext(_base(name))
  return f"{stem.rjust(12, '0')}{end or '.jpg'}"


def _base(name: str) -> str:
  return os.path.basename(urllib.parse.unquote(name).replace("\\", "/"))


def _listed(folder: str) -> list[str]:
  """The names in a folder; of a remote one those of folders end with /."""
  return tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []


def _folders(folder: str) -> list[str]:
  """The first folders in a folder."""
  names = _listed(folder)
  if "://" in folder:  # Asking for each would take minutes.
    inside = [name.rstrip("/") for name in names if name.endswith("/")]
  else:
    inside = [n for n in names if os.path.isdir(os.path.join(folder, n))]
  return [os.path.join(folder, name) for name in sorted(inside)[:_TRIED]]
