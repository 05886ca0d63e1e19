"""Where the tests find reference fixtures, and the rules that make weights."""

import json
import os
import pathlib
import zlib

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PARITY = pathlib.Path(
  os.environ.get("TOKENPOSE_FIXTURES", ROOT.parent / "shared" / "parity")
)
DATA = ROOT.parent / "shared" / "data"


def require(path: pathlib.Path) -> pathlib.Path:
  """The path, or a loud skip where it is missing."""
  if not path.exists():
    pytest.skip(f"reference data not found: {path}")
  return path


def load(stem: str) -> tuple[dict, dict[str, np.ndarray]]:
  """A fixture's JSON and its arrays."""
  path = require(PARITY / f"{stem}.json")
  with np.load(path.with_suffix(".npz")) as arrays:
    return json.loads(path.read_text()), dict(arrays)


def rng(seed: int) -> np.random.Generator:
  return np.random.Generator(np.random.PCG64(seed=seed))


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """SPEC.md 2.2: every weight follows from its name."""
  n = rng(zlib.crc32(name.encode())).standard_normal(shape)
  if name.endswith("running_mean"):
    n = 0.1 * n
  elif name.endswith("running_var"):
    n = np.exp(0.2 * n)
  elif name.endswith("keypoint_token"):
    n = 0.02 * n
  elif len(shape) >= 2:
    n = n / np.sqrt(np.prod(shape[1:]))
    if name.endswith("to_qkv.weight"):
      n = 2 * n
  elif name.endswith("weight"):
    n = 1 + 0.1 * n
  else:
    n = 0.02 * n
  return n.astype(np.float32)


def state_dict(fixture: dict, pos_embedding: np.ndarray) -> dict:
  """The weights of a model fixture under the original's names."""
  state = {}
  for entry in fixture["state_dict"]:
    name, shape = entry["name"], tuple(entry["shape"])
    if name.endswith("num_batches_tracked"):
      state[name] = np.zeros(shape, np.int64)
    elif name.endswith("pos_embedding"):
      state[name] = pos_embedding.reshape(shape)
    else:
      state[name] = weight(name, shape)
  return state


def images(height: int, width: int, batch: int = 2, seed: int = 12345):
  """SPEC.md 2.3: the input, (B, H, W, 3) float32."""
  g = rng(seed)
  coarse = g.standard_normal((batch, 3, height // 32, width // 32))
  fine = g.standard_normal((batch, 3, height, width))
  coarse = coarse.repeat(32, axis=2).repeat(32, axis=3)
  return (coarse + 0.5 * fine).astype(np.float32).transpose(0, 2, 3, 1)


def model_fields(config: dict) -> dict:
  """`config.model` of a model fixture's `config`."""

  def hw(wh):
    return (wh[1], wh[0])

  backbone = {"none": "none", "stem+layer1": "stem"}.get(config["backbone"])
  if backbone is None:
    backbone = "hrnet_" + config["backbone"].split("-")[1].split()[0].lower()
  rule = config["attention_scale_rule"]
  return dict(
    input_hw=hw(config["image_size_wh"]),
    heatmap_hw=hw(config["heatmap_size_wh"]),
    num_keypoints=config["num_joints"],
    backbone=backbone,
    stem_channels=64,
    patch_hw=hw(config["patch_size_wh"]),
    dim=config["dim"],
    depth=config["depth_per_stack"],
    stacks=config["stacks"],
    heads=config["heads"],
    attention_scale="head" if "//heads" in rule else "width",
    mlp_ratio=config["mlp_ratio"],
    position=config["pos_embedding"],
    head_dim=384 if len(config["head"]) == 4 else 0,
    dtype="float32",
  )


def model_stems() -> list[str]:
  """Every model fixture of the directory, without its ending."""
  return sorted(path.stem for path in PARITY.glob("model_*.json"))
