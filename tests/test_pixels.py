"""Augmentation of crops' pixels: colors, and what is covered."""

import dataclasses

import numpy as np
import pytest

from configs import default
from input_pipeline import pixels, sampling
from tests import small_coco
from tests.small_coco import BATCH, check_equal, joined, train
from tokenpose_jax.models.config import MEAN_COLOR

HALF = sampling.PixelDraws(
  gain=np.full((1, 3), 0.5),
  contrast=np.full(1, 0.5),
  brightness=np.full(1, 0.5),
  cover=np.full(1, 0.5),
  cover_center=np.full((1, 2), 0.5),
  cover_size=np.full((1, 2), 0.5),
)


def settings(**fields):
  config = default.get_config().augment
  config.update(fields)
  return config


def augmented(crops, fields, **draws):
  crops = crops.copy()
  draws = {name: np.array([value], float) for name, value in draws.items()}
  pixels.augment(crops, dataclasses.replace(HALF, **draws), settings(**fields))
  return crops


@pytest.fixture
def crops():
  return np.random.default_rng(0).integers(0, 256, (1, 32, 24, 3), np.uint8)


def test_off_by_default_nothing_changes(crops):
  found = augmented(crops, {}, gain=[0, 0, 1], contrast=0, cover=0)
  np.testing.assert_array_equal(found, crops)


def test_the_middle_of_the_draws_changes_no_color(crops):
  np.testing.assert_array_equal(augmented(crops, {"color": 0.4}), crops)


@pytest.mark.parametrize(
  ("draws", "wanted"),
  [
    # At 0.4: a channel times 0.6 to 1.4, by 100, 128, 200.
    ({"gain": [0, 0.75, 1]}, (60, 154, 255)),
    # The distance to 128, times 0.6 and 1.4.
    ({"contrast": 0}, (111, 128, 171)),
    ({"contrast": 1}, (89, 128, 229)),
    # 128 times -0.4 and 0.2.
    ({"brightness": 0}, (49, 77, 149)),
    ({"brightness": 0.75}, (126, 154, 226)),
    # In this order: 60, 87.2, 61.6; 154, 164.4, 138.8; 255 of 280.
    ({"gain": [0, 0.75, 1], "contrast": 0, "brightness": 0.3}, (67, 123, 199)),
  ],
)
def test_colors_by_hand(draws, wanted):
  crops = np.full((1, 3, 2, 3), (100, 128, 200), np.uint8)
  found = augmented(crops, {"color": 0.4}, **draws)
  np.testing.assert_array_equal(found, np.broadcast_to(wanted, crops.shape))


@pytest.mark.parametrize(
  ("center", "size", "rows", "columns"),
  [
    # 5/16 of 32 and 24 pixels around the middle.
    ([0.5, 0.5], [0.5, 0.5], (11, 21), (8, 16)),
    # An eighth and nearly a half.
    ([0.5, 0.5], [0, 1], (14, 18), (6, 18)),
    # What lies outside of the crop is not covered at its other end.
    ([0, 1], [0.5, 0.5], (0, 5), (20, 24)),
  ],
)
def test_a_rectangle_is_covered(crops, center, size, rows, columns):
  fields = {"cover_probability": 0.6}
  draws = {"cover_center": center, "cover_size": size}
  wanted = crops.copy()
  wanted[0, slice(*rows), slice(*columns)] = (124, 116, 104)
  np.testing.assert_array_equal(augmented(crops, fields, **draws), wanted)
  kept = augmented(crops, fields, cover=0.6, **draws)
  np.testing.assert_array_equal(kept, crops)


def test_draws_are_of_their_position_alone_and_never_change():
  positions = np.array([5, 10**9, 0])
  found = sampling.pixel_draws_at(7, positions)
  for name, values in dataclasses.asdict(found).items():
    alone = [
      getattr(sampling.pixel_draws_at(7, positions[[i]]), name)[0]
      for i in range(3)
    ]
    np.testing.assert_array_equal(alone, values)
    assert len(np.unique(values)) == values.size
    assert (values >= 0).all()
    assert (values < 1).all()
  # Numbers of their own: none is among those of the crop's map.
  of_map = dataclasses.astuple(sampling.draws_at(7, positions))
  assert not np.isin(found.contrast, np.stack(of_map)).any()
  first = sampling.pixel_draws_at(0, np.array([0]))
  assert first.contrast == pytest.approx(0.611624051764214, rel=1e-12)
  assert first.cover_size[0, 1] == pytest.approx(0.30588643903696067, rel=1e-12)


def test_a_training_sees_them_on_any_number_of_processes(tmp_path):
  config, *rest = small_coco.prepare(tmp_path)
  config = config.copy_and_resolve_references()
  plain = train((config, *rest), 3)
  config.augment.update({"color": 0.3, "cover_probability": 0.5})
  found = train((config, *rest), 3)
  parts = [train((config, *rest), 3, [slot]) for slot in range(BATCH)]
  covered = 0
  for step, (batch, was) in enumerate(zip(found, plain, strict=True)):
    check_equal(joined([part[step] for part in parts]), batch)
    images, before = batch.pop("image"), was.pop("image").copy()
    check_equal(batch, was)
    positions = step * BATCH + np.arange(BATCH)
    draws = sampling.pixel_draws_at(config.seed, positions)
    pixels.augment(before, draws, config.augment)
    np.testing.assert_array_equal(images, before)
    covered += (images == MEAN_COLOR).all(-1).any((1, 2)).sum()
  assert 0 < covered < 3 * BATCH
