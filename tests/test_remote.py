"""Everything through TensorFlow's file systems: `ram://` stands for `gs://`."""

import itertools
import os
import shutil
import uuid

import numpy as np
import pytest
import tensorflow as tf
from etils import epath

from input_pipeline import datasets, mpii, mpii_files
from tests import fixtures, small_coco, small_mpii
from tokenpose_jax import skeletons


@epath.register_path_cls("ram://")
class RamPath(epath.Path):
  """A path of TensorFlow's file system in memory.

  TFDS's paths are etils's, which have classes for the schemes that they know,
  gs:// among them; ram:// is not one of them. Only what reading needs is here.
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
  # TFDS cannot finish on ram://: it removes a folder that it has moved away,
  # which ram:// takes amiss. So it is prepared here and read there.
  upload(tmp_path, remote)
  config.data.dir = f"{remote}/data"
  config.data.prepared_dir = f"{remote}/prepared"
  (index,) = tf.io.gfile.glob(
    f"{remote}/prepared/coco_keypoints/*/*/images.npy"
  )
  tf.io.gfile.remove(index)  # which is written again there
  shutil.rmtree(tmp_path)
  found = batches_of(config)
  for one, other in zip(found, wanted, strict=True):
    small_coco.check_equal(one, other)
  assert tf.io.gfile.exists(index)


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
