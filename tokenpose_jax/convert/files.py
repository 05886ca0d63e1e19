"""Files of weights: PyTorch's `.pth` and `.safetensors`, read and written.

Reading never runs code that a file brings: `.safetensors` holds none, and
PyTorch reads with `weights_only=True`. PyTorch is needed for its own files
only.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from etils import epath

from tokenpose_jax import file_kinds
from tokenpose_jax.convert import pytorch, unwrap
from tokenpose_jax.errors import InputError, one_line

_SAFETENSORS = {
  "F64": np.float64,
  "F32": np.float32,
  "F16": np.float16,
  "BF16": jnp.bfloat16,
  "F8_E4M3": jnp.float8_e4m3fn,
  "F8_E5M2": jnp.float8_e5m2,
  "I64": np.int64,
  "I32": np.int32,
  "I16": np.int16,
  "I8": np.int8,
  "U64": np.uint64,
  "U32": np.uint32,
  "U16": np.uint16,
  "U8": np.uint8,
  "BOOL": np.bool_,
}
# Numbers that a byte of a file may mean: tensors may share their bytes.
_FEW, _MOST_PER_BYTE = 2**24, 4
_LARGEST_HEADER = 100 * 2**20  # bytes, the format's own limit


def read_state_dict(path: str, key: str = "") -> dict[str, np.ndarray]:
  """Reads a file's tensors, as float32 where they are floating point.

  Args:
    path: a .safetensors file or one of PyTorch; what it holds decides.
    key: of the state dict in the file (`unwrap.state_dict`).

  Raises:
    InputError: the file is missing, damaged, would run code, or holds no state
      dict.
  """
  file = epath.Path(path)
  try:
    if not file.exists() or file.is_dir():
      raise InputError(f"the file {path} does not exist")
    file_kinds.check(path)
    if _is_safetensors(file):
      content: Any = _read_safetensors(path, file.read_bytes())
    else:
      content = pytorch.read(path, file.read_bytes())
  except OSError as error:
    raise InputError(f"cannot read {path}: {one_line(error, 160)}") from None
  state = unwrap.state_dict(path, content, key)
  _require_size(path, state, file.stat().length)
  arrays = {}
  for name, value in state.items():
    try:
      arrays[name] = as_numpy(value)
    except Exception as error:  # of whatever kind of tensor there is
      raise InputError(
        f"{path}: the tensor {name} cannot be read: {one_line(error, 160)}"
      ) from None
  return arrays


def write_state_dict(path: str, state: Mapping[str, np.ndarray]) -> None:
  """Writes tensors to a new file, .safetensors or .pth by its ending.

  Raises:
    InputError: the file exists, its ending is neither, or it cannot be written.
  """
  file = epath.Path(path)
  if file.suffix not in (".safetensors", ".pth", ".pt"):
    raise InputError(f"{path}: the ending must be .safetensors or .pth")
  # Both formats store an array's bytes, so they must lie in its order.
  arrays = {name: np.array(value, order="C") for name, value in state.items()}
  try:
    if file.exists():
      raise InputError(
        f"{path} exists and is not overwritten; name another file"
      )
    if file.suffix == ".safetensors":
      encoded = safetensors.numpy.save(arrays)
    else:
      encoded = pytorch.encode(path, arrays)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encoded)
  except OSError as error:
    raise InputError(f"cannot write {path}: {one_line(error, 160)}") from None


def as_numpy(value: Any) -> np.ndarray:
  """An array or a tensor of any shape, as NumPy's (of the same shape).

  Low precisions become float32, which holds them; sparse tensors dense ones.

  Args:
    value: of NumPy, PyTorch, or anything that `np.asarray` takes.
  """
  if hasattr(value, "detach"):  # a tensor of PyTorch
    value = value.detach().cpu()
    if str(value.layout) != "torch.strided":
      value = value.to_dense()
    value = value.float() if value.is_floating_point() else value
  array = np.asarray(value)
  if array.dtype.kind == "f" or "float" in array.dtype.name:
    return array.astype(np.float32)
  return array


def _require_size(path: str, state: Mapping[str, Any], size: int) -> None:
  """Raises InputError where tensors are much larger than their file.

  A view that repeats one number, and a sparse tensor, may be of any size.
  """
  numbers = sum(math.prod(value.shape) for value in state.values())
  if numbers > max(_FEW, _MOST_PER_BYTE * size):
    raise InputError(
      f"{path} holds no weights: its tensors are of {numbers:.1e} numbers, the"
      f" file of {size:,} bytes"
    )


def _is_safetensors(file: epath.Path) -> bool:
  """By its name, or as its content begins: a length, and a JSON object.

  Raises:
    InputError: it should be one, and says more than it can hold.
  """
  with file.open("rb") as opened:
    start = opened.read(16)
  brace = start[8:9] == b"{"
  if not brace and (file.suffix != ".safetensors" or start[:2] == b"PK"):
    return False
  header, size = int.from_bytes(start[:8], "little"), file.stat().length
  if len(start) < 9 or header > min(size - 8, _LARGEST_HEADER):
    raise InputError(
      f"{file} is not a complete .safetensors file: of {size:,} bytes, its"
      f" header would have {header:,}"
    )
  return True


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
  except Exception as error:  # its reader is compiled, and raises what it likes
    raise InputError(
      f"{path} is not a complete .safetensors file: {one_line(error, 160)}"
    ) from None
