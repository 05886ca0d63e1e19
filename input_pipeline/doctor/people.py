"""Checks of annotations alone: ids, boxes, keypoints, left and right."""

from collections import Counter
from typing import Any

import numpy as np

from input_pipeline.doctor.findings import ERROR, WARNING, Finding, Kind
from tokenpose_jax.skeletons import Skeleton, name_pairs

DUPLICATE_IMAGE = Kind(ERROR, "image ids repeat", "give each its own id")
DUPLICATE_ID = Kind(ERROR, "annotation ids repeat", "give each its own id")
NO_IMAGE = Kind(
  ERROR, "annotations of an image that is not listed", "list it or drop them"
)
COUNT = Kind(
  ERROR,
  "keypoint count does not match the skeleton",
  "choose another with --skeleton, or repair the annotations",
)
NOT_FINITE = Kind(
  ERROR, "keypoints or boxes are no finite numbers", "repair the annotations"
)
VISIBILITY = Kind(
  ERROR, "visibility is not 0, 1 or 2", "0: not labelled, 1: hidden, 2: visible"
)
NO_AREA = Kind(
  WARNING, "area 0, or a box without area", "these people are left out"
)
OUTSIDE = Kind(
  WARNING,
  "labelled keypoints outside the image",
  "they are trained on where an augmented crop shows their place",
)
BOX_OUTSIDE = Kind(
  WARNING, "boxes reach outside the image", "they are clipped to it"
)
BOX_GONE = Kind(
  WARNING, "boxes lie wholly outside the image", "these people are left out"
)
NO_KEYPOINT = Kind(
  WARNING, "people without a labelled keypoint", "they are left out"
)
SWAPPED = Kind(
  ERROR,
  "left and right look swapped",
  "compare with the contact sheet; swap the names or the annotations",
)
PAIR_NAMES = Kind(
  ERROR,
  "flip pairs do not fit the names",
  "a mirrored image exchanges left_x and right_x; correct flip_pairs",
)

ENOUGH = 20  # people, before statistics are believed


def check(
  content: dict[str, Any], skeleton: Skeleton, split: str
) -> list[Finding]:
  """All faults of an annotation file (COCO's dict)."""
  found = _check_ids(content, split)
  images = {image["id"]: image for image in content["images"]}
  good = []
  for entry in content["annotations"]:
    image = images.get(entry.get("image_id"))
    if image is None:
      continue
    faults, points = _check_person(entry, image, skeleton)
    where = f"{split}: annotation {entry.get('id')} ({image['file_name']})"
    # People without keypoints are common, and nothing to look at.
    found += [
      Finding(kind, where + detail)
      if kind is NO_KEYPOINT
      else Finding(kind, where + detail, image["file_name"], entry)
      for kind, detail in faults
    ]
    if points is not None and (points[:, 2] > 0).any():
      good.append((points, image["file_name"], entry))
  return found + _check_sides(good, skeleton, split)


def _check_ids(content: dict[str, Any], split: str) -> list[Finding]:
  images = Counter(image["id"] for image in content["images"])
  people = Counter(
    e["id"] for e in content["annotations"] if e.get("id") is not None
  )
  found = []
  for kind, counts in ((DUPLICATE_IMAGE, images), (DUPLICATE_ID, people)):
    found += [
      Finding(kind, f"{split}: id {identity}, {n} times")
      for identity, n in counts.items()
      if n > 1
    ]
  return found + [
    Finding(NO_IMAGE, f"{split}: annotation {entry.get('id')}")
    for entry in content["annotations"]
    if entry.get("image_id") not in images
  ]


def _check_person(
  entry: dict[str, Any], image: dict[str, Any], skeleton: Skeleton
) -> tuple[list[tuple[Kind, str]], np.ndarray | None]:
  """Faults with a detail each; (K, 3) keypoints, None where unusable."""
  faults: list[tuple[Kind, str]] = []
  if entry.get("iscrowd"):
    return faults, None
  width, height = image.get("width"), image.get("height")
  if "bbox" in entry:
    faults += _check_box(entry, width, height)
  points = _array(entry.get("keypoints", ()))
  if len(entry.get("keypoints", ())) != 3 * skeleton.num_keypoints:
    count = len(entry.get("keypoints", ()))
    return [*faults, (COUNT, f": {count} numbers")], None
  if points is None:
    return [*faults, (NOT_FINITE, ": keypoints")], None
  points = points.reshape(-1, 3)
  labelled = points[:, 2] > 0
  odd = points[~np.isin(points[:, 2], (0, 1, 2)), 2]
  if len(odd):
    faults.append((VISIBILITY, f": {odd[0]:g}"))
  if not labelled.any():
    faults.append((NO_KEYPOINT, ""))
  if width and height:
    x, y = points[labelled, 0], points[labelled, 1]
    outside = (x < 0) | (y < 0) | (x > width) | (y > height)
    if outside.any():
      name = skeleton.keypoints[np.flatnonzero(labelled)[outside][0]]
      faults.append((OUTSIDE, f": {outside.sum()}, first {name}"))
  return faults, points


def _check_box(entry, width, height) -> list[tuple[Kind, str]]:
  box = _array(entry["bbox"])
  if box is None or len(box) != 4:
    return [(NOT_FINITE, ": bbox")]
  x, y, w, h = box
  if entry.get("area", 1) <= 0 or w <= 0 or h <= 0:
    return [(NO_AREA, "")]
  if not width or not height:
    return []
  if x >= width or y >= height or x + w <= 0 or y + h <= 0:
    return [(BOX_GONE, "")]
  # Rounded boxes may reach a pixel too far.
  if min(x, y) < -1 or x + w > width + 1 or y + h > height + 1:
    return [(BOX_OUTSIDE, "")]
  return []


def _check_sides(
  people: list[tuple[np.ndarray, str, dict]], skeleton: Skeleton, split: str
) -> list[Finding]:
  """Which side of a person a flip pair's first keypoint is on.

  In most people all pairs agree whether left is on the image's right (they face
  the camera) or not. A pair that mostly disagrees with the others is swapped;
  eyes, which are seen from the front only, tell whether all are.
  """
  pairs = skeleton.flip_pairs
  if len(pairs) < 3 or len(people) < ENOUGH:
    return []
  points = np.stack([p for p, _, _ in people])
  a, b = points[:, [i for i, _ in pairs]], points[:, [j for _, j in pairs]]
  size = np.stack([np.ptp(p[p[:, 2] > 0, :2], axis=0).max() for p in points])
  # A person of a single keypoint has no size, and no pair either.
  apart = (a[..., 0] - b[..., 0]) / np.maximum(size, 1)[:, None]
  labelled = (a[..., 2] > 0) & (b[..., 2] > 0)
  # Nearly one above the other, sides say nothing.
  sign = np.where(labelled & (np.abs(apart) > 0.05), np.sign(apart), 0)
  found = []
  for n, (i, j) in enumerate(pairs):
    names = f"{skeleton.keypoints[i]} and {skeleton.keypoints[j]}"
    others = np.sign(np.delete(sign, n, 1).sum(1))
    counted = np.flatnonzero((sign[:, n] != 0) & (others != 0))
    if len(counted) >= ENOUGH:
      agree = (sign[:, n] == others)[counted].mean()
      if agree < 0.35:
        found.append(
          _side(
            people[counted[0]],
            f"{split}: {names}: on the others' side in {agree:.0%}"
            f" of {len(counted)} people",
          )
        )
    # A face's left eye is on the image's right. Eyes are close together.
    faces = np.flatnonzero(labelled[:, n] & (np.abs(apart[:, n]) > 0.01))
    is_eyes = "eye" in names and "left" in skeleton.keypoints[i]
    if is_eyes and len(faces) >= ENOUGH:
      right = (apart[faces, n] > 0).mean()
      if right < 0.35:
        found.append(
          _side(
            people[faces[0]],
            f"{split}: {names}: left on the image's right in {right:.0%}"
            f" of {len(faces)} faces",
          )
        )
  return found


def _side(person, where: str) -> Finding:
  _, image, entry = person
  return Finding(SWAPPED, where, image, entry)


def check_names(skeleton: Skeleton) -> list[Finding]:
  """Do the flip pairs exchange what the names call left and right?"""
  named = {frozenset(pair) for pair in name_pairs(skeleton.keypoints)}
  given = {frozenset(pair) for pair in skeleton.flip_pairs}
  return [
    Finding(
      PAIR_NAMES,
      f"{skeleton.name}: "
      + " and ".join(skeleton.keypoints[i] for i in sorted(pair))
      + (" are no pair" if pair in named else " are one"),
    )
    for pair in sorted(named ^ given, key=sorted)
    if named
  ]


def _array(values: Any) -> np.ndarray | None:
  try:
    array = np.asarray(values, np.float64)
  except (TypeError, ValueError):
    return None
  return array if np.isfinite(array).all() else None
