"""Everything through TensorFlow's file systems: `ram://` stands for `gs://`."""

import itertools
import os
import shutil
import uuid

import numpy as np
import pytest
import tensorflow as tf
from etils import epath

from input_pipeline import (
  builders,
  datasets,
  image_files,
  mpii,
  mpii_files,
  parts,
)
from input_pipeline import store as store_lib
from tests import five_images, fixtures, small_coco, small_mpii
from tokenpose_jax import skeletons


@epath.register_path_cls("ram://")
class RamPath(epath.Path):
  """A path of TensorFlow's file system in memory.

  TFDS's paths are etils's, which have classes for the schemes that they know,
  gs:// among them; ram:// is not one of them. Only what preparing and reading
  need is here.
  """

  def __str__(self):
    return "ram://" + "/".join(self.parts[1:])

  def __fspath__(self):
    return str(self)

  def exists(self):
    return tf.io.gfile.exists(str(self))

  def glob(self, pattern):
    return map(epath.Path, tf.io.gfile.glob(str(self / pattern)))

  def open(self, mode="r", **options):
    return tf.io.gfile.GFile(str(self), mode)


@pytest.fixture
def remote():
  """A folder of this test alone."""
  return f"ram://{uuid.uuid4()}"


def upload(local, remote):
  for folder, _, names in os.walk(local):
    there = os.path.join(remote, os.path.relpath(folder, local))
    there = there.removesuffix("/.")
    tf.io.gfile.makedirs(there)
    for name in names:
      tf.io.gfile.copy(os.path.join(folder, name), os.path.join(there, name))


def batches_of(config):
  """Two training batches and an evaluation's, with and without crops."""
  split = fixtures.prepare(config, "train")
  people = datasets.people(split, config)
  slots = np.arange(small_coco.BATCH)
  found = fixtures.train_batches(config, split, people, slots=slots)
  made = list(itertools.islice(found, 2))
  found.close()
  return made + list(fixtures.eval_batches(config, split, people, slots=slots))


@pytest.mark.parametrize("person_crops", [False, True])
def test_coco_is_the_same_as_on_a_disk(tmp_path, remote, person_crops):
  sizes = {name: small_coco.SIZES[name] for name in small_coco.SIZES}
  sizes["large.jpg"] = (300, 400)
  images = small_coco.image_bytes()
  images["large.jpg"] = fixtures.encode(
    fixtures.smooth_image(300, 400, (1, 90, 200))
  )
  fixtures.coco_folder(tmp_path / "data", images, sizes)
  config = small_coco.config_for(tmp_path)
  config.data.person_crops = person_crops
  wanted = batches_of(config)
  upload(tmp_path / "data", f"{remote}/data")
  config.data.dir = f"{remote}/data"
  config.data.prepared_dir = f"{remote}/prepared"
  shutil.rmtree(tmp_path)
  found = batches_of(config)
  for one, other in zip(found, wanted, strict=True):
    small_coco.check_equal(one, other)
  assert not names_in(remote, "incomplete") + names_in(remote, "partial")


def names_in(remote, word):
  """Paths of the files with a word in them."""
  found = tf.io.gfile.walk(remote)
  paths = [os.path.join(folder, n) for folder, _, names in found for n in names]
  return [path for path in paths if word in path]


def test_preparing_goes_on(tmp_path, remote, monkeypatch):
  """In its final place, which is none before all is there."""
  upload(five_images.make(tmp_path), f"{remote}/data")
  names = list(five_images.IMAGES)

  def builder():
    entries = [{"file_name": n, "id": i} for i, n in enumerate(names)]
    return builders.CocoKeypoints(
      "train", f"{remote}/data/train", entries, f"{remote}/prepared"
    )

  read = image_files.read

  def stopped(folder, name):
    if name == names[3]:
      raise KeyboardInterrupt
    return read(folder, name)

  with monkeypatch.context() as patch:
    patch.setattr(image_files, "read", stopped)
    with pytest.raises(KeyboardInterrupt):
      parts.prepare(builder(), smallest=2)
  done, partial = names_in(remote, "-of-00003")
  tf.io.gfile.remove(partial)  # ram:// would append to it
  time_ns = tf.io.gfile.stat(done).mtime_nsec
  assert not builder().is_prepared()
  again = builder()
  parts.prepare(again, smallest=2)
  assert tf.io.gfile.stat(done).mtime_nsec == time_ns
  store = store_lib.open_store(again, names)
  wanted = list(five_images.IMAGES.values())
  assert [store.read(n) for n in range(5)] == wanted
  # A start that finds it whole writes nothing.
  monkeypatch.setattr(image_files, "read", stopped)
  parts.prepare(builder(), smallest=2)


def test_a_wrong_size_names_the_prepared_data(tmp_path, remote):
  """Where nobody knows that a file has been repaired since."""
  encoded = fixtures.encode(fixtures.smooth_image(30, 40, (1, 90, 200)))
  images = {"a.jpg": encoded}
  fixtures.coco_folder(tmp_path / "data", images, {"a.jpg": (30, 40)})
  config = small_coco.config_for(tmp_path)
  path = fixtures.prepare(config, "train").store.path
  fixtures.coco_folder(tmp_path / "data", images, {"a.jpg": (40, 30)})
  upload(tmp_path, remote)
  config.data.dir = f"{remote}/data"
  config.data.prepared_dir = f"{remote}/prepared"
  there = path.replace(str(tmp_path), remote)
  fixtures.check_refused(
    lambda: fixtures.prepare(config, "train"), f"delete {there}"
  )


def people_of(folder, split):
  annotations = mpii.read(fixtures.data_of(folder), split, skeletons.MPII_16)
  return mpii.annotated_people(annotations, (256, 256), 1.25)


def test_mpii_and_its_release(tmp_path, remote):
  small_mpii.write_images(tmp_path)
  entries = [small_mpii.person(n) for n in range(6)]
  small_mpii.write_json(tmp_path, entries, "valid")
  small_mpii.write_release(tmp_path, entries)
  upload(tmp_path, remote)
  people = people_of(remote, "valid")
  assert not np.isnan(people.head_box).any()
  people = people_of(remote, mpii_files.ALL)
  assert len(people) == 6
