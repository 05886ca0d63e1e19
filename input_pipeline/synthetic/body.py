"""One synthetic person in 3D: proportions, pose, clothes, solids, keypoints.

Lengths are in statures (a standing person is about 1 tall). The body's frame
is x to the person's left, y up, z forward, with the pelvis at the origin.
"""

import dataclasses

import numpy as np

from input_pipeline.synthetic import pose as pose_lib
from input_pipeline.synthetic.pose import turn
from tokenpose_jax import skeletons

KEYPOINT = {name: i for i, name in enumerate(skeletons.COCO_17.keypoints)}
SIDES = (("left", 1.0), ("right", -1.0))
PATTERNS = ("plain", "hoops", "pinstripes", "checks", "dots")

# Where the face sits on the unit sphere that becomes the head:
# (left, up, forward).
FACE = {
  "nose": (0.0, -0.12, 1.1),
  "left_eye": (0.38, 0.12, 0.917),
  "right_eye": (-0.38, 0.12, 0.917),
  "left_ear": (1.02, -0.06, -0.08),
  "right_ear": (-1.02, -0.06, -0.08),
}


@dataclasses.dataclass(frozen=True)
class Fabric:
  """A surface: base color, and a pattern of a second color.

  Attributes:
    color, second: (3,) RGB, 0 to 255.
    pattern: one of `PATTERNS`.
    period: of the pattern, in statures.
  """

  color: np.ndarray
  second: np.ndarray
  pattern: str = "plain"
  period: float = 0.05


@dataclasses.dataclass(frozen=True)
class Solid:
  """The convex hull of two ellipsoids, painted along the line between them.

  Attributes:
    centers: (2, 3) of the ellipsoids.
    axes: (2, 3, 3); column k is the k-th semi-axis.
    owns: keypoints that this solid shows rather than hides.
    fabric: what covers it.
    cover: fraction of the length, from the first end, that is covered.
    bare: what lies beyond `cover`.
    start: where along the cloth the pattern starts, in statures.
    is_head: the one solid that carries hair and a face.
  """

  centers: np.ndarray
  axes: np.ndarray
  owns: tuple[int, ...]
  fabric: Fabric
  cover: float = 1.0
  bare: Fabric | None = None
  start: float = 0.0
  is_head: bool = False


@dataclasses.dataclass(frozen=True)
class Body:
  """A posed person.

  Attributes:
    solids: what is drawn.
    keypoints: (17, 3) joint centers, in COCO order.
    head: the Solid that carries the face.
    hair: its color; `hairline` is where it starts (larger is balder).
    beard: whether the lower face has the color of the hair.
  """

  solids: list[Solid]
  keypoints: np.ndarray
  head: Solid
  hair: np.ndarray
  hairline: float
  beard: bool


def _ball(radius: float) -> np.ndarray:
  return radius * np.eye(3)


class _Builder:
  """Collects the solids and keypoints of one person."""

  def __init__(self, rng: np.random.Generator):
    self.solids: list[Solid] = []
    self.keypoints = np.zeros((17, 3))
    self.size = rng.normal(1.0, 0.05, 8).clip(0.88, 1.12)
    self.girth = float(rng.uniform(0.88, 1.22))

  def add(self, ends, axes, owns, fabric, **fields) -> Solid:
    first, last = (e if isinstance(e, np.ndarray) else _ball(e) for e in axes)
    owned = tuple(KEYPOINT[name] for name in owns)
    solid = Solid(
      np.stack(ends), np.stack([first, last]), owned, fabric, **fields
    )
    self.solids.append(solid)
    return solid


def sample_body(
  rng: np.random.Generator, pose: pose_lib.Pose | None = None
) -> Body:
  """Draws one person: proportions, pose and clothes.

  Args:
    rng: the same state gives the same person.
    pose: None: drawn, too; given, proportions and clothes do not depend on it.
  """
  build = _Builder(rng)
  pose = pose or pose_lib.sample_pose(rng)
  skin = Fabric(*2 * (_skin(rng),))
  shirt = sample_fabric(rng, plain=0.7)
  lower = sample_fabric(rng, plain=0.85, brightness=0.6)
  shoes = Fabric(*2 * (_cloth_color(rng),))
  sleeve = rng.choice([0.25, 1.2, 2.0], p=[0.15, 0.45, 0.4])
  leg_cover = rng.choice([0.75, 2.0], p=[0.3, 0.7])
  skirt = rng.random() < 0.12 and pose.legs[:, 0].max() < 45

  pelvis = turn(0, 0.45 * pose.bend) @ turn(2, 0.3 * pose.sway)
  chest = (
    pelvis
    @ turn(1, pose.twist)
    @ turn(0, 0.55 * pose.bend)
    @ turn(2, 0.7 * pose.sway)
  )
  neck = _torso(build, pelvis, chest, shirt, lower)
  _arms(build, pose, chest, neck, shirt, skin, sleeve)
  _legs(build, pose, pelvis, lower, skin, shoes, 0.3 if skirt else leg_cover)
  if skirt:
    _skirt(build, pelvis, lower)
  tilt = chest @ turn(1, np.clip(pose.head[1], -60, 60))
  tilt = tilt @ turn(0, np.clip(pose.head[0], -35, 30)) @ turn(2, pose.head[2])
  hair = _hair_color(rng)
  head = _head(build, rng, tilt, chest, neck, skin, Fabric(hair, hair))
  hairline = rng.uniform(0.1, 0.32) if rng.random() < 0.94 else 1.2
  beard = bool(rng.random() < 0.15)
  return Body(build.solids, build.keypoints, head, hair, hairline, beard)


def _torso(build, pelvis, chest, shirt, lower) -> np.ndarray:
  """Adds pelvis, waist and chest; returns the base of the neck, (3,)."""
  g, s = build.girth, build.size
  hip_half, waist_up, chest_up = 0.06 * s[0], 0.13 * s[1], 0.165 * s[1]
  joints = {}
  for side, sign in SIDES:
    joints[side] = pelvis @ np.array([sign * hip_half, 0, 0])
    build.keypoints[KEYPOINT[f"{side}_hip"]] = joints[side]
  hips = ("left_hip", "right_hip")
  waist = pelvis @ np.array([0, waist_up, 0])
  base = waist + chest @ np.array([0, chest_up, 0])
  seat = pelvis * (0.032 * g + hip_half, 0.062, 0.068 * g)
  middle = chest * (0.07 * g + 0.012, 0.05, 0.062 * g)
  top = chest * (0.108 * s[2], 0.042, 0.058 * g)
  origin = pelvis @ np.array([0, 0.005, 0])
  build.add(
    (waist, origin),
    (middle, seat),
    hips,
    shirt,
    cover=0.62,
    bare=lower,
    start=chest_up,
  )
  shoulders = ("left_shoulder", "right_shoulder")
  build.add(
    (base + chest @ np.array([0, -0.025, 0]), waist),
    (top, middle),
    (*shoulders, *hips),
    shirt,
  )
  return base


def _arms(build, pose, chest, base, shirt, skin, sleeve) -> None:
  g, s = 0.5 + 0.5 * build.girth, build.size
  down = np.array([0, -1.0, 0])
  for (side, sign), (flex, abduct, inward, bend) in zip(
    SIDES, pose.arms, strict=True
  ):
    upper = chest @ turn(0, -flex) @ turn(2, sign * abduct)
    upper = upper @ turn(1, -sign * inward)
    lower = upper @ turn(0, -bend)
    # A raised arm takes the shoulder blade along.
    lift = max(0.0, 0.3 + (chest.T @ upper @ down)[1])
    shoulder = base + chest @ np.array(
      [sign * (0.112 * s[2] - 0.012 * lift), -0.012 + 0.024 * lift, 0]
    )
    elbow = shoulder + 0.165 * s[3] * upper @ down
    wrist = elbow + 0.145 * s[4] * lower @ down
    hand = wrist + 0.038 * lower @ down
    names = [f"{side}_{joint}" for joint in ("shoulder", "elbow", "wrist")]
    for name, point in zip(names, (shoulder, elbow, wrist), strict=True):
      build.keypoints[KEYPOINT[name]] = point
    build.add(
      (shoulder, elbow),
      (0.037 * g, 0.029 * g),
      names[:2],
      shirt,
      cover=sleeve,
      bare=skin,
    )
    build.add(
      (elbow, wrist),
      (0.029 * g, 0.021 * g),
      names[1:],
      shirt,
      cover=sleeve - 1.0,
      bare=skin,
    )
    build.add(
      (wrist, hand), (0.019 * g, lower * (0.026, 0.036, 0.016)), names[2:], skin
    )


def _legs(build, pose, pelvis, cloth, skin, shoes, cover) -> None:
  g, s = 0.4 + 0.6 * build.girth, build.size
  down, ahead = np.array([0, -1.0, 0]), np.array([0, 0, 1.0])
  for (side, sign), (flex, abduct, outward, bend) in zip(
    SIDES, pose.legs, strict=True
  ):
    thigh = turn(0, -flex) @ turn(2, sign * abduct) @ turn(1, sign * outward)
    shin = thigh @ turn(0, bend)
    hip = build.keypoints[KEYPOINT[f"{side}_hip"]]
    knee = hip + 0.24 * s[5] * thigh @ down
    ankle = knee + 0.225 * s[6] * shin @ down
    names = [f"{side}_{joint}" for joint in ("hip", "knee", "ankle")]
    build.keypoints[KEYPOINT[names[1]]] = knee
    build.keypoints[KEYPOINT[names[2]]] = ankle
    build.add(
      (hip, knee),
      (0.058 * g, 0.041 * g),
      names[:2],
      cloth,
      cover=cover,
      bare=skin,
    )
    build.add(
      (knee, ankle),
      (0.041 * g, 0.026 * g),
      names[1:],
      cloth,
      cover=cover - 1.05,
      bare=skin,
    )
    sole = ankle + shin @ np.array([0, -0.026, -0.012])
    toes = sole + 0.1 * shin @ ahead - 0.008 * shin[:, 1]
    build.add((sole, toes), (0.028, 0.02), names[2:], shoes)


def _skirt(build, pelvis, cloth) -> None:
  """A cone from the waist to the knees."""
  knees = build.keypoints[[KEYPOINT["left_knee"], KEYPOINT["right_knee"]]]
  middle = 0.8 * knees.mean(0)
  spread = np.abs(knees[0] - knees[1]) / 2
  hem = np.diag(0.06 + 0.7 * spread * (1, 0, 1))
  hem[1, 1] = 0.02
  names = ("left_hip", "right_hip", "left_knee", "right_knee")
  build.add(
    (pelvis @ np.array([0, 0.05, 0]), middle),
    (pelvis * (0.088 * build.girth, 0.03, 0.07 * build.girth), hem),
    names,
    cloth,
  )


def _head(build, rng, tilt, chest, base, skin, hair) -> Solid:
  """Adds neck, head, nose, ears and hair; returns the head."""
  s = build.size[7]
  axes = tilt * (0.058 * s, 0.08 * s, 0.068 * s)
  top = base + chest @ np.array([0, 0.045, 0.004])
  center = top + tilt @ np.array([0, 0.072 * s, 0.012])
  build.add((base, center), (0.036 * build.girth**0.5, 0.032), (), skin)
  head = build.add((center, center), (axes, axes), FACE, skin, is_head=True)
  for name, place in FACE.items():
    point = center + axes @ np.array(place)
    build.keypoints[KEYPOINT[name]] = point
    if name == "nose":
      shape = tilt * (0.011, 0.016, 0.013)
      build.add((point - 0.006 * tilt[:, 2],) * 2, (shape, shape), FACE, skin)
    elif name.endswith("ear"):
      shape = tilt * (0.01, 0.019, 0.013)
      build.add((point, point), (shape, shape), FACE, skin)
  style = rng.choice(["short", "long", "bun", "tail"], p=[0.55, 0.2, 0.1, 0.15])
  if style != "short":
    ends, sizes = {
      "long": (((0, 0.1, -0.35), (0, -1.2, -0.75)), (0.062, 0.045)),
      "bun": (((0, 0.75, -0.75),) * 2, (0.034, 0.034)),
      "tail": (((0, 0.35, -1.05), (0, -0.8, -1.35)), (0.026, 0.018)),
    }[style]
    points = [center + axes @ np.array(end) for end in ends]
    build.add(points, [tilt * size for size in sizes], (), hair)
  return head


def _skin(rng) -> np.ndarray:
  tone = rng.random()
  light, dark = np.array([244, 205, 178.0]), np.array([98, 62, 44.0])
  return light + tone * (dark - light) + rng.normal(0, 6, 3)


def _hair_color(rng) -> np.ndarray:
  # fmt: off
  colors = np.array(((28, 22, 20), (62, 40, 26), (105, 66, 38),
                     (196, 156, 90), (150, 60, 30), (165, 165, 165)))
  # fmt: on
  weights = (0.35, 0.25, 0.15, 0.12, 0.06, 0.07)
  return colors[rng.choice(6, p=weights)] + rng.normal(0, 6, 3)


def _cloth_color(rng) -> np.ndarray:
  """(3,) RGB: any hue, from pale to dark."""
  hue, value = rng.random() * 6, rng.uniform(60, 240)
  saturation = rng.beta(1.6, 1.4)
  wave = np.clip(np.abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
  return value * (1 - saturation * (1 - wave))


def sample_fabric(
  rng: np.random.Generator, plain: float = 0.5, brightness: float = 1.0
) -> Fabric:
  """A cloth that is plain with probability `plain`, else patterned."""
  pattern = PATTERNS[0] if rng.random() < plain else rng.choice(PATTERNS[1:])
  return Fabric(
    brightness * _cloth_color(rng),
    brightness * _cloth_color(rng),
    pattern,
    rng.uniform(0.035, 0.08),
  )
