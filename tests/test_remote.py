"""Everything through TensorFlow's file systems: `ram://` stands for `gs://`."""

import itertools
import os
import shutil
import uuid

import numpy as np
import pytest
import tensorflow as tf
from etils.epath import gpath, register

from input_pipeline import datasets, mpii
from tests import fixtures, small_coco, small_mpii
from tokenpose_jax import skeletons


@pytest.fixture
def remote(monkeypatch):
  """A folder of this test alone, which TFDS knows as it knows gs://.

  TFDS's paths are etils's, which pass the schemes they know to TensorFlow's
  file systems; ram:// is none of them.
  """
  monkeypatch.setattr(gpath, "_URI_PREFIXES", (*gpath._URI_PREFIXES, "ram://"))
  monkeypatch.setattr(gpath, "_URI_SCHEMES", gpath._URI_SCHEMES | {"ram"})
  monkeypatch.setitem(gpath._URI_MAP_ROOT, "ram://", "/ram/")
  tf_backend = gpath.backend_lib.tf_backend
  monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "ram", tf_backend)
  known = register._URI_PREFIXES_TO_CLS
  monkeypatch.setitem(known, "ram://", known["gs://"])
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
  people = people_of(remote, mpii.ALL)
  assert len(people) == 6
