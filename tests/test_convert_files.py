"""convert/files.py: every kind of file, and every fault of one."""

import argparse
import json
import pathlib
import pickle
import zipfile

import jax
import numpy as np
import pytest
import safetensors.numpy
import torch
from etils import epath

from tests import state_dicts, tiny
from tests.state_dicts import check_equal
from tokenpose_jax import InputError, cli, convert
from tokenpose_jax.convert import names


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


def prefixed(prefix, tensors):
  return {prefix + name: value for name, value in tensors.items()}


# What trainers save, by what saves it. Zeros are the weights not to be taken.
SAVED = {
  "deep": lambda t, _: {"model": {"state_dict": t}, "epoch": 3},
  "a compiled network": lambda t, _: prefixed("_orig_mod.", t),
  "parallel and compiled": lambda t, _: prefixed("module._orig_mod.", t),
  "Lightning": lambda t, _: {
    "state_dict": {
      **prefixed("model.", t),
      "criterion.weight": torch.ones(17),
    },
    "pytorch-lightning_version": "2.4",
    "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
    "hyper_parameters": argparse.Namespace(lr=0.1),
  },
  "Lightning around a compiled one": lambda t, _: {
    "state_dict": prefixed("net._orig_mod.", t)
  },
  "an averaged network": lambda t, _: {
    **prefixed("module.", t),
    "n_averaged": torch.tensor(7),
  },
  "with averaged weights": lambda t, z: {"state_dict": t, "state_dict_ema": z},
  "with averaged weights first": lambda t, z: {"ema": z, "model": t},
  "with averaged weights inside": lambda t, z: {
    "state_dict": {**prefixed("model_ema.", z), **prefixed("model.", t)}
  },
  "averaged weights alone": lambda t, _: {"ema": {"shadow": t}},
  "counted operations": lambda t, _: {
    **t,
    "transformer.total_ops": torch.zeros(1),
    "total_params": torch.zeros(1),
  },
  "numbers and nothing besides": lambda t, _: {
    **t,
    "epoch": 3,
    "best": None,
    "note": "mine",
  },
  "NumPy arrays": lambda t, _: {n: v.numpy() for n, v in t.items()},
  "a folder's path": lambda t, _: {"state_dict": t, "dir": pathlib.Path("/x")},
  "parameters": lambda t, _: {
    n: torch.nn.Parameter(v, v.is_floating_point()) for n, v in t.items()
  },
  "doubles": lambda t, _: {
    n: v.double() if v.is_floating_point() else v for n, v in t.items()
  },
}


@pytest.mark.parametrize("how", ["bare", "module", "checkpoint", "model"])
@pytest.mark.parametrize("old", [False, True], ids=["zip", "legacy"])
def test_files_of_pytorch(small, tmp_path, how, old):
  model, state = small
  path = tmp_path / "weights.pth"
  torch.save(wrapped(state, how), path, _use_new_zipfile_serialization=not old)
  read = convert.read_state_dict(str(path))
  check_equal(
    convert.export_torch(model, *convert.import_torch(model, read)), state
  )


@pytest.mark.parametrize("how", SAVED)
def test_what_trainers_save(small, tmp_path, how):
  model, state = small
  tensors = wrapped(state, "bare")
  zeros = {name: torch.zeros_like(value) for name, value in tensors.items()}
  path = tmp_path / "weights.ckpt"
  torch.save(SAVED[how](tensors, zeros), path)
  read = convert.read_state_dict(str(path))
  check_equal(
    convert.export_torch(model, *convert.import_torch(model, read)), state
  )


def test_averaged_weights_are_said_and_can_be_chosen(small, tmp_path, caplog):
  _, state = small
  tensors = wrapped(state, "bare")
  zeros = {name: torch.zeros_like(value) for name, value in tensors.items()}
  path = str(tmp_path / "weights.pth")
  torch.save({"model": tensors, "model_ema": {"module": zeros}}, path)
  check_equal(convert.read_state_dict(path), state)
  assert "--key=model_ema.module" in caplog.text
  chosen = convert.read_state_dict(path, "model_ema")
  assert not any(value.any() for value in chosen.values())
  with pytest.raises(InputError, match=r"there are model, model_ema\.module"):
    convert.read_state_dict(path, "ema")


def test_several_networks_need_a_choice(small, tmp_path):
  _, state = small
  tensors = wrapped(state, "bare")
  path = str(tmp_path / "weights.pth")
  torch.save({"student": tensors, "other": tensors}, path)
  with pytest.raises(InputError, match="--key: student, other"):
    convert.read_state_dict(path)
  check_equal(convert.read_state_dict(path, "student"), state)
  both = {**prefixed("a.", tensors), **prefixed("b.", tensors)}
  with pytest.raises(InputError, match=r"2 networks, under a\., b\."):
    names.canonical(both)


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


FP8 = jax.numpy.float8_e4m3fn


@pytest.mark.parametrize(
  ("make", "says"),
  [
    (lambda a: a.astype(np.int8), "expected float, found int8"),
    (lambda a: a.astype(bool), "expected float, found bool"),
    (lambda a: np.full_like(a, np.nan), "NaN or infinite"),
    (lambda a: a[..., :1], r"expected \(.*\), found"),
    (lambda a: a.ravel()[0], r"found \(\)"),
    (lambda a: a.astype(FP8), ""),
  ],
)
def test_odd_tensors(small, tmp_path, make, says):
  model, state = small
  name = next(n for n in state if n.endswith("keypoint_token"))
  path = tmp_path / "odd.safetensors"
  odd = {**state, name: np.asarray(make(state[name]))}
  path.write_bytes(safetensors.numpy.save(odd))
  read = convert.read_state_dict(str(path))
  if says:
    with pytest.raises(InputError, match=says) as error:
      convert.import_torch(model, read)
    assert "\n" not in str(error.value)
  else:
    convert.import_torch(model, read)


@pytest.mark.filterwarnings("ignore")  # PyTorch's, of its old tensors
@pytest.mark.parametrize(
  "make",
  [
    lambda t: t.to_sparse(),
    lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    lambda t: t.to(torch.complex64),
    lambda t: t.to("meta"),
    lambda t: t.to(torch.float8_e5m2),
    lambda t: t.bool(),
    lambda t: np.array([None, "x"], object),
    lambda t: None,
    lambda t: [1, 2],
    lambda t: {"a": t},
    lambda t: float("nan"),
    lambda t: 10**400,
    lambda t: torch.zeros(0),
    lambda t: t[None, None],
  ],
)
def test_any_kind_of_tensor(small, tmp_path, make):
  """Read right, or refused in a line."""
  model, state = small
  tensors = wrapped(state, "bare")
  path = str(tmp_path / "odd.pth")
  for name in list(tensors)[::9]:
    try:
      torch.save({**tensors, name: make(tensors[name].float())}, path)
    except (RuntimeError, NotImplementedError):
      continue  # PyTorch has no such tensor
    try:
      read = convert.read_state_dict(path)
      params, _ = convert.import_torch(model, read)
      assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    except InputError as error:
      lines = str(error).splitlines()
      assert len(lines) == 1


HEADERS = [
  *(None, "x", [], [1], {}, True, -1, 10**30, 0, 1.5),
  *({"dtype": d, "shape": [2], "data_offsets": [0, 8]} for d in ("F32", "F4")),
  *({"dtype": d, "shape": [2], "data_offsets": [0, 8]} for d in (None, 3)),
  *(
    {"dtype": "F32", "shape": s, "data_offsets": [0, 8]}
    for s in (None, "x", [-2], [1e9], [2**62, 4], {}, [3])
  ),
  *(
    {"dtype": "F32", "shape": [2], "data_offsets": o}
    for o in (None, [8, 0], [0, 2**63], [0, "8"], [-8, 0], [4, 12], [])
  ),
]


@pytest.mark.parametrize("entry", HEADERS, ids=repr)
def test_any_header_of_safetensors(tmp_path, entry):
  header = json.dumps({"a.b": entry}).encode()
  path = tmp_path / "odd.safetensors"
  path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
  try:
    read = convert.read_state_dict(str(path))
    assert read["a.b"].tolist() == [0, 0]
  except InputError as error:
    lines = str(error).splitlines()
    assert len(lines) == 1


@pytest.mark.parametrize("size", [0, 5, 2**20, 2**40, 2**63, 2**64 - 1])
def test_a_header_of_absurd_size_is_not_read(tmp_path, monkeypatch, size):
  path = tmp_path / "big.safetensors"
  path.write_bytes(size.to_bytes(8, "little") + b"{" + bytes(64))
  if size > 64:
    # Before anything else of the file is.
    monkeypatch.setattr(epath.Path, "read_bytes", None)
  with pytest.raises(InputError, match=r"not a complete \.safetensors file"):
    convert.read_state_dict(str(path))


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
  elif kind == "TorchScript":
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
  elif kind == "a network":
    torch.save(torch.nn.Linear(2, 2), path)
  elif kind == "zip":
    with zipfile.ZipFile(path, "w") as archive:
      archive.writestr("weights.bin", b"abc")
  elif kind == "a view":
    torch.save({"a.weight": torch.zeros(1).expand(10**6, 10**6)}, path)
  elif kind == "sparse":
    places = torch.zeros((2, 1), dtype=torch.int64)
    large = torch.sparse_coo_tensor(places, torch.ones(1), (10**6, 10**6))
    torch.save({"a.weight": large}, path)
  elif kind == "pointer":
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1")
  elif kind == "page":
    path.write_text("<!DOCTYPE html><html><body>Sign in</body></html>")
  elif kind == "folder":
    path.mkdir()
  elif kind == "truncated safetensors":
    path = path.with_suffix(".safetensors")
    path.write_bytes(safetensors.numpy.save(state)[:-100])
  elif kind == "text safetensors":
    path = path.with_suffix(".safetensors")
    path.write_text("these are no weights\n" * 10)
  return path


@pytest.mark.filterwarnings("ignore")  # PyTorch's, of TorchScript
@pytest.mark.parametrize(
  ("kind", "says"),
  [
    ("pickled command", "could run code"),
    ("plain pickled command", "could run code|not a complete file"),
    ("truncated", "not a complete file of PyTorch"),
    ("text", "not a complete file of PyTorch"),
    ("empty", "not a complete file of PyTorch"),
    ("TorchScript", "is TorchScript: in PyTorch, save"),
    ("a network", "could run code when loaded; save only the state dict"),
    ("zip", "a ZIP archive of weights.bin: unpack it"),
    ("a view", r"holds no weights: its tensors are of 1.0e\+12 numbers"),
    ("sparse", r"holds no weights: its tensors are of 1.0e\+12 numbers"),
    ("pointer", "a pointer of Git LFS"),
    ("page", "a web page"),
    ("folder", "does not exist"),
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
