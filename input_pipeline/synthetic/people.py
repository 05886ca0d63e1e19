"""Synthetic photos of people with exact COCO keypoints, for the demo.

A scene is a textured background, one to three articulated people
(`body`, painted by `painter`) and sometimes something in
front of them. Left and right differ only as they do in reality: by where the
face, the feet and the body point.
"""

import cv2
import numpy as np

from input_pipeline.synthetic import body as body_lib
from input_pipeline.synthetic import painter, scenery
from input_pipeline.synthetic import pose as pose_lib

# Raise it when the pictures change: folders written before are then rebuilt.
GENERATOR_VERSION = 1

MIN_VISIBLE = 5  # keypoints
MIN_AREA = 400  # pixels
MIN_SHARE = 0.4  # of the silhouette within the image
_FACE_JOINTS = 5  # the first five keypoints of COCO
_SIZES = ((400, 320), (384, 288), (352, 264), (320, 240))
# How far behind the visible surface a joint center may lie, in statures.
# fmt: off
_JOINT_DEPTH = np.array(
  [0.05] * 5 + [0.09] * 2 + [0.06] * 4 + [0.12] * 2 + [0.09] * 2 + [0.06] * 2
)
# fmt: on


def draw_image(
  seed: int, split: int, number: int
) -> tuple[np.ndarray, list[dict]]:
  """Draws image `number` of a split; it depends on nothing else.

  Args:
    seed: non-negative, below 2**64.
    split: non-negative, below 2**32.
    number: of the image; non-negative, below 2**32.

  Returns:
    image: (H, W, 3) uint8 RGB, 240 to 400 pixels a side.
    people: one dict each, with
      keypoints: (17, 3) x, y in pixels (pixel centers are integers), and v:
        2 visible, 1 hidden by a body or a thing, 0 not labeled (outside the
        image, or a part of the face that is turned away).
      bbox: (4,) x, y, width, height of the silhouette within the image.
      area: number of its pixels that nothing covers.
      head_box: (4,) x1, y1, x2, y2 of the skull, not clipped to the image.

  Raises:
    ValueError: an argument is out of range.
  """
  if not (
    0 <= seed < 1 << 64 and 0 <= split < 1 << 32 and 0 <= number < 1 << 32
  ):
    raise ValueError(
      f"seed {seed}, split {split}, number {number}: expected integers from"
      " 0 to 2**64 (seed) or 2**32 (split, number)"
    )
  key = np.array([seed, (split << 32) + number], np.uint64)
  rng = np.random.Generator(np.random.Philox(key=key))
  # Scenes with a barely visible person are redrawn: a person in
  # the picture without an annotation would be a wrong label.
  while True:
    image, people = _draw_scene(rng)
    if all(_is_well_shown(person) for person in people):
      for person in people:
        del person["silhouette"]
      return image, people


def _is_well_shown(person: dict) -> bool:
  visibility = person["keypoints"][:, 2]
  return (
    (visibility == 2).sum() >= MIN_VISIBLE
    and person["area"] >= MIN_AREA
    and person["area"] >= MIN_SHARE * person["silhouette"]
  )


def _draw_scene(rng) -> tuple[np.ndarray, list[dict]]:
  width, height = _SIZES[rng.integers(len(_SIZES))]
  if rng.random() < 0.4:
    width, height = height, width
  light = np.array([rng.uniform(-0.5, 0.5), rng.uniform(-0.6, 0.1), 0.8])
  speckle = np.frombuffer(rng.bytes(width * height), np.uint8)
  speckle = speckle.reshape(height, width).astype(np.float32)
  canvas = painter.Canvas(
    image=scenery.background(rng, height, width),
    owner=np.zeros((height, width), np.uint8),
    grain=1 + (cv2.blur(speckle, (2, 2)) - 127.5) * np.float32(5e-4),
    light=light / np.linalg.norm(light),
  )
  people: list[dict] = []
  for body, view, shapes in _place(rng, height, width):
    number = len(people) + 1
    scenery.ground_shadow(canvas.image, shapes)
    top, depth = painter.paint_body(canvas, body, shapes, number)
    people.append(annotate(body, view, shapes, top, depth))
  if rng.random() < 0.15:
    scenery.occlude(rng, canvas, people)
  for number, person in enumerate(people, 1):
    finish(person, canvas.owner, number)
  image = canvas.image
  image *= np.float32(rng.uniform(0.8, 1.1))
  image += ((speckle - 127.5) * np.float32(rng.uniform(0, 0.05)))[..., None]
  if rng.random() < 0.2:
    image = cv2.GaussianBlur(image, (3, 3), 0.7)
  return np.clip(image, 0, 255, out=image).astype(np.uint8), people


def _place(rng, height: int, width: int) -> list:
  """Bodies with their views and shapes, the farthest first."""
  placed: list = []
  for _ in range(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15])):
    body = body_lib.sample_body(rng)
    view = painter.View(
      rotation=_camera(rng),
      scale=float(np.exp(rng.uniform(np.log(105), np.log(270)))),
      offset=np.zeros(2),
      perspective=rng.uniform(0.05, 0.25),
    )
    x1, y1, x2, y2 = painter.project(body, view).box
    if rng.random() < 0.93:  # the whole person fits
      shrink = min(1.0, (width - 8) / (x2 - x1), (height - 8) / (y2 - y1))
      spill = 0.0
    else:
      shrink, spill = 1.0, 0.4
    view.scale *= shrink
    x1, y1, x2, y2 = shrink * np.array([x1, y1, x2, y2])
    slack_x, slack_y = spill * (x2 - x1), spill * (y2 - y1)
    for _ in range(6):
      view.offset = np.array(
        [
          _between(rng, 4 - slack_x - x1, width - 5 + slack_x - x2),
          _between(rng, 4 - slack_y - y1, height - 5 + slack_y - y2),
        ]
      )
      box = np.array([x1, y1, x2, y2]) + np.tile(view.offset, 2)
      if all(_covered(box, other[3]) < 0.3 for other in placed):
        placed.append((body, view, painter.project(body, view), box))
        break
  placed.sort(key=lambda item: item[3][3])  # nearer feet stand lower
  return [item[:3] for item in placed]


def _between(rng, low, high) -> float:
  return rng.uniform(min(low, high), max(low, high))


def _covered(a: np.ndarray, b: np.ndarray) -> float:
  """Intersection of two boxes over the smaller one."""
  size = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
  areas = [np.prod(box[2:] - box[:2]) for box in (a, b)]
  return float(np.prod(np.maximum(size, 0)) / min(areas))


def _camera(rng) -> np.ndarray:
  """(3, 3) rotation from the body's frame to image axes (y down)."""
  aim = rng.choice(4, p=[0.52, 0.26, 0.14, 0.08])
  mirror = rng.choice([-1, 1])
  yaw = (
    rng.normal(0, 18),  # front
    180 + rng.normal(0, 18),  # back
    mirror * rng.uniform(30, 70),  # three quarters
    mirror * rng.normal(95, 12),  # side
  )[aim]
  turns = pose_lib.turn(2, rng.normal(0, 7)) @ pose_lib.turn(
    0, rng.normal(6, 6)
  )
  return np.diag([1.0, -1.0, 1.0]) @ turns @ pose_lib.turn(1, yaw)


def annotate(body, view, shapes, top, depth) -> dict:
  """What one body shows, before anything comes in front of it.

  Args:
    body: the person.
    view: of the camera.
    shapes: the projected solids.
    top: (H, W) of `painter.paint_body`.
    depth: (H, W), the same.

  Returns:
    keypoints (17, 3), bbox (4,) and head_box (4,) as in `draw_image`;
    silhouette, the number of its pixels.
  """
  points, zoom = view.points(body.keypoints)
  height, width = top.shape
  low, high = points[:, :2] >= 0, points[:, :2] <= (width - 1, height - 1)
  inside = (low & high).all(1)
  pixel = np.round(points[:, :2]).astype(int)
  x, y = np.where(inside[:, None], pixel, 0).T
  surface = top[y, x]
  shown = np.array(
    [
      surface[k] > 0 and k in body.solids[surface[k] - 1].owns
      for k in range(len(points))
    ]
  )
  shown &= depth[y, x] - points[:, 2] < _JOINT_DEPTH * zoom
  head = next(i for i, s in enumerate(body.solids) if s.is_head)
  labeled = inside.copy()
  labeled[:_FACE_JOINTS] &= _turned_to_us(shapes.axes[head, 0])
  keypoints = np.column_stack([points[:, :2], np.where(shown, 2, 1)])
  rows, columns = np.nonzero(top)
  outline = shapes.outlines[head]
  bbox = np.zeros(4)
  if len(rows):
    low = np.array([columns.min(), rows.min()])
    high = np.array([columns.max(), rows.max()])
    bbox = np.concatenate([low, high - low + 1]).astype(float)
  return {
    "keypoints": np.where(labeled[:, None], keypoints, 0.0),
    "bbox": bbox,
    "silhouette": len(rows),
    "head_box": np.concatenate([outline.min(0), outline.max(0)]).round(2),
  }


def _turned_to_us(axes: np.ndarray) -> np.ndarray:
  """(5,) bool: which face keypoints the skull itself does not hide."""
  places = np.array(list(body_lib.FACE.values()))
  places /= np.linalg.norm(places, axis=1, keepdims=True)
  normals = places @ np.linalg.inv(axes)
  toward = normals[:, 2] / np.linalg.norm(normals, axis=1)
  # Eyes lie in the surface, the nose stands out of it, the ears far out.
  return toward > np.array([-0.15, 0.05, 0.05, -0.4, -0.4])


def finish(person: dict, owner: np.ndarray, number: int) -> None:
  """Marks joints that other people or things cover, and rounds.

  Args:
    person: of `annotate`; gets its area.
    owner: (H, W) of the finished canvas.
    number: of the person on it.
  """
  keypoints = person["keypoints"]
  x, y = np.round(keypoints[:, :2]).astype(int).T
  covered = (keypoints[:, 2] == 2) & (owner[y, x] != number)
  keypoints[covered, 2] = 1
  person["keypoints"] = keypoints.round(2)
  person["area"] = int((owner == number).sum())
