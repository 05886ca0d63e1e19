"""Where an evaluation's files go, and their writing."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import UInt8

from tokenpose_jax import visualize
from tokenpose_jax.eval_report import page
from tokenpose_jax.eval_report.gallery import Gallery, Picture
from tokenpose_jax.skeletons import Skeleton

METRICS, RESULTS, REPORT = "metrics.json", "results.json", "report.html"

# What may differ when the same evaluation is made again.
_INCIDENTAL = (
  *("checkpoint", "config", "date", "device", "git"),
  *("seconds", "versions"),
)


def write(
  workdir: str,
  metrics: dict[str, Any],
  results: Sequence[dict[str, Any]],
  gallery: Gallery,
  skeleton: Skeleton,
  shown_score: float,
  sheet: UInt8[np.ndarray, "h w 3"] | None,
) -> epath.Path:
  """Writes one evaluation, and the page of all of its step.

  An evaluation made otherwise (other boxes, another decoder) of the same step
  stays; the same one made again replaces itself.

  Args:
    metrics: what metrics.json holds; its "made" decides where it goes.
    shown_score: keypoints above it are drawn.

  Returns:
    the folder of the step.
  """
  made = metrics["made"]
  step = epath.Path(workdir) / "eval" / str(made["step"])
  folder = _folder(step, made)
  pictures = folder / "pictures"
  pictures.mkdir(parents=True, exist_ok=True)
  # Written last: a folder with it is whole.
  (folder / METRICS).unlink(missing_ok=True)
  for old in pictures.iterdir():
    old.unlink()
  metrics = metrics | {
    "pictures": {
      kind: [
        _draw(pictures / f"{kind}_{i:02d}.jpg", one, skeleton, shown_score)
        for i, one in enumerate(some)
      ]
      for kind, some in (("best", gallery.best()), ("worst", gallery.worst()))
    }
  }
  (folder / RESULTS).write_text(json.dumps(results))
  if sheet is not None:
    (folder / "people.png").write_bytes(visualize.encode_png(sheet))
  (folder / METRICS).write_text(json.dumps(metrics, indent=2))
  (step / REPORT).write_text(page.render(_read_all(step)))
  return step


def _folder(step: epath.Path, made: dict[str, Any]) -> epath.Path:
  """STEP/BOXES; with -2, -3 ... where an evaluation made otherwise has it."""
  stem = epath.Path(made["boxes"]).stem
  number = 1
  while True:
    folder = step / (stem if number == 1 else f"{stem}-{number}")
    if not (folder / METRICS).exists():
      return folder
    other = json.loads((folder / METRICS).read_text())["made"]
    if _essence(other) == _essence(made):
      return folder
    number += 1


def _essence(made: dict[str, Any]) -> dict[str, Any]:
  plain = json.loads(json.dumps(made))
  return {name: v for name, v in plain.items() if name not in _INCIDENTAL}


def _read_all(step: epath.Path) -> list[page.Evaluation]:
  """The evaluations of a step: annotated boxes first, then by name."""
  found = []
  for folder in sorted(step.iterdir(), key=lambda p: (p.name != "gt", p.name)):
    if (folder / METRICS).exists():
      metrics = json.loads((folder / METRICS).read_text())
      files = (folder / "pictures").iterdir()
      pictures = {file.name: file.read_bytes() for file in files}
      found.append(page.Evaluation(folder.name, metrics, pictures))
  return found


def _draw(
  path: epath.Path, picture: Picture, skeleton: Skeleton, shown_score: float
) -> dict[str, Any]:
  """Writes a picture; returns its caption's facts."""
  drawn = visualize.draw_comparison(
    picture.crop,
    picture.found,
    picture.scores > shown_score,
    picture.truth,
    picture.labelled,
    skeleton,
  )
  path.write_bytes(visualize.encode_jpeg(drawn))
  return {
    "file": path.name,
    "image_id": picture.image_id,
    "box": picture.index,
    "quality": round(picture.quality, 4),
    "score": round(picture.score, 4),
  }
