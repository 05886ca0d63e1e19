"""A prepared COCO folder of seven small images, two of them unreadable."""

import itertools
import threading

import numpy as np

from configs import default
from input_pipeline import datasets, sampling
from input_pipeline.store import ImageStore
from tests import fixtures

INPUT_HW = (32, 24)
BATCH = 4
COLORS = {
  "color.jpg": (200, 100, 50),
  "grey.jpg": (120, 120, 120),
  "png.jpg": (30, 200, 90),
  "large.jpg": (60, 80, 220),
  "truncated.jpg": (90, 90, 90),
  "text.jpg": (0, 0, 0),
  "plain.jpg": (240, 240, 30),
}
SIZES = {name: (60 + n, 80 - n) for n, name in enumerate(COLORS)}
SIZES["large.jpg"] = (900, 1200)
BAD = ("truncated.jpg", "text.jpg")


def image_bytes():
  images = {}
  for name, color in COLORS.items():
    image = fixtures.smooth_image(*SIZES[name], color)
    images[name] = fixtures.encode(
      image[..., 0] if name == "grey.jpg" else image
    )
  png = fixtures.smooth_image(*SIZES["png.jpg"], COLORS["png.jpg"])
  images["png.jpg"] = fixtures.encode(png, ".png")
  noise = fixtures.rng(0).integers(0, 256, (*SIZES["truncated.jpg"], 3))
  noise = fixtures.encode(noise.astype(np.uint8))
  images["truncated.jpg"] = noise[: len(noise) // 10]
  images["text.jpg"] = b"this is no image"
  return images


def config_for(path):
  config = default.get_config()
  config.model.input_hw = INPUT_HW
  config.data.dir = str(path / "data")
  config.data.prepared_dir = str(path / "prepared")
  config.data.train_split = config.data.eval_split = "train"
  config.data.workers = 2
  config.train.batch_size = config.eval.batch_size = BATCH
  return config


def prepare(path):
  """Config, split and people: one person per image, two on large.jpg."""
  annotations = []
  for number, name in enumerate(COLORS):
    height, width = SIZES[name]
    box = (width * 0.25, height * 0.25, width * 0.5, height * 0.5)
    annotations.append(fixtures.person(100 - number, box))
  annotations.insert(1, fixtures.person(97, (1100, 800, 90, 95)))
  fixtures.coco_folder(path / "data", image_bytes(), SIZES, annotations)
  config = config_for(path)
  split = fixtures.prepare(config, "train")
  people = datasets.people(split, config)
  assert len(people) == 8
  return config, split, people


def names_of(split, people):
  return [split.store.names[number] for number in people.image]


def train(prepared, count, slots=None, **options):
  """The first batches of a run."""
  slots = np.arange(BATCH) if slots is None else np.asarray(slots)
  found = fixtures.train_batches(*prepared, slots=slots, **options)
  return list(itertools.islice(found, count))


def evaluate(prepared, slots=None, batch_size=BATCH):
  config, split, people = prepared
  config = config.copy_and_resolve_references()
  config.eval.batch_size = batch_size
  slots = np.arange(batch_size) if slots is None else np.asarray(slots)
  return list(fixtures.eval_batches(config, split, people, slots=slots))


def check_equal(one, other):
  """Same keys, types and values."""
  assert one.keys() == other.keys()
  for key in one:
    assert one[key].dtype == other[key].dtype
    np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def joined(parts):
  return {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}


def watch_reads(monkeypatch):
  """Every position that is asked for, and every image that is read."""
  positions, images, lock = [], [], threading.Lock()
  person_at, read = sampling.person_at, ImageStore.read

  def watched_person_at(seed, position, people):
    with lock:
      positions.append(position)
    return person_at(seed, position, people)

  def watched_read(store, number, *part):
    with lock:
      images.append(number)
    return read(store, number, *part)

  monkeypatch.setattr(sampling, "person_at", watched_person_at)
  monkeypatch.setattr(ImageStore, "read", watched_read)
  return positions, images
