"""Skeletons: what a keypoint set is called, how it is joined and mirrored.

Data only. Everything that depends on the keypoint set (model size,
augmentation, OKS, drawing) asks a `Skeleton` and nothing else.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from tokenpose_jax import json_files, skeleton_fields
from tokenpose_jax.errors import InputError
from tokenpose_jax.version import __version__

FORMAT = 1  # of skeleton files
SIGMA_RANGE = 1e-6, 1e6  # whose squares are numbers to divide by


@dataclasses.dataclass(frozen=True)
class Skeleton:
  """A named set of K keypoints.

  Attributes:
    name: what configs and checkpoints call it.
    keypoints: K names, in the order of the annotations.
    limbs: pairs of keypoint indices that are drawn as a line.
    flip_pairs: pairs of indices that change places in a mirrored image.
    upper_body: indices of the upper half, for half-body augmentation, which
      is left out where there are none.
    sigmas: K per-keypoint constants of OKS (the COCO site's sigma_i; k_i is
      twice that), or None where OKS is not defined for the set.
    colors: K RGB triples, 0 to 255.

  Raises:
    InputError: naming the field that is inconsistent.
  """

  name: str
  keypoints: tuple[str, ...]
  limbs: tuple[tuple[int, int], ...]
  flip_pairs: tuple[tuple[int, int], ...]
  upper_body: tuple[int, ...]
  sigmas: tuple[float, ...] | None
  colors: tuple[tuple[int, int, int], ...]

  def __post_init__(self) -> None:
    k = self.num_keypoints
    if len(set(self.keypoints)) != k:
      twice = next(n for n in self.keypoints if self.keypoints.count(n) > 1)
      raise InputError(
        f"skeleton {self.name!r}: keypoint names repeat, such as {twice!r:.40}"
      )
    for field in ("limbs", "flip_pairs"):
      for pair in getattr(self, field):
        if len(pair) != 2 or not all(0 <= i < k for i in pair):
          raise InputError(
            f"skeleton {self.name!r}: {field} has {pair!s:.60}; expected"
            f" two indices from 0 to {k - 1}"
          )
    paired = [i for pair in self.flip_pairs for i in pair]
    if len(set(paired)) != len(paired):
      raise InputError(
        f"skeleton {self.name!r}: flip_pairs names a keypoint twice"
      )
    if not all(0 <= i < k for i in self.upper_body):
      raise InputError(f"skeleton {self.name!r}: upper_body is out of range")
    for sigma in self.sigmas or ():
      if not SIGMA_RANGE[0] <= sigma <= SIGMA_RANGE[1]:
        raise InputError(
          f"skeleton {self.name!r}: sigmas has {sigma:g}; expected numbers"
          " above 0, such as COCO's, 0.025 to 0.107"
        )
    for field in ("sigmas", "colors"):
      values = getattr(self, field)
      if values is not None and len(values) != k:
        raise InputError(
          f"skeleton {self.name!r}: {field} has {len(values)} entries,"
          f" expected {k}"
        )

  @property
  def num_keypoints(self) -> int:
    """K."""
    return len(self.keypoints)

  @property
  def flip_permutation(self) -> Int[np.ndarray, " k"]:
    """(K,) int32: the keypoint that each index becomes in a mirror image."""
    order = np.arange(self.num_keypoints, dtype=np.int32)
    for left, right in self.flip_pairs:
      order[left], order[right] = right, left
    return order

  @functools.cached_property
  def is_upper(self) -> Bool[np.ndarray, " k"]:
    """(K,) bool: which keypoints are of the upper body."""
    return np.isin(np.arange(self.num_keypoints), self.upper_body)

  def to_dict(self) -> dict[str, Any]:
    """The skeleton as JSON types, the inverse of `from_dict`."""
    return json.loads(json.dumps(dataclasses.asdict(self)))

  @classmethod
  def from_dict(cls, fields: Any) -> "Skeleton":
    """Builds a skeleton from JSON types.

    Args:
      fields: a dict of the attributes of this class (`skeleton_fields.read`);
        `keypoints` is required. `limbs`, `flip_pairs` and `upper_body` hold
        names or indices; `colors` defaults to a color wheel, the others to
        nothing.

    Raises:
      InputError: naming the field that is wrong, missing or inconsistent.
    """
    made = skeleton_fields.read(fields)
    made["name"] = made["name"] or "custom"
    made["colors"] = made["colors"] or color_wheel(len(made["keypoints"]))
    return cls(**made)


def with_sigmas(skeleton: Skeleton) -> Skeleton:
  """The same with DEFAULT_SIGMA for each keypoint, where it has none."""
  if skeleton.sigmas is not None:
    return skeleton
  sigmas = (DEFAULT_SIGMA,) * skeleton.num_keypoints
  return dataclasses.replace(skeleton, sigmas=sigmas)


def color_wheel(count: int) -> tuple[tuple[int, int, int], ...]:
  """`count` well-separated RGB colors, 0 to 255."""
  hue = np.arange(count)[:, None] / max(count, 1)
  wave = np.abs((hue * 6 + np.array([0, 4, 2])) % 6 - 3) - 1
  rgb = np.round(255 * (0.25 + 0.75 * np.clip(wave, 0, 1))).astype(int)
  return tuple((int(r), int(g), int(b)) for r, g, b in rgb)


def _sided(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
  """Pairs each `left_x` with its `right_x`."""
  return tuple(
    (i, names.index("right_" + name.removeprefix("left_")))
    for i, name in enumerate(names)
    if name.startswith("left_")
  )


def _sided_colors(names: Sequence[str]) -> tuple[tuple[int, int, int], ...]:
  """Left green, right orange, middle blue: a drawing shows the sides."""
  side = {"left": (60, 220, 90), "right": (255, 140, 30)}
  return tuple(side.get(name.split("_")[0], (70, 150, 255)) for name in names)


_COCO_NAMES = (
  "nose",
  "left_eye",
  "right_eye",
  "left_ear",
  "right_ear",
  "left_shoulder",
  "right_shoulder",
  "left_elbow",
  "right_elbow",
  "left_wrist",
  "right_wrist",
  "left_hip",
  "right_hip",
  "left_knee",
  "right_knee",
  "left_ankle",
  "right_ankle",
)

# fmt: off
_COCO_LIMBS = (
  (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6),
  (5, 7), (6, 8), (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4),
  (3, 5), (4, 6),
)
# The COCO site's keypoint evaluation page; reference 5.4.
_COCO_SIGMAS = (
  .026, .025, .025, .035, .035, .079, .079, .072, .072, .062, .062, .107, .107,
  .087, .087, .089, .089,
)
# fmt: on

COCO_17 = Skeleton(
  name="coco_17",
  keypoints=_COCO_NAMES,
  limbs=_COCO_LIMBS,
  flip_pairs=_sided(_COCO_NAMES),
  upper_body=tuple(range(11)),
  sigmas=_COCO_SIGMAS,
  colors=_sided_colors(_COCO_NAMES),
)

_MPII_NAMES = (
  "right_ankle",
  "right_knee",
  "right_hip",
  "left_hip",
  "left_knee",
  "left_ankle",
  "pelvis",
  "thorax",
  "neck",
  "head",
  "right_wrist",
  "right_elbow",
  "right_shoulder",
  "left_shoulder",
  "left_elbow",
  "left_wrist",
)

# fmt: off
_MPII_LIMBS = (
  (0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9),
  (10, 11), (11, 12), (12, 7), (7, 13), (13, 14), (14, 15),
)
# fmt: on

MPII_16 = Skeleton(
  name="mpii_16",
  keypoints=_MPII_NAMES,
  limbs=_MPII_LIMBS,
  flip_pairs=_sided(_MPII_NAMES),
  upper_body=tuple(range(7, 16)),
  sigmas=None,  # MPII is measured by PCKh, which has no per-joint constants.
  colors=_sided_colors(_MPII_NAMES),
)

# Used, with a warning, when a skeleton has no sigmas: the median of COCO's.
# OKS then compares results on this set, but not with other sets.
DEFAULT_SIGMA = 0.072

NAMED = {skeleton.name: skeleton for skeleton in (COCO_17, MPII_16)}


def to_json(skeleton: Skeleton) -> str:
  """The text of a skeleton file."""
  header = {"format": FORMAT, "software": __version__}
  return json.dumps(header | skeleton.to_dict(), indent=2)


def _upgrade(fields: Any) -> Any:
  """The fields of a skeleton file; files by hand have no format number."""
  if not isinstance(fields, Mapping):
    return fields
  number = fields.get("format", FORMAT)
  if number != FORMAT:
    raise InputError(
      f"it has format {number!r:.40}, written by tokenpose_jax"
      f" {fields.get('software')!s:.40}; this one reads {FORMAT}"
    )
  return {n: v for n, v in fields.items() if n not in ("format", "software")}


def of_count(keypoints: int) -> Skeleton | None:
  """The named skeleton with that many keypoints."""
  named = (s for s in NAMED.values() if s.num_keypoints == keypoints)
  return next(named, None)


def of_weights(what: str, count: int, name: str, advice: str) -> Skeleton:
  """The skeleton of weights, which have no keypoint names.

  Args:
    what: has the weights, for the error.
    count: of their keypoints.
    name: of a skeleton, or a JSON file; "": the named one of that many.
    advice: what to do where there is none.

  Raises:
    InputError: there is none, or it has another number of keypoints.
  """
  skeleton = get(name) if name else of_count(count)
  if skeleton is None:
    raise InputError(
      f"{what} has {count} keypoints, but does not say which skeleton they"
      f" belong to; {advice}"
    )
  if skeleton.num_keypoints != count:
    raise InputError(
      f"{what} has {count} keypoints, the skeleton {skeleton.name}"
      f" {skeleton.num_keypoints}"
    )
  return skeleton


def get(name_or_path: str) -> Skeleton:
  """The skeleton of that name, or read from that JSON file.

  Raises:
    InputError: the name is unknown, or the file is missing or malformed.
  """
  if name_or_path in NAMED:
    return NAMED[name_or_path]
  if not name_or_path.endswith(".json"):
    raise InputError(
      f"unknown skeleton {name_or_path!r}; known: {', '.join(NAMED)},"
      " or the path of a .json file"
    )
  fields = json_files.read(name_or_path, "skeleton")
  try:
    return Skeleton.from_dict(_upgrade(fields))
  except InputError as error:
    raise InputError(f"{name_or_path}: {error}") from None
