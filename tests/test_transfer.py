"""Weights between skeletons, keypoint by keypoint."""

import dataclasses
import itertools
import json

import jax
import numpy as np
import optax
import pytest

from tests import checkpoints, tiny
from tokenpose_jax import (
  InputError,
  checkpoint,
  convert,
  hub,
  network,
  saving,
  skeletons,
  train_state,
  transfer,
)
from tokenpose_jax.models.config import ModelConfig
from tokenpose_jax.skeletons import COCO_17, MPII_16, Skeleton


@pytest.fixture(scope="module")
def feet(tmp_path_factory) -> str:
  """A 21-point skeleton as a JSON file: MPII's, feet and hands."""
  limbs = [
    [MPII_16.keypoints[a], MPII_16.keypoints[b]] for a, b in MPII_16.limbs
  ]
  pairs = [
    [MPII_16.keypoints[a], MPII_16.keypoints[b]] for a, b in MPII_16.flip_pairs
  ]
  fields = {
    "name": "feet_21",
    "keypoints": [
      *MPII_16.keypoints,
      *("left_heel", "right_heel", "left_toe", "right_toe", "tail"),
    ],
    "limbs": [
      *limbs,
      ["left_ankle", "left_heel"],
      ["left_heel", "left_toe"],
      ["right_ankle", "right_heel"],
      ["right_heel", "right_toe"],
    ],
    "flip_pairs": [
      *pairs,
      ["left_heel", "right_heel"],
      ["left_toe", "right_toe"],
    ],
  }
  path = tmp_path_factory.mktemp("skeleton") / "feet.json"
  path.write_text(json.dumps(fields))
  return str(path)


def test_coco_to_mpii_by_name_and_by_what_is_around():
  found = transfer.match_keypoints(COCO_17, MPII_16)
  assert list(found) == list(MPII_16.keypoints)
  for name, origin in found.items():
    if name in COCO_17.keypoints:
      assert origin == transfer.TokenSource((name,), "same name")
  assert set(found["pelvis"].names) == {"left_hip", "right_hip"}
  assert set(found["thorax"].names) == {"left_shoulder", "right_shoulder"}
  assert "nose" in found["head"].names
  assert str(found["pelvis"]) == "left_hip + right_hip (around it)"


def test_new_points_take_neighbours_mirrors_or_all(feet):
  target = skeletons.get(feet)
  found = transfer.match_keypoints(MPII_16, target)
  assert found["left_heel"].names == ("left_ankle",)
  assert found["left_toe"].names == ("left_ankle",)  # two limbs away
  assert found["left_toe"].rule == "neighbors"
  assert found["tail"].names == MPII_16.keypoints
  one_sided = dataclasses.replace(
    MPII_16,
    keypoints=tuple(
      "other" if name == "left_wrist" else name for name in MPII_16.keypoints
    ),
  )
  origin = transfer.match_keypoints(one_sided, MPII_16)["left_wrist"]
  assert origin == transfer.TokenSource(("right_wrist",), "mirror image")


def weights_of(skeleton: Skeleton, position: str = "sine-full", seed: int = 0):
  settings = tiny.config(model__position=position)
  fields = {**settings.model, "num_keypoints": skeleton.num_keypoints}
  return fields, network.init(fields, seed)


@pytest.mark.parametrize("position", ["sine-full", "learnable"])
def test_coco_to_mpii_to_21_points(feet, position):
  chain = [COCO_17, MPII_16, skeletons.get(feet)]
  _, weights = weights_of(COCO_17, position)
  first = weights[0]
  for source, target in itertools.pairwise(chain):
    fields, fresh = weights_of(target, position, seed=1)
    weights = transfer.transfer_weights(weights, source, fresh, target)
    assert jax.tree.map(np.shape, weights) == jax.tree.map(np.shape, fresh)
  tokens = {"keypoint_tokens"}
  if position == "learnable":
    tokens.add("position_table")
  coco = {name: i for i, name in enumerate(COCO_17.keypoints)}
  for path in tokens:
    old, new = np.asarray(first[path]), weights[0][path]
    for index, name in enumerate(chain[-1].keypoints):
      if name in coco:
        np.testing.assert_array_equal(new[index], old[coco[name]])
    place = chain[-1].keypoints.index
    hips = (old[coco["left_hip"]] + old[coco["right_hip"]]) / 2
    np.testing.assert_allclose(new[place("pelvis")], hips, rtol=1e-6)
    np.testing.assert_array_equal(
      new[place("left_toe")], old[coco["left_ankle"]]
    )
    if path == "position_table":
      np.testing.assert_array_equal(new[21:], old[17:])
  # All else moves as it is.
  np.testing.assert_array_equal(
    weights[0]["head"]["linear1"]["kernel"], first["head"]["linear1"]["kernel"]
  )
  images = fixtures_images(fields)
  heatmaps = network.apply(fields, *weights, images)
  assert heatmaps.shape == (2, 21, *(16, 12))


def fixtures_images(fields) -> np.ndarray:
  return (
    np.random.default_rng(0)
    .normal(size=(2, *fields["input_hw"], 3))
    .astype(np.float32)
  )


def test_networks_that_differ_in_more_are_refused():
  _, weights = weights_of(COCO_17)
  settings = tiny.config(model__dim=64)
  other = network.init(settings.model, 0)
  with pytest.raises(InputError, match="differ in more than their keypoints"):
    transfer.transfer_weights(weights, COCO_17, other, COCO_17)


def start(settings, skeleton):
  optimizer = optax.adam(1e-3)
  fresh = train_state.create(settings.model, optimizer, 7)
  return transfer.warm_start(settings, skeleton, fresh)


def test_starting_from_a_file_of_another_skeleton(tmp_path, caplog):
  fields, weights = weights_of(COCO_17)
  path = str(tmp_path / "coco.safetensors")
  convert.write_state_dict(path, convert.export_torch(fields, *weights))
  settings = tiny.config(init__weights=path, data__skeleton="mpii_16")
  with caplog.at_level("INFO"):
    state = start(settings, MPII_16)
  assert "17 keypoints: coco_17" in caplog.text
  assert "pelvis" in caplog.text
  assert "left_hip + right_hip (around it)" in caplog.text
  tokens = np.asarray(weights[0]["keypoint_tokens"])
  place = MPII_16.keypoints.index("left_knee")
  np.testing.assert_array_equal(
    state.params["keypoint_tokens"][place],
    tokens[COCO_17.keypoints.index("left_knee")],
  )


def test_starting_from_a_work_directory(tmp_path):
  settings = tiny.config(seed=5)
  trained, _, _ = tiny.training(settings, jax.devices()[:1])
  saved = saving.Saver(str(tmp_path))
  saved.save(trained, checkpoint.describe(settings, COCO_17.to_dict(), {}))
  saved.close()
  changes = {"init__weights": str(tmp_path), "data__skeleton": "mpii_16"}
  state = start(tiny.config(model__dtype="bfloat16", **changes), MPII_16)
  np.testing.assert_array_equal(
    state.params["patch_embedding"]["kernel"],
    trained.params["patch_embedding"]["kernel"],
  )
  np.testing.assert_array_equal(
    state.params["keypoint_tokens"][MPII_16.keypoints.index("left_knee")],
    trained.params["keypoint_tokens"][COCO_17.keypoints.index("left_knee")],
  )
  with pytest.raises(
    InputError, match=r"different network: model.heads: 2 -> 4$"
  ):
    start(tiny.config(model__heads=4, **changes), MPII_16)


@pytest.mark.parametrize("position", ["learnable", "sine-full"])
def test_starting_from_other_patches(tmp_path, position, caplog):
  coarse = tiny.config(model__patch_hw=(8, 6), model__position=position)
  fine = tiny.config(model__position=position, init__weights=str(tmp_path))
  state, _ = checkpoints.make(tmp_path, coarse)
  fresh = train_state.create(fine.model, optax.sgd(1.0), seed=7)
  with caplog.at_level("INFO", logger="absl"):
    started = transfer.warm_start(fine, COCO_17, fresh)
  assert "patches of 4 x 3, not of 8 x 6" in caplog.text
  for part in ("keypoint_tokens", "stacks", "head", "backbone"):
    jax.tree.map(
      np.testing.assert_array_equal, started.params[part], state.params[part]
    )
  own = started.params["patch_embedding"]["kernel"]
  np.testing.assert_array_equal(own, fresh.params["patch_embedding"]["kernel"])
  if position == "sine-full":
    (table, wanted) = (
      one.model_state["position_table"] for one in (started, fresh)
    )
    np.testing.assert_array_equal(table, wanted)
    return
  table, before, own = (
    one.params["position_table"] for one in (started, state, fresh)
  )
  assert table.shape == (17 + 16, 32)
  np.testing.assert_array_equal(table[:17], before[:17])
  # The corners of 4 x 4 patches take the rows of those of 2 x 2.
  corners = np.array([0, 3, 12, 15])
  np.testing.assert_allclose(
    (table - own)[17 + corners], before[17:], atol=1e-6
  )


def module_of(settings, state):
  module = network.abstract_module(ModelConfig.of(settings.model))
  graph, *_ = network.split_module(module)
  return network.merge_module(graph, state.params, state.model_state)


@pytest.mark.parametrize(
  ("position", "head_dim"), [("learnable", 8), ("sine-full", 0)]
)
def test_starting_from_smaller_images(tmp_path, position, head_dim, caplog):
  fields = {"model__position": position, "model__head_dim": head_dim}
  small = tiny.config(**fields)
  sides = tuple(3 * side // 2 for side in small.model.input_hw)
  large = tiny.config(
    model__input_hw=sides, init__weights=str(tmp_path), **fields
  )
  state, _ = checkpoints.make(tmp_path, small)
  fresh = train_state.create(large.model, optax.sgd(1.0), seed=7)
  with caplog.at_level("INFO", logger="absl"):
    started = transfer.warm_start(large, COCO_17, fresh)
  assert "heatmaps of 24 x 18, not of 16 x 12" in caplog.text
  assert "positions of 6 x 6 patches from those of 4 x 4" in caplog.text
  for part in ("keypoint_tokens", "stacks", "patch_embedding", "backbone"):
    jax.tree.map(
      np.testing.assert_array_equal, started.params[part], state.params[part]
    )
  # The same tokens are the same heatmaps with more pixels.
  tokens = jax.random.normal(jax.random.key(0), (2, 17, 32))
  found, before = (
    module_of(config, one).heatmaps(tokens)
    for config, one in ((large, started), (small, state))
  )
  wanted = jax.image.resize(before, found.shape, "linear")
  np.testing.assert_allclose(found, wanted, atol=1e-6)
  if position == "sine-full":
    table, wanted = (
      one.model_state["position_table"] for one in (started, fresh)
    )
    np.testing.assert_array_equal(table, wanted)
    return
  table, before = (one.params["position_table"] for one in (started, state))
  np.testing.assert_array_equal(table[:17], before[:17])
  grid = np.reshape(before[17:], (4, 4, 32))
  np.testing.assert_allclose(table[17], grid[0, 0], atol=1e-6)
  # 1.5 patches of the larger network are one of the smaller: its second one's
  # middle is 1/2 of a patch from the first one's, in both directions.
  between = grid[:2, :2].mean((0, 1))
  np.testing.assert_allclose(table[17 + 7], between, atol=1e-6)


def test_starting_from_a_published_folder(tmp_path):
  settings = tiny.config()
  state, _ = checkpoints.make(tmp_path / "run", settings)
  folder = str(tmp_path / "published")
  hub.save_pretrained(str(tmp_path / "run"), folder)
  changes = {"init__weights": folder, "data__skeleton": "mpii_16"}
  started = start(tiny.config(**changes), MPII_16)
  np.testing.assert_array_equal(
    started.params["patch_embedding"]["kernel"],
    state.params["patch_embedding"]["kernel"],
  )
  with pytest.raises(
    InputError, match=r"init.weights: .*network: model.heads: 2 -> 4$"
  ):
    start(tiny.config(model__heads=4, **changes), MPII_16)


@pytest.mark.parametrize("kept", ["raw", "ema"])
def test_starting_from_the_average_where_there_is_one(tmp_path, kept, caplog):
  settings = tiny.config(seed=5)
  trained, _, _ = tiny.training(settings, jax.devices()[:1])
  average = jax.tree.map(lambda a: a + 1, (trained.params, trained.model_state))
  saved = saving.Saver(str(tmp_path))
  saved.save(
    trained.replace(ema=average if kept == "ema" else None),
    checkpoint.describe(settings, COCO_17.to_dict(), {}),
  )
  saved.close()
  wanted = {"raw": trained.params, "ema": average[0]}
  with caplog.at_level("INFO"):
    for kind in ("raw", kept):
      fields = {"init__weights": str(tmp_path), "eval__weights": kind}
      state = start(tiny.config(**fields), COCO_17)
      np.testing.assert_array_equal(
        state.params["patch_embedding"]["kernel"],
        wanted[kind]["patch_embedding"]["kernel"],
      )
  assert f"the {kept} weights of step 0" in caplog.text
  state = start(
    tiny.config(init__weights=str(tmp_path), eval__weights="ema"), COCO_17
  )
  np.testing.assert_array_equal(
    state.params["keypoint_tokens"], wanted[kept]["keypoint_tokens"]
  )


def test_starting_from_a_backbone(tmp_path):
  fields, weights = weights_of(COCO_17, seed=3)
  written = convert.export_torch(fields, *weights)
  backbone = {
    name.removeprefix("features."): value
    for name, value in written.items()
    if name.startswith(("features.conv", "features.bn", "features.layer1"))
  }
  path = str(tmp_path / "backbone.safetensors")
  convert.write_state_dict(path, backbone)
  settings = tiny.config(init__backbone=path)
  state = start(settings, COCO_17)
  np.testing.assert_array_equal(
    state.params["backbone"]["conv1"]["conv"]["kernel"],
    weights[0]["backbone"]["conv1"]["conv"]["kernel"],
  )
  with pytest.raises(InputError, match="give only one"):
    tiny.config(init__backbone=path, init__weights=path)


@pytest.mark.parametrize("field", ["init__weights", "init__backbone"])
def test_what_cannot_be_started_from_is_blamed_on_its_field(tmp_path, field):
  named = field.replace("__", ".")
  (tmp_path / "empty").mkdir()
  (tmp_path / "x.ckpt").write_text("these are no weights")
  for name, says in (
    ("nowhere.ckpt", "nowhere.ckpt does not exist"),
    ("x.ckpt", "x.ckpt is not a complete file of PyTorch"),
    ("empty", "holds no checkpoint|does not exist"),
  ):
    settings = tiny.config(**{field: str(tmp_path / name)})
    with pytest.raises(InputError, match=f"{named}: .*({says})") as error:
      start(settings, COCO_17)
    assert "workdir" not in str(error.value)
