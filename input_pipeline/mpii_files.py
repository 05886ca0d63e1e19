"""MPII files: the common JSON or the official release, with head boxes.

    DIR/images/*.jpg
    DIR/annot/train.json, valid.json        the common JSON (reference 4.2)
    DIR/annot/gt_valid.mat                  head boxes of valid.json's people
    DIR/annot/mpii_human_pose_v1_u12_1.mat  the official release

The JSON is used where it is there, else the release; head boxes come from the
entries ("head_box"), else from gt_SPLIT.mat, else from the release. The release
does not know the common JSON's validation split: valid.json or
valid_images.txt (an image name a line) must name its images.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float

from input_pipeline.files import read_bytes, require_folder
from input_pipeline.mpii_release import JOINTS, people_of
from input_pipeline.people import Annotations
from tokenpose_jax import geometry, json_files, mat_files
from tokenpose_jax.errors import InputError

RELEASE = "mpii_human_pose_v1_u12_1.mat"
ALL = "trainval"  # every annotated person of the release


def read(folder: str, split: str) -> Annotations:
  """Reads the annotations of a split, as COCO's dict without image sizes.

  Each annotation has `keypoints` (x, y, visibility; 0-based), the file's
  `center` (1-based) and `scale`, and `head_box` (x1, y1, x2, y2; 0-based) or
  None.

  Args:
    folder: of the data.
    split: of the folder.

  Raises:
    InputError: the folder, a file or what is in it cannot be used.
  """
  require_folder(folder, "an MPII folder")
  path = _annot(folder, f"{split}.json")
  release = _release(folder)
  if tf.io.gfile.exists(path):
    raw = read_bytes(path)
    entries = _checked(json_files.parse(raw, path), path)
  elif release:
    path, raw = release, read_bytes(release)
    entries = list(_of_split(people_of(raw, path), folder, split))
  else:
    raise InputError(
      f"data.dir: neither {path} nor {_annot(folder, RELEASE)} exists; an MPII"
      " folder holds images/ and annot/ with one of them"
    )
  _add_head_boxes(entries, folder, split, release if path != release else "")
  digest = hashlib.sha256(raw).hexdigest()
  return Annotations(path, digest, _as_coco(entries))


def _checked(content: Any, path: str) -> list[dict[str, Any]]:
  """The entries of a common JSON, each with just what `_as_coco` reads."""
  if not isinstance(content, list) or not all(
    isinstance(e, dict) for e in content
  ):
    raise InputError(
      f"{path} is not an MPII annotation file: not a list of people"
    )
  return [
    _checked_person(entry, f"{path}: person number {number}")
    for number, entry in enumerate(content)
  ]


def _checked_person(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
  for field in ("image", "center", "scale"):
    if field not in entry:
      raise InputError(f"{where} has no {field!r}")
  image = entry["image"]
  if not isinstance(image, str) or not image:
    raise InputError(f"{where}: 'image' is {image!r:.60}, expected a file name")
  # The test split has no joints.
  unknown = [entry.get(field) is None for field in ("joints", "joints_vis")]
  if any(unknown) and not all(unknown):
    raise InputError(f"{where}: 'joints' and 'joints_vis' belong together")
  visible = _numbers(entry, "joints_vis", (JOINTS,), where)
  if not np.isin(visible, (0, 1)).all():
    raise InputError(
      f"{where}: 'joints_vis' is {entry['joints_vis']!r:.80}, expected 0 or 1"
    )
  labeled = visible[:, None] > 0
  joints = _numbers(entry, "joints", (JOINTS, 2), where, needed=labeled)
  scale = float(_numbers(entry, "scale", (), where))
  if not 0 < scale * geometry.SCALE_UNIT < mat_files.LARGEST:
    raise InputError(f"{where}: 'scale' is {scale:g}, expected > 0, in 200 px")
  has_head = entry.get("head_box") not in (None, [])
  return {
    "image": image,
    "center": _numbers(entry, "center", (2,), where).tolist(),
    "scale": scale,
    "joints": joints.tolist(),
    "joints_vis": visible.astype(int).tolist(),
    "head_box": _numbers(entry, "head_box", (4,), where).tolist()
    if has_head
    else None,
  }


def _numbers(
  entry: Mapping[str, Any],
  field: str,
  shape: tuple[int, ...],
  where: str,
  needed: Bool[np.ndarray, "..."] | bool = True,
) -> Float[np.ndarray, "..."]:
  """A field; zeros where it is not there, and where it is not needed."""
  value = entry.get(field)
  if value is None and field in ("joints", "joints_vis"):
    return np.zeros(shape)
  try:
    array = mat_files.pixels(value, shape, field)
  except InputError:
    array = np.full((), np.nan)
  wrong = isinstance(value, bool) or array.shape != shape
  if wrong or (np.isnan(array) & needed).any():
    raise InputError(
      f"{where}: {field!r} is {value!r:.60}, expected finite numbers"
      + (f" of shape {shape}" if shape else "")
    )
  return np.asarray(np.nan_to_num(array))


def _as_coco(entries: list[dict[str, Any]]) -> dict[str, Any]:
  names = list(dict.fromkeys(entry["image"] for entry in entries))
  ids = {name: number for number, name in enumerate(names, 1)}
  annotations = []
  for number, entry in enumerate(entries, 1):
    joints = np.asarray(entry["joints"], np.float64) - 1
    visible = np.asarray(entry["joints_vis"], np.float64)
    box = entry.get("head_box")
    annotations.append(
      {
        "id": number,
        "image_id": ids[entry["image"]],
        "category_id": 1,
        "keypoints": np.column_stack([joints, visible]).ravel().tolist(),
        "num_keypoints": int(visible.sum()),
        "bbox": _box(entry),
        "center": list(entry["center"]),
        "scale": entry["scale"],
        "head_box": None if box is None else [v - 1 for v in box],
      }
    )
  images = [{"id": ids[name], "file_name": name} for name in names]
  return {"images": images, "annotations": annotations}


def _box(entry: Mapping[str, Any]) -> list[float]:
  """The square around a person, x, y, w, h, 0-based; MPII has no boxes."""
  (x, y), side = entry["center"], geometry.SCALE_UNIT * entry["scale"]
  return [x - 1 - side / 2, y - 1 - side / 2, side, side]


# Head boxes.


def _add_head_boxes(
  entries: list[dict[str, Any]], folder: str, split: str, release: str
) -> None:
  """Adds "head_box", in the file's 1-based pixels, where a file knows it."""
  if all(entry["head_box"] for entry in entries):
    return
  path = _annot(folder, f"gt_{split}.mat")
  if tf.io.gfile.exists(path):
    for entry, box in zip(
      entries, _evaluation_boxes(path, entries), strict=True
    ):
      entry["head_box"] = box
  elif release:
    boxes = {
      _key(e): e["head_box"] for e in people_of(read_bytes(release), release)
    }
    for entry in entries:
      entry["head_box"] = entry["head_box"] or boxes.get(_key(entry))


def _key(entry: Mapping[str, Any]) -> tuple[str, int, int, float]:
  """Tells the people of the release apart; JSON writers may round."""
  x, y = entry["center"]
  return entry["image"], round(x), round(y), round(entry["scale"], 2)


def _evaluation_boxes(
  path: str, entries: list[dict[str, Any]]
) -> list[list[float]]:
  """Head boxes of the MPII toolkit's ground truth, which must fit."""
  content = mat_files.parse(read_bytes(path), path)
  boxes, points, missing = (
    _of_people(content, field, shape, len(entries), path)
    for field, shape in (
      ("headboxes_src", (2, 2)),  # corners, x and y
      ("pos_gt_src", (JOINTS, 2)),
      ("jnt_missing", (JOINTS,)),
    )
  )
  joints = np.array([entry["joints"] for entry in entries], np.float64)
  labeled = missing == 0
  labeled &= np.array([entry["joints_vis"] for entry in entries]) > 0
  distance = np.where(labeled[..., None], np.abs(points - joints), 0)
  far = ~(distance <= 1)
  if far.any():
    number = int(far.any((1, 2)).argmax())
    raise InputError(
      f"{path} has other joints than the annotations, first seen at person"
      f" number {number}; the two are not of the same people"
    )
  return boxes.reshape(-1, 4).tolist()


def _of_people(
  content: Mapping[str, Any],
  field: str,
  shape: tuple[int, ...],
  number: int,
  path: str,
) -> Float[np.ndarray, "n ..."]:
  """A variable whose last axis is the people, as their first."""
  if field not in content:
    raise InputError(f"{path} has no {field!r}")
  array = mat_files.pixels(content[field], (*shape, -1), f"{path}: {field}")
  if array.shape[-1] != number:
    raise InputError(
      f"{path} is of {array.shape[-1]} people, the annotations of {number}; is"
      " it of another split?"
    )
  return np.moveaxis(array, -1, 0)


# The official release.


def _release(folder: str) -> str:
  """Its path; "" where there is none."""
  for path in (_annot(folder, RELEASE), os.path.join(folder, RELEASE)):
    if tf.io.gfile.exists(path):
      return path
  return ""


def _of_split(
  entries: Iterable[dict[str, Any]], folder: str, split: str
) -> Iterator[dict[str, Any]]:
  if split == ALL:
    yield from entries
    return
  if split not in ("train", "valid"):
    raise InputError(
      f"MPII's release has the splits train, valid and {ALL}, not {split!r}"
    )
  valid = _valid_images(folder)
  for entry in entries:
    if (entry["image"] in valid) == (split == "valid"):
      yield entry


def _valid_images(folder: str) -> set[str]:
  path = _annot(folder, "valid.json")
  if tf.io.gfile.exists(path):
    content = _checked(json_files.parse(read_bytes(path), path), path)
    return {entry["image"] for entry in content}
  path = _annot(folder, "valid_images.txt")
  if tf.io.gfile.exists(path):
    try:
      return set(read_bytes(path).decode("utf-8-sig").split())
    except UnicodeDecodeError as error:
      raise InputError(f"{path} is not UTF-8 text: {error}") from None
  raise InputError(
    f"{folder}: the release alone does not say which images are the common"
    " validation split; put annot/valid.json or annot/valid_images.txt there"
    f" (an image name a line), or set --config.data.train_split={ALL}"
  )


def _annot(folder: str, name: str) -> str:
  return os.path.join(folder, "annot", name)
