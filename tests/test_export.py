"""Exports: the same keypoints in every format, and graphs worth shipping."""

import collections
import functools
import json
import pathlib

import jax
import numpy as np
import onnx
import pytest

import tokenpose_jax as tp
from tests import exporting, fixtures, tiny
from tokenpose_jax import exported
from tokenpose_jax.export import command, function
from tokenpose_jax.predict import saved as saved_lib

NAMES = tuple(exported.FILES)
PHOTO = fixtures.rng(0).integers(0, 256, (120, 200, 3)).astype(np.uint8)
BOXES = [[20.0, 30, 60, 80], [100, 20, 40, 90], [5, 5, 150, 110]]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
  """A file of a network whose batch norms do something."""
  rng = np.random.default_rng(0)

  def changed(path, leaf):
    if "norm" not in jax.tree_util.keystr(path) or leaf.ndim != 1:
      return leaf
    return (leaf + rng.uniform(0.1, 0.9, leaf.shape)).astype(np.float32)

  return exporting.weights_file(
    tmp_path_factory.mktemp("weights") / "tiny.safetensors",
    exporting.SQUARE | {"attention_scale": "width"},
    lambda weights: jax.tree_util.tree_map_with_path(changed, weights),
  )


export = functools.partial(exporting.command, command)


@pytest.fixture(scope="module")
def folder(weights, tmp_path_factory) -> pathlib.Path:
  path = tmp_path_factory.mktemp("export") / "all"
  export(weights, path, f"--format={','.join(NAMES)}", "--batch=2")
  return path


def test_a_folder_says_all(folder):
  names = {p.name for p in folder.iterdir()}
  assert names == {
    *exported.FILES.values(),
    *("README.md", "config.json", "export.json", "skeleton.json"),
    *("parity.json", "SHA256SUMS", "test_inputs.npz"),
  }
  meta = exported.read_meta(str(folder))
  assert meta["formats"]["onnx"] == {
    "opset": 20,
    "batch": "any",
    "fp16": False,
  }
  assert meta["formats"]["stablehlo"]["platforms"] == ["cpu", "cuda", "tpu"]
  assert meta["formats"]["stablehlo"]["readable_until"] > "2026-12"
  assert meta["formats"]["litert"]["batch"] == 2
  parity = json.loads((folder / "parity.json").read_text())
  assert tuple(parity) == NAMES
  for difference in parity.values():
    assert difference["heatmaps"] < 1e-4
    assert difference["pixels"] < 0.01
  text = (folder / "README.md").read_text()
  for said in (
    "multiply both sides by 1.25",
    "64 : 64",
    "left_ear",
    "### litert",
  ):
    assert said in text


@pytest.mark.parametrize("name", NAMES)
def test_every_format_predicts_what_its_source_predicts(weights, folder, name):
  one = tp.load(weights)(PHOTO, BOXES)
  other = tp.load(str(folder), format=name)(PHOTO, BOXES)
  np.testing.assert_allclose(other.scores, one.scores, atol=1e-5)
  np.testing.assert_allclose(
    other.keypoints, one.keypoints, rtol=1e-4, atol=0.05
  )


@pytest.mark.parametrize(
  ("backend", "missing", "chosen"),
  [
    ("cpu", (), "onnx"),
    ("cpu", ("onnxruntime", "tensorflow", "ai_edge_litert"), "stablehlo"),
    ("gpu", (), "stablehlo"),
  ],
)
def test_the_fastest_format_is_loaded(
  backend, missing, chosen, folder, monkeypatch
):
  monkeypatch.setattr(jax, "default_backend", lambda: backend)
  there = {n for n, r in exported.RUNTIMES.items() if r not in missing}
  monkeypatch.setattr(exported, "has_runtime", there.__contains__)
  opened = []
  monkeypatch.setattr(
    exported, "open_model", lambda path, name: opened.append(name)
  )
  tp.load(str(folder))
  assert opened == [chosen]


def test_a_format_that_can_be_run_is_loaded(folder, monkeypatch):
  estimator = tp.load(str(folder))
  assert len(estimator(PHOTO, BOXES)) == 3
  monkeypatch.setattr(exported, "RUNTIMES", dict.fromkeys(NAMES, "none_such"))
  with pytest.raises(tp.InputError, match="install one of none_such"):
    tp.load(str(folder))


def test_the_graph_is_worth_shipping(folder):
  graph = onnx.load(folder / "model.onnx").graph
  count = collections.Counter(node.op_type for node in graph.node)
  model = tiny.model()
  # Two in each block, one after them and one before the head.
  assert count["LayerNormalization"] == 2 * model.depth + 2
  assert count["Gelu"] == model.depth
  for absent in ("Einsum", "BatchNormalization", "Loop", "Erf", "Sqrt", "If"):
    assert not count[absent], absent
  shape = graph.input[0].type.tensor_type.shape.dim
  assert [d.dim_value or d.dim_param for d in shape] == ["B", 64, 64, 3]
  assert [o.name for o in graph.output] == list(exported.OUTPUTS)


def test_any_batch(folder):
  crops = command.test_crops((64, 64)).repeat(2, axis=0)[:5]
  for name in ("onnx", "stablehlo", "savedmodel", "litert"):
    model = exported.open_model(str(folder), name)
    whole, one = model(crops), model(crops[4:])
    assert whole["keypoints"].shape == (5, 17, 2)
    np.testing.assert_allclose(
      whole["heatmaps"][4:], one["heatmaps"], atol=1e-5
    )


def test_flip_test_and_decoder_inside(weights, tmp_path):
  path = tmp_path / "flip"
  export(weights, path, "--flip-test", "--decoder=quarter")
  inside = tp.load(str(path))(PHOTO, BOXES)
  outside = tp.load(weights, decoder="dark")(PHOTO, BOXES)
  np.testing.assert_allclose(inside.scores, outside.scores, atol=1e-5)
  saved = saved_lib.read(weights)
  crops = command.test_crops((64, 64))
  made = exported.open_model(str(path), "onnx")(crops)
  wanted = function.reference(saved, crops, flip_test=True, decoder="quarter")
  np.testing.assert_allclose(made["keypoints"], wanted[0], atol=1e-3)


def test_half_the_precision_is_half_the_size(weights, folder, tmp_path):
  path = tmp_path / "half"
  export(weights, path, "--fp16")
  exporting.command(exported, path)  # Verified by its own bound.
  sizes = [(p / "model.onnx").stat().st_size for p in (path, folder)]
  assert sizes[0] < 0.8 * sizes[1]
  crops = command.test_crops((64, 64))
  one, other = (
    exported.open_model(str(p), "onnx")(crops)["heatmaps"]
    for p in (path, folder)
  )
  assert 0 < np.abs(one - other).max() < 0.02 * np.abs(other).max()


def test_three_lines_restore_the_weights(weights, folder):
  """What the README says, with Orbax alone."""
  import orbax.checkpoint as ocp

  with ocp.StandardCheckpointer() as reader:
    found = reader.restore(str(folder / "orbax"))
  saved = saved_lib.read(weights)
  wanted = {"params": saved.weights[0], "model_state": saved.weights[1]}
  jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.parametrize(
  ("arguments", "says"),
  [
    (["{tmp}/gone.pth", "{tmp}/x"], "gone.pth does not exist"),
    (["{w}", "{tmp}/x", "--format=onnx,tensorrt"], "'tensorrt'; allowed: onnx"),
    (["{w}", "{tmp}/x", "--format="], "allowed: onnx"),
    (["{w}", "{tmp}"], "is already there"),
    (["{w}", "{tmp}/x", "--batch=0"], "expected at least 1"),
    (["{w}", "{tmp}/file/x"], "cannot write to"),
    (["{w}", "{tmp}/x", "--skeleton=mpii_16"], "17 keypoints, the skeleton"),
  ],
)
def test_bad_input_is_one_line(weights, tmp_path, arguments, says):
  (tmp_path / "file").write_text("")
  with pytest.raises(tp.InputError, match=says) as error:
    export(*(a.format(tmp=tmp_path, w=weights) for a in arguments))
  assert "\n" not in str(error.value)
  assert [p.name for p in tmp_path.iterdir()] == ["file"]
