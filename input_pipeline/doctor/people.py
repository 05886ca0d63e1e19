"""Checks of annotations alone: rules, boxes, keypoints, left and right."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from input_pipeline import coco_rules
from input_pipeline.coco_people import (
  NO_LABEL,
  NO_SIZE,
  NOT_IN_IMAGE,
  census,
  left_out_because,
)
from input_pipeline.doctor import symmetry
from input_pipeline.doctor.findings import ERROR, WARNING, Finding, Kind
from tokenpose_jax.coco_skeletons import name_pairs
from tokenpose_jax.skeletons import Skeleton

NO_AREA = Kind(
  WARNING, "area 0, or a box without area", "these people are left out"
)
OUTSIDE = Kind(
  WARNING,
  "labeled keypoints outside the image",
  "they are used whenever an augmented crop covers them",
)
BOX_OUTSIDE = Kind(
  WARNING, "boxes reach outside the image", "they are clipped to it"
)
BOX_GONE = Kind(
  WARNING, "boxes lie wholly outside the image", "these people are left out"
)
NO_KEYPOINT = Kind(
  WARNING, "people without a labeled keypoint", "they are left out"
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

NO_PAIRS = Kind(
  WARNING,
  "the skeleton has no flip pairs",
  "if there are left and right keypoints, name them in flip_pairs",
)
ASSUMED = Kind(
  WARNING,
  "details are assumed",
  "training and evaluation assume the same; write them down to be sure",
)
NOBODY = Kind(
  ERROR,
  "nobody is left to train on",
  "a person needs a labeled keypoint, an area and a box inside the image",
)

# Why a training leaves someone out, but for crowds, of which nothing is wrong.
LEFT_OUT = {
  NO_LABEL: NO_KEYPOINT,
  NO_SIZE: NO_AREA,
  NOT_IN_IMAGE: BOX_GONE,
}
ENOUGH = 20  # people, before statistics are believed


def broken(rule: coco_rules.Rule) -> Kind:
  """A broken rule as the doctor's fault: a training would stop at it."""
  return Kind(ERROR, rule.title, rule.advice)


def check(
  content: Mapping[str, Any], skeleton: Skeleton, split: str
) -> tuple[list[Finding], str]:
  """All faults of an annotation file, and who counts.

  Args:
    content: COCO's dict, made plain.
    skeleton: that its keypoints should have.
    split: its name.

  Returns:
    the findings, and the line that a training says at its start.
  """
  images = {image["id"]: image for image in content["images"]}

  def place_of(entry: Mapping[str, Any]) -> tuple[str, str | None]:
    image_id = entry.get("image_id")
    image = images.get(image_id) if isinstance(image_id, int | str) else None
    name = image["file_name"] if image else None
    return f"annotation {entry.get('id')}" + (
      f" ({name})" if name else ""
    ), name

  findings = []
  unusable = set()
  for violation in coco_rules.violations(content, skeleton):
    kind, entry = broken(violation.rule), violation.annotation
    if entry is None:
      place, name = violation.place.removeprefix("the "), None
    else:
      place, name = place_of(entry)
      unusable.add(id(entry))
    findings.append(Finding(kind, split, place, violation.detail, name, entry))
  usable = []
  reasons: Counter[str] = Counter()
  for entry in content["annotations"]:
    if id(entry) in unusable:
      reasons["broken"] += 1
      continue
    place, name = place_of(entry)
    points = np.asarray(entry["keypoints"], np.float64).reshape(-1, 3)
    image = images[entry["image_id"]]
    if reason := left_out_because(entry, image):
      # Nothing else matters of somebody who plays no part.
      reasons[reason] += 1
      faults = [(LEFT_OUT[reason], "")] if reason in LEFT_OUT else []
    else:
      usable.append((points, name, entry))
      faults = _check_person(entry, points, image, skeleton)
    for kind, detail in faults:
      # People without keypoints are common, and nothing to look at.
      drawn = None if kind is NO_KEYPOINT else name
      findings.append(Finding(kind, split, place, detail, drawn, entry))
  counted = census(content, len(usable), reasons)
  if not usable:
    findings.append(Finding(NOBODY, split, counted))
  findings += _check_sides(usable, skeleton, split)
  return findings + _check_symmetry(usable, skeleton, split), counted


def _check_person(
  entry: Mapping[str, Any],
  points: Float[np.ndarray, "k 3"],
  image: Mapping[str, Any],
  skeleton: Skeleton,
) -> list[tuple[Kind, str]]:
  """Faults with a detail each."""
  width, height = image.get("width"), image.get("height")
  if not width or not height:
    return []
  faults = []
  x, y, w, h = entry["bbox"]
  # Rounded boxes may reach a pixel too far.
  if min(x, y) < -1 or x + w > width + 1 or y + h > height + 1:
    faults.append((BOX_OUTSIDE, ""))
  labeled = points[:, 2] > 0
  x, y = points[labeled, 0], points[labeled, 1]
  outside = (x < 0) | (y < 0) | (x > width) | (y > height)
  if outside.any():
    name = skeleton.keypoints[np.flatnonzero(labeled)[outside][0]]
    faults.append((OUTSIDE, f"{outside.sum()}, first {name}"))
  return faults


def _check_sides(
  people: list[tuple[np.ndarray, str | None, Mapping[str, Any]]],
  skeleton: Skeleton,
  split: str,
) -> list[Finding]:
  """Which side of a person a flip pair's first keypoint is on.

  In most people all pairs agree whether left is on the image's right (they face
  the camera) or not. A pair that mostly disagrees with the others is swapped;
  eyes, which are seen from the front only, decide whether all are.
  """
  pairs = skeleton.flip_pairs
  if len(pairs) < 3 or len(people) < ENOUGH:
    return []
  points = np.stack([p for p, _, _ in people])
  a, b = points[:, [i for i, _ in pairs]], points[:, [j for _, j in pairs]]
  size = np.stack([np.ptp(p[p[:, 2] > 0, :2], axis=0).max() for p in points])
  # A person of a single keypoint has no size, and no pair either.
  apart = (a[..., 0] - b[..., 0]) / np.maximum(size, 1)[:, None]
  labeled = (a[..., 2] > 0) & (b[..., 2] > 0)
  # Nearly one above the other, sides say nothing.
  sign = np.where(labeled & (np.abs(apart) > 0.05), np.sign(apart), 0)
  findings = []
  for n, (i, j) in enumerate(pairs):
    names = f"{skeleton.keypoints[i]} and {skeleton.keypoints[j]}"
    others = np.sign(np.delete(sign, n, 1).sum(1))
    counted = np.flatnonzero((sign[:, n] != 0) & (others != 0))
    if len(counted) >= ENOUGH:
      agree = (sign[:, n] == others)[counted].mean()
      if agree < 0.35:
        detail = f"on the others' side in {agree:.0%} of {len(counted)} people"
        _, image, entry = people[counted[0]]
        findings.append(Finding(SWAPPED, split, names, detail, image, entry))
    # A face's left eye is on the image's right. Eyes are close together.
    faces = np.flatnonzero(labeled[:, n] & (np.abs(apart[:, n]) > 0.01))
    is_eyes = "eye" in names and "left" in skeleton.keypoints[i]
    if is_eyes and len(faces) >= ENOUGH:
      right = (apart[faces, n] > 0).mean()
      if right < 0.35:
        detail = (
          f"left on the image's right in {right:.0%} of {len(faces)} faces"
        )
        _, image, entry = people[faces[0]]
        findings.append(Finding(SWAPPED, split, names, detail, image, entry))
  return findings


def _check_symmetry(
  people: list[tuple[np.ndarray, str | None, Mapping[str, Any]]],
  skeleton: Skeleton,
  split: str,
) -> list[Finding]:
  if len(people) < ENOUGH:
    return []
  points = np.stack([p for p, _, _ in people])
  boxes = np.array([entry["bbox"] for _, _, entry in people], np.float64)
  return symmetry.findings(
    points[..., :2], points[..., 2], boxes, skeleton, split
  )


def check_names(skeleton: Skeleton) -> list[Finding]:
  """Checks that the flip pairs exchange what the names call left and right."""
  named = {frozenset(pair) for pair in name_pairs(skeleton.keypoints)}
  given = {frozenset(pair) for pair in skeleton.flip_pairs}
  if not named and not given and skeleton.num_keypoints > 1:
    return [Finding(NO_PAIRS, "", skeleton.name)]
  return [
    Finding(
      PAIR_NAMES,
      "",
      skeleton.name,
      " and ".join(skeleton.keypoints[i] for i in sorted(pair))
      + (" are not a pair" if pair in named else " are a pair"),
    )
    for pair in sorted(named ^ given, key=sorted)
    if named
  ]
