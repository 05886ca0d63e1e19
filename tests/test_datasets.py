"""From a config to a prepared split."""

import shutil

import pytest

from input_pipeline import datasets
from tests import fixtures, small_coco
from tests.small_coco import COLORS, config_for, evaluate, joined, train
from tokenpose_jax.errors import InputError


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """Config, split and people: one person per image, two on large.jpg."""
  return small_coco.prepare(tmp_path_factory.mktemp("batches"))


def test_prepare_follows_the_config(prepared, tmp_path):
  config, split, _ = prepared
  assert split.store.path.startswith(config.data.prepared_dir)
  assert split.store.names == list(COLORS)
  assert [i["id"] for i in split.annotations.content["images"]] == list(
    range(100, 93, -1)
  )
  config = config.copy_and_resolve_references()
  config.data.name = "voc"
  with pytest.raises(InputError, match="'voc'; allowed: coco, mpii, syn"):
    fixtures.prepare(config, "train")
  config.data.name = "coco"
  config.data.dir = str(tmp_path / "nowhere")
  with pytest.raises(InputError, match="nowhere does not exist"):
    fixtures.prepare(config, "train")


def test_synthetic_people_are_prepared_and_read(tmp_path):
  config = config_for(tmp_path)
  config.data.name = "synthetic"
  config.data.train_split, config.data.eval_split = "train", "test"
  config.data.synthetic_train_people = 3
  config.data.synthetic_test_people = 2
  train_split = fixtures.prepare(config, "train")
  people = datasets.people(train_split, config)
  assert len(people) >= 3
  (batch,) = train((config, train_split, people), 1)
  assert batch["mask"].all()
  assert batch["image"].std() > 5

  test_split = fixtures.prepare(config, "test")
  people = datasets.people(test_split, config)
  assert len(people) >= 2
  batch = joined(evaluate((config, test_split, people)))
  assert batch["mask"].sum() == len(people)
  boxes = f"{config.data.dir}/person_detection_results/detections_test.json"
  assert len(datasets.people(test_split, config, boxes=boxes))

  # A second run draws and prepares nothing.
  shutil.rmtree(f"{config.data.dir}/train")
  again = fixtures.prepare(config, "train")
  assert again.annotations == train_split.annotations
  assert again.store.read(0) == train_split.store.read(0)
