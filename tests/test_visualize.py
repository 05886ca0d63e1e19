"""visualize.py: skeletons on crops, contact sheets, encoded pictures."""

import cv2
import numpy as np
import pytest

from tests import fixtures
from tokenpose_jax import skeletons, visualize

COCO = skeletons.COCO_17
NOSE, LEFT_EYE = (COCO.keypoints.index(n) for n in ("nose", "left_eye"))
GRAY = 90


def crop(height=128, width=96):
  return np.full((height, width, 3), GRAY, np.uint8)


def points(places):
  """Keypoints, and which of them are shown: those of `places`."""
  keypoints, shown = np.zeros((17, 2)), np.zeros(17, bool)
  for k, place in places.items():
    keypoints[k], shown[k] = place, True
  return keypoints, shown


def changed(image):
  """(height, width): where something was drawn."""
  return (image != GRAY).any(-1)


def test_a_keypoint_is_drawn_at_its_place_in_its_color():
  image = crop()
  drawn = visualize.draw_pose(image, *points({NOSE: (40, 70)}), COCO)
  assert (image == GRAY).all()  # a copy was drawn on
  assert drawn[70, 40].tolist() == list(COCO.colors[NOSE])
  rows, columns = np.nonzero(changed(drawn))
  assert (rows.mean(), columns.mean()) == pytest.approx((70, 40), abs=0.5)
  assert np.ptp(rows) < 10


def test_a_fraction_of_a_pixel_is_drawn():
  whole = visualize.draw_pose(crop(), *points({NOSE: (40, 70)}), COCO)
  half = visualize.draw_pose(crop(), *points({NOSE: (40.5, 70)}), COCO)
  beyond = visualize.draw_pose(crop(), *points({NOSE: (41, 70)}), COCO)
  assert (half != whole).any()
  assert (half != beyond).any()


def test_nothing_is_drawn_of_keypoints_that_are_not_shown():
  keypoints, _ = points({NOSE: (40, 70), LEFT_EYE: (20, 30)})
  drawn = visualize.draw_pose(crop(), keypoints, np.zeros(17, bool), COCO)
  np.testing.assert_array_equal(drawn, crop())


def test_a_limb_needs_both_of_its_ends():
  assert (NOSE, LEFT_EYE) in COCO.limbs or (LEFT_EYE, NOSE) in COCO.limbs
  keypoints, shown = points({NOSE: (20, 20), LEFT_EYE: (80, 100)})
  drawn = visualize.draw_pose(crop(), keypoints, shown, COCO)
  assert changed(drawn)[60, 50]  # halfway
  shown[LEFT_EYE] = False
  drawn = visualize.draw_pose(crop(), keypoints, shown, COCO)
  assert not changed(drawn)[60, 50]


def test_a_color_is_that_of_all_of_it():
  keypoints, shown = points({NOSE: (20, 20), LEFT_EYE: (80, 100)})
  drawn = visualize.draw_pose(
    crop(), keypoints, shown, COCO, color=(255, 255, 255)
  )
  # White, the black around a point, and mixtures with what was there.
  assert (np.ptp(drawn.astype(int), axis=-1) == 0).all()
  for k in (NOSE, LEFT_EYE):
    x, y = keypoints[k].astype(int)
    assert drawn[y, x].tolist() == [255, 255, 255]


def test_keypoints_outside_the_image_are_cut_off():
  places = {NOSE: (-500, 60), LEFT_EYE: (500, 60)}
  drawn = visualize.draw_pose(crop(), *points(places), COCO)
  assert drawn.shape == crop().shape
  assert changed(drawn)[60, 48]  # The limb between them crosses it.


def test_a_comparison_is_enlarged_and_holds_both():
  found, shown = points({NOSE: (20, 30)})
  truth, labelled = points({NOSE: (70, 100)})
  drawn = visualize.draw_comparison(crop(), found, shown, truth, labelled, COCO)
  assert drawn.shape == (visualize.SHOWN_HEIGHT, 192, 3)
  # Twice as large: the center of pixel 20 is at 40.5.
  assert drawn[60, 40].tolist() == list(COCO.colors[NOSE])
  r, g, b = drawn[200, 140].tolist()
  assert r == g == b > 180  # white and thin, between two pixels


def test_what_was_found_lies_on_the_truth():
  keypoints, shown = points({NOSE: (20, 30)})
  drawn = visualize.draw_comparison(
    crop(), keypoints, shown, keypoints, shown, COCO
  )
  assert drawn[60, 40].tolist() == list(COCO.colors[NOSE])


@pytest.mark.parametrize(
  ("height", "factor"), [(64, 4), (128, 2), (170, 2), (256, 1), (600, 1)]
)
def test_small_crops_are_enlarged_by_whole_factors(height, factor):
  keypoints, shown = points({NOSE: (20, 30)})
  sheet = visualize.contact_sheet(
    crop(height)[None], keypoints[None], shown[None], COCO, columns=1
  )
  assert sheet.shape == (height * factor, 96 * factor, 3)


@pytest.mark.parametrize(
  ("count", "rows", "columns"), [(1, 1, 3), (3, 1, 3), (4, 2, 3)]
)
def test_a_contact_sheet_fills_rows_in_order(count, rows, columns):
  crops = np.stack([np.full((256, 192, 3), 10 * n + 10) for n in range(count)])
  sheet = visualize.contact_sheet(
    crops.astype(np.uint8),
    np.zeros((count, 17, 2)),
    np.zeros((count, 17), bool),
    COCO,
    columns=3,
  )
  assert sheet.shape == (256 * rows, 192 * columns, 3)
  for n in range(rows * columns):
    y, x = 256 * (n // columns), 192 * (n % columns)
    tile = sheet[y : y + 256, x : x + 192]
    assert (tile == (10 * n + 10 if n < count else 0)).all()


def decoded(encoded):
  image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
  return image[..., ::-1]


def test_png_keeps_every_pixel():
  image = fixtures.smooth_image(40, 30, (200, 90, 20))
  np.testing.assert_array_equal(decoded(visualize.encode_png(image)), image)


def test_jpeg_keeps_the_colors_and_follows_the_quality():
  image = fixtures.smooth_image(40, 30, (200, 90, 20))
  found = decoded(visualize.encode_jpeg(image)).astype(int)
  assert np.abs(found - image).max() <= 12
  noise = fixtures.rng(0).integers(0, 256, (40, 30, 3)).astype(np.uint8)
  sizes = [len(visualize.encode_jpeg(noise, q)) for q in (30, 85, 100)]
  assert sizes == sorted(sizes)
  assert sizes[0] < sizes[2]
