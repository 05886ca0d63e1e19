"""How an evaluation was made: everything that moves its metrics."""

import dataclasses
import datetime
import pathlib
import subprocess
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from etils import epath
from ml_collections import ConfigDict

from tokenpose_jax import checkpoint
from tokenpose_jax import config as config_lib
from tokenpose_jax.codec import DECODERS
from tokenpose_jax.data import EvalData
from tokenpose_jax.network import Tree
from tokenpose_jax.version import __version__, installed

_LIBRARIES = ("jax", "jaxlib", "flax", "numpy", "opencv-python-headless")


@dataclasses.dataclass(frozen=True)
class Circumstances:
  """What the facts are read from.

  Attributes:
    config: resolved.
    data: that was evaluated.
    workdir: of the run.
    step: of the weights.
    weights: (params, model_state).
    kind: of the weights: "raw" or "ema".
    skipped: people whose image could not be read.
    seconds: that predicting took.
  """

  config: ConfigDict
  data: EvalData
  workdir: str
  step: int
  weights: tuple[Tree, Tree]
  kind: str
  skipped: int
  seconds: float


class Fact(NamedTuple):
  """A fact of an evaluation.

  Attributes:
    name: in metrics.json.
    label: in the report; "": not shown in its table.
    read: its value, JSON types.
    incidental: may differ when the same evaluation is repeated.
  """

  name: str
  label: str
  read: Callable[[Circumstances], Any]
  incidental: bool = False


def _eval(field: str) -> Callable[[Circumstances], Any]:
  return lambda of: of.config.eval[field]


# In the order of the report.
FACTS = (
  Fact("step", "", lambda of: of.step),
  Fact(
    "checkpoint",
    "checkpoint",
    lambda of: str(epath.Path(of.workdir) / checkpoint.FOLDER / str(of.step)),
    incidental=True,
  ),
  # Which ones they are is said by the next fact.
  Fact("weights", "weights", lambda of: of.kind, incidental=True),
  Fact(
    "weights_crc32",
    "weights (CRC-32)",
    lambda of: checkpoint.fingerprint(of.weights),
  ),
  Fact(
    "data",
    "data",
    lambda of: " ".join(
      of.config.data[name] for name in ("name", "dir", "eval_split")
    ),
  ),
  Fact("images", "images", lambda of: of.data.benchmark.image_count),
  Fact("people", "boxes evaluated", lambda of: len(of.data.boxes)),
  Fact("people_skipped", "of them unreadable", lambda of: of.skipped),
  Fact("boxes", "boxes", lambda of: of.data.source),
  Fact(
    "boxes_sha256",
    "box file (SHA-256)",
    lambda of: of.data.source_facts.get("sha256", ""),
  ),
  Fact(
    "boxes_person_AP",
    "AP of its person boxes",
    lambda of: of.data.source_facts.get("person_AP"),
  ),
  Fact("min_box_score", "minimum box score", _eval("min_box_score")),
  Fact(
    "input_hw",
    "crop (height, width)",
    lambda of: list(of.config.model.input_hw),
  ),
  Fact(
    "heatmap_hw",
    "heatmap (height, width)",
    lambda of: list(of.config.model.heatmap_hw),
  ),
  Fact("padding", "crop over box", lambda of: of.config.data.padding),
  Fact("flip", "flip test", _eval("flip")),
  Fact("flip_shift", "flip shifted by a pixel", _eval("flip_shift")),
  Fact("decoder", "decoder", _eval("decoder")),
  Fact(
    "blur",
    "blur kernel",
    lambda of: DECODERS[of.config.eval.decoder].blur_kernel,
  ),
  Fact("udp", "UDP coordinates", lambda of: of.config.codec.udp),
  Fact(
    "min_keypoint_score",
    "keypoint score in rescoring above",
    _eval("min_keypoint_score"),
  ),
  Fact("nms_threshold", "OKS-NMS above", _eval("nms_threshold")),
  Fact("nms_soft", "OKS-NMS soft", _eval("nms_soft")),
  Fact("dtype", "compute type", lambda of: of.config.model.dtype),
  Fact("git", "git revision", lambda of: git_revision(), incidental=True),
  Fact(
    "device",
    "devices",
    lambda of: f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    incidental=True,
  ),
  Fact("versions", "versions", lambda of: _versions(), incidental=True),
  Fact("seconds", "seconds", lambda of: of.seconds, incidental=True),
  Fact(
    "date",
    "date (UTC)",
    lambda of: datetime.datetime.now(datetime.UTC).isoformat(
      timespec="seconds"
    ),
    incidental=True,
  ),
  Fact("config", "", lambda of: config_lib.to_dict(of.config), incidental=True),
)


def how_made(circumstances: Circumstances) -> dict[str, Any]:
  """The facts by name, JSON types."""
  return {fact.name: fact.read(circumstances) for fact in FACTS}


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


def _versions() -> str:
  return ", ".join([f"tokenpose_jax {__version__}", *installed(_LIBRARIES)])
