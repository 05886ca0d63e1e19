"""People whom several annotators labeled, from a COCO file of each."""

import itertools
import os
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from input_pipeline.files import read_bytes, require_file
from tokenpose_jax import json_files
from tokenpose_jax.errors import InputError
from tokenpose_jax.metrics.coco_plain import AREA_OF_BOX, key, number, plain

# Between the two annotations of a person's keypoints, in the median, over the
# root of the area: further apart they are not of one person.
FAR = 0.5
MANY_FAR = 0.1  # of the people: then the ids do not belong together
_LARGEST = 2**31  # pixels


class Repeated(NamedTuple):
  """N people, each labeled by R annotators.

  Attributes:
    keypoints: x, y, visibility; 0 is not labeled.
    areas: the annotators' mean, pixels.
    notes: who is used, who is left out and why, a line each.
  """

  keypoints: Float[np.ndarray, "r n k 3"]
  areas: Float[np.ndarray, " n"]
  notes: tuple[str, ...]


class _Person(NamedTuple):
  """An annotation: 3K numbers; the area; its image's id and name, or None."""

  keypoints: list[float]
  area: float
  image_id: Hashable
  image_name: str | None


def read(paths: list[str]) -> Repeated:
  """The people that all files have.

  Args:
    paths: of the files, one per annotator; a person has the same annotation
      id in all.

  Raises:
    InputError: a file cannot be used, the files share nobody, or their ids do
      not belong together.
  """
  files, notes = [], []
  for path in paths:
    people, left_out = _people(path)
    files.append(people)
    notes += [f"{path}: left out: {left_out}"] if left_out else []
  shared = [i for i in files[0] if all(i in file for file in files)]
  if not shared:
    raise InputError(f"{', '.join(paths)} share no annotation id")
  same = [[file[i] for i in shared] for file in files]
  counts = {len(p.keypoints) // 3 for people in same for p in people}
  if len(counts) != 1:
    raise InputError(
      f"the files have people of {sorted(counts)} keypoint numbers; all must"
      " be of one skeleton"
    )
  _check_images(same, shared, paths)
  points = [[person.keypoints for person in people] for people in same]
  keypoints = np.array(points, np.float64)
  keypoints = keypoints.reshape(len(files), len(shared), -1, 3)
  if (keypoints == keypoints[0]).all():
    raise InputError(
      f"{', '.join(paths)} have the same keypoints to the last digit: they are"
      " copies, not of several annotators"
    )
  areas = np.mean([[person.area for person in people] for people in same], 0)
  far = _far_apart(keypoints, areas)
  if far.any():
    found = (
      f"{far.sum()} of {len(shared)} people are too far apart to be the same"
      f" in all files, first annotation {shared[int(far.argmax())]!r:.40}"
    )
    if far.mean() > MANY_FAR:
      raise InputError(f"{', '.join(paths)}: {found}: do the ids fit?")
    notes.append(f"left out: {found}")
  numbers = ", ".join(str(len(file)) for file in files)
  notes.append(f"people in the files: {numbers}; used: {(~far).sum()}")
  return Repeated(keypoints[:, ~far], areas[~far], tuple(notes))


def _check_images(
  same: list[list[_Person]], ids: list[Hashable], paths: list[str]
) -> None:
  """A person cannot be in two images."""
  first = same[0]
  for people, path in zip(same[1:], paths[1:], strict=True):
    for i, a, b in zip(ids, first, people, strict=True):
      named = a.image_name is not None and b.image_name is not None
      places = [p.image_name if named else p.image_id for p in (a, b)]
      if None not in places and len({*map(_stem, places)}) > 1:
        raise InputError(
          f"the annotation {i!r:.40} is of image {places[0]!r:.60} in"
          f" {paths[0]} and of {places[1]!r:.60} in {path}; the files must have"
          " the same ids for the same people"
        )


def _stem(image: Hashable) -> str:
  """A file's name without folder and ending, which tools change."""
  base = os.path.basename(str(image).replace("\\", "/"))
  return os.path.splitext(base)[0].casefold()


def _far_apart(
  keypoints: Float[np.ndarray, "r n k 3"], areas: Float[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
  """Whose keypoints are not of the same person in any two of the files."""
  far = np.zeros(len(areas), bool)
  for one, two in itertools.combinations(keypoints, 2):
    distance = np.linalg.norm(one[..., :2] - two[..., :2], axis=-1)
    unknown = (one[..., 2] <= 0) | (two[..., 2] <= 0)
    middle = np.ma.median(np.ma.array(distance, mask=unknown), axis=1)
    far |= np.ma.filled(middle, 0.0) > FAR * np.sqrt(areas)
  return far


def _people(path: str) -> tuple[dict[Hashable, _Person], str]:
  """A file's people by their ids, and who is left out."""
  require_file(path, "sigmas")
  content = json_files.parse(read_bytes(path), path)
  entries = _dicts(content, "annotations")
  if entries is None:
    raise InputError(f"{path} is not a file of keypoint annotations")
  images = _dicts(content, "images") or []
  names = {key(i.get("id")): i.get("file_name") for i in images}
  # Of images only the names play a part.
  made = plain({"images": [], "annotations": entries}, 0).content
  people: dict[Hashable, _Person] = {}
  left_out: dict[str, list[Any]] = {}
  for entry in made["annotations"]:
    if reason := _unusable(entry):
      left_out.setdefault(reason, []).append(entry.get("id"))
      continue
    own, image = key(entry["id"]), key(entry.get("image_id"))
    if own in people:
      raise InputError(f"{path}: the annotation id {own!r:.40} comes twice")
    name = names.get(image)
    people[own] = _Person(
      entry["keypoints"],
      _area(entry),
      image,
      name if isinstance(name, str) and image is not None else None,
    )
  said = "; ".join(
    f"annotation {ids[0]!r:.40} {reason}"
    + (f" (and {len(ids) - 1} more)" if ids[1:] else "")
    for reason, ids in left_out.items()
  )
  if left_out and not people:
    raise InputError(
      f"{path} is not a file of keypoint annotations with areas: {said}"
    )
  return people, said


def _dicts(content: Any, field: str) -> list[dict[str, Any]] | None:
  """A field that is a list of dicts; None where it is not."""
  found = content.get(field) if isinstance(content, dict) else None
  if isinstance(found, list) and all(isinstance(e, dict) for e in found):
    return found
  return None


def _unusable(entry: Mapping[str, Any]) -> str:
  """Why a plain annotation says nothing of sigmas; "" if it does."""
  if entry["iscrowd"]:
    return "is a crowd"
  if key(entry.get("id")) is None:
    return "has no id"
  values = entry["keypoints"]
  if not isinstance(values, list) or len(values) % 3:
    return "has no keypoints of x, y and visibility"
  # Not NaN either.
  if not all(type(v) in (int, float) and abs(v) < _LARGEST for v in values):
    return "has keypoints that are not numbers of pixels"
  if not any(v > 0 for v in values[2::3]):
    return "has no labeled keypoint"
  return "" if _area(entry) else "has no area"


def _area(entry: Mapping[str, Any]) -> float:
  """A plain annotation's, pixels; of its box where it cannot be; 0: none."""
  area, box = entry["area"], entry.get("bbox")
  sides = [number(v) or 0.0 for v in box[2:]] if isinstance(box, list) else []
  of_box = 0.0
  if len(sides) == 2 and all(0 < side < _LARGEST for side in sides):
    of_box = sides[0] * sides[1]
  # Boxes are rounded, and sometimes of the visible part.
  possible = 0 < area < (4 * of_box or _LARGEST**2)
  return area if possible else of_box * AREA_OF_BOX
