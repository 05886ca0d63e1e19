"""Checks of image files, and the contact sheet of what was found."""

import hashlib
import io
import warnings
from collections.abc import Iterable, Mapping, Set
from typing import Any

import cv2
import numpy as np
import PIL.Image
import tqdm

from input_pipeline import image_files
from input_pipeline.decode import decode_whole, examine
from input_pipeline.doctor.findings import ERROR, WARNING, Finding, Kind
from input_pipeline.missing_files import shown
from tokenpose_jax.errors import InputError
from tokenpose_jax.skeletons import Skeleton
from tokenpose_jax.terminal import printable

MISSING = Kind(
  ERROR, "image files are missing", "training would stop at start-up"
)
OUTSIDE = Kind(
  ERROR,
  "image files outside of the folder",
  "they are not read, and training would stop at start-up; if you trust the"
  " annotations: --allow-outside, --config.data.allow_outside=True",
)
NOT_READ = Kind(
  ERROR, "image files that cannot be read", "training would stop at start-up"
)
EMPTY = Kind(
  WARNING, "image files of zero bytes", "their people are skipped (mask 0)"
)
UNREADABLE = Kind(
  WARNING, "unreadable images", "their people are skipped (mask 0)"
)
NONE_LEFT = Kind(
  ERROR, "no image can be read", "training would stop at start-up"
)
SIZE = Kind(
  ERROR,
  "image size differs from the annotations'",
  "resize the image, or change its annotations to match",
)
ROTATED = Kind(
  WARNING,
  "images that EXIF rotates",
  "pixels are taken as stored, as COCO's are; were yours annotated so?",
)
CMYK = Kind(WARNING, "CMYK images", "they are converted; store RGB")
GRAY = Kind(WARNING, "gray images", "their channel is repeated")
SHARED = Kind(
  WARNING,
  "the same image in several splits",
  "evaluation results would be meaningless; remove it from one split",
)
_ORIENTATION = 0x0112  # EXIF's tag


def check(
  folder: str,
  images: list[dict[str, Any]],
  split: str,
  forbidden: Set[str] = frozenset(),
) -> tuple[list[Finding], dict[str, str]]:
  """Faults of the images of a split; and each file's name by its checksum.

  Args:
    folder: of the images.
    images: COCO's entries; those without a size get that of their file.
    split: its name.
    forbidden: names of files that are not read (`outside`).
  """
  findings: list[Finding] = [
    Finding(OUTSIDE, split, shown(name)) for name in sorted(forbidden)
  ]
  names: dict[str, str] = {}
  missing: list[str] = []
  for image in tqdm.tqdm(images, printable(split), unit="image", disable=None):
    name = image["file_name"]
    if name in forbidden:
      continue
    if not image_files.is_file(folder, name):
      missing.append(name)
      continue
    try:
      encoded = image_files.read(folder, name)
    except InputError as error:
      findings.append(Finding(NOT_READ, split, shown(name), str(error)))
      continue
    names[hashlib.sha256(encoded).hexdigest()] = name
    findings += [
      Finding(kind, split, shown(name), detail, name)
      for kind, detail in _check_image(encoded, image)
    ]
  for number, name in enumerate(missing):
    hint = "" if number else image_files.hint(folder, missing)
    findings.append(Finding(MISSING, split, shown(name), hint, name))
  bad = sum(f.kind in (EMPTY, UNREADABLE, MISSING, OUTSIDE) for f in findings)
  if bad and bad == len(images):
    findings.append(Finding(NONE_LEFT, split, f"{len(images)} images"))
  return findings, names


def _check_image(
  encoded: bytes, image: dict[str, Any]
) -> Iterable[tuple[Kind, str]]:
  """Faults with a detail each; an image without a size gets its file's."""
  if not encoded:
    return [(EMPTY, "")]
  if "width" not in image:
    height, width, why = examine(encoded)
    if not why:
      image |= {"width": width, "height": height}
  # What training reads with decides what is readable.
  pixels = decode_whole(encoded)
  if isinstance(pixels, str):
    return [(UNREADABLE, pixels)]
  found: list[tuple[Kind, str]] = []
  height, width, _ = pixels.shape
  if "width" in image and (image["width"], image["height"]) != (width, height):
    wanted = f"{image['width']}x{image['height']}"
    found.append((SIZE, f"{width}x{height}, annotated {wanted}"))
  mode, turn = _mode_and_turn(encoded)
  if turn not in (0, 1):
    found.append((ROTATED, f"orientation {turn}"))
  if mode == "CMYK":
    found.append((CMYK, ""))
  if mode in ("1", "L", "LA", "I;16"):
    found.append((GRAY, ""))
  return found


def _mode_and_turn(encoded: bytes) -> tuple[str, Any]:
  """Pillow's mode, and EXIF's orientation; "" and 1 where it cannot say."""
  try:
    with warnings.catch_warnings(action="ignore"):  # of large files, odd EXIF
      header = PIL.Image.open(io.BytesIO(encoded))
      return header.mode, header.getexif().get(_ORIENTATION, 1)
  except Exception:  # Pillow's readers raise anything on odd bytes.
    return "", 1


def check_shared(by_split: dict[str, dict[str, str]]) -> list[Finding]:
  """Files with the same bytes in two splits."""
  found = []
  splits = list(by_split)
  for n, one in enumerate(splits):
    for other in splits[n + 1 :]:
      for digest in sorted(by_split[one].keys() & by_split[other].keys()):
        name = by_split[one][digest]
        found.append(
          Finding(
            SHARED, one, name, f"= {other}: {by_split[other][digest]}", name
          )
        )
  return found


# The contact sheet.

TILE, TEXT = 240, 34  # pixels: a picture, and the two lines below it


def contact_sheet(
  findings: list[Finding],
  folder_of: dict[str, str],
  skeleton: Skeleton,
  tiles: int = 24,
) -> bytes | None:
  """A PNG of faults with pictures: each kind in turn, errors first.

  Args:
    findings: of all splits.
    folder_of: the image folder of each split.
    skeleton: for the limbs.
    tiles: how many pictures, at most.
  """
  by_kind: dict[Kind, list[Finding]] = {}
  for finding in sorted(findings, key=lambda f: f.kind.level):
    if finding.image:
      by_kind.setdefault(finding.kind, []).append(finding)
  queue = [
    found[n]
    for n in range(max(map(len, by_kind.values()), default=0))
    for found in by_kind.values()
    if n < len(found)
  ][:tiles]
  if not queue:
    return None
  columns = min(6, len(queue))
  drawn = [_tile(finding, folder_of, skeleton) for finding in queue]
  drawn += [np.full_like(drawn[0], 30)] * (-len(drawn) % columns)
  rows = [
    np.concatenate(drawn[n : n + columns], 1)
    for n in range(0, len(drawn), columns)
  ]
  return cv2.imencode(".png", np.concatenate(rows)[..., ::-1])[1].tobytes()


def _tile(
  finding: Finding, folder_of: dict[str, str], skeleton: Skeleton
) -> np.ndarray:
  tile = np.full((TILE + TEXT, TILE, 3), 30, np.uint8)
  assert finding.image is not None
  pixels = _pixels(folder_of[finding.split], finding.image)
  if pixels is None:
    cv2.line(tile, (0, 0), (TILE, TILE), (90, 90, 90), 1)
    cv2.line(tile, (TILE, 0), (0, TILE), (90, 90, 90), 1)
  else:
    corner, pixels = _around(pixels, finding.annotation)
    scale = TILE / max(pixels.shape[:2])
    size = [max(1, round(v * scale)) for v in pixels.shape[1::-1]]
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    if finding.annotation:
      _draw(small, finding.annotation, corner, scale, skeleton)
    tile[: small.shape[0], : small.shape[1]] = small
  color = (255, 110, 90) if finding.kind.level == ERROR else (255, 210, 90)
  parts = (finding.place, finding.detail)
  detail = ": ".join(part for part in parts if part)
  for line, (text, rgb) in enumerate(
    ((finding.kind.title, color), (detail, (220, 220, 220)))
  ):
    place = (3, TILE + 13 + 15 * line)
    cv2.putText(
      tile,
      text[:44],
      place,
      cv2.FONT_HERSHEY_SIMPLEX,
      0.33,
      rgb,
      1,
      cv2.LINE_AA,
    )
  return tile


def _pixels(folder: str, name: str) -> np.ndarray | None:
  """A whole image, RGB; None where it cannot be read."""
  if not image_files.is_file(folder, name):
    return None
  try:
    pixels = decode_whole(image_files.read(folder, name))
  except InputError:
    return None
  return None if isinstance(pixels, str) else pixels


def _around(
  pixels: np.ndarray, entry: Mapping[str, Any] | None
) -> tuple[np.ndarray, np.ndarray]:
  """The region around a person, and its corner (x, y) in the image."""
  box = _numbers((entry or {}).get("bbox"))
  if len(box) != 4:
    return np.zeros(2), pixels
  x, y, w, h = box
  reach = max(w, h, 40)
  low = np.array([x + w / 2, y + h / 2]) - reach
  limit = np.array(pixels.shape[1::-1])
  if (low >= limit).any() or reach > 9999:
    return np.zeros(2), pixels
  high = np.clip(low + 2 * reach, 1, limit).astype(int)
  low = np.clip(low, 0, limit - 1).astype(int)
  if (high - low < 8).any():
    return np.zeros(2), pixels
  return low, pixels[low[1] : high[1], low[0] : high[0]]


def _draw(
  image: np.ndarray,
  entry: Mapping[str, Any],
  corner: np.ndarray,
  scale: float,
  skeleton: Skeleton,
) -> None:
  """Box and keypoints; those of the left green, of the right orange."""
  box = _numbers(entry.get("bbox")) * scale
  if len(box) == 4:
    box[:2] -= corner * scale
    x, y, w, h = _drawable(box)
    cv2.rectangle(image, (x, y), (x + w, y + h), (255, 255, 255), 1)
  points = _numbers(entry.get("keypoints"))
  if len(points) != 3 * skeleton.num_keypoints:
    return
  points = points.reshape(-1, 3)
  place = _drawable((points[:, :2] - corner) * scale)
  for a, b in skeleton.limbs:
    if points[a, 2] and points[b, 2]:
      cv2.line(image, place[a], place[b], (120, 180, 255), 1, cv2.LINE_AA)
  for point, (_, _, v), color in zip(
    place, points, skeleton.colors, strict=True
  ):
    if v:
      cv2.circle(image, point, 3, color, -1, cv2.LINE_AA)


def _numbers(values: Any) -> np.ndarray:
  """Finite numbers, no larger than can be drawn; none where they are not."""
  try:
    numbers = np.array(values, np.float64).ravel()
  except (OverflowError, TypeError, ValueError):
    return np.zeros(0)
  finite = np.isfinite(numbers).all()
  return np.clip(numbers, -1e6, 1e6) if finite else np.zeros(0)


def _drawable(places: np.ndarray) -> Any:
  """As lists of integers that OpenCV takes."""
  return np.clip(places, -9999, 9999).round().astype(int).tolist()
