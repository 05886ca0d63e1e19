r"""Exports a network to other runtimes, with proof that it is the same.

    tokenpose export runs/s_v1 s_v1_onnx --format=onnx
    tokenpose export s_v1.safetensors s_v1_all \
        --format=onnx,stablehlo,savedmodel,litert,orbax,safetensors --flip-test
    tokenpose verify s_v1_onnx

Models take crops (B, H, W, 3) uint8, RGB, and give keypoints (B, K, 2) in crop
pixels, scores (B, K) and heatmaps (B, K, h, w). The folder says in words and in
JSON what lies before and after.
"""

import argparse
import json
import os
import shutil
from typing import Any

import cv2
import numpy as np
from etils import epath
from jaxtyping import UInt8

from tokenpose_jax import compiled, exported
from tokenpose_jax.codec import DECODERS
from tokenpose_jax.errors import InputError, check_choice, one_line
from tokenpose_jax.export import formats as formats_lib
from tokenpose_jax.export import readme
from tokenpose_jax.export.function import (
  function_of,
  outputs_of,
  reference,
)
from tokenpose_jax.predict import saved as saved_lib
from tokenpose_jax.terminal import say
from tokenpose_jax.version import __version__

TESTED = 3  # crops


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the arguments of `tokenpose export`."""
  add = parser.add_argument
  add("source", help="a work directory, a published folder, a file of weights")
  add("folder", help="a new folder")
  add(
    "--format",
    default="onnx",
    help=f"of {','.join(formats_lib.WRITE)}; several by commas; default: onnx",
  )
  saved_lib.add_arguments(parser)
  add("--flip-test", action="store_true", help="inside, at twice the cost")
  add("--decoder", default="", choices=("", *DECODERS), help="default: saved")
  add("--batch", type=int, default=1, help="of litert; default: 1")
  add("--fp16", action="store_true", help="of onnx: weights and products")


def run(arguments: argparse.Namespace) -> None:
  """Writes the folder, and verifies it.

  Raises:
    InputError: the source cannot be read, the folder not be written, or a
      model computes something else.
  """
  names = list(dict.fromkeys(arguments.format.split(",")))
  for name in names:
    check_choice("--format", name, formats_lib.WRITE)
  if arguments.batch < 1:
    raise InputError(f"--batch={arguments.batch}: expected at least 1")
  if os.path.exists(arguments.folder):
    raise InputError(f"{arguments.folder} is already there; name a new folder")
  compiled.keep()
  saved = saved_lib.read(
    arguments.source, arguments.step, arguments.skeleton, arguments.kind
  )
  function = function_of(
    saved, flip_test=arguments.flip_test, decoder=arguments.decoder
  )
  # Whole or not there: a failing format leaves nothing behind.
  partial = f"{arguments.folder.rstrip('/')}.partial"
  try:
    shutil.rmtree(partial, ignore_errors=True)
    os.makedirs(partial)
    job = formats_lib.Job(
      saved, function, partial, arguments.batch, arguments.fp16
    )
    _write(job, names, arguments)
    os.rename(partial, arguments.folder)
  except OSError as error:
    raise InputError(
      f"cannot write to {arguments.folder}: {one_line(error)}"
    ) from None
  finally:
    shutil.rmtree(partial, ignore_errors=True)
  say(
    f"written to {arguments.folder}; verify it with:"
    f" tokenpose verify {arguments.folder}"
  )


def _write(
  job: formats_lib.Job, names: list[str], arguments: argparse.Namespace
) -> None:
  """All files of the folder; its sums are the last."""
  saved, folder = job.saved, job.folder
  saved_lib.write_description(saved, epath.Path(folder))
  made = {name: formats_lib.WRITE[name](job) for name in names}
  rest = {"keypoints": (2,), "heatmaps": saved.model.heatmap_hw}
  meta: dict[str, Any] = {
    "format": exported.FORMAT,
    "software": __version__,
    "formats": made,
    "flip_test": arguments.flip_test,
    "decoder": arguments.decoder or saved.options.get("decoder", "dark"),
    "step": saved.step,
    "inputs": {"crops": ["batch", *saved.model.input_hw, 3]},
    "outputs": {
      name: ["batch", saved.model.num_keypoints, *rest.get(name, ())]
      for name in outputs_of(saved.model)
    },
    "preprocessing": readme.preprocessing(saved),
  }
  _write_json(os.path.join(folder, exported.META), meta)
  crops = test_crops(saved.model.input_hw)
  found = reference(
    saved, crops, flip_test=arguments.flip_test, decoder=arguments.decoder
  )
  np.savez_compressed(
    os.path.join(folder, exported.INPUTS),
    crops=crops,
    **dict(zip(outputs_of(saved.model), found, strict=True)),
  )
  parity = {}
  for name in names:
    difference = exported.compare(exported.open_model(folder, name), folder)
    say(f"{name}: {exported.describe(difference)}")
    exported.check(name, difference, fp16=job.fp16 and name == "onnx")
    parity[name] = difference._asdict()
  _write_json(os.path.join(folder, exported.PARITY), parity)
  with open(os.path.join(folder, "README.md"), "w", encoding="utf-8") as file:
    file.write(readme.text(saved, meta, parity))
  _write_sums(folder)


def _write_json(path: str, content: dict[str, Any]) -> None:
  with open(path, "w", encoding="utf-8") as file:
    json.dump(content, file, indent=2)


def _write_sums(folder: str) -> None:
  """SHA256SUMS of every file, as `sha256sum -c` reads it."""
  rows = []
  for place, _, files in sorted(os.walk(folder)):
    for name in sorted(files):
      path = os.path.join(place, name)
      rows.append(f"{exported.sha256(path)}  {os.path.relpath(path, folder)}\n")
  with open(os.path.join(folder, exported.SUMS), "w") as file:
    file.writelines(rows)


def test_crops(input_hw: tuple[int, int]) -> UInt8[np.ndarray, "b h w 3"]:
  """Three crops to compare models on: shapes of many sizes and colors.

  Args:
    input_hw: of the network.
  """
  height, width = input_hw
  rng = np.random.default_rng(0)
  crops = []
  for _ in range(TESTED):
    coarse = rng.integers(0, 256, (8, 6, 3)).astype(np.uint8)
    crop = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
      center = rng.integers(0, (width, height)).tolist()
      axes = rng.integers(width // 24 + 1, width // 5 + 2, 2).tolist()
      color = rng.integers(0, 256, 3).tolist()
      turn = float(rng.uniform(0, 180))
      cv2.ellipse(crop, center, axes, turn, 0, 360, color, -1, cv2.LINE_AA)
    crops.append(crop)
  return np.stack(crops)
