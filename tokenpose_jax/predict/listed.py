"""Photos that an annotation file lists, found by their names."""

import pathlib
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from tokenpose_jax.errors import InputError
from tokenpose_jax.predict.sources import Source

Value = TypeVar("Value")


class ListedPhotos(Generic[Value]):
  """What a file says of photos.

  A photo is the image of its name, in whatever folder; of several images of one
  name it is the one whose folders are the photo's, too.
  """

  def __init__(self, option: str, images: Iterable[tuple[Any, Value]]):
    """Takes the images.

    Args:
      option: of the command that names the file, for errors.
      images: each one's `file_name`, and what is said of it.
    """
    self._option = option
    self._of_name: dict[str, list[tuple[pathlib.PurePath, Value]]] = (
      defaultdict(list)
    )
    for name, value in images:
      path = pathlib.PurePath(str(name))
      self._of_name[path.name].append((path, value))

  def __call__(self, source: Source) -> Value:
    """What is said of a photo.

    Raises:
      InputError: the file does not list it, or several images may be it.
    """
    path = pathlib.Path(source.path).absolute()
    found = self._of_name.get(path.name, [])
    if not found:
      raise InputError(f"{source.path} is not in the file of {self._option}")
    if len(found) > 1:
      found = [
        (image, value)
        for image, value in found
        if path.parts[-len(image.parts) :] == image.parts
      ]
    if len(found) != 1:
      which = "may be any" if found else "is in the folder of none"
      raise InputError(
        f"the file of {self._option} lists several images {path.name};"
        f" {source.path} {which} of them"
      )
    return found[0][1]
