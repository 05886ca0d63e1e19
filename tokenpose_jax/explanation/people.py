"""The people that an annotation file knows, by photo."""

from collections.abc import Container, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from tokenpose_jax import json_files
from tokenpose_jax.errors import InputError, one_line
from tokenpose_jax.metrics import coco_plain
from tokenpose_jax.predict.listed import ListedPhotos
from tokenpose_jax.predict.sources import Source


class _Person(NamedTuple):
  box: list[float]
  flags: list[float]  # of the keypoints: 0, 1 labeled, 2 seen


class Annotated:
  """People of a COCO annotation file.

  Of those with labeled keypoints and a box that has an area; crowds are left
  out, as in training.
  """

  costly = False

  def __init__(self, path: str, num_keypoints: int):
    """Reads the file.

    Args:
      path: of a COCO keypoint annotation file.
      num_keypoints: K of the network.

    Raises:
      InputError: it or an entry cannot be read, or its people have other
        keypoints.
    """
    content = json_files.read(path, "--annotations")
    lists = ("images", "annotations")
    if not isinstance(content, dict) or not all(
      isinstance(content.get(name), list)
      and all(isinstance(entry, dict) for entry in content[name])
      for name in lists
    ):
      raise InputError(
        f"--annotations: {path} is no COCO keypoint file: expected a"
        " dictionary with lists of 'images' and 'annotations'"
      )
    if any(coco_plain.key(one.get("id")) is None for one in content["images"]):
      raise InputError(f"--annotations: {path} has an image without an id")
    plain, _ = coco_plain.plain(content, num_keypoints)
    rows: dict[int, list[_Person]] = {one["id"]: [] for one in plain["images"]}
    for n, entry in enumerate(plain["annotations"]):
      wrong = _wrong(entry, rows, num_keypoints)
      if wrong:
        raise InputError(
          f"--annotations: entry {n} of {path}: {wrong}; correct it or take it"
          " out"
        )
      box, keypoints = entry["bbox"], entry["keypoints"]
      labeled = coco_plain.labeled(entry) and not entry["iscrowd"]
      if labeled and min(box[2:]) > 0:
        rows[entry["image_id"]].append(_Person(box, keypoints[2::3]))
    self._num_keypoints = num_keypoints
    self._listed = ListedPhotos(
      "--annotations",
      ((one.get("file_name"), rows[one["id"]]) for one in plain["images"]),
    )

  def __call__(
    self, source: Source, image: UInt8[np.ndarray, "h w 3"]
  ) -> Float[np.ndarray, "n 5"]:
    """Boxes x, y, w, h of the photo's people, and 1.

    Raises:
      InputError: the file does not list the photo, or it may be several.
    """
    del image
    boxes = [[*person.box, 1.0] for person in self._listed(source)]
    return np.array(boxes, np.float64).reshape(-1, 5)

  def visible(self, source: Source) -> Bool[np.ndarray, "n k"]:
    """Which keypoints of the photo's people are labeled as seen (2).

    Raises:
      InputError: the file does not list the photo, or it may be several.
    """
    flags = np.array([person.flags for person in self._listed(source)])
    return flags.reshape(-1, self._num_keypoints) == 2


def _wrong(
  entry: Mapping[str, Any], images: Container[int], num_keypoints: int
) -> str:
  """What is wrong with a plain annotation; "": nothing."""
  if coco_plain.key(entry.get("image_id")) is None:
    return "it has no image_id"
  if entry["image_id"] not in images:
    return f"its image {one_line(entry['image_id'], 40)} is not listed"
  if entry["iscrowd"] not in (0, 1):
    return f"iscrowd is {one_line(entry['iscrowd'], 40)}, not 0 or 1"
  keypoints = entry["keypoints"]
  if not _numbers(keypoints):
    return "keypoints are not numbers: x, y, 0 to 2 for each"
  # People of other keypoints are no reason to stop where none is labeled.
  if coco_plain.labeled(entry) and len(keypoints) != 3 * num_keypoints:
    return (
      f"it has {len(keypoints)} numbers as keypoints; {num_keypoints} keypoints"
      f" of the network need {3 * num_keypoints}"
    )
  box: Any = entry.get("bbox")
  if not _numbers(box) or len(box) != 4:
    return "bbox is not x, y, width, height"
  return ""


def _numbers(values: Any) -> bool:
  return isinstance(values, list) and all(
    isinstance(value, int | float) and coco_plain.number(value) is not None
    for value in values
  )
