"""Rows of `benchmarks.learning`; what `benchmarks.baselines` compares with."""

import argparse
import json
import pathlib

import numpy as np
import pytest

from benchmarks import baselines, learning
from configs import small
from input_pipeline import batches
from tests import fixtures, tiny
from tokenpose_jax import config as config_lib
from tokenpose_jax import skeletons
from tokenpose_jax.models.config import ModelConfig

OPTIONS = {
  "coco": "COCO",
  "train": "a",
  "val": "b",
  "sports": "SPORTS",
  "drawn": "DRAWN",
  "backbone": "lite0.pth",
  "epochs": 4,
  "seed": 3,
  "more": "--config.data.workers=1 --config.data.person_crops=True",
}


@pytest.mark.parametrize("name", learning.ROWS)
def test_rows_are_recipes(name):
  """Each sets fields that there are, to values that they take."""
  row = learning.ROWS[name]
  options = argparse.Namespace(**OPTIONS)
  command = learning.command_of(options, row, pathlib.Path("OUT/row"))
  config = small.get_config()
  given = [part.removeprefix("--config.") for part in command[4:]]
  for field, value in (part.split("=", 1) for part in given):
    now = config
    *sections, last = field.split(".")
    for section in sections:
      now = now[section]
    if isinstance(now[last], str):
      now[last] = value
    elif field == "model.patch_hw":
      now[last] = tuple(map(int, value.split(",")))
    elif field == "data.mix":
      now[last] = eval(value, {})
    else:
      now[last] = type(now[last])(eval(value, {}))
  config_lib.check(config)
  config_lib.resolve(config, skeletons.COCO_17)
  ModelConfig.of(config.model)
  assert config.seed == 3
  assert config.data.dir == "COCO"
  assert config.data.person_crops
  assert config.init.weights == (f"OUT/{row.start}-3/run" if row.start else "")
  share = 1 + row.sports + row.drawn
  if not row.whole:  # As many people as the others.
    recipe = 1 + learning.SPORTS + learning.DRAWN
    assert config.train.epochs * share == 4 * recipe
    warmup = small.get_config().optim.warmup_epochs
    assert config.optim.warmup_epochs * share == pytest.approx(warmup * recipe)
  weights = [float(one.rpartition(":")[2]) for one in config.data.mix]
  assert 1 + sum(weights) == share


def test_the_table_and_the_curves(tmp_path, capsys):
  for seed, ap in ((0, 0.25), (1, 0.5)):
    folder = tmp_path / f"stem-{seed}"
    evaluated = folder / "run" / "eval" / "20"
    for kind, boxes in (("gt", "gt"), ("gt-ema", "gt"), ("x-ema", "x.json")):
      (evaluated / kind).mkdir(parents=True)
      told = {
        "figures": {"AP": ap if kind == "gt-ema" else 0.125},
        "intervals": {"AP": [ap - 0.1, ap + 0.1]},
        "made": {
          "boxes": boxes,
          "weights": "ema" if "ema" in kind else "raw",
          "config": {"train": {"batch_size": 32}, "eval": {"weights": "ema"}},
        },
      }
      (evaluated / kind / "metrics.json").write_text(json.dumps(told))
    (folder / "log.txt").write_text(
      "step 10/20  loss 5.0e-03  accuracy 0.125  grad\n"
      "step 20/20  loss 4.0e-03  accuracy 0.250  grad\n"
    )
  learning.table(tmp_path)
  *_, first, second = capsys.readouterr().out.strip().splitlines()
  assert first.split(" | ")[2:] == [
    *("0", "640", "0.250"),
    *("0.250 [0.150, 0.350]", "0.125 [0.150, 0.350] |"),
  ]
  assert "0.500 [0.400, 0.600]" in second
  assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
  lines = (tmp_path / "curves.csv").read_text().splitlines()
  assert lines[:2] == [
    "row,seed,people,what,value,low,high",
    "stem,0,320,loss,0.005",
  ]
  assert 'stem,1,640,"AP, annotated",0.5,0.4,0.6' in lines


def test_the_mean_pose_of_people_who_stand_alike(tmp_path):
  """It is theirs, in boxes of any size; and not that of other people."""
  for split, sides in (("train", (60, 100)), ("val", (80, 200))):
    sizes = {f"{split}{n}.png": (side, side) for n, side in enumerate(sides)}
    images = {
      name: fixtures.encode(np.zeros((*size, 3), np.uint8), ".png")
      for name, size in sizes.items()
    }
    fixtures.coco_folder(tmp_path, images, sizes, split=split)
  config = tiny.config(
    data__dir=str(tmp_path),
    data__prepared_dir=str(tmp_path / "prepared"),
    data__train_split="train",
    data__eval_split="val",
  )
  skeleton = skeletons.COCO_17
  data = batches.eval_data(config, skeleton, np.arange(2))
  predictions = baselines.mean_pose(config, skeleton, data)
  assert data.benchmark.measure(predictions).metrics["AP"] == pytest.approx(1)
  found = baselines.untrained(config, skeleton, data)
  assert found.valid.all()
  assert data.benchmark.measure(found).metrics["AP"] < 0.5
