"""Frames of synthetic people who walk over a picture, each with an id.

Some walk in circles and cross each other's paths; one of them leaves the
picture and one comes into it. The camera stands still. Places are in statures:
x to the right, z towards the camera, from the middle of the floor.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from input_pipeline.synthetic import body as body_lib
from input_pipeline.synthetic import painter, people, scenery
from input_pipeline.synthetic import pose as pose_lib
from tokenpose_jax.errors import InputError

SIZE = (360, 640)  # height, width
_DISTANCE = 6.0  # of the camera from the middle of the floor, statures
_FOCAL = 840.0  # pixels
_EYE = 0.9  # height of the camera, statures
_HORIZON = 0.47 * SIZE[0]
_CYCLE = 0.85  # statures of two steps
_SPEED = 0.75  # statures a second, about
_COMES, _LEAVES = 0.35, 0.55  # when, as shares of the video
_SEEDS = {"scene": 0, "path": 1, "body": 2, "pose": 3, "noise": 4}


class Frame(NamedTuple):
  """A frame with its people.

  Attributes:
    image: (H, W, 3) uint8 RGB.
    people: one dict for each person in the picture, by id, with
      id: from 0, the same in all frames.
      keypoints: (17, 3) x, y in pixels, and v, as in `people.draw_image`.
      joints: (17, 2) pixels of all joints, the unlabeled ones, too.
      bbox: (4,) x, y, width, height of the silhouette within the image.
      area: number of its pixels that nothing covers, of `silhouette`.
      head_box: (4,) x1, y1, x2, y2.
  """

  image: UInt8[np.ndarray, "h w 3"]
  people: list[dict]


@dataclasses.dataclass(frozen=True)
class _Path:
  """An ellipse on the floor; outside of first to last, its tangent.

  Attributes:
    center, radius: (2,) x, z in statures.
    turns: radians a second; phase: radians at second 0.
    first, last: seconds.
  """

  center: np.ndarray
  radius: np.ndarray
  turns: float
  phase: float
  first: float
  last: float

  def at(self, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """(2,) place in statures and (2,) velocity in statures a second."""
    on = float(np.clip(seconds, self.first, self.last))
    angle = self.turns * on + self.phase
    place = np.array([np.cos(angle), np.sin(angle)])
    way = np.array([-np.sin(angle), np.cos(angle)])
    velocity = self.turns * self.radius * way
    place = self.center + self.radius * place + velocity * (seconds - on)
    return place, velocity


def draw_frames(
  *, seed: int = 0, count: int = 750, rate: float = 25.0, walkers: int = 5
) -> Iterator[Frame]:
  """Draws a video.

  Args:
    seed: the same seed gives the same people and paths; non-negative.
    count: frames.
    rate: frames a second.
    walkers: how many people, at least 4. The last one comes into the picture,
      the one before leaves it.

  Raises:
    InputError: an argument is out of range.
  """
  if seed < 0 or count < 1 or not 0 < rate < np.inf or walkers < 4:
    raise InputError(
      f"seed {seed}, count {count}, rate {rate}, walkers {walkers}: expected"
      " 0 or more, at least 1, more than 0, at least 4"
    )
  return _frames(seed, count, rate, walkers)


def _rng(seed: int, use: str, number: int) -> np.random.Generator:
  return np.random.default_rng((seed, _SEEDS[use], number))


def _frames(seed, count, rate, walkers) -> Iterator[Frame]:
  rng = _rng(seed, "scene", 0)
  scene = scenery.background(rng, *SIZE)
  light = np.array([rng.uniform(-0.5, 0.5), rng.uniform(-0.6, 0.1), 0.8])
  light /= np.linalg.norm(light)
  paths = [_path(seed, n, walkers, count / rate) for n in range(walkers)]
  steps = _rng(seed, "scene", 1).random(walkers)  # where in the cycle
  for number in range(count):
    noise = _rng(seed, "noise", number).integers(0, 256, SIZE, np.uint8)
    speckle = noise.astype(np.float32) - np.float32(127.5)
    canvas = painter.Canvas(
      image=scene.copy(),
      owner=np.zeros(SIZE, np.uint8),
      grain=1 + cv2.blur(speckle, (2, 2)) * np.float32(2e-4),
      light=light,
    )
    places = [path.at(number / rate) for path in paths]
    found = []
    for n in np.argsort([place[1] for place, _ in places]).tolist():
      place, velocity = places[n]
      person = _walker(canvas, seed, n, place, velocity, float(steps[n]))
      if person["silhouette"] >= people.MIN_AREA:
        found.append({"id": n, **person})
      steps[n] += np.hypot(*velocity) / rate / _CYCLE
    for person in found:
      people.finish(person, canvas.owner, person["id"] + 1)
    image = canvas.image + np.float32(0.015) * speckle[..., None]
    image = np.clip(image, 0, 255, out=image).astype(np.uint8)
    yield Frame(image, sorted(found, key=lambda person: person["id"]))


def _path(seed: int, number: int, walkers: int, seconds: float) -> _Path:
  """Where person `number` walks: every second one the other way around."""
  rng = _rng(seed, "path", number)
  radius = rng.uniform((1.3, 0.6), (1.9, 1.3))
  center = np.array([rng.uniform(-0.2, 0.2), rng.uniform(-0.1, 0.1)])
  turns = (1 - 2 * (number % 2)) * _SPEED / np.sqrt((radius**2).mean())
  phase = 2 * np.pi * (number + rng.uniform(-0.3, 0.3)) / walkers
  first, last = 0.0, np.inf
  # At the far side of the ellipse people walk across the picture.
  if number == walkers - 1:
    first = _COMES * seconds
    phase = -np.pi / 2 - turns * first
  elif number == walkers - 2:
    last = _LEAVES * seconds
    phase = -np.pi / 2 - turns * last
  return _Path(center, radius, float(turns), float(phase), first, last)


def _walker(canvas, seed, number, place, velocity, step) -> dict:
  """Paints a person and says what it shows."""
  # The same numbers in every frame: clothes and build stay.
  pose = gait(_rng(seed, "pose", number), step)
  body = body_lib.sample_body(_rng(seed, "body", number), pose)
  heading = float(np.rad2deg(np.arctan2(*velocity)))
  tilt = np.diag([1.0, -1.0, 1.0]) @ pose_lib.turn(0, 4)
  distance = _DISTANCE - place[1]
  scale = _FOCAL / distance
  view = painter.View(
    rotation=tilt @ pose_lib.turn(1, heading),
    scale=scale,
    offset=np.zeros(2),
    perspective=1 / distance,
  )
  floor = _HORIZON + _EYE * scale
  # The lower foot stands on the floor.
  lowest = painter.project(body, view).box[3]
  view.offset = np.array([SIZE[1] / 2 + scale * place[0], floor - lowest])
  shapes = painter.project(body, view)
  scenery.ground_shadow(canvas.image, shapes)
  top, depth = painter.paint_body(canvas, body, shapes, number + 1)
  person = people.annotate(body, view, shapes, top, depth)
  joints: Float[np.ndarray, "17 2"] = view.points(body.keypoints)[0][:, :2]
  return {**person, "joints": joints.round(2)}


def gait(rng: np.random.Generator, step: float) -> pose_lib.Pose:
  """The pose of a person who walks.

  Args:
    rng: of the person's own way to walk; the same state in every frame.
    step: cycles of two steps since the start.
  """
  swing, elbow = rng.uniform(12, 28), rng.uniform(12, 40)
  stride, lean = rng.uniform(18, 25), rng.normal(3, 2)
  nod, side = rng.normal(0, 5), rng.normal(0, 8)
  arms, legs = np.empty((2, 4)), np.empty((2, 4))
  for n in range(2):
    angle = 2 * np.pi * (step + n / 2)
    # The knee bends as the leg comes forward.
    bend = 6 + 45 * max(0.0, -np.sin(angle)) ** 2
    legs[n] = 4 + stride * np.cos(angle), 3, 6, bend
    arms[n] = -swing * np.cos(angle), 9, 8, elbow
  twist = 4 * np.cos(2 * np.pi * step)
  return pose_lib.Pose(arms, legs, lean, 0.0, twist, np.array([nod, side, 0.0]))
