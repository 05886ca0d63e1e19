"""Prepared person crops: the pixels of the images, without decoding."""

import dataclasses
import itertools

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from input_pipeline import (
  augment,
  batches,
  datasets,
  parts,
  person_crops,
  sampling,
)
from input_pipeline.image_crops import ImageCropReader
from input_pipeline.store import ImageStore
from tests import fixtures, small_coco
from tokenpose_jax import geometry, skeletons

COCO = skeletons.COCO_17
INPUT_HW = small_coco.INPUT_HW
SIZES = {f"{n}.png": (150 + n, 200 - n) for n in range(4)}


def people_of(size):
  """Someone in the middle, someone large, someone at the edge."""
  h, w = size
  return [
    (w * 0.4, h * 0.3, w * 0.2, h * 0.4),
    (5, 5, w - 10, h - 10),
    (w - 30, h - 50, 28, 48),
  ]


@pytest.fixture
def prepared(tmp_path):
  """Config, split and people of PNG images, which are exact."""
  images, annotations = {}, []
  for number, (name, size) in enumerate(SIZES.items()):
    g = fixtures.rng(number)
    noise = g.integers(0, 256, (*size, 3)).astype(np.uint8)
    images[name] = fixtures.encode(noise, ".png")
    for n, box in enumerate(people_of(size)):
      entry = fixtures.person(100 - number, box)
      if n == 2:  # too few keypoints for half a body
        entry["keypoints"][15:] = [0] * 36
      annotations.append(entry)
  fixtures.coco_folder(tmp_path / "data", images, SIZES, annotations)
  config = small_coco.config_for(tmp_path)
  config.data.person_crops = True
  config.data.crop_density = 1e9
  split = fixtures.prepare(config, "train")
  return config, split, datasets.people(split, config)


def train(prepared, reader, count=8):
  slots = np.arange(small_coco.BATCH)
  found = fixtures.train_batches(*prepared, slots=slots, reader=reader)
  result = list(itertools.islice(found, count))
  found.close()
  return {k: np.concatenate([b[k] for b in result]) for k in result[0]}


def reader_of(prepared):
  return batches.train_reader(*prepared)


def extreme_draws(n, seed):
  """Draws far outside, so that every limit is reached."""
  g = fixtures.rng(seed)
  drawn = {
    "half_body": g.random(n) * 0.6,
    "upper": g.random(n),
    "scale": g.normal(0, 3, n),
    "rotate": g.random(n),
    "rotation": g.normal(0, 3, n),
    "flip": g.random(n),
  }
  return sampling.Draws(**drawn)


def test_without_a_limit_crops_are_those_of_the_images(prepared):
  wanted = train(prepared, None)
  found = train(prepared, reader_of(prepared))
  for key in ("keypoints", "visible", "mask"):
    np.testing.assert_array_equal(found[key], wanted[key])
  difference = np.abs(found["image"].astype(int) - wanted["image"])
  # The float32 of a shifted map, on noise.
  assert difference.max() <= 2
  assert difference.mean() < 0.01
  assert wanted["image"].std() > 20


@pytest.mark.parametrize("rotation", [0.0, 10.0, 45.0])
def test_regions_hold_all_that_augmentation_shows(prepared, rotation):
  config, split, people = prepared
  config.augment.rotation_degrees = rotation
  sizes = split.store.sizes[people.image]
  regions = person_crops.regions(people, sizes, config, COCO)
  low, high = (
    regions.window[:, :2],
    regions.window[:, :2] + regions.window[:, 2:],
  )
  assert (low >= 0).all()
  assert (high <= sizes).all()
  touched = np.zeros(len(people), bool)
  for seed in range(200):
    crops = augment.augmented_crops(
      people.center,
      people.scale,
      people.keypoints,
      people.visible,
      input_hw=INPUT_HW,
      image_width=sizes[:, 1],
      draws=extreme_draws(len(people), seed),
      settings=config.augment,
      skeleton=COCO,
    )
    seen = geometry.source_window(crops.affine, INPUT_HW, sizes, margin=1)
    inside = seen[:, 2:].all(1)
    assert (seen[inside, :2] >= low[inside]).all()
    assert (seen[inside, :2] + seen[inside, 2:] <= high[inside]).all()
    touched |= (np.abs(seen[:, :2] - low) <= 4).any(1)
  assert touched.all()  # no larger than needed


def test_density_limits_what_is_stored(prepared):
  config, split, people = prepared
  sizes = split.store.sizes[people.image]
  full = person_crops.regions(people, sizes, config, COCO)
  np.testing.assert_array_equal(full.stored_hw, full.window[:, 2:])
  config.data.crop_density = 1.5
  less = person_crops.regions(people, sizes, config, COCO)
  np.testing.assert_array_equal(less.window, full.window)
  density = people.scale[:, 0] * 200 / INPUT_HW[1]
  assert density.max() > 3
  zoom = np.minimum(1, 1.5 / density)
  np.testing.assert_allclose(
    less.stored_hw, full.window[:, 2:] * zoom[:, None], atol=1
  )
  # What was at a pixel's centre stays there.
  corners = less.window[:, 1::-1] + (less.window[:, :1:-1] - 1) / 2
  stored = geometry.transform(less.affine, corners[:, None])[:, 0]
  np.testing.assert_allclose(stored, (less.stored_hw[:, ::-1] - 1) / 2)


def test_averaged_crops_show_the_same(tmp_path):
  """A smooth image, so that averaging takes nothing away."""
  size = {"a.png": (400, 300)}
  image = fixtures.smooth_image(400, 300, (120, 100, 140))
  encoded = {"a.png": fixtures.encode(image, ".png")}
  fixtures.coco_folder(tmp_path / "data", encoded, size)
  config = small_coco.config_for(tmp_path)
  config.data.person_crops, config.data.crop_density = True, 1.0
  plain = config.copy_and_resolve_references()
  plain.data.person_crops = False
  split = fixtures.prepare(config, "train")
  people = datasets.people(split, config)
  wanted = train((plain, split, people), None)["image"].astype(int)
  reader = reader_of((config, split, people))
  found = train((config, split, people), reader)["image"].astype(int)
  inside = (wanted > 0).all(-1) & (found > 0).all(-1)
  # At the image's edge the two fade to black over different widths.
  inside = np.stack(
    [cv2.erode(i, np.ones((5, 5))) > 0 for i in inside.astype(np.uint8)]
  )
  assert inside.mean() > 0.5
  assert np.abs(found - wanted)[inside].max() <= 2


def test_prepared_once_and_anew_for_other_augmentation(prepared, monkeypatch):
  first = train(prepared, reader_of(prepared))
  reads, real = [], ImageStore.read

  def read(store, number, *more):
    reads.append(store)
    return real(store, number, *more)

  monkeypatch.setattr(ImageStore, "read", read)
  reader = reader_of(prepared)
  assert not reads
  second = train(prepared, reader)
  for key, value in first.items():
    np.testing.assert_array_equal(second[key], value)
  assert prepared[1].store not in reads  # the images are not needed now
  prepared[0].augment.scale = 0.1
  reader_of(prepared)
  assert prepared[1].store in reads


def test_is_an_ordinary_tfds_dataset(prepared):
  config, split, people = prepared
  sizes = split.store.sizes[people.image]
  regions = person_crops.regions(people, sizes, config, COCO)
  builder = person_crops.PersonCrops(
    "x", split.store, people.image, regions, config.data.prepared_dir
  )
  parts.prepare(builder)
  found = list(tfds.as_numpy(builder.as_dataset(split="images")))
  assert len(found) == len(people)
  for example, hw in zip(found, regions.stored_hw, strict=True):
    assert (example["height"], example["width"]) == tuple(hw)
    assert example["pixels"].shape == (hw.prod() * 3,)


def test_people_of_bad_images_keep_their_slots(prepared):
  """The store's bytes of one image are cut off."""
  config, split, people = prepared
  split = dataclasses.replace(split)
  real = split.store.read
  split.store.read = lambda n: real(n)[:100] if n == 1 else real(n)
  reader = reader_of((config, split, people))
  batch = train((config, split, people), reader, 3)
  chosen = [sampling.person_at(config.seed, p, 12) for p in range(12)]
  bad = people.image[chosen] == 1
  assert bad.sum() == 3
  np.testing.assert_array_equal(batch["mask"], ~bad)
  assert not batch["image"][bad].any()


def test_off_by_default(prepared):
  config, split, people = prepared
  config.data.person_crops = False
  reader = batches.train_reader(config, split, people)
  assert isinstance(reader, ImageCropReader)
