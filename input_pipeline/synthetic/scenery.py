"""What is behind synthetic people, under them and in front of them."""

import cv2
import numpy as np

from input_pipeline.synthetic import painter

_OCCLUDER = 255  # owner of a pixel that shows a thing, not a person


def background(rng, height: int, width: int) -> np.ndarray:
  """(H, W, 3) float32: gradients, noise at several scales, shapes, bars."""
  small = (width // 4, height // 4)
  base = rng.uniform(40, 215) + rng.normal(0, 22, 3)
  coarse = np.empty((*small[::-1], 3), np.float32)
  coarse[:] = base
  for cells, strength in ((2, 45), (6, 28), (24, 16)):
    grid = (cells * 3 // 4 + 1, cells)
    strength *= rng.uniform(0.2, 1.0)
    # Mostly brightness: people stand out by their colors.
    tint = rng.standard_normal((*grid, 3), np.float32) * np.float32(0.45)
    tint += rng.standard_normal((*grid, 1), np.float32)
    coarse += cv2.resize(tint, small) * np.float32(strength)
  image = np.asarray(cv2.resize(coarse, (width, height)), np.float32)
  fine = rng.standard_normal((60, 80), np.float32)
  fine *= np.float32(rng.uniform(2, 12))
  image += cv2.resize(fine, (width, height))[..., None]
  if rng.random() < 0.6:  # a floor
    horizon = int(rng.uniform(0.45, 0.85) * height)
    image[horizon:] += (rng.uniform(-50, 50) + rng.normal(0, 15, 3)).astype(
      np.float32
    )
  if rng.random() < 0.25:  # wallpaper
    line = np.arange(width if rng.random() < 0.5 else height)
    wave = np.sin(line * rng.uniform(0.1, 0.8)) * rng.uniform(5, 22)
    wave = wave[None, :, None] if len(line) == width else wave[:, None, None]
    image += wave.astype(np.float32)
  for _ in range(rng.integers(1, 7)):
    _distractor(rng, image, height, width)
  return np.clip(image, 5, 250, out=image)


def _distractor(rng, image, height: int, width: int) -> None:
  """A box, a disc or a limb-like bar in the background."""
  color = tuple((rng.uniform(30, 225) + rng.normal(0, 30, 3)).clip(0, 255))
  x, y = int(rng.integers(width)), int(rng.integers(height))
  a, b = rng.integers(6, 80, 2).tolist()
  kind = rng.integers(4)
  if kind == 0:
    cv2.rectangle(image, (x, y), (x + a, y + 2 * b), color, -1)
  elif kind == 1:
    cv2.ellipse(image, (x, y), (a // 2, b // 2), 0, 0, 360, color, -1)
  elif kind == 2:
    end = (x + a - 40, y + b)
    cv2.line(image, (x, y), end, color, int(rng.integers(4, 16)))
  else:
    cv2.rectangle(image, (x, y), (x + a, y + 2 * b), color, 2)


def ground_shadow(image, shapes) -> None:
  """Darkens the ground under a person."""
  x1, _, x2, y2 = shapes.box
  shadow = np.array([(x1 + x2) / 2, y2 - 3])
  size = np.array([0.4 * (x2 - x1), 5.0])
  outline = shadow + size * painter.RING.T
  patch = painter.fill(outline.astype(np.float32), *image.shape[:2])
  if patch is not None:
    rows, columns, cover = patch
    image[rows, columns] *= 1 - np.float32(0.4) * cover[..., None]


def occlude(rng, canvas: painter.Canvas, people: list[dict]) -> None:
  """Puts a box, a bar or a plant in front of one of the people."""
  height, width = canvas.owner.shape
  x, y, w, h = people[rng.integers(len(people))]["bbox"]
  kind = rng.choice(["box", "bar", "plant"])
  if kind == "box":  # a table or a wall before the legs, or next to the body
    left = x + rng.uniform(-0.5, 0.6) * w
    up = y + rng.uniform(0.5, 0.85) * h
    sizes = rng.uniform((0.5, 0.2), (1.6, 0.6)) * (w, h)
    outlines = [np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * sizes + (left, up)]
  elif kind == "bar":
    center = np.array(
      [x + rng.uniform(0.1, 0.9) * w, y + rng.uniform(0.2, 0.9) * h]
    )
    angle = rng.choice([0, np.pi / 2]) + rng.normal(0, 0.2)
    way = np.array([np.cos(angle), np.sin(angle)])
    side = np.array([-way[1], way[0]]) * rng.uniform(0.02, 0.05) * h
    way = way * max(w, h) * rng.uniform(0.5, 1.2)
    outlines = [
      center + np.array([way + side, way - side, -way - side, -way + side])
    ]
  else:
    root = np.array([x + rng.uniform(-0.1, 1.1) * w, y + h])
    outlines = []
    for angle in rng.normal(-np.pi / 2, 0.5, rng.integers(5, 10)):
      way = np.array([np.cos(angle), np.sin(angle)])
      side = np.array([-way[1], way[0]])
      long, broad = h * rng.uniform(0.12, 0.3), h * rng.uniform(0.015, 0.035)
      ring = painter.RING.T * (long, broad) + (long, 0)
      outlines.append(root + ring @ np.stack([way, side]))
  color = rng.uniform(40, 200) + rng.normal(0, 25, 3)
  if kind == "plant":
    color = np.array([40, 110, 40]) + rng.normal(0, 22, 3)
  for outline in outlines:
    patch = painter.fill(outline.astype(np.float32), height, width)
    if patch is None:
      continue
    rows, columns, cover = patch
    shade = np.float32(rng.uniform(0.85, 1.15)) * canvas.grain[rows, columns]
    view = canvas.image[rows, columns]
    view += cover[..., None] * (
      shade[..., None] * color.astype(np.float32) - view
    )
    np.copyto(canvas.owner[rows, columns], _OCCLUDER, where=cover > 0.5)
