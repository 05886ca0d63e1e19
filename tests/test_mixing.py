"""Training on several data sets: whose turn it is, and that nothing is lost."""

import itertools
import re
from fractions import Fraction

import numpy as np
import pytest
from ml_collections import ConfigDict

from input_pipeline import batches, mixing, runs
from input_pipeline.mixing import Mix
from tests import fixtures, small_coco, tiny
from tokenpose_jax import checkpoint, skeletons
from tokenpose_jax.errors import InputError

WEIGHTS = [
  (),
  (1,),
  (Fraction(1, 2),),
  (3, Fraction(1, 3)),
  (Fraction(7, 10), 2, Fraction(1, 8)),
]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_shares_are_exact_and_nobody_is_left_out(weights):
  weights = [*map(Fraction, weights)]
  count = 3000
  which, place = Mix(weights).at(np.arange(count))
  total = 1 + sum(weights)
  for number, weight in enumerate([Fraction(1), *weights]):
    own = place[which == number]
    np.testing.assert_array_equal(own, np.arange(len(own)))
    # Of any stretch, up to the rounding of each cut.
    seen = np.cumsum(which == number)
    wanted = np.arange(1, count + 1) * float(weight / total)
    assert np.abs(seen - wanted).max() < len(weights) + 1


def test_a_position_says_all_wherever_it_is_asked():
  mix = Mix([Fraction(2, 3), Fraction(5, 7)])
  whole = mix.at(np.arange(500))
  for n in (0, 1, 77, 499):
    one = mix.at(np.array([n]))
    assert [part[0] for part in one] == [part[n] for part in whole]
  far = 10**12 + np.arange(8)
  again = [mix.at(far[i : i + 1]) for i in range(8)]
  for part, wanted in zip(mix.at(far), zip(*again, strict=True), strict=True):
    np.testing.assert_array_equal(part, np.concatenate(wanted))


@pytest.mark.parametrize(
  "text",
  [
    "",
    "coco:a:b",
    "coco:a:b:0",
    "coco:a:b:x",
    "coco::b:1",
    ":a:b:1",
    "a:b:1:1/0",
  ],
)
def test_what_is_no_set(text):
  with pytest.raises(InputError, match=re.escape(f"data.mix: {text!r}")):
    mixing.others([text])


def test_folders_may_have_colons():
  (other,) = mixing.others(["coco:gs://bucket/a:train:0.25"])
  assert other == ("coco", "gs://bucket/a", "train", Fraction(1, 4))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """Two folders of one person an image; gray levels tell them apart."""
  made = []
  for number, level in enumerate((60, 200)):
    path = tmp_path_factory.mktemp(f"set{number}")
    names = [f"{n}.png" for n in range(5 + 3 * number)]
    image = np.full((64, 48, 3), level, np.uint8)
    sizes = {name: (64, 48) for name in names}
    people = [
      fixtures.person(100 - n, (8, 8, 32, 48)) for n in range(len(names))
    ]
    encoded = fixtures.encode(image, ".png")
    fixtures.coco_folder(path, dict.fromkeys(names, encoded), sizes, people)
    made.append(str(path))
  return made


def mixed(folders, tmp_path, weight="0.5", **changes):
  return tiny.config(
    data__dir=folders[0],
    data__train_split="train",
    data__prepared_dir=str(tmp_path / "prepared"),
    augment__half_body_probability=0.0,
    data__mix=(f"coco:{folders[1]}:train:{weight}",),
    **{"train__batch_size": 6, **changes},
  )


def test_batches_of_two_sets(folders, tmp_path):
  config = mixed(folders, tmp_path)
  data = batches.train_data(config, skeletons.COCO_17, np.arange(6))
  assert data.people == round(5 * 1.5)
  assert data.identity["people"] == 5
  (other,) = data.identity["mix"]
  assert (other["people"], other["weight"]) == (8, "1/2")
  alone = []
  for n, folder in enumerate(folders):
    own = ConfigDict(config)
    own.data.mix, own.data.dir = (), folder
    # As many as there are of it in ten batches, one after the other.
    own.train.batch_size = (40, 20)[n]
    one = batches.train_data(own, skeletons.COCO_17, np.arange((40, 20)[n]))
    alone.append(one.image_ids(0))
  which, place = Mix([Fraction(1, 2)]).at(np.arange(60))
  for step, batch in enumerate(itertools.islice(data.batches(0), 10)):
    for slot in range(6):
      position = 6 * step + slot
      n = which[position]
      level = batch["image"][slot].max()
      assert abs(int(level) - (60, 200)[n]) < 3
      assert batch["mask"][slot] == 1
      assert data.image_ids(step)[slot] == alone[n][place[position]]


def test_parts_and_resumptions_are_of_the_same_batch(folders, tmp_path):
  config = mixed(folders, tmp_path)
  whole = batches.train_data(config, skeletons.COCO_17, np.arange(6))
  steps = [*itertools.islice(whole.batches(0), 5)]
  small_coco.check_equal(next(whole.batches(3)), steps[3])
  parts = [
    next(batches.train_data(config, skeletons.COCO_17, slots).batches(3))
    for slots in (np.array([0, 1, 4]), np.array([2, 3, 5]))
  ]
  joined = small_coco.joined(parts)
  order = np.argsort([0, 1, 4, 2, 3, 5])
  small_coco.check_equal({k: v[order] for k, v in joined.items()}, steps[3])


def test_a_run_does_not_go_on_with_another_mix(folders, tmp_path):
  fields = {
    "train__eval_every_epochs": 0,
    "data__eval_split": "train",
    "eval__bootstrap": 0,
    "train__batch_size": 8,
    "compile_cache": "",
  }
  config = mixed(folders, tmp_path, train__steps=1, **fields)
  workdir = str(tmp_path / "run")
  runs.train(ConfigDict(config), workdir)
  meta = checkpoint.Checkpoints(workdir).read_meta(1)
  assert meta["data"]["mix"][0]["weight"] == "1/2"
  config = mixed(folders, tmp_path, "0.25", train__steps=2, **fields)
  with pytest.raises(InputError, match="weight"):
    runs.train(ConfigDict(config), workdir)
