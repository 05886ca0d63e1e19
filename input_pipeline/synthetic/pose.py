"""Poses of a synthetic person: joint angles that a body can take.

The body's frame is x to the person's left, y up, z forward.
"""

import dataclasses

import numpy as np

# Mean and spread, in degrees, of (flexion forward, abduction outward, turn
# inward, elbow bend). The hinge bends the forearm forward, then `turn` swings
# it towards the body; a negative turn lifts it when the arm is abducted.
ARM_MODES = {
  "hang": ((0, 11, 5, 14), (10, 5, 18, 10)),
  "on_hip": ((-14, 44, 72, 88), (6, 6, 8, 9)),
  "raised": ((8, 152, 0, 22), (14, 12, 20, 18)),
  "sideways": ((5, 88, 0, 16), (12, 12, 20, 12)),
  "forward": ((78, 6, 0, 22), (18, 8, 15, 18)),
  "wave": ((10, 78, -80, 88), (12, 14, 12, 20)),
  "to_face": ((48, 24, 25, 128), (12, 10, 12, 9)),
  "folded": ((24, 12, 55, 84), (10, 6, 10, 14)),
  "behind": ((-32, 14, 20, 24), (8, 5, 15, 14)),
}
# fmt: off
ARM_WEIGHTS = (0.40, 0.13, 0.12, 0.09, 0.07, 0.09, 0.03, 0.04, 0.03)
# fmt: on
STANCES = ("stand", "walk", "run", "sit", "crouch", "bend", "star", "kick")
STANCE_WEIGHTS = (0.4, 0.26, 0.08, 0.06, 0.02, 0.03, 0.1, 0.05)


def turn(axis: int, degrees: float) -> np.ndarray:
  """(3, 3) right-handed rotation about x (0), y (1) or z (2)."""
  c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
  matrix = np.eye(3)
  j, k = (axis + 1) % 3, (axis + 2) % 3
  matrix[j, j], matrix[j, k], matrix[k, j], matrix[k, k] = c, -s, s, c
  return matrix


@dataclasses.dataclass
class Pose:
  """Angles in degrees.

  Attributes:
    arms, legs: (2, 4), left then right: flexion, abduction, turn (inward for
      arms, toes out for legs), bend of the elbow or knee.
    bend, sway, twist: of the spine: forward, to the right, to the left.
    head: (3,) nod, turn to the left, tilt.
  """

  arms: np.ndarray
  legs: np.ndarray
  bend: float
  sway: float
  twist: float
  head: np.ndarray


def sample_pose(rng: np.random.Generator) -> Pose:
  """A pose within the limits of the joints."""
  stance = rng.choice(STANCES, p=STANCE_WEIGHTS)
  modes = rng.choice(list(ARM_MODES), size=2, p=ARM_WEIGHTS).tolist()
  if rng.random() < 0.35:
    modes[1] = modes[0]
  if stance in ("sit", "crouch"):
    modes = [
      m if m in ("raised", "wave", "to_face") else "reach" for m in modes
    ]
  arms = np.empty((2, 4))
  for side, mode in enumerate(modes):
    mean, spread = ARM_MODES.get(mode, ((32, 10, 15, 45), (14, 6, 12, 18)))
    arms[side] = rng.normal(mean, spread)
  legs = rng.normal((0, 6, 8, 5), (5, 3, 8, 4), (2, 4))
  bend, sway, twist = rng.normal((3, 0, 0), (5, 4, 8))
  lead, stride = rng.integers(2), rng.uniform(0.0, 1.0)
  legs, bend = _stance(rng, stance, legs, bend, lead, stride)
  if stance in ("walk", "run") and rng.random() < 0.7:
    swing = (10 + 25 * stride) * (1.0 if stance == "walk" else 1.3)
    elbow = 20 if stance == "walk" else 80
    arms = rng.normal((0, 9, 12, elbow), (5, 4, 10, 12), (2, 4))
    arms[:, 0] += (-swing, swing) if lead == 0 else (swing, -swing)
  if stance == "bend":
    arms[:, 0] += 0.6 * bend
  arms[:, 3] = np.clip(arms[:, 3], 2, 145)
  arms[:, 1] = np.clip(arms[:, 1], 3, 172)
  legs[:, 3] = np.clip(legs[:, 3], 1, 145)
  legs[:, 1] = np.clip(legs[:, 1], -2, 50)
  head = rng.normal((4 - 0.35 * bend, 0.5 * twist, 0), (9, 16, 6))
  return Pose(arms, legs, bend, sway, twist, head)


def _stance(rng, stance, legs, bend, lead, stride):
  """Legs (2, 4) and forward bend of a stance; `lead` is the front leg."""
  front, back = lead, 1 - lead
  if stance == "stand" and stride < 0.3:
    legs[front] += (12, 6, 8, 22)
  elif stance == "walk":
    legs[front] += (12 + 20 * stride, -3, 0, 4)
    legs[back] += (-8 - 16 * stride, -3, 0, 10 + 22 * stride)
  elif stance == "run":
    legs[front] += (35 + 35 * stride, -3, 0, 45 + 35 * stride)
    legs[back] += (-12 - 18 * stride, -3, 0, 30 + 50 * stride)
    bend += 8
  elif stance == "sit":
    legs += rng.normal((82, 6, 0, 78), (8, 5, 4, 13), (2, 4))
  elif stance == "crouch":
    legs += rng.normal((100, 12, 4, 112), (10, 6, 5, 10), (2, 4))
    bend += rng.uniform(10, 35)
  elif stance == "bend":
    bend += rng.uniform(35, 80)
    legs[:, 0] -= 4
  elif stance == "star":
    legs[:, 1] += 10 + 18 * stride
  elif stance == "kick":
    legs[front] += (40 + 45 * stride, 8, 0, 60 * rng.random())
  return legs, bend
