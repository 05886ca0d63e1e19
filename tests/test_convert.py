"""Weights to and from PyTorch: every variant, every layout, every fault."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from tests import fixtures, tiny
from tests.state_dicts import check_equal, official, position_table
from tokenpose_jax import InputError, checkpoint, cli, convert, network
from tokenpose_jax.convert import names
from tokenpose_jax.convert.detect import detect
from tokenpose_jax.models.published import PUBLISHED

# Trainable parameters of every published network.
VARIANTS = {
  "tokenpose_t": 5_816_448,
  "tokenpose_s_v1": 6_620_736,
  "tokenpose_s_v2": 6_227_520,
  "tokenpose_b": 13_465_216,
  "tokenpose_l_d6": 20_815_776,
  "tokenpose_l_d24": 27_482_400,
  "tokenpose_l_d24_384x288": 29_808_672,
  "tokenpose_l_d6_mpii": 21_443_296,
  "tokenpose_l_d24_mpii": 28_109_920,
}
variants = pytest.mark.parametrize("name", VARIANTS)


@variants
def test_parameters_round_trip_and_detection(name):
  model = PUBLISHED[name]
  state = official(model)
  params, model_state = convert.import_torch(model, state)
  assert network.count_parameters(params) == VARIANTS[name]
  check_equal(convert.export_torch(model, params, model_state), state)
  assert detect(state).model == model


def original_names(stem: str) -> set[str]:
  """Those of the original's state dict, from a fixture of the repository."""
  fixture = json.loads((fixtures.STORED / f"{stem}.json").read_text())
  return {entry["name"] for entry in fixture["state_dict"]}


def test_names_of_b_are_those_of_ls_backbone_and_ts_tokens():
  """No fixture of B is in the repository; it is made of these two halves."""
  backbone = {
    name
    for name in original_names("model_L-D24-256x192")
    if name.startswith("pre_feature.")
  }
  tokens = original_names("model_T")
  assert set(official(PUBLISHED["tokenpose_b"])) == backbone | tokens


@pytest.fixture(scope="module")
def small():
  """A tiny S: (model, official state dict)."""
  model = tiny.config().model
  return model, official(model)


def test_another_network_is_refused_with_names_and_shapes(small):
  model, state = small
  name = "features.patch_to_embedding.weight"
  changed = {**state, name: np.zeros((3, 3), np.float32), "extra": np.zeros(2)}
  del changed["features.conv1.weight"]
  with pytest.raises(InputError) as error:
    convert.import_torch(model, changed)
  text = str(error.value)
  assert f"{name}: expected (32, 192), found (3, 3)" in text
  assert "features.conv1.weight: expected (4, 3, 3, 3), missing" in text
  assert "extra: surplus, shape (2,)" in text
  with pytest.raises(InputError, match="no keypoint_token"):
    detect({"layer1.0.conv1.weight": np.zeros(3)})


def test_partial_loading_lists_what_was_left(small, caplog):
  model, state = small
  kept = {n: v for n, v in state.items() if not n.startswith("features.mlp")}
  kept["classifier.weight"] = np.zeros((2, 2))
  fresh = network.init(model, 1)
  with caplog.at_level("WARNING"):
    params, _ = convert.import_torch(model, kept, into=fresh)
  assert "features.mlp_head.1.weight: expected (32, 32), missing" in caplog.text
  assert "classifier.weight: surplus" in caplog.text
  np.testing.assert_array_equal(
    params["head"]["linear1"]["kernel"], fresh[0]["head"]["linear1"]["kernel"]
  )
  np.testing.assert_array_equal(
    params["keypoint_tokens"], state["features.keypoint_token"][0]
  )


def test_counters_and_table_may_be_absent(small):
  model, state = small
  reduced = {
    name: value
    for name, value in state.items()
    if not name.endswith(("num_batches_tracked", "pos_embedding"))
  }
  _, model_state = convert.import_torch(model, reduced)
  np.testing.assert_array_equal(
    model_state["position_table"], position_table(model)
  )
  assert model_state["backbone"]["conv1"]["norm"]["count"] == 0


def test_a_trained_table_may_not_be_absent():
  model = tiny.config(model__position="learnable").model
  weights = network.init(model, 0)
  state = convert.export_torch(model, *weights)
  del state["features.pos_embedding"]
  with pytest.raises(
    InputError, match=r"pos_embedding: expected \(1, 33, 32\), missing"
  ):
    convert.import_torch(model, state)


@pytest.mark.parametrize("backbone", ["stem", "hrnet_w32"])
def test_mmpose_layout(backbone):
  name = {"stem": "tokenpose_s_v1", "hrnet_w32": "tokenpose_b"}[backbone]
  model = dataclasses.replace(PUBLISHED[name], depth=1)
  state = official(model)
  of_backbone, of_tokens = names.PREFIXES[backbone]
  layers = ("conv", "bn", "layer", "stage", "transition")
  renamed = {}
  for name, value in state.items():
    rest = name.removeprefix(of_backbone)
    if rest.startswith(layers) and name.startswith(of_backbone):
      renamed[f"backbone.{rest}"] = value
    else:
      rest = name.removeprefix(of_tokens)
      renamed[f"keypoint_head.tokenpose.{rest}"] = value
  assert len(renamed) == len(state)
  check_equal(
    convert.export_torch(model, *convert.import_torch(model, renamed)), state
  )
  found = detect(renamed)
  assert found.layout == "mmpose"
  # Unlike the original's S, that code scales by the head's width.
  assert found.model.attention_scale == "head"


def imagenet(model, prefix: str = "") -> dict[str, np.ndarray]:
  """An HRNet classifier: the backbone, and layers that have no place here."""
  of_backbone, _ = names.PREFIXES[model.backbone]
  state = {
    prefix + name.removeprefix(of_backbone): value + 1
    for name, value in official(model).items()
    if name.startswith(of_backbone)
  }
  for name in (
    "stage3.3.fuse_layers.1.0.0.0.weight",
    "transition3.3.0.0.weight",
    "stage4.0.branches.0.0.conv1.weight",
    "incre_modules.0.0.conv1.weight",
    "classifier.weight",
  ):
    state[prefix + name] = np.zeros(1, np.float32)
  return state


@pytest.mark.parametrize("prefix", ["", "module._orig_mod.", "backbone."])
def test_imagenet_backbone(prefix):
  model = dataclasses.replace(PUBLISHED["tokenpose_b"], depth=1)
  fresh = jax.tree.map(
    lambda leaf: np.zeros(leaf.shape, leaf.dtype), network.abstract(model)
  )
  state = imagenet(model, prefix)
  params, model_state = convert.import_backbone(model, state, fresh)
  written = convert.export_torch(model, params, model_state)
  before = convert.export_torch(model, *fresh)
  for name, value in written.items():
    rest = name.removeprefix("pre_feature.")
    wanted = state.get(prefix + rest) if rest != name else before[name]
    np.testing.assert_array_equal(value, wanted, err_msg=name)
  del state[f"{prefix}layer1.0.conv1.weight"]
  with pytest.raises(
    InputError, match=r"hrnet_w32': layer1.0.conv1.weight: .* missing"
  ):
    convert.import_backbone(model, state, fresh)


def test_commands_import_and_export(small, tmp_path, capsys):
  _, state = small
  source = str(tmp_path / "in.safetensors")
  convert.write_state_dict(source, state)
  workdir = str(tmp_path / "run")
  cli.main(["convert", "import", source, workdir, "--heads=2"])
  printed = capsys.readouterr().out
  assert "assumed: attention_scale = width" in printed
  assert "model.heads = 2, as given" in printed
  assert "skeleton: coco_17" in printed
  saved = checkpoint.Checkpoints(workdir).read_meta(0)
  assert saved["config"]["model"]["heads"] == 2
  assert saved["skeleton"]["name"] == "coco_17"
  target = str(tmp_path / "out.pth")
  cli.main(["convert", "export", workdir, target])
  assert json.dumps({"heads": 2, "attention_scale": "width"}) in (
    capsys.readouterr().out
  )
  check_equal(convert.read_state_dict(target), state)
  with pytest.raises(SystemExit, match="1"):
    cli.main(["convert", "import", source, workdir])
  assert "already contains checkpoints" in capsys.readouterr().err
  # What is written stays in the work directory.
  (tmp_path / "mine").mkdir()
  (tmp_path / "theirs").mkdir()
  (tmp_path / "theirs" / "checkpoints").symlink_to(tmp_path / "mine")
  with pytest.raises(SystemExit, match="1"):
    cli.main(["convert", "import", source, str(tmp_path / "theirs")])
  assert "checkpoints is a link to" in capsys.readouterr().err
  assert not [*(tmp_path / "mine").iterdir()]
