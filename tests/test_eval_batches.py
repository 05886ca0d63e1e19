"""Evaluation batches: each person once, on any number of processes."""

import json

import numpy as np
import pytest

from input_pipeline import datasets
from input_pipeline.image_crops import ImageCropReader
from tests import small_coco
from tests.small_coco import (
  BAD,
  COLORS,
  INPUT_HW,
  check_equal,
  evaluate,
  joined,
  names_of,
)
from tokenpose_jax import geometry


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """Config, split and people: one person per image, two on large.jpg."""
  return small_coco.prepare(tmp_path_factory.mktemp("batches"))


@pytest.fixture
def reads(monkeypatch):
  return small_coco.watch_reads(monkeypatch)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 8, 50])
def test_eval_covers_each_person_once(prepared, batch_size):
  _, split, people = prepared
  found = evaluate(prepared, batch_size=batch_size)
  assert len(found) == -(-8 // batch_size)
  assert all(len(batch["mask"]) == batch_size for batch in found)
  batch = joined(found)
  readable = [
    n for n, name in enumerate(names_of(split, people)) if name not in BAD
  ]
  np.testing.assert_array_equal(batch["index"][batch["mask"] == 1], readable)
  np.testing.assert_array_equal(batch["index"][:8], np.arange(8))
  assert not batch["mask"][8:].any()
  assert not batch["image"][8:].any()
  assert batch["index"].max() == 7  # Padding, too, is a place in `people`.


def test_eval_batch_is_the_plain_crop(prepared):
  _, split, people = prepared
  reader = ImageCropReader(split.store, people.image)
  batch = joined(evaluate(prepared))
  assert batch["image"].dtype == np.uint8
  assert batch["crop_to_image"].dtype == batch["mask"].dtype == np.float32
  assert batch["index"].dtype == np.int32
  for n in range(8):
    affine = geometry.crop_affine(
      people.center[[n]], people.scale[[n]], 0.0, INPUT_HW
    )
    pixels, good = reader.read(np.array([n]), affine, INPUT_HW)
    np.testing.assert_array_equal(batch["image"][[n]], pixels)
    assert batch["mask"][n] == good
    points = geometry.transform(affine[0], people.keypoints[n])
    back = geometry.transform(batch["crop_to_image"][n], points)
    np.testing.assert_allclose(back, people.keypoints[n], atol=1e-2)


def test_eval_shows_each_format(prepared):
  _, split, people = prepared
  batch = joined(evaluate(prepared))
  for n, name in enumerate(names_of(split, people)):
    middle = batch["image"][n, 12:20, 9:15].reshape(-1, 3).mean(0)
    if name not in BAD:
      # The second person of large.jpg stands where it is lighter.
      assert np.abs(middle - COLORS[name]).max() <= 20, name


def test_eval_processes_share_the_batch(prepared):
  alone = evaluate(prepared, batch_size=3)
  one = evaluate(prepared, [0, 1], batch_size=3)
  two = evaluate(prepared, [2], batch_size=3)
  assert len(alone) == len(one) == len(two) == 3
  for whole, *parts in zip(alone, one, two, strict=True):
    check_equal(joined(parts), whole)


def test_eval_reads_each_image_once_a_person(prepared, reads):
  evaluate(prepared, batch_size=3)
  _, images = reads
  assert sorted(images) in (
    sorted(prepared[2].image),
    sorted([*prepared[2].image, prepared[2].image[0]]),  # to learn the shapes
  )


def test_eval_of_detector_boxes(prepared, tmp_path):
  config, split, _ = prepared
  config = config.copy_and_resolve_references()
  path = tmp_path / "boxes.json"
  box = {"category_id": 1, "bbox": [9, 9, 50, 40]}
  boxes = [
    {"image_id": 98, "score": 0.9, **box},
    {"image_id": 100, "score": 0.1, **box},
  ]
  path.write_text(json.dumps(boxes))
  people = datasets.people(split, config, boxes=str(path))
  assert len(people) == 2
  config.eval.min_box_score = 0.5
  people = datasets.people(split, config, boxes=str(path))
  assert names_of(split, people) == ["png.jpg"]
  (batch,) = evaluate((config, split, people))
  np.testing.assert_array_equal(batch["mask"], [1, 0, 0, 0])
  middle = batch["image"][0, 12:20, 9:15].reshape(-1, 3).mean(0)
  assert np.abs(middle - COLORS["png.jpg"]).max() <= 20
