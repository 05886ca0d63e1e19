"""Files of weights: PyTorch's `.pth` and `.safetensors`, read and written.

Reading never runs code that a file brings: `.safetensors` holds none, and
PyTorch reads with `weights_only=True`. PyTorch is needed for its own files
only.
"""

import io
import pickle
import re
import warnings
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from etils import epath

from tokenpose_jax.errors import InputError

# Where training scripts put the state dict, the first that is there. The
# original's checkpoint.pth has the first two and calls its network's name
# "model".
WRAPPERS = ("best_state_dict", "state_dict", "model")

FILE_ENDINGS = (".pth", ".pt", ".safetensors")

_SAFETENSORS = {
  "F64": np.float64,
  "F32": np.float32,
  "F16": np.float16,
  "BF16": jnp.bfloat16,
  "I64": np.int64,
  "I32": np.int32,
}


def read_state_dict(path: str, key: str = "") -> dict[str, np.ndarray]:
  """Reads a file's tensors, as float32 where they are floating point.

  Args:
    path: ends with .safetensors, or is a file of PyTorch.
    key: of the state dict in the file; "": the file itself, or the first of
      `WRAPPERS` that holds one.

  Raises:
    InputError: the file is missing, damaged, would run code, or holds no state
      dict.
  """
  file = epath.Path(path)
  if not file.exists() or file.is_dir():
    raise InputError(f"the file {path} does not exist")
  if file.suffix == ".safetensors":
    content = _read_safetensors(path, file.read_bytes())
  else:
    content = _read_pytorch(path, file.read_bytes())
  state = _unwrap(path, content, key)
  return {name: as_numpy(value) for name, value in state.items()}


def write_state_dict(path: str, state: Mapping[str, np.ndarray]) -> None:
  """Writes tensors to a new file, .safetensors or .pth by its ending.

  Raises:
    InputError: the file exists, or its ending is neither.
  """
  file = epath.Path(path)
  if file.exists():
    raise InputError(f"{path} exists and is not overwritten; name another file")
  # Both formats store an array's bytes, so they must lie in its order.
  arrays = {name: np.array(value, order="C") for name, value in state.items()}
  if file.suffix == ".safetensors":
    encoded = safetensors.numpy.save(arrays)
  elif file.suffix in (".pth", ".pt"):
    torch = _torch(path)
    buffer = io.BytesIO()
    torch.save({n: torch.from_numpy(a) for n, a in arrays.items()}, buffer)
    encoded = buffer.getvalue()
  else:
    raise InputError(f"{path}: the ending must be .safetensors or .pth")
  file.parent.mkdir(parents=True, exist_ok=True)
  file.write_bytes(encoded)


def as_numpy(value: Any) -> np.ndarray:
  """An array or a tensor of any shape, as NumPy's (of the same shape).

  Half precisions become float32, which holds them.

  Args:
    value: of NumPy, PyTorch, or anything that `np.asarray` takes.
  """
  if hasattr(value, "detach"):  # a tensor of PyTorch
    value = value.detach().cpu()
    value = value.float() if value.is_floating_point() else value
  array = np.asarray(value)
  if array.dtype.kind == "f" or array.dtype.name == "bfloat16":
    return array.astype(np.float32)
  return array


def _read_safetensors(path: str, raw: bytes) -> dict[str, np.ndarray]:
  # Not safetensors.numpy.load: that does not know bfloat16.
  try:
    return {
      name: np.frombuffer(entry["data"], _SAFETENSORS[entry["dtype"]]).reshape(
        entry["shape"]
      )
      for name, entry in safetensors.deserialize(raw)
    }
  except KeyError as error:
    raise InputError(f"{path} has tensors of type {error}") from None
  except (safetensors.SafetensorError, ValueError) as error:
    raise InputError(
      f"{path} is not a complete .safetensors file: {_one_line(error)}"
    ) from None


def _read_pytorch(path: str, raw: bytes) -> Any:
  torch = _torch(path)
  # Training scripts save their best score as a NumPy number, under the name of
  # the NumPy of their day. What follows builds numbers and nothing else.
  number = np.float64(0).__reduce__()[0]
  harmless = [
    (number, "numpy.core.multiarray.scalar"),
    (number, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int64)),
  ]
  try:
    with (
      torch.serialization.safe_globals(harmless),
      warnings.catch_warnings(action="ignore"),  # of odd files: errors say more
    ):
      return torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
  except pickle.UnpicklingError as error:
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    if found:
      raise InputError(
        f"{path} is refused: besides tensors it contains {found[1]}, which"
        " could run code when loaded; save only the state dict"
      ) from None
    raise _not_pytorch(path) from None
  except Exception:  # PyTorch's reader raises many exception types
    raise _not_pytorch(path) from None


def _not_pytorch(path: str) -> InputError:
  # PyTorch's own words ("negative seek value") help nobody.
  return InputError(
    f"{path} is not a complete file of PyTorch: cut off, or of another kind"
  )


def _one_line(error: Exception) -> str:
  text = " ".join(str(error).split())
  return (text or type(error).__name__)[:160]


def _torch(path: str) -> Any:
  try:
    import torch
  except ImportError:
    raise InputError(
      f"{path}: this kind of file needs PyTorch (pip install torch); a"
      " .safetensors file does not"
    ) from None
  return torch


def _unwrap(path: str, content: Any, key: str) -> Mapping[str, Any]:
  if key:
    if not isinstance(content, Mapping) or key not in content:
      found = list(content) if isinstance(content, Mapping) else content
      raise InputError(f"{path} has no {key!r}; it holds {str(found)[:160]}")
    content = content[key]
  elif isinstance(content, Mapping) and not _is_state_dict(content):
    for wrapper in WRAPPERS:
      if _is_state_dict(content.get(wrapper)):
        content = content[wrapper]
        break
  if not _is_state_dict(content):
    what = type(content).__name__
    if isinstance(content, Mapping):
      what = ", ".join(map(str, list(content)[:8])) or "nothing"
    raise InputError(
      f"{path} holds no state dict (names to tensors) but {what}"
    )
  return content


def _is_state_dict(content: Any) -> bool:
  return (
    isinstance(content, Mapping)
    and bool(content)
    and all(
      isinstance(name, str) and hasattr(value, "shape")
      for name, value in content.items()
    )
  )
