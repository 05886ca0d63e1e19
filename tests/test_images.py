"""The TFDS builder of COCO folders, and random access to its images."""

import os

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from input_pipeline import parts
from input_pipeline import store as store_lib
from tests import five_images, fixtures
from tests.five_images import (
  COLORS,
  IMAGES,
  SIZES,
  builder_of,
  records,
  store_of,
)


@pytest.fixture
def folder(tmp_path):
  return five_images.make(tmp_path)


def test_reads_the_files_exact_bytes_in_the_files_order(folder):
  store = store_of(folder)
  assert store.names == list(IMAGES)
  for number, name in enumerate(IMAGES):
    assert store.read(number) == IMAGES[name]
  assert store.read(0) == IMAGES["c.jpg"]  # again, backwards


def test_any_bytes_are_kept(folder):
  """What is in a file is looked at when it is read, not before."""
  odd = {
    "c.jpg": b"",
    "a.jpg": b"text",
    "d.jpg": fixtures.encode(np.zeros((4, 4, 3), np.uint8), ".png"),
    "b.jpg": os.urandom(100_000),
    "e.jpg": IMAGES["e.jpg"][:50],
  }
  fixtures.coco_folder(folder, odd, SIZES)
  store = store_of(folder)
  assert [store.read(n) for n in range(5)] == list(odd.values())


def test_is_an_ordinary_tfds_dataset(folder):
  builder = builder_of(folder)
  parts.prepare(builder)
  assert builder.info.splits["images"].num_examples == 5
  found = list(tfds.as_numpy(builder.as_dataset(split="images")))
  assert [f["file_name"].decode() for f in found] == list(IMAGES)
  assert [f["image_id"] for f in found] == [100, 99, 98, 97, 96]
  for example, (name, color) in zip(found, COLORS.items(), strict=True):
    wanted = fixtures.smooth_image(*SIZES[name], color)
    assert example["image"].shape == wanted.shape
    assert np.abs(example["image"].astype(int) - wanted).max() <= 8
  some = builder.as_dataset(split="images[1:3]", shuffle_files=False)
  assert [f["image_id"] for f in tfds.as_numpy(some)] == [99, 98]


def test_splits_are_kept_apart(folder):
  flipped = dict(zip(IMAGES, reversed(IMAGES.values()), strict=True))
  fixtures.coco_folder(folder, flipped, SIZES, split="val")
  train = store_of(folder)
  val = store_of(folder, "val")
  assert train.read(0) == val.read(4) == IMAGES["c.jpg"]
  assert train.path != val.path


def test_images_may_lie_in_an_images_folder(folder):
  (folder / "images").mkdir()
  (folder / "train").rename(folder / "images" / "train")
  store = store_of(folder)
  assert store.read(3) == IMAGES["b.jpg"]


def test_several_files_of_records(folder):
  """As large splits have; the order stays the annotation file's."""
  builder = builder_of(folder)
  parts.prepare(builder, smallest=2)
  assert len(records(folder)) == 3
  store = store_lib.open_store(builder, list(IMAGES))
  assert [store.read(n) for n in range(5)] == list(IMAGES.values())


def test_records_match_tensorflows_own_reader(folder):
  """The index against TFRecordDataset, example by example."""
  store = store_of(folder)
  (path,) = records(folder)
  for number, record in enumerate(tf.data.TFRecordDataset(path)):
    example = tf.train.Example.FromString(record.numpy())
    image = example.features.feature["image"].bytes_list.value[0]
    assert image == store.read(number)
