"""Weights to and from PyTorch: every variant, every file, every fault."""

import dataclasses
import json
import pathlib
import pickle
import zipfile

import jax
import numpy as np
import pytest
import safetensors.numpy
import torch
from flax import traverse_util

from tests import fixtures, tiny
from tokenpose_jax import InputError, checkpoint, cli, convert, network
from tokenpose_jax.convert import names
from tokenpose_jax.convert.detect import detect
from tokenpose_jax.models import positions
from tokenpose_jax.models.config import ModelConfig
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


def official(model, table: bool = True) -> dict[str, np.ndarray]:
  """A state dict of that network, by the weight rule of tests/parity/README.md."""
  state = {}
  for tree in network.abstract(model):
    for path, leaf in traverse_util.flatten_dict(tree, sep="/").items():
      name = names.official_name(model, path)
      shape = leaf.shape
      if path == "keypoint_tokens":
        shape = (1, *shape)
      elif path == "position_table":
        # Not quite the computed table: what is stored must come back.
        table = np.random.default_rng(0).normal(0, 1e-5, (1, *shape))
        state[name] = (table + _table(model)).astype(np.float32)
        continue
      elif path.endswith("kernel"):
        order = (3, 2, 0, 1) if len(shape) == 4 else (1, 0)
        shape = tuple(shape[axis] for axis in order)
      elif path.endswith("count"):
        state[name] = np.array(len(state), np.int64)
        continue
      state[name] = fixtures.weight(name, shape)
  return state


def _table(model) -> np.ndarray:
  """The network's own position table."""
  config = ModelConfig.of(model)
  return positions.sine_table(*config.grid_hw, config.dim)


def equal(one, other) -> None:
  """Same names, types, shapes and bytes."""
  assert set(one) == set(other)
  for name, value in other.items():
    assert one[name].dtype == value.dtype, name
    assert one[name].shape == value.shape, name
    assert one[name].tobytes() == value.tobytes(), name


@variants
def test_parameters_round_trip_and_detection(name):
  model = PUBLISHED[name]
  state = official(model)
  params, model_state = convert.import_torch(model, state)
  assert network.count_parameters(params) == VARIANTS[name]
  equal(convert.export_torch(model, params, model_state), state)
  assert detect(state).model == model


@pytest.fixture(scope="module")
def small():
  """A tiny S: (model, official state dict)."""
  model = tiny.config().model
  return model, official(model)


def wrapped(state, how: str):
  tensors = {name: torch.from_numpy(value) for name, value in state.items()}
  parallel = {f"module.{name}": value for name, value in tensors.items()}
  return {
    "bare": tensors,
    "module": parallel,
    # What the original's training writes.
    "checkpoint": {
      "epoch": 3,
      "model": "pose_tokenpose_s",
      "state_dict": parallel,
      "best_state_dict": tensors,
      "perf": np.float64(0.725),
      "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]},
    },
    "model": {"model": tensors},
  }[how]


@pytest.mark.parametrize("how", ["bare", "module", "checkpoint", "model"])
def test_files_of_pytorch(small, tmp_path, how):
  model, state = small
  path = tmp_path / "weights.pth"
  torch.save(wrapped(state, how), path)
  read = convert.read_state_dict(str(path))
  equal(convert.export_torch(model, *convert.import_torch(model, read)), state)


def test_a_numpy_number_of_old_days_is_read(small, tmp_path):
  """NumPy 1 pickled its numbers under another module's name."""
  _, state = small
  torch.save(wrapped(state, "checkpoint"), tmp_path / "new.pth")
  with (
    zipfile.ZipFile(tmp_path / "new.pth") as new,
    zipfile.ZipFile(tmp_path / "old.pth", "w") as old,
  ):
    for name in new.namelist():
      content = new.read(name)
      if name.endswith("data.pkl"):
        assert b"numpy._core.multiarray" in content
        content = content.replace(
          b"numpy._core.multiarray", b"numpy.core.multiarray"
        )
      old.writestr(name, content)
  equal(convert.read_state_dict(str(tmp_path / "old.pth")), state)


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_written_files_are_read_and_never_overwritten(small, tmp_path, ending):
  model, state = small
  path = str(tmp_path / f"weights{ending}")
  weights = convert.import_torch(model, state)
  convert.write_state_dict(path, convert.export_torch(model, *weights))
  equal(convert.read_state_dict(path), state)
  with pytest.raises(InputError, match="exists and is not overwritten"):
    convert.write_state_dict(path, state)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_read(small, tmp_path, dtype):
  _, state = small
  tensors = {
    name: torch.from_numpy(value).to(getattr(torch, dtype))
    for name, value in state.items()
    if value.dtype == np.float32
  }
  torch.save(tensors, tmp_path / "half.pth")
  from_torch = convert.read_state_dict(str(tmp_path / "half.pth"))
  halves = {
    name: value.astype(np.float16 if dtype == "float16" else jax.numpy.bfloat16)
    for name, value in state.items()
    if value.dtype == np.float32
  }
  (tmp_path / "half.safetensors").write_bytes(safetensors.numpy.save(halves))
  equal(convert.read_state_dict(str(tmp_path / "half.safetensors")), from_torch)
  for name, value in from_torch.items():
    np.testing.assert_allclose(value, state[name], rtol=1e-2, atol=1e-4)


class Command:
  """Runs a command when it is unpickled."""

  def __reduce__(self):
    return pathlib.Path.touch, (pathlib.Path("ran"),)


def bad_file(path: pathlib.Path, kind: str, state) -> pathlib.Path:
  """A file that must be refused."""
  if kind == "pickled command":
    torch.save({"state_dict": Command()}, path)
  elif kind == "plain pickled command":
    path.write_bytes(pickle.dumps(Command()))
  elif kind == "truncated":
    torch.save(wrapped(state, "bare"), path)
    path.write_bytes(path.read_bytes()[:20_000])
  elif kind == "text":
    path.write_text("these are no weights\n" * 10)
  elif kind == "empty":
    path.write_bytes(b"")
  elif kind == "no state dict":
    torch.save({"epoch": 3, "model": "pose_tokenpose_s"}, path)
  elif kind == "truncated safetensors":
    path = path.with_suffix(".safetensors")
    path.write_bytes(safetensors.numpy.save(state)[:-100])
  elif kind == "text safetensors":
    path = path.with_suffix(".safetensors")
    path.write_text("these are no weights\n" * 10)
  return path


@pytest.mark.parametrize(
  ("kind", "says"),
  [
    ("pickled command", "could run code"),
    ("plain pickled command", "could run code|not a complete file"),
    ("truncated", "not a complete file of PyTorch"),
    ("text", "not a complete file of PyTorch"),
    ("empty", "not a complete file of PyTorch"),
    ("no state dict", "holds no state dict .* but epoch, model"),
    ("truncated safetensors", "not a complete .safetensors file"),
    ("text safetensors", "not a complete .safetensors file"),
    ("missing", "does not exist"),
  ],
)
def test_bad_files_are_one_line(
  small, tmp_path, monkeypatch, capsys, kind, says
):
  monkeypatch.chdir(tmp_path)
  path = bad_file(tmp_path / "bad.pth", kind, small[1])
  with pytest.raises(InputError, match=says) as error:
    convert.read_state_dict(str(path))
  assert "\n" not in str(error.value)
  with pytest.raises(SystemExit, match="1"):
    cli.main(["convert", "inspect", str(path)])
  assert capsys.readouterr().err.startswith("error: ")
  assert not (tmp_path / "ran").exists()


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
  np.testing.assert_array_equal(model_state["position_table"], _table(model))
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
  equal(
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


@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
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
  equal(convert.read_state_dict(target), state)
  with pytest.raises(SystemExit, match="1"):
    cli.main(["convert", "import", source, workdir])
  assert "already contains checkpoints" in capsys.readouterr().err
