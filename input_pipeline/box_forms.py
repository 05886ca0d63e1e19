"""Whether boxes are x, y, w, h in pixels, judged by what they look like.

Each form has evidence that a sound file does not show: COCO's people are the
measure (tests/test_box_forms.py).
"""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

MANY = 3  # boxes, before their form is judged
_SLACK = 2.0  # pixels that a rounded box may reach too far
_MARGIN = 0.1  # of a box's side, in which keypoints still count as inside
_SHARE = 1.5  # the largest coordinate of boxes that are shares of the image


def sizes_of(
  image_ids: Iterable[Hashable], images: Iterable[Mapping[str, Any]]
) -> Float[np.ndarray, "n 2"]:
  """Width and height of images, pixels; NaN where nobody knows.

  Args:
    image_ids: (n,) of the images; of some that are not listed, too.
    images: plain ones (`coco_plain`).
  """
  known = {i["id"]: (i["width"], i["height"]) for i in images if "width" in i}
  rows = [known.get(one, (np.nan, np.nan)) for one in image_ids]
  return np.array(rows, np.float64).reshape(-1, 2)


def odd(
  boxes: Float[np.ndarray, "n 4"],
  sizes: Float[np.ndarray, "n 2"],
  points: Float[np.ndarray, "n k 3"] | None = None,
) -> str:
  """What boxes are if not x, y, w, h in pixels; "" if they are.

  Args:
    boxes: (n, 4); those without area play no part.
    sizes: (n, 2) width and height of their images, pixels; NaN: not known.
    points: (n, k, 3) x, y and visibility of who is in them; None: not known.
  """
  sound = (boxes[:, 2:] > 0).all(1)
  if sound.sum() < MANY:
    return ""
  if boxes[sound].max() <= _SHARE:
    return (
      f"all boxes are below {_SHARE} pixels: shares of the image? give pixels"
    )
  if found := _leaving(boxes[sound], sizes[sound]):
    return found
  if points is None:
    return ""
  sound &= (points[..., 2] > 0).any(1)
  return _by_keypoints(boxes[sound], points[sound])


def _leaving(
  boxes: Float[np.ndarray, "n 4"], sizes: Float[np.ndarray, "n 2"]
) -> str:
  """Corners leave the image when they are read as a place and a size."""
  known = ~np.isnan(sizes).any(1)
  if known.sum() < MANY:
    return ""
  boxes, end = boxes[known], sizes[known] + _SLACK
  leave = (boxes[:, :2] + boxes[:, 2:] > end).any(1).mean()
  fit = ((boxes[:, 2:] > boxes[:, :2]) & (boxes[:, 2:] <= end)).all(1).mean()
  if leave > 0.5 and fit >= 0.95:
    return (
      f"{leave:.0%} of the boxes leave their image as x, y, w, h, and"
      f" {fit:.0%} fit as two corners: give x, y, w, h"
    )
  return ""


def _by_keypoints(
  boxes: Float[np.ndarray, "n 4"], points: Float[np.ndarray, "n k 3"]
) -> str:
  """Keypoints lie in their person's box, wherever people are."""
  if len(boxes) < MANY:
    return ""
  labeled = points[..., 2] > 0
  if points[..., :2][labeled].max() <= _SHARE:
    return (
      "all keypoints are below 1.5 pixels: shares of the image? give pixels"
    )
  places = points[..., :2]
  corner, size = boxes[:, :2], boxes[:, 2:]
  # Of boxes far from the image's corner: a person's last keypoint is beyond the
  # box's width and height, but not beyond a second corner.
  most = np.where(labeled[..., None], places, -np.inf).max(1)
  telling = corner > size / 4
  fit = (most <= size + _MARGIN * np.abs(size - corner)) & telling
  if (telling.sum(0) >= MANY).all():
    share = (fit.sum(0) / telling.sum(0)).min()
    if share > 0.6:
      return (
        f"{share:.0%} of the people end where their boxes' last two numbers"
        " say: two corners? give x, y, w, h"
      )
  inside = _inside(places, labeled, corner, size)
  if inside < 0.6 and _inside(places, labeled, corner - size / 2, size) > 0.9:
    return (
      f"{1 - inside:.0%} of the labeled keypoints lie outside their boxes, but"
      " fit if x and y are the boxes' centers: give x, y, w, h from the corner"
    )
  if inside < 0.2:
    return (
      f"{1 - inside:.0%} of the labeled keypoints lie outside their boxes: are"
      " both of the same people, x before y, and in pixels?"
    )
  return ""


def _inside(
  places: Float[np.ndarray, "n k 2"],
  labeled: Bool[np.ndarray, "n k"],
  corner: Float[np.ndarray, "n 2"],
  size: Float[np.ndarray, "n 2"],
) -> float:
  """The share of labeled keypoints in their boxes."""
  least = (corner - _MARGIN * size)[:, None]
  most = (corner + (1 + _MARGIN) * size)[:, None]
  inside = np.all((places >= least) & (places <= most), axis=-1)
  return float(np.mean(inside[labeled]))
