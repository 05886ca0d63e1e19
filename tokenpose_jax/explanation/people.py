"""The people that an annotation file knows, by photo."""

import pathlib
from collections import defaultdict

import numpy as np
from jaxtyping import Bool, Float, UInt8

from tokenpose_jax import json_files
from tokenpose_jax.errors import InputError
from tokenpose_jax.metrics import coco_plain
from tokenpose_jax.predict.sources import Source


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
      InputError: it cannot be read, or its people have other keypoints.
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
    rows: dict[int, list[tuple[list[float], list[float]]]] = defaultdict(list)
    for n, entry in enumerate(plain["annotations"]):
      box, keypoints = entry.get("bbox"), entry["keypoints"]
      if entry["iscrowd"] or not coco_plain.labeled(entry):
        continue
      if len(keypoints) != 3 * num_keypoints:
        raise InputError(
          f"--annotations: entry {n} of {path} has {len(keypoints)} numbers as"
          f" keypoints; {num_keypoints} keypoints of the network need"
          f" {3 * num_keypoints}"
        )
      if isinstance(box, list) and len(box) == 4 and min(box[2:]) > 0:
        rows[entry["image_id"]].append((box, keypoints[2::3]))
    self._num_keypoints = num_keypoints
    self._rows = {
      pathlib.PurePath(str(image.get("file_name"))).name: rows[image["id"]]
      for image in plain["images"]
    }

  def __call__(
    self, source: Source, image: UInt8[np.ndarray, "h w 3"]
  ) -> Float[np.ndarray, "n 5"]:
    """Boxes x, y, w, h of the photo's people, and 1.

    Raises:
      InputError: the file does not list the photo.
    """
    del image
    boxes = [[*box, 1.0] for box, _ in self._of(source)]
    return np.array(boxes, np.float64).reshape(-1, 5)

  def visible(self, source: Source) -> Bool[np.ndarray, "n k"]:
    """Which keypoints of the photo's people are labeled as seen (2).

    Raises:
      InputError: the file does not list the photo.
    """
    flags = np.array([flags for _, flags in self._of(source)])
    return flags.reshape(-1, self._num_keypoints) == 2

  def _of(self, source: Source) -> list[tuple[list[float], list[float]]]:
    name = pathlib.PurePath(source.name).name
    if name not in self._rows:
      raise InputError(f"{source.path} is not in the file of --annotations")
    return self._rows[name]
