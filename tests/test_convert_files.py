"""convert/files.py: every kind of file, and every fault of one."""

import pathlib
import pickle
import zipfile

import jax
import numpy as np
import pytest
import safetensors.numpy
import torch

from tests import state_dicts, tiny
from tests.state_dicts import check_equal
from tokenpose_jax import InputError, cli, convert


@pytest.fixture(scope="module")
def small():
  """A tiny S: (model, official state dict)."""
  model = tiny.config().model
  return model, state_dicts.official(model)


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
  check_equal(
    convert.export_torch(model, *convert.import_torch(model, read)), state
  )


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
  check_equal(convert.read_state_dict(str(tmp_path / "old.pth")), state)


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_written_files_are_read_and_never_overwritten(small, tmp_path, ending):
  model, state = small
  path = str(tmp_path / f"weights{ending}")
  weights = convert.import_torch(model, state)
  convert.write_state_dict(path, convert.export_torch(model, *weights))
  check_equal(convert.read_state_dict(path), state)
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
  check_equal(
    convert.read_state_dict(str(tmp_path / "half.safetensors")), from_torch
  )
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
