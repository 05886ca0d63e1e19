"""Paints solids into an image: outlines, depth, shading, cloth and faces.

Image axes are x right, y down and z towards the viewer, all in pixels.
"""

import dataclasses

import cv2
import numpy as np

from input_pipeline.synthetic import body as body_lib

_ANGLES = np.linspace(0, 2 * np.pi, 20, endpoint=False)
RING = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)])
_SHIFT = 4  # cv2 takes polygon corners in 1/16 pixel


@dataclasses.dataclass
class Canvas:
  """What is drawn so far.

  Attributes:
    image: (H, W, 3) float32 RGB, 0 to 255.
    owner: (H, W) uint8: which person a pixel shows; 0 where it shows none.
    grain: (H, W) float32 near 1: the texture of cloth and skin.
    light: (3,) unit vector towards the light.
  """

  image: np.ndarray
  owner: np.ndarray
  grain: np.ndarray
  light: np.ndarray


@dataclasses.dataclass
class View:
  """A camera on one body.

  Attributes:
    rotation: (3, 3) from the body's frame to image axes.
    scale: pixels a stature; offset: (2,) pixel of the body's origin.
    perspective: how much larger one stature nearer looks, as a fraction.
  """

  rotation: np.ndarray
  scale: float
  offset: np.ndarray
  perspective: float

  def points(self, xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maps (..., 3) to image axes, and the (...) magnification there."""
    out = xyz @ self.rotation.T
    zoom = self.scale / (1 - self.perspective * np.clip(out[..., 2], -2, 0.9))
    out = out * zoom[..., None]
    out[..., :2] += self.offset
    return out, zoom


@dataclasses.dataclass
class Shapes:
  """All n solids of a body as the camera sees them.

  Attributes:
    centers: (n, 2, 3); axes: (n, 2, 3, 3), image axes, pixels.
    outlines: n polygons (m, 2), pixels.
  """

  centers: np.ndarray
  axes: np.ndarray
  outlines: list[np.ndarray]

  @property
  def box(self) -> np.ndarray:
    """(4,) x1, y1, x2, y2 around every outline."""
    points = np.concatenate(self.outlines)
    return np.concatenate([points.min(0), points.max(0)])


def project(body: body_lib.Body, view: View) -> Shapes:
  """Projects every solid; an ellipsoid's outline is its support function."""
  centers, zoom = view.points(np.stack([s.centers for s in body.solids]))
  axes = view.rotation @ np.stack([s.axes for s in body.solids])
  axes = axes * zoom[..., None, None]
  flat = axes[:, :, :2]
  reach = np.swapaxes(flat, -1, -2) @ RING
  reach /= np.linalg.norm(reach, axis=-2, keepdims=True) + 1e-9
  rim = np.swapaxes(flat @ reach, -1, -2) + centers[:, :, None, :2]
  rim = rim.reshape(len(rim), -1, 2).astype(np.float32)
  return Shapes(centers, axes, [cv2.convexHull(r)[:, 0] for r in rim])


def fill(
  outline: np.ndarray, height: int, width: int
) -> tuple[slice, slice, np.ndarray] | None:
  """Rasterises a convex polygon (m, 2) in pixels.

  Returns:
    rows and columns of the patch that holds it, and its (h, w) float32
    coverage, 0 to 1; None where it misses the image.
  """
  x1, y1 = np.maximum(np.floor(outline.min(0)).astype(int) - 1, 0)
  x2, y2 = np.ceil(outline.max(0)).astype(int) + 2
  x2, y2 = min(x2, width), min(y2, height)
  if x1 >= x2 or y1 >= y2:
    return None
  mask = np.zeros((y2 - y1, x2 - x1), np.uint8)
  corners = np.round((outline - (x1, y1)) * (1 << _SHIFT)).astype(np.int32)
  cv2.fillConvexPoly(mask, corners, 255, cv2.LINE_AA, _SHIFT)
  return slice(y1, y2), slice(x1, x2), mask * np.float32(1 / 255)


def paint_body(
  canvas: Canvas, body: body_lib.Body, shapes: Shapes, number: int
) -> tuple[np.ndarray, np.ndarray]:
  """Paints a person over the canvas and marks its pixels with `number`.

  Returns:
    top: (H, W) uint8, 1 + the index of the solid that a pixel of this person
      shows; 0 outside its silhouette. Later persons are not in it.
    depth: (H, W) float32 z of that surface.
  """
  height, width = canvas.owner.shape
  top = np.zeros((height, width), np.uint8)
  depth = np.full((height, width), -1e9, np.float32)
  for i in np.argsort(shapes.centers[:, :, 2].mean(1)):
    patch = fill(shapes.outlines[i], height, width)
    if patch is None:
      continue
    rows, columns, cover = patch
    x = np.arange(columns.start, columns.stop, dtype=np.float32)[None]
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
    solid = body.solids[i]
    centers, axes = shapes.centers[i], shapes.axes[i]
    z, shade, across, along = _surface(centers, axes, x, y, canvas.light)
    if solid.is_head:
      color = _face(body, centers[0], axes[0], x, y)
    else:
      color = _cloth(solid, across, along)
    nearer = z > depth[rows, columns]
    alpha = (cover * nearer)[..., None]
    lit = (shade * canvas.grain[rows, columns])[..., None] * color
    view = canvas.image[rows, columns]
    view += alpha * (lit - view)
    solidly = nearer & (cover > 0.5)
    np.copyto(depth[rows, columns], z, where=solidly)
    np.copyto(top[rows, columns], np.uint8(i + 1), where=solidly)
  np.copyto(canvas.owner, np.uint8(number), where=top > 0)
  return top, depth


def _surface(centers, axes, x, y, light):
  """Depth, brightness and cloth coordinates of a solid at pixels x, y.

  Returns:
    z (h, w) pixels, shade (h, w) factor, across (h, w) from -1 to 1 over the
    width, along (h, w) from 0 to 1 over the length.
  """
  line = centers[1, :2] - centers[0, :2]
  length = float(np.hypot(*line))
  way = line / length if length > 1e-3 else np.array([0.0, 1.0])
  normal = np.array([-way[1], way[0]])
  # Half widths of both ends across and along the line, and towards us.
  frame = np.array([[*normal, 0], [*way, 0], [0, 0, 1]])
  half = np.linalg.norm(frame @ axes, axis=-1).astype(np.float32)
  dx, dy = x - np.float32(centers[0, 0]), y - np.float32(centers[0, 1])
  way, normal = way.astype(np.float32), normal.astype(np.float32)
  run = dx * way[0] + dy * way[1]
  along = np.clip(run / np.float32(max(length, 1e-3)), 0, 1)
  across = dx * normal[0] + dy * normal[1]
  across /= half[0, 0] + (half[1, 0] - half[0, 0]) * along
  over = run - along * np.float32(length)
  over /= half[0, 1] + (half[1, 1] - half[0, 1]) * along
  facing = np.sqrt(np.clip(1 - across * across - over * over, 0, 1))
  start, end = centers[:, 2].astype(np.float32)
  z = start + (end - start) * along
  z += (half[0, 2] + (half[1, 2] - half[0, 2]) * along) * facing
  side = np.float32(light[:2] @ normal)
  front = np.float32(light[:2] @ way)
  shade = np.float32(light[2]) * facing + side * across + front * over
  shade = 0.5 + 0.55 * np.maximum(shade, -0.3)
  return z, shade, across, along


def _cloth(solid: body_lib.Solid, across, along) -> np.ndarray:
  """(h, w, 3) or (3,) RGB of a solid that is not the head."""
  fabric = solid.fabric
  bare = (solid.bare or fabric).color.astype(np.float32)
  if solid.cover <= 0:
    return bare
  color = fabric.color.astype(np.float32)
  if fabric.pattern != "plain":
    color = color + _pattern(solid, across, along)[..., None] * (
      (fabric.second - fabric.color).astype(np.float32)
    )
  if solid.cover < 1:
    edge = np.clip((along - solid.cover) * 30 + 0.5, 0, 1)[..., None]
    color = color + edge * (bare - color)
  return color


def _pattern(solid: body_lib.Solid, across, along) -> np.ndarray:
  """(h, w) share of the second color, 0 to 1."""
  length = np.linalg.norm(solid.centers[1] - solid.centers[0])
  width = np.linalg.norm(solid.axes[0][:, 0])
  turns = np.float32(2 * np.pi / solid.fabric.period)
  hoops = np.sin((along * np.float32(length) + solid.start) * turns)
  kind = solid.fabric.pattern
  if kind == "hoops":
    wave = hoops
  else:
    wave = np.sin(across * np.float32(1.3 * width) * turns)
    if kind == "checks":
      wave = wave * hoops * 2
    elif kind == "dots":
      wave = wave + hoops - 1
  return np.clip(0.5 + 2 * wave, 0, 1)


def _face(body: body_lib.Body, center, axes, x, y) -> np.ndarray:
  """(h, w, 3) RGB of the head: skin, hair, eyes, brows and mouth."""
  inverse = np.linalg.inv(axes).astype(np.float32)
  dx, dy = x - np.float32(center[0]), y - np.float32(center[1])
  flat = [row[0] * dx + row[1] * dy for row in inverse]
  deep = inverse[:, 2]
  # The nearer intersection of the ray with the unit sphere.
  a = float(deep @ deep)
  b = sum(f * d for f, d in zip(flat, deep, strict=True))
  c = sum(f * f for f in flat) - 1
  z = (np.sqrt(np.maximum(b * b - a * c, 0)) - b) / np.float32(a)
  left, up, ahead = (f + d * z for f, d in zip(flat, deep, strict=True))

  color = np.empty((*z.shape, 3), np.float32)
  color[:] = body.head.fabric.color
  hair = body.hair.astype(np.float32)

  def blend(share, tone):
    nonlocal color
    color += np.clip(share, 0, 1)[..., None] * (np.float32(tone) - color)

  if deep[2] > -0.3 * np.linalg.norm(deep):
    seen = (ahead > 0.2).astype(np.float32)
    off = np.abs(left) - 0.38
    if body.beard:
      blend((-0.28 - up) * 6 * seen, hair)
    eye = (off / 0.2) ** 2 + ((up - 0.12) / 0.12) ** 2
    blend((1.4 - eye) * 2 * seen, (250, 250, 250))
    pupil = (off / 0.11) ** 2 + ((up - 0.12) / 0.12) ** 2
    blend((1.3 - pupil) * 2 * seen, (30, 22, 20))
    brow = np.maximum(np.abs(off) / 0.24, np.abs(up - 0.34) / 0.06)
    blend((1.2 - brow) * 3 * seen, hair * 0.7)
    mouth = (left / 0.36) ** 2 + ((up + 0.5) / 0.1) ** 2
    blend((1.2 - mouth) * 2 * seen, (150, 50, 55))
  blend((0.8 * up - 0.6 * ahead - body.hairline) * 8 + 0.5, hair)
  return color
