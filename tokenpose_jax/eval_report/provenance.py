"""How an evaluation was made: everything that moves its figures."""

import datetime
import hashlib
import importlib.metadata
import json
import pathlib
import subprocess
import zlib
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from tokenpose_jax import config as config_lib
from tokenpose_jax import subpixel
from tokenpose_jax.metrics import boxes as boxes_lib

_LIBRARIES = ("jax", "jaxlib", "flax", "numpy", "opencv-python-headless")


def how_made(
  config: ConfigDict, data: Any, state: Any, workdir: str, skipped: int
) -> dict[str, Any]:
  """The facts, JSON types.

  Args:
    data: `evaluate.EvalData`; state: `TrainState` with the weights.
    skipped: people whose image could not be read.
  """
  step = int(state.step)
  settings = config.eval
  blurred = settings.decoder in ("dark", "udp")
  images = data.annotations["images"]
  return {
    "step": step,
    "checkpoint": str(epath.Path(workdir) / "checkpoints" / str(step)),
    "weights_crc32": _weights_crc32(state),
    "data": f"{config.data.name} {config.data.dir} {config.data.eval_split}",
    "images": len(images if data.image_ids is None else data.image_ids),
    "people": len(data.image_id),
    "people_skipped": skipped,
    "boxes": data.boxes,
    **_boxes(data),
    "box_score": settings.box_score,
    "input_hw": list(config.model.input_hw),
    "heatmap_hw": list(config.model.heatmap_hw),
    "padding": config.data.padding,
    "flip": settings.flip,
    "flip_shift": settings.flip_shift,
    "decoder": settings.decoder,
    "blur": subpixel.BLUR_KERNEL if blurred else 0,
    "udp": config.udp,
    "keypoint_score": settings.keypoint_score,
    "nms_oks": settings.nms_oks,
    "nms_soft": settings.nms_soft,
    "dtype": config.model.dtype,
    "git": git_revision(),
    "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    "versions": _versions(),
    "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    "config": config_lib.to_dict(config),
  }


def git_revision() -> str:
  """The commit of this code, "+ changes" where it differs; "" without git."""
  here = pathlib.Path(__file__).resolve()

  def git(*arguments: str) -> str:
    return subprocess.run(
      ["git", "-C", str(here.parent), *arguments],
      capture_output=True,
      text=True,
      check=True,
      timeout=10,
    ).stdout.strip()

  try:
    revision = git("rev-parse", "HEAD")
    # Installed somewhere below another project: that one's commit is not ours.
    git("ls-files", "--error-unmatch", here.name)
    changed = git("status", "--porcelain", "--untracked-files=no")
  except (OSError, subprocess.SubprocessError):
    return ""
  return revision + (" + changes" if changed else "")


def _boxes(data: Any) -> dict[str, Any]:
  """Of a detector-box file: its hash and the AP of its person boxes."""
  if data.boxes == "gt":
    return {"boxes_sha256": "", "boxes_person_AP": None}
  raw = epath.Path(data.boxes).read_bytes()
  boxes = [box for box in json.loads(raw) if box["category_id"] == 1]
  return {
    "boxes_sha256": hashlib.sha256(raw).hexdigest(),
    "boxes_person_AP": boxes_lib.box_ap(
      data.annotations, boxes, data.image_ids
    ),
  }


def _weights_crc32(state: Any) -> str:
  """Of the parameters and batch-norm statistics that were evaluated."""
  value = 0
  for leaf in jax.tree.leaves((state.params, state.model_state)):
    part = leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf
    value = zlib.crc32(np.asarray(part).tobytes(), value)
  return f"{value:08x}"


def _versions() -> str:
  found = []
  for name in _LIBRARIES:
    try:
      found.append(f"{name} {importlib.metadata.version(name)}")
    except importlib.metadata.PackageNotFoundError:
      continue
  return ", ".join(found)
