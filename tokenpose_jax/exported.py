"""Exported networks: running one, and proving that it is what was exported.

    tokenpose verify DIR

Needs NumPy and the runtime of the format (ONNX Runtime, LiteRT or TensorFlow);
of this package, its own files alone: `pip install --no-deps`. StableHLO needs
JAX, the formats of weights (orbax, safetensors) all of this package: they are
passed over where that is missing.
"""

import argparse
import contextlib
import hashlib
import importlib
import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from tokenpose_jax import file_kinds, json_files
from tokenpose_jax.errors import InputError, check_choice, one_line
from tokenpose_jax.terminal import say

FORMAT = 1
META, SUMS, INPUTS, PARITY = (
  "export.json",
  "SHA256SUMS",
  "test_inputs.npz",
  "parity.json",
)
OUTPUTS = ("keypoints", "scores", "heatmaps")
# Of networks with `model.doubt`, besides (models/doubt.py); errors are in crop
# pixels.
DOUBT = ("presence", "visibility", "similarity", "error")
FILES = {
  "onnx": "model.onnx",
  "stablehlo": "model.stablehlo",
  "savedmodel": "saved_model",
  "litert": "model.tflite",
  "orbax": "orbax",
  "safetensors": "model.safetensors",
}
# By speed on a CPU (docs/benchmarks.md): `tp.load` takes the first one there.
RUNTIMES = {
  "onnx": "onnxruntime",
  "savedmodel": "tensorflow",
  "litert": "ai_edge_litert",
  "stablehlo": "jax",
  "safetensors": "jax",
  "orbax": "jax",
}
# Differences that are rounding, not another network: in heatmaps, and of sure
# keypoints in pixels.
MOST = (1e-4, 0.01)
MOST_FP16 = (0.02, 0.5)
SURE = 0.2  # a keypoint that scores less has no place to be compared

Model = Callable[[np.ndarray], dict[str, np.ndarray]]
"""Crops (B, H, W, 3) uint8 to keypoints (B, K, 2) in crop pixels, scores
(B, K) and heatmaps (B, K, h, w); with `DOUBT`, these (B, K)."""


class Difference(NamedTuple):
  """How far a model is from what was exported.

  Attributes:
    heatmaps: largest, absolute; where it is larger, of what doubt says.
    pixels: largest of the keypoints whose score is above `SURE`.
    milliseconds: for the test inputs, one crop.
  """

  heatmaps: float
  pixels: float
  milliseconds: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the arguments of `tokenpose verify`."""
  parser.add_argument("folder", help="that `tokenpose export` wrote")
  parser.add_argument(
    "--format",
    default="",
    help="of " + ", ".join(FILES) + "; default: all that can be run here",
  )


def run(arguments: argparse.Namespace) -> None:
  """Checks files against their sums, and runs what can be run.

  Raises:
    InputError: a file is not as it was exported, a model computes something
      else, or none can be run.
  """
  folder = arguments.folder
  meta = read_meta(folder)
  check_sums(folder)
  say(f"{folder}: files are as exported")
  wanted = arguments.format.split(",") if arguments.format else meta["formats"]
  ran = 0
  for name in wanted:
    check_choice("--format", name, meta["formats"])
    check_choice("--format", name, FILES)
    if not has_runtime(name):
      say(f"{name}: passed over, {RUNTIMES[name]} is not installed")
      continue
    difference = compare(open_model(folder, name), folder)
    say(f"{name}: {describe(difference)}")
    check(name, difference, fp16=_is_fp16(meta, name))
    ran += 1
  if not ran:
    needed = {RUNTIMES[name] for name in wanted}
    raise InputError(
      f"nothing was run: install one of {', '.join(sorted(needed))}"
    )


def has_runtime(name: str) -> bool:
  """Whether what runs a format is installed."""
  return importlib.util.find_spec(RUNTIMES[name]) is not None


def describe(difference: Difference) -> str:
  """A difference as text."""
  return (
    f"heatmaps within {difference.heatmaps:.1e}, keypoints within"
    f" {difference.pixels:.4f} px, {difference.milliseconds:.1f} ms a crop"
  )


def check(name: str, difference: Difference, *, fp16: bool = False) -> None:
  """Checks that a difference is rounding.

  Args:
    name: of the format.
    difference: of its model.
    fp16: its weights have half the precision.

  Raises:
    InputError: it is more.
  """
  heatmaps, pixels = MOST_FP16 if fp16 else MOST
  # A NaN is no small difference.
  if not (difference.heatmaps <= heatmaps and difference.pixels <= pixels):
    raise InputError(
      f"{name} computes something else than was exported:"
      f" {describe(difference)}; allowed: {heatmaps:g} and {pixels:g} px"
    )


def _is_fp16(meta: dict[str, Any], name: str) -> bool:
  facts = meta["formats"][name]
  return isinstance(facts, dict) and bool(facts.get("fp16"))


def read_meta(folder: str) -> dict[str, Any]:
  """What export.json says.

  Args:
    folder: that `tokenpose export` wrote.

  Raises:
    InputError: it is none, or a newer software wrote it.
  """
  path = os.path.join(folder, META)
  try:
    file_kinds.check(path)
    with open(path, "rb") as file:
      meta = json_files.parse(file.read(), path)
  except FileNotFoundError:
    raise InputError(f"{folder} is no export: it has no {META}") from None
  except OSError as error:
    raise InputError(f"cannot read {path}: {one_line(error, 160)}") from None
  keys = ("format", "software", "formats", "flip_test", "decoder")
  if not isinstance(meta, dict) or any(key not in meta for key in keys):
    raise InputError(f"{path} is not of an export: expected {', '.join(keys)}")
  if meta["format"] != FORMAT:
    raise InputError(
      f"{path} has format {meta['format']!r:.20}, written by tokenpose_jax"
      f" {meta['software']!s:.20}; this one reads {FORMAT}"
    )
  if not isinstance(meta["formats"], dict) or not meta["formats"]:
    raise InputError(f"{path} names no formats")
  return meta


def check_sums(folder: str) -> None:
  """Checks every file against SHA256SUMS.

  Args:
    folder: that `tokenpose export` wrote.

  Raises:
    InputError: a file is missing or is not as it was exported.
  """
  try:
    file_kinds.check(os.path.join(folder, SUMS))
    with open(os.path.join(folder, SUMS), encoding="utf-8") as file:
      rows = [line.split(maxsplit=1) for line in file.read().splitlines()]
    sums = {name.strip(): value for value, name in rows}
  except (OSError, ValueError) as error:
    raise InputError(
      f"cannot read {SUMS} of {folder}: {one_line(error, 160)}"
    ) from None
  for name, value in sums.items():
    if os.path.isabs(name) or os.pardir in name.split("/"):
      raise InputError(f"{SUMS} of {folder} names what is not in it: {name}")
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
      raise InputError(f"{path} is missing; copy the folder again")
    if sha256(path) != value:
      raise InputError(
        f"{path} is not as it was exported; copy it again, or export anew"
      )


def sha256(path: str) -> str:
  """The SHA-256 of a file."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def compare(model: Model, folder: str) -> Difference:
  """Runs the test inputs.

  Args:
    model: as returned by `open_model`.
    folder: with the test inputs and what the network made of them.

  Raises:
    InputError: the inputs cannot be read, or the model fails on them.
  """
  path = os.path.join(folder, INPUTS)
  try:
    file_kinds.check(path)
    with np.load(path, allow_pickle=False) as file:
      saved = {name: file[name] for name in ("crops", *OUTPUTS)}
      saved |= {name: file[name] for name in DOUBT if name in file}
  except (OSError, ValueError, KeyError, EOFError) as error:
    raise InputError(f"cannot read {path}: {one_line(error, 160)}") from None
  crops = saved["crops"]
  try:
    found = model(crops)
    seconds = []
    for _ in range(3):
      start = time.perf_counter()
      model(crops)
      seconds.append(time.perf_counter() - start)
  except Exception as error:  # Of as many kinds as there are runtimes.
    raise InputError(f"the model fails: {one_line(error, 200)}") from None
  if missing := [name for name in saved if name not in ("crops", *found)]:
    raise InputError(f"the model has no output {', '.join(missing)}")
  said = [
    (np.abs(found[n] - saved[n]) / np.maximum(saved[n], 1)).max()
    for n in DOUBT
    if n in saved
  ]
  sure = saved["scores"] > SURE
  away = np.abs(found["keypoints"] - saved["keypoints"]).max(-1)
  return Difference(
    float(max([np.abs(found["heatmaps"] - saved["heatmaps"]).max(), *said])),
    float(away[sure].max()) if sure.any() else 0.0,
    1000 * min(seconds) / len(crops),
  )


def open_model(folder: str, name: str, threads: int = 0) -> Model:
  """A model of an export, ready to be run.

  Args:
    folder: that `tokenpose export` wrote.
    name: of the format.
    threads: 0: all cores.

  Raises:
    InputError: the format is not there, or it cannot be opened.
  """
  meta = read_meta(folder)
  check_choice("format", name, meta["formats"])
  check_choice("format", name, FILES)
  path = os.path.join(folder, FILES[name])
  try:
    if not os.path.isdir(path):
      file_kinds.check(path)
    file_kinds.check_below(path)
    return _OPEN[name](path, threads)
  except ImportError as error:
    raise InputError(
      f"{path} needs {RUNTIMES[name]}: {one_line(error, 120)}"
    ) from None
  except InputError:
    raise
  except Exception as error:  # Of as many kinds as there are runtimes.
    raise InputError(f"cannot open {path}: {one_line(error, 200)}") from None


def onnx_session(path: str, threads: int = 0) -> Any:
  """An ONNX Runtime session on the CPU; raises whatever that raises.

  Args:
    path: of an .onnx file.
    threads: 0: all cores.
  """
  import onnxruntime

  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = threads
  options.log_severity_level = 4  # Its errors arrive as exceptions.
  return onnxruntime.InferenceSession(
    path, options, providers=["CPUExecutionProvider"]
  )


def _onnx(path: str, threads: int) -> Model:
  session = onnx_session(path, threads)

  names = [output.name for output in session.get_outputs()]

  def model(crops: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(names, session.run(names, {"crops": crops}), strict=True))

  return model


def _litert(path: str, threads: int) -> Model:
  from ai_edge_litert.interpreter import Interpreter

  interpreter = Interpreter(path, num_threads=threads or os.cpu_count())
  runner = interpreter.get_signature_runner("serving_default")
  size = int(runner.get_input_details()["crops"]["shape"][0])

  def model(crops: np.ndarray) -> dict[str, np.ndarray]:
    # Its batch is fixed: others are cut and filled up.
    parts = []
    for start in range(0, len(crops), size):
      part = crops[start : start + size]
      fill = [(0, size - len(part))] + [(0, 0)] * 3
      out = runner(crops=np.pad(part, fill))
      parts.append({n: values[: len(part)] for n, values in out.items()})
    return {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}

  return model


def _savedmodel(path: str, threads: int) -> Model:
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  os.environ.setdefault("NO_GCE_CHECK", "true")
  import tensorflow as tf

  del threads  # TensorFlow's are those of the process.
  loaded = tf.saved_model.load(path)
  function = loaded.signatures["serving_default"]

  def model(crops: np.ndarray) -> dict[str, np.ndarray]:
    with _without_xla_flags():
      out = function(crops=tf.constant(crops))
    return {name: values.numpy() for name, values in out.items()}

  return model


@contextlib.contextmanager
def _without_xla_flags() -> Iterator[None]:
  """TensorFlow's XLA ends the process where it reads a flag of JAX's."""
  flags = os.environ.pop("XLA_FLAGS", None)
  try:
    yield
  finally:
    if flags is not None:
      os.environ["XLA_FLAGS"] = flags


def _stablehlo(path: str, threads: int) -> Model:
  import jax
  import jax.export

  del threads
  with open(path, "rb") as file:
    exported = jax.export.deserialize(bytearray(file.read()))
  function = jax.jit(exported.call)

  def model(crops: np.ndarray) -> dict[str, np.ndarray]:
    # Its three outputs, or also those of doubt.
    return dict(
      zip(OUTPUTS + DOUBT, map(np.asarray, function(crops)), strict=False)
    )

  return model


def _weights(path: str, threads: int) -> Model:
  del threads
  # Needs all of the package.
  weights = importlib.import_module("tokenpose_jax.export.weights")
  return weights.model_of(os.path.dirname(path), os.path.basename(path))


_OPEN: dict[str, Callable[[str, int], Model]] = {
  "onnx": _onnx,
  "litert": _litert,
  "savedmodel": _savedmodel,
  "stablehlo": _stablehlo,
  "safetensors": _weights,
  "orbax": _weights,
}
