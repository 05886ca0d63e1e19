"""Boxes, crops and affine maps, against the original's (reference 4.1, 4.3)."""

import numpy as np
import pytest

from tests import fixtures
from tokenpose_jax import geometry

INPUT_HW = (256, 192)


def random_affine(seed):
  g = fixtures.rng(seed)
  return geometry.crop_affine(
    g.uniform(20, 300, 2), g.uniform(0.3, 3, 2), g.uniform(-90, 90), INPUT_HW
  )


@pytest.mark.parametrize("name", fixtures.case_names())
@pytest.mark.parametrize("output", ["image", "heatmap"])
def test_crop_affine_is_the_originals(name, output):
  case = fixtures.case(name)
  size_wh = case["settings"][f"{output}_size_wh"]
  affine = geometry.crop_affine(
    np.array(case["final_center"]),
    np.array(case["final_scale"]),
    case["final_rotation"],
    size_wh[::-1],
  )
  wanted = np.array(case[f"trans_{output}"])
  size = np.abs(wanted[:, :2]).max()
  assert np.abs(affine - wanted)[:, :2].max() <= 1e-6 * size
  assert np.abs(affine - wanted)[:, 2].max() <= 1e-3


def test_center_of_the_box_is_center_of_the_crop():
  center, scale = geometry.box_to_center_scale(
    np.array([10, 20, 31, 41]), INPUT_HW
  )
  np.testing.assert_array_equal(center, [25, 40])
  assert center.dtype == scale.dtype == np.float32
  affine = geometry.crop_affine(center, scale, 33.0, INPUT_HW)
  middle = geometry.transform(affine, center)
  np.testing.assert_allclose(middle, [95.5, 127.5], atol=1e-4)


@pytest.mark.parametrize(
  ("box_wh", "size_wh"),
  [((30, 100), (75, 100)), ((90, 100), (90, 120)), ((75, 100), (75, 100))],
)
def test_box_grows_to_the_crops_aspect(box_wh, size_wh):
  _, scale = geometry.box_to_center_scale(np.array([0, 0, *box_wh]), INPUT_HW)
  np.testing.assert_allclose(scale * 200 / 1.25, size_wh, rtol=1e-6)
  _, scale = geometry.box_to_center_scale(
    np.array([0, 0, *box_wh]), INPUT_HW, padding=2
  )
  np.testing.assert_allclose(scale * 200 / 2, size_wh, rtol=1e-6)


def test_boxes_are_taken_one_by_one():
  boxes = fixtures.rng(0).uniform(1, 300, (7, 4))
  together = geometry.box_to_center_scale(boxes, INPUT_HW)
  for number, box in enumerate(boxes):
    for all_of_them, one in zip(
      together, geometry.box_to_center_scale(box, INPUT_HW), strict=True
    ):
      np.testing.assert_array_equal(all_of_them[number], one)


def test_only_the_horizontal_scale_matters():
  one = geometry.crop_affine(
    np.array([50.0, 60]), np.array([1.0, 1]), 20.0, INPUT_HW
  )
  two = geometry.crop_affine(
    np.array([50.0, 60]), np.array([1.0, 9]), 20.0, INPUT_HW
  )
  np.testing.assert_array_equal(one, two)


def test_crop_affine_turns_clockwise_in_the_crop():
  """A positive rotation turns the crop frame; the map has no shear."""
  affine = geometry.crop_affine(np.zeros(2), np.ones(2), 90.0, INPUT_HW)
  zoom = 191 / 199
  np.testing.assert_allclose(affine[:, :2], [[0, zoom], [-zoom, 0]], atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_invert_undoes(seed):
  affine = random_affine(seed)
  points = fixtures.rng(seed).uniform(-100, 500, (9, 2))
  there = geometry.transform(affine, points)
  back = geometry.transform(geometry.invert(affine), there)
  np.testing.assert_allclose(back, points, atol=1e-8)
  assert np.abs(there - points).max() > 1


def test_compose_applies_inner_first():
  outer, inner = random_affine(1), random_affine(2)
  points = fixtures.rng(3).uniform(-100, 500, (2, 5, 2))
  wanted = geometry.transform(outer, geometry.transform(inner, points))
  both = geometry.transform(geometry.compose(outer, inner), points)
  np.testing.assert_allclose(both, wanted, rtol=1e-10)
  other = geometry.transform(geometry.compose(inner, outer), points)
  assert np.abs(other - wanted).max() > 1


def test_mirror_swaps_first_and_last_column():
  affine = geometry.mirror(10)
  moved = geometry.transform(affine, np.array([[0.0, 3.0], [9.0, 4.0]]))
  np.testing.assert_array_equal(moved, [[9, 3], [0, 4]])


@pytest.mark.parametrize("seed", range(4))
def test_source_window_holds_all_that_the_crop_reads(seed):
  affine = random_affine(seed)
  image_hw = (240, 320)
  y, x, rows, columns = geometry.source_window(affine, INPUT_HW, image_hw)
  grid = np.stack(np.meshgrid(np.arange(192.0), np.arange(256.0)), -1)
  seen = geometry.transform(geometry.invert(affine), grid).reshape(-1, 2)
  # All pixels within one of a sampled point, as far as there are any.
  for low, size, limit, axis in ((x, columns, 320, 0), (y, rows, 240, 1)):
    assert low <= max(np.floor(seen[:, axis].min()) - 1, 0)
    high = min(np.ceil(seen[:, axis].max()) + 2, limit)
    assert high <= low + size <= limit
    assert low >= 0


def test_source_window_is_no_larger_than_needed():
  shift = np.array([[1.0, 0, -100], [0, 1.0, -50]])  # Image (100, 50) to 0, 0.
  window = geometry.source_window(shift, (20, 30), (1000, 1000))
  np.testing.assert_array_equal(window, (48, 98, 24, 34))
  window = geometry.source_window(shift, (20, 30), (1000, 1000), margin=0)
  np.testing.assert_array_equal(window, (50, 100, 20, 30))


@pytest.mark.parametrize("shift", [(1000, 0), (-1000, 0), (0, 900), (0, -900)])
def test_source_window_is_empty_outside(shift):
  affine = np.array([[1.0, 0, shift[0]], [0, 1.0, shift[1]]])
  _, _, rows, columns = geometry.source_window(affine, (20, 30), (100, 100))
  assert rows * columns == 0
  assert min(rows, columns) >= 0


def test_maps_are_made_one_by_one():
  g = fixtures.rng(4)
  center, scale = g.uniform(20, 300, (7, 2)), g.uniform(0.3, 3, (7, 2))
  degrees, sizes = g.uniform(-90, 90, 7), g.integers(50, 400, (7, 2))
  together = geometry.crop_affine(center, scale, degrees, INPUT_HW)
  mirrors = geometry.mirror(sizes[:, 1])
  points = g.uniform(-50, 300, (7, 5, 2))
  for n in range(7):
    one = geometry.crop_affine(center[n], scale[n], degrees[n], INPUT_HW)
    np.testing.assert_array_equal(together[n], one)
    both = geometry.compose(one, geometry.mirror(float(sizes[n, 1])))
    np.testing.assert_array_equal(geometry.compose(together, mirrors)[n], both)
    np.testing.assert_array_equal(
      geometry.invert(together)[n], geometry.invert(one)
    )
    np.testing.assert_array_equal(
      geometry.transform(together, points)[n],
      geometry.transform(one, points[n]),
    )
    np.testing.assert_array_equal(
      geometry.source_window(together, INPUT_HW, sizes)[n],
      geometry.source_window(one, INPUT_HW, sizes[n]),
    )
