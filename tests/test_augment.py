"""Training augmentation, against the original's (reference 4.5)."""

import dataclasses

import numpy as np
import pytest

from configs import default
from input_pipeline import augment
from input_pipeline.sampling import Draws
from tests import fixtures
from tests.augment_cases import (
  crop_of,
  draws_of,
  first,
  plain_crops,
  stacked,
)
from tokenpose_jax import geometry, skeletons

INPUT_HW = (256, 192)
# No augmentation at all: a scale of 1, no rotation, not mirrored.
PLAIN = dict(
  half_body=1.0, upper=0.0, scale=0.0, rotate=1.0, rotation=0.0, flip=1.0
)


@pytest.mark.parametrize("name", fixtures.case_names())
def test_crops_are_the_originals(name, monkeypatch):
  case = fixtures.case(name)
  calls = []
  real = geometry.crop_affine

  def spy(center, scale, degrees, output_hw):
    calls.append((center, scale, degrees))
    return real(center, scale, degrees, output_hw)

  monkeypatch.setattr(geometry, "crop_affine", spy)
  crop, width = crop_of(case)
  (((center,), (scale,), degrees),) = calls
  np.testing.assert_allclose(center, case["final_center"], rtol=1e-6)
  np.testing.assert_allclose(scale, case["final_scale"], rtol=1e-6)
  np.testing.assert_allclose(degrees, case["final_rotation"], rtol=1e-12)

  wanted = np.array(case["trans_image"])  # of the mirrored image
  if case["forced"] and case["forced"]["flip"]:
    wanted = geometry.compose(wanted, geometry.mirror(width))
  size = np.abs(wanted[:, :2]).max()
  assert np.abs(crop.affine - wanted)[:, :2].max() <= 1e-6 * size
  assert np.abs(crop.affine - wanted)[:, 2].max() <= 1e-3

  visible = np.array(case["joints_vis_out"])
  np.testing.assert_array_equal(crop.visible, visible)
  joints = np.array(case["joints_in_crop"])
  np.testing.assert_allclose(
    crop.keypoints[visible > 0], joints[visible > 0], rtol=1e-6, atol=1e-3
  )
  assert not crop.keypoints[visible == 0].any()
  assert crop.keypoints.dtype == crop.visible.dtype == np.float32
  assert crop.affine.dtype == np.float64


@pytest.mark.parametrize("name", fixtures.case_names())
def test_half_bodies_are_the_originals(name):
  case = fixtures.case(name)
  wanted = case["forced"] and case["forced"]["half_body"]
  used = [draw for draw, _ in case["draws_used_in_order"]]
  if "halfbody_normal" not in used:
    assert wanted is None
    return
  found = augment.half_body(
    np.array(case["record_joints_xy"]),
    np.array(case["record_joints_vis"]),
    draws_of(case)["upper"] < 0.5,
    INPUT_HW,
    skeletons.COCO_17,
  )
  assert found is not None
  np.testing.assert_allclose(found[0], wanted["center"], rtol=1e-6)
  np.testing.assert_allclose(found[1], wanted["scale"], rtol=1e-6)


def a_person(labelled=17):
  """A person whose last `17 - labelled` keypoints are not labelled."""
  points = fixtures.rng(2).uniform(50, 150, (17, 2))
  visible = (np.arange(17) < labelled).astype(np.float32)
  return np.array([100.0, 90.0]), np.array([0.6, 0.8]), points, visible


def augmented(person, skeleton=skeletons.COCO_17, settings=None, **changes):
  crops = augment.augmented_crops(
    *(value[None] for value in person),
    input_hw=INPUT_HW,
    image_width=np.array([200]),
    draws=stacked(PLAIN | changes),
    settings=settings or default.get_config().augment,
    skeleton=skeleton,
  )
  return first(crops)


def zoom(crop):
  return np.sqrt(np.abs(np.linalg.det(crop.affine[:, :2])))


def test_plain_draws_are_the_plain_crop():
  person = [value[None] for value in a_person()]
  plain = first(plain_crops(*person, INPUT_HW))
  crop = augmented(a_person())
  np.testing.assert_array_equal(crop.affine, plain.affine)
  np.testing.assert_array_equal(crop.keypoints, plain.keypoints)


@pytest.mark.parametrize(
  ("labelled", "draw", "happens"),
  [
    (9, 0.29, True),
    (8, 0.29, False),  # More than 8 are needed,
    (9, 0.3, False),  # and a draw below 0.3.
  ],
)
def test_when_half_body_happens(labelled, draw, happens):
  plain = augmented(a_person(labelled))
  crop = augmented(a_person(labelled), half_body=draw)
  assert (not np.allclose(crop.affine, plain.affine)) == happens


def test_half_body_upper_probability():
  upper = augmented(a_person(), half_body=0.0, upper=0.0)
  for draw, same in ((0.69, True), (0.70, False)):
    crop = augmented(a_person(), half_body=0.0, upper=draw)
    assert np.allclose(crop.affine, upper.affine) == same


@pytest.mark.parametrize(
  ("upper", "lower", "want_upper", "chosen"),
  [
    (3, 3, True, "upper"),
    (3, 3, False, "lower"),
    (2, 3, True, "lower"),  # More than 2 are needed,
    (3, 2, False, "upper"),
    (2, 2, False, "upper"),  # but for the last resort 2 do.
    (1, 2, True, None),
    (0, 0, False, None),
  ],
)
def test_which_half(upper, lower, want_upper, chosen):
  _, _, points, visible = a_person()
  visible[:] = 0
  visible[:upper] = 1
  visible[11 : 11 + lower] = 1
  found = augment.half_body(
    points, visible, want_upper, INPUT_HW, skeletons.COCO_17
  )
  if chosen is None:
    assert found is None
    return
  part = points[:upper] if chosen == "upper" else points[11 : 11 + lower]
  np.testing.assert_allclose(found[0], part.mean(0), rtol=1e-6)
  w, h = np.ptp(part, axis=0) + 1
  wanted = np.array([max(w, h * 0.75), max(h, w / 0.75)]) / 200 * 1.5
  np.testing.assert_allclose(found[1], wanted, rtol=1e-6)


@pytest.mark.parametrize(
  ("normal", "factor"),
  [(1.0, 1.35), (5.0, 1.35), (-5.0, 0.65), (0.5, 1.175)],
)
def test_scale_is_clipped(normal, factor):
  ratio = zoom(augmented(a_person())) / zoom(
    augmented(a_person(), scale=normal)
  )
  wanted = (0.6 * 200 * factor - 1) / (0.6 * 200 - 1)
  np.testing.assert_allclose(ratio, wanted, rtol=1e-6)


@pytest.mark.parametrize(
  ("draw", "normal", "degrees"),
  [(0.6, 1.0, 45), (0.6, 3.0, 90), (0.0, -3.0, -90), (0.61, 1.0, 0)],
)
def test_rotation_is_clipped(draw, normal, degrees):
  crop = augmented(a_person(), rotate=draw, rotation=normal)
  plain = augmented(a_person())
  turn = crop.affine[:, :2] @ np.linalg.inv(plain.affine[:, :2])
  angle = np.rad2deg(np.arctan2(turn[0, 1], turn[0, 0]))
  np.testing.assert_allclose(angle, degrees, atol=1e-4)


def test_mirroring_swaps_sides_and_columns():
  """A mirrored, rotated crop of a person in a mirrored image."""
  person = a_person(labelled=13)
  center, scale, points, visible = person
  both = {"rotate": 0.0, "rotation": 0.7}
  crop = augmented(person, flip=0.5, **both)
  order = skeletons.COCO_17.flip_permutation
  mirrored = np.stack([199 - points[:, 0], points[:, 1]], 1)[order]
  other = augmented(
    (np.array([199 - center[0], center[1]]), scale, mirrored, visible[order]),
    **both,
  )
  np.testing.assert_array_equal(crop.visible, visible[order])
  np.testing.assert_allclose(crop.keypoints, other.keypoints, atol=1e-4)
  assert np.linalg.det(crop.affine[:, :2]) < 0
  none = augmented(person, flip=0.51, **both)
  assert np.linalg.det(none.affine[:, :2]) > 0


def test_the_config_decides():
  """Each field of config.augment for maps; all draws lie on its edge."""
  person = a_person()
  base = {"half_body": 0.2, "upper": 0.5, "scale": 1.0}
  base |= {"rotate": 0.3, "rotation": 1.0, "flip": 0.3}
  crop = augmented(person, **base)
  for field, value in {
    "flip_probability": 0.1,
    "rotation_probability": 0.1,
    "rotation_degrees": 10.0,
    "scale": 0.1,
    "half_body_probability": 0.1,
    "half_body_min_keypoints": 17,
    "half_body_upper_probability": 0.1,
  }.items():
    settings = default.get_config().augment
    settings[field] = value
    other = augmented(person, settings=settings, **base)
    assert not np.allclose(other.affine, crop.affine), field
  of_pixels = 2  # tests/test_pixels.py
  assert len(default.get_config().augment) == 7 + of_pixels


def test_arguments_are_left_alone():
  person = a_person()
  before = [value.copy() for value in person]
  augmented(
    person, half_body=0.0, scale=1.0, rotate=0.0, rotation=1.0, flip=0.0
  )
  for value, was in zip(person, before, strict=True):
    np.testing.assert_array_equal(value, was)


def test_people_are_cropped_one_by_one():
  """Several people together, of every kind of draw, as each alone."""
  people = [a_person(n) for n in (17, 4, 12, 9, 17, 0)]
  names = [field.name for field in dataclasses.fields(Draws)]
  g = fixtures.rng(8)
  draws = [dict(zip(names, g.uniform(0, 1, 6), strict=True)) for _ in people]
  assert len({d["flip"] <= 0.5 for d in draws}) == 2
  together = augment.augmented_crops(
    *(np.stack(values) for values in zip(*people, strict=True)),
    input_hw=INPUT_HW,
    image_width=np.full(6, 200),
    draws=stacked(*draws),
    settings=default.get_config().augment,
    skeleton=skeletons.COCO_17,
  )
  for number, (person, draw) in enumerate(zip(people, draws, strict=True)):
    alone = augmented(person, **draw)
    for field in ("affine", "keypoints", "visible"):
      np.testing.assert_array_equal(
        getattr(together, field)[number], getattr(alone, field)
      )
