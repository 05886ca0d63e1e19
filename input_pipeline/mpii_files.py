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
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import scipy.io
import tensorflow as tf

from input_pipeline.files import read_bytes, require_folder
from input_pipeline.people import Annotations
from tokenpose_jax import geometry, json_files, skeletons
from tokenpose_jax.errors import InputError

RELEASE = "mpii_human_pose_v1_u12_1.mat"
ALL = "trainval"  # every annotated person of the release
JOINTS = skeletons.MPII_16.num_keypoints


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
    entries = list(_of_split(_people_of(raw, path), folder, split))
  else:
    raise InputError(
      f"data.dir: neither {path} nor {_annot(folder, RELEASE)} exists; an MPII"
      " folder holds images/ and annot/ with one of them"
    )
  _add_head_boxes(entries, folder, split, release if path != release else "")
  digest = hashlib.sha256(raw).hexdigest()
  return Annotations(path, digest, _as_coco(entries))


def _checked(content: Any, path: str) -> list[dict[str, Any]]:
  """The entries of a common JSON, each with what `_as_coco` reads."""
  if not isinstance(content, list) or not all(
    isinstance(e, dict) for e in content
  ):
    raise InputError(
      f"{path} is not an MPII annotation file: not a list of people"
    )
  entries = []
  for number, entry in enumerate(content):
    where = f"{path}: person number {number}"
    for field in ("image", "center", "scale"):
      if field not in entry:
        raise InputError(f"{where} has no {field!r}")
    # The test split has no joints.
    joints = entry.get("joints", [[0, 0]] * JOINTS)
    visible = entry.get("joints_vis", [0] * JOINTS)
    shapes = {
      "joints": (joints, (JOINTS, 2)),
      "joints_vis": (visible, (JOINTS,)),
      "center": (entry["center"], (2,)),
      "scale": (entry["scale"], ()),
      "head_box": (entry.get("head_box") or [0] * 4, (4,)),
    }
    for field, (value, shape) in shapes.items():
      try:
        array = np.asarray(value, np.float64)
      except (TypeError, ValueError):
        array = np.zeros(0)
      if array.shape != shape or not np.isfinite(array).all():
        raise InputError(
          f"{where}: {field!r} is {str(value)[:60]}, expected numbers of shape"
          f" {shape}"
        )
    if not set(visible) <= {0, 1}:
      raise InputError(f"{where}: 'joints_vis' is {visible}, expected 0 or 1")
    if entry["scale"] <= 0:
      raise InputError(f"{where}: 'scale' is {entry['scale']}, expected > 0")
    entries.append({**entry, "joints": joints, "joints_vis": visible})
  return entries


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
  if all(entry.get("head_box") for entry in entries):
    return
  path = _annot(folder, f"gt_{split}.mat")
  if tf.io.gfile.exists(path):
    for entry, box in zip(
      entries, _evaluation_boxes(path, entries), strict=True
    ):
      entry["head_box"] = box
  elif release:
    boxes = {
      _key(e): e["head_box"] for e in _people_of(read_bytes(release), release)
    }
    for entry in entries:
      entry.setdefault("head_box", boxes.get(_key(entry)))


def _key(entry: Mapping[str, Any]) -> tuple[str, int, int, float]:
  """Tells the people of the release apart; JSON writers may round."""
  x, y = entry["center"]
  return entry["image"], round(x), round(y), round(entry["scale"], 2)


def _evaluation_boxes(
  path: str, entries: list[dict[str, Any]]
) -> list[list[float]]:
  """Head boxes of the MPII toolkit's ground truth, which must fit."""
  content = _load(read_bytes(path), path)
  for field in ("headboxes_src", "pos_gt_src", "jnt_missing"):
    if field not in content:
      raise InputError(f"{path} has no {field!r}")
  boxes = content["headboxes_src"]  # (2 corners, x and y, people)
  if boxes.shape[-1] != len(entries):
    raise InputError(
      f"{path} is of {boxes.shape[-1]} people, the annotations of"
      f" {len(entries)}; is it of another split?"
    )
  points = np.moveaxis(content["pos_gt_src"], -1, 0)
  labeled = content["jnt_missing"].T == 0
  joints = np.array([entry["joints"] for entry in entries], np.float64)
  labeled &= np.array([entry["joints_vis"] for entry in entries]) > 0
  distance = np.where(labeled[..., None], np.abs(points - joints), 0)
  if distance.max() > 1:
    number = int(distance.max((1, 2)).argmax())
    raise InputError(
      f"{path} has other joints than the annotations, first seen at person"
      f" number {number}; the two are not of the same people"
    )
  return np.moveaxis(boxes, -1, 0).reshape(-1, 4).tolist()


# The official release.


def _release(folder: str) -> str:
  """Its path; "" where there is none."""
  for path in (_annot(folder, RELEASE), os.path.join(folder, RELEASE)):
    if tf.io.gfile.exists(path):
      return path
  return ""


def _people_of(raw: bytes, path: str) -> Iterator[dict[str, Any]]:
  """The annotated people of the training images, as in the common JSON.

  RELEASE is a struct of `annolist` (per image: image.name, annorect) and
  `img_train` (per image). An annorect has the head box x1, y1, x2, y2, scale,
  objpos (x, y) and annopoints.point (x, y, id); all may be missing or empty.
  """
  release: Any = _load(raw, path).get("RELEASE")
  if not {"annolist", "img_train"} <= set(_fields(release)):
    raise InputError(
      f"{path} is not MPII's release: no RELEASE with annolist and img_train"
    )
  images = np.atleast_1d(release.annolist)
  train = np.atleast_1d(release.img_train)
  for image, is_train in zip(images, train, strict=True):
    for rect in _structs(image, "annorect") if is_train else ():
      scale: Any = getattr(rect, "scale", ())
      place = _structs(rect, "objpos")
      points = [
        point
        for group in _structs(rect, "annopoints")
        for point in _structs(group, "point")
      ]
      if not points or not place or not np.size(scale):
        continue  # a person in the background
      joints, visible = [[0.0, 0.0] for _ in range(JOINTS)], [0] * JOINTS
      for point in points:
        joints[int(point.id)] = [float(point.x), float(point.y)]
        visible[int(point.id)] = 1
      box: list[Any] = [
        getattr(rect, name, ()) for name in ("x1", "y1", "x2", "y2")
      ]
      yield {
        "image": str(image.image.name),
        "center": [float(place[0].x), float(place[0].y)],
        "scale": float(scale),
        "joints": joints,
        "joints_vis": visible,
        "head_box": [float(v) for v in box]
        if all(np.size(v) for v in box)
        else None,
      }


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
    return set(read_bytes(path).decode("utf-8-sig").split())
  raise InputError(
    f"{folder}: the release alone does not say which images are the common"
    " validation split; put annot/valid.json or annot/valid_images.txt there"
    f" (an image name a line), or set --config.data.train_split={ALL}"
  )


def _load(raw: bytes, path: str) -> dict[str, Any]:
  try:
    return scipy.io.loadmat(
      io.BytesIO(raw), squeeze_me=True, struct_as_record=False
    )
  except Exception as error:  # whatever SciPy finds wrong in the bytes
    raise InputError(f"{path} is not a MATLAB file: {error}") from None


def _structs(holder: Any, field: str) -> list[Any]:
  """The structs in a field: none, one or several."""
  values = np.atleast_1d(np.asarray(getattr(holder, field, []), object))
  return [value for value in values.ravel() if _fields(value)]


def _fields(value: Any) -> list[str]:
  return getattr(value, "_fieldnames", [])


def _annot(folder: str, name: str) -> str:
  return os.path.join(folder, "annot", name)
