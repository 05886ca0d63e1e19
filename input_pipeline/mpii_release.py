"""MPII's official release, a MATLAB file of structs."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tokenpose_jax import mat_files, skeletons
from tokenpose_jax.errors import InputError

JOINTS = skeletons.MPII_16.num_keypoints


def people_of(raw: bytes, path: str) -> Iterator[dict[str, Any]]:
  """The annotated people of the training images, as in the common JSON.

  RELEASE is a struct of `annolist` (per image: image.name, annorect) and
  `img_train` (per image). An annorect has the head box x1, y1, x2, y2, scale,
  objpos (x, y) and annopoints.point (x, y, id); all may be missing or empty.

  Args:
    raw: the file's bytes.
    path: of the file, for the error.

  Raises:
    InputError: it is not the release, or a field is not what it should be.
  """
  release: Any = mat_files.parse(raw, path, structs=True).get("RELEASE")
  if not {"annolist", "img_train"} <= set(_fields(release)):
    raise InputError(
      f"{path} is not MPII's release: no RELEASE with annolist and img_train"
    )
  images = np.atleast_1d(np.asarray(release.annolist, object)).ravel()
  train = mat_files.pixels(release.img_train, (-1,), f"{path}: img_train")
  if len(images) != len(train):
    raise InputError(
      f"{path}: img_train is of {len(train)} images, annolist of {len(images)}"
    )
  for number, (image, is_train) in enumerate(
    zip(images, train, strict=True), 1
  ):
    for rect in _structs(image, "annorect") if is_train > 0 else ():
      person = _person(image, rect, f"{path}: image number {number}")
      if person:
        yield person


def _person(image: Any, rect: Any, where: str) -> dict[str, Any] | None:
  """An annorect as in the common JSON; None for people in the background."""
  place = _structs(rect, "objpos")
  points = [
    point
    for group in _structs(rect, "annopoints")
    for point in _structs(group, "point")
  ]
  if not points or not place or not np.size(getattr(rect, "scale", ())):
    return None
  joints, visible = [[0.0, 0.0] for _ in range(JOINTS)], [0] * JOINTS
  for point in points:
    joint = _number(point, "id", where)
    if joint not in range(JOINTS):
      raise InputError(f"{where}: a point has the id {joint:g}")
    joints[int(joint)] = [_number(point, axis, where) for axis in "xy"]
    visible[int(joint)] = 1
  name = getattr(getattr(image, "image", None), "name", None)
  if not isinstance(name, str):
    raise InputError(f"{where}: it has people, but no name")
  corners = ("x1", "y1", "x2", "y2")
  has_box = all(np.size(getattr(rect, corner, ())) for corner in corners)
  scale = _number(rect, "scale", where)
  if scale <= 0:
    raise InputError(f"{where}: scale is {scale:g}, expected > 0")
  return {
    "image": str(name),
    "center": [_number(place[0], axis, where) for axis in "xy"],
    "scale": scale,
    "joints": joints,
    "joints_vis": visible,
    "head_box": [_number(rect, corner, where) for corner in corners]
    if has_box
    else None,
  }


def _number(holder: Any, field: str, where: str) -> float:
  value = getattr(holder, field, None)
  array = mat_files.pixels(value, (1,), f"{where}: {field}")
  if np.isnan(array[0]):
    raise InputError(f"{where}: {field} is {value!s:.40}, not a number")
  return float(array[0])


def _structs(holder: Any, field: str) -> list[Any]:
  """The structs in a field: none, one or several."""
  values = np.atleast_1d(np.asarray(getattr(holder, field, []), object))
  return [value for value in values.ravel() if _fields(value)]


def _fields(value: Any) -> list[str]:
  return getattr(value, "_fieldnames", [])
