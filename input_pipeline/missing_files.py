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
  plain = name.isprintable() and name and name == name.strip()
  text = name if plain else repr(name)
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
      example = shown(found[0])
      return f"{subject} there {shown(what)}, as {example}: correct file_name"
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
  places = (images, *_folders(above), *_folders(images), above)
  for change, advice in (
    (_base, ", and take the folder out of file_name"),
    (str, ""),
  ):
    for place in places:
      for name in names[:_TRIED]:
        if is_file(place, changed := change(name)):
          more = advice if changed != name else ""
          return (
            f"{shown(changed)} is in {place}: rename or link that folder{more}"
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
    ("without spaces around it", lambda name: _base(name).strip()),
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
    # "COCO_val2014_", but not the "1" of 11.jpg before 1.jpg.
    if name.endswith(base) and name[: -len(base)].endswith(("_", "-")):
      prefix = name.removesuffix(base)
      return [*fits, (f"with the prefix {prefix}", _prefixed(prefix))]
    if base.endswith(name) and base[: -len(name)].endswith(("_", "-")):
      prefix = base.removesuffix(name)
      return [*fits, (f"without {prefix}", _without(prefix))]
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
