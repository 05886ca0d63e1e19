"""`tokenpose verify`: exports are what they were, without JAX."""

import functools
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

import tokenpose_jax as tp
from tests import exporting, fixtures
from tokenpose_jax import exported
from tokenpose_jax.export import command


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  weights = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
  folder = weights.parent / "export"
  source = exporting.weights_file(weights, exporting.SQUARE)
  exporting.command(command, source, folder)
  return folder


@pytest.fixture
def folder(made, tmp_path):
  return shutil.copytree(made, tmp_path / "copy")


verify = functools.partial(exporting.command, exported)


def test_an_export_is_verified(folder, capsys):
  verify(folder)
  said = capsys.readouterr().out.splitlines()
  assert said[0].endswith("files are as exported")
  assert said[1].startswith("onnx: heatmaps within ")


def test_verifying_needs_no_jax(folder):
  code = """if True:
    import sys
    for absent in ("jax", "flax", "absl", "etils", "scipy", "cv2"):
      sys.modules[absent] = None
    import importlib.util
    find = importlib.util.find_spec
    importlib.util.find_spec = lambda n: None if n == "absl" else find(n)
    from tokenpose_jax import cli
    cli.main(["verify", sys.argv[1]])
    """
  done = subprocess.run(
    [sys.executable, "-c", code, str(folder)],
    cwd=fixtures.ROOT,
    env=os.environ,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert "onnx: heatmaps within" in done.stdout


def test_what_is_not_as_it_was_is_named(folder):
  path = folder / "model.onnx"
  raw = bytearray(path.read_bytes())
  raw[len(raw) // 2] ^= 1
  path.write_bytes(raw)
  with pytest.raises(tp.InputError, match=r"model.onnx is not as it was"):
    verify(folder)
  path.unlink()
  with pytest.raises(tp.InputError, match=r"model.onnx is missing"):
    verify(folder)
  for name in ("/etc/passwd", "../model.onnx", "a/../../model.onnx"):
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  {name}\n")
    with pytest.raises(tp.InputError, match="names what is not in it"):
      verify(folder)
  (folder / "SHA256SUMS").write_text("nothing\n")
  with pytest.raises(tp.InputError, match="cannot read SHA256SUMS"):
    verify(folder)


def test_a_model_that_computes_something_else(folder):
  path = folder / "test_inputs.npz"
  with np.load(path) as file:
    saved = dict(file)
  np.savez(path, **{**saved, "heatmaps": saved["heatmaps"] + 2e-4})
  model = exported.open_model(str(folder), "onnx")
  difference = exported.compare(model, str(folder))
  with pytest.raises(tp.InputError, match="onnx computes something else"):
    exported.check("onnx", difference)
  nothing = exported.Difference(float("nan"), 0.0, 1.0)
  with pytest.raises(tp.InputError, match="something else"):
    exported.check("onnx", nothing)
  path.write_text("text")
  with pytest.raises(tp.InputError, match="cannot read "):
    exported.compare(model, str(folder))


def test_any_content_of_export_json(folder):
  path = folder / "export.json"
  meta = json.loads(path.read_text())

  def check(content):
    path.write_text(json.dumps(content))
    exported.open_model(str(folder), "onnx")

  assert fixtures.fuzz(meta, meta, check)["refused"]
  for content in ([], {}, None, {"format": 1}):
    with pytest.raises(tp.InputError, match="is not of an export"):
      check(content)
  for name in ("odd", "../onnx"):
    check({**meta, "formats": {**meta["formats"], name: {}}})
    with pytest.raises(tp.InputError, match=f"format is '{name}'; allowed"):
      exported.open_model(str(folder), name)
    (folder / "SHA256SUMS").write_text("")
    with pytest.raises(tp.InputError, match=f"--format is '{name}'; allowed"):
      verify(folder, f"--format={name}")
  for text in ("{", fixtures.DEEP):
    path.write_text(text)
    with pytest.raises(tp.InputError, match=r"export.json is not .*JSON"):
      verify(folder)


def test_what_cannot_be_run(folder, monkeypatch, capsys):
  with pytest.raises(tp.InputError, match="'litert'; allowed: onnx"):
    verify(folder, "--format=litert")
  with pytest.raises(tp.InputError, match="is no export: it has no"):
    verify(folder.parent)
  monkeypatch.setattr(exported, "RUNTIMES", {"onnx": "none_such"})
  with pytest.raises(tp.InputError, match="nothing was run: install one of"):
    verify(folder)
  assert "passed over, none_such is not installed" in capsys.readouterr().out
  (folder / "model.onnx").write_text("text")
  with pytest.raises(tp.InputError, match=r"cannot open .*model.onnx"):
    exported.open_model(str(folder), "onnx")
