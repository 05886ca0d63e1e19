"""PyTorch's own files, read without running what they bring."""

import argparse
import codecs
import collections
import io
import pathlib
import pickle
import re
import types
import warnings
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from tokenpose_jax.errors import InputError

# What other things under the name of weights begin with.
_OTHERS = {
  b"version https://git-lfs": "a pointer of Git LFS: fetch the file itself (git"
  " lfs pull)",
  b"<!doctype": "a web page, not the file: download it again",
  b"<html": "a web page, not the file: download it again",
  b"\x89hdf": "HDF5, which Keras writes",
  b"\x1f\x8b": "compressed by gzip: unpack it",
  b"rar!": "a RAR archive: unpack it",
  b"7z\xbc\xaf": "a 7z archive: unpack it",
}


def read(path: str, raw: bytes) -> Any:
  """What `torch.save` wrote, with `weights_only=True`.

  Args:
    path: of the file, for the error.
    raw: its bytes.

  Raises:
    InputError: PyTorch is not installed; the file is damaged, of another kind,
      or would run code.
  """
  if other := _other_kind(raw):
    raise InputError(f"{path} is {other}")
  torch = _torch(path)
  try:
    with (
      torch.serialization.safe_globals(_harmless()),
      warnings.catch_warnings(action="ignore"),  # of odd files: errors say more
    ):
      return torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
  except pickle.UnpicklingError as error:
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    if found:
      raise InputError(
        f"{path} is refused: besides tensors it contains {found[1]}, which"
        " could run code when loaded; save only the state dict, in PyTorch, if"
        " you trust the file: torch.save(torch.load(FILE,"
        " weights_only=False)['state_dict'], 'weights.pth')"
      ) from None
    raise _not_pytorch(path) from None
  except Exception:  # PyTorch's reader raises many exception types
    raise _not_pytorch(path) from None


def encode(path: str, arrays: Mapping[str, np.ndarray]) -> bytes:
  """What `torch.save` writes of arrays.

  Raises:
    InputError: PyTorch is not installed.
  """
  torch = _torch(path)
  buffer = io.BytesIO()
  torch.save({n: torch.from_numpy(a) for n, a in arrays.items()}, buffer)
  return buffer.getvalue()


def _harmless() -> list[Any]:
  """What training scripts put beside tensors, and what builds values alone.

  NumPy's numbers and arrays come under the names of the NumPy of their day.
  """
  number = np.float64(0).__reduce__()[0]
  array = np.zeros(1).__reduce__()[0]
  return [
    *((number, f"numpy.{core}.multiarray.scalar") for core in _CORES),
    *((array, f"numpy.{core}.multiarray._reconstruct") for core in _CORES),
    np.ndarray,
    np.dtype,
    *{type(np.dtype(kind)) for kind in "?bhilqBHILQefdFD"},
    (codecs.encode, "_codecs.encode"),  # an array's bytes in old pickles
    argparse.Namespace,
    types.SimpleNamespace,
    collections.defaultdict,
    *(dict, list, set),
    (pathlib.PosixPath, "pathlib.PosixPath"),
    (pathlib.PosixPath, "pathlib._local.PosixPath"),
  ]


_CORES = ("core", "_core")


def _other_kind(raw: bytes) -> str:
  """What a file is that is surely not PyTorch's; "" for all others."""
  start = raw[:64].lstrip().lower()
  for magic, what in _OTHERS.items():
    if start.startswith(magic):
      return what
  if raw.startswith(b"PK"):
    try:
      with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
      return ""  # cut off: PyTorch's reader finds that out
    if any(name.endswith("constants.pkl") for name in names):
      return "TorchScript: in PyTorch, save torch.jit.load(FILE).state_dict()"
    if not any(name.endswith("data.pkl") for name in names):
      return f"a ZIP archive of {', '.join(names[:3])}: unpack it"
  return ""


def _not_pytorch(path: str) -> InputError:
  # PyTorch's own words ("negative seek value") help nobody.
  return InputError(
    f"{path} is not a complete file of PyTorch: cut off, or of another kind"
  )


def _torch(path: str) -> Any:
  try:
    import torch
  except ImportError:
    raise InputError(
      f"{path}: this kind of file needs PyTorch (pip install torch); a"
      " .safetensors file does not"
    ) from None
  return torch
