"""The page of a step's evaluations: one HTML file that needs nothing else.

Pictures are inside as data; a content security policy forbids every request.
"""

import base64
import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from tokenpose_jax.metrics import coco, errors

_COLORS = dict(
  zip(
    errors.KINDS,
    ("#2e9e5b", "#a8d08d", "#7b61c9", "#e08a1e", "#c8452f"),
    strict=True,
  )
)
# Facts of "how it was made" that are shown in this order.
_FACTS = {
  "checkpoint": "checkpoint",
  "weights_crc32": "weights (CRC-32)",
  "data": "data",
  "images": "images",
  "people": "boxes evaluated",
  "people_skipped": "of them unreadable",
  "boxes": "boxes",
  "boxes_sha256": "box file (SHA-256)",
  "boxes_person_AP": "AP of its person boxes",
  "box_score": "least box score",
  "input_hw": "crop (height, width)",
  "heatmap_hw": "heatmap (height, width)",
  "padding": "crop over box",
  "flip": "flip test",
  "flip_shift": "flip shifted by a pixel",
  "decoder": "decoder",
  "blur": "blur kernel",
  "udp": "UDP coordinates",
  "keypoint_score": "keypoint score in rescoring above",
  "nms_oks": "OKS-NMS above",
  "nms_soft": "OKS-NMS soft",
  "dtype": "compute type",
  "git": "git revision",
  "device": "devices",
  "versions": "versions",
  "seconds": "seconds",
  "date": "date (UTC)",
}


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """One evaluation of a step.

  Attributes:
    name: of its folder; metrics: of its metrics.json.
    pictures: JPEG files by name.
  """

  name: str
  metrics: dict[str, Any]
  pictures: dict[str, bytes]

  def picture(self, file: str) -> str:
    """A picture as a data URI; empty where the file is gone."""
    data = base64.b64encode(self.pictures.get(file, b"")).decode()
    return f"data:image/jpeg;base64,{data}"


def render(evaluations: Sequence[Evaluation]) -> str:
  """The page of at least one evaluation; the first one's step is its title."""
  made = [one.metrics["made"] for one in evaluations]
  return _template().render(
    evaluations=evaluations,
    step=made[0]["step"],
    figure_names=list(
      dict.fromkeys(name for e in evaluations for name in e.metrics["figures"])
    ),
    facts=_facts(made),
    configs=[
      (e.name, json.dumps(m["config"], indent=2))
      for e, m in zip(evaluations, made, strict=True)
    ],
    colors=_COLORS,
    kinds=errors.KINDS,
  )


def figure(name: str, value: float | None) -> str:
  """A figure as papers print it: COCO's times 100; both with decimals."""
  if value is None or value < 0:
    return "–"
  return f"{100 * value:.1f}" if name in coco.FIGURES else f"{value:.2f}"


def percent(value: float) -> str:
  """A share as percent, a dash where there is none."""
  return f"{100 * value:.1f}" if value >= 0 else "–"


def _facts(
  made: Sequence[Mapping[str, Any]],
) -> list[tuple[str, list[str], bool]]:
  """(what, value of each evaluation, whether they differ)."""
  rows = []
  for name, label in _FACTS.items():
    values = [_text(name, one.get(name)) for one in made]
    if any(values):
      rows.append((label, values, len(set(values)) > 1))
  return rows


def _text(name: str, value: Any) -> str:
  if value is None or value == "":
    return ""
  if name == "boxes_person_AP":
    return percent(value)
  if name == "boxes" and value == "gt":
    return "annotated (gt)"
  if isinstance(value, bool):
    return "yes" if value else "no"
  if isinstance(value, list):
    return " × ".join(map(str, value))
  return str(value)


@functools.cache
def _template() -> jinja2.Template:
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader("tokenpose_jax.eval_report", "."),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters["figure"] = figure
  environment.filters["percent"] = percent
  return environment.get_template("page.html")
