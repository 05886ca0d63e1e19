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

from tokenpose_jax import pages
from tokenpose_jax.eval_report import provenance
from tokenpose_jax.eval_report.record import Record
from tokenpose_jax.metrics import error_kinds
from tokenpose_jax.metrics.benchmark import Column

_COLORS = dict(
  zip(
    error_kinds.KINDS,
    ("#2e9e5b", "#a8d08d", "#7b61c9", "#e08a1e", "#c8452f"),
    strict=True,
  )
)


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """One evaluation of a step.

  Attributes:
    name: of its folder.
    metrics: of its metrics.json.
    pictures: JPEG files by name.
  """

  name: str
  metrics: Record
  pictures: dict[str, bytes]

  def picture(self, file: str) -> str:
    """A picture as a data URI; empty where the file is gone."""
    data = base64.b64encode(self.pictures.get(file, b"")).decode()
    return f"data:image/jpeg;base64,{data}"


def render(evaluations: Sequence[Evaluation]) -> str:
  """The page of at least one evaluation; the first one's step is its title."""
  made = [one.metrics.made for one in evaluations]
  return _template().render(
    evaluations=evaluations,
    step=made[0]["step"],
    columns=list(
      dict.fromkeys(c for one in evaluations for c in one.metrics.columns)
    ),
    facts=_facts(made),
    configs=[
      (e.name, json.dumps(m["config"], indent=2))
      for e, m in zip(evaluations, made, strict=True)
    ],
    colors=_COLORS,
    kinds=error_kinds.KINDS,
  )


def number(column: Column, value: float | None) -> str:
  """A metric as papers print it; a dash where it is not defined."""
  if value is None or value < 0:
    return "–"
  return f"{column.factor * value:.{column.decimals}f}"


def percent(value: float) -> str:
  """A share as percent, a dash where there is none."""
  return f"{100 * value:.1f}" if value >= 0 else "–"


def _facts(
  made: Sequence[Mapping[str, Any]],
) -> list[tuple[str, list[str], bool]]:
  """(what, value of each evaluation, whether they differ)."""
  rows = []
  for fact in provenance.FACTS:
    values = [_text(fact.name, one.get(fact.name)) for one in made]
    if fact.label and any(values):
      rows.append((fact.label, values, len(set(values)) > 1))
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
  environment = pages.environment("tokenpose_jax.eval_report")
  environment.filters["number"] = number
  environment.filters["percent"] = percent
  return environment.get_template("page.html")
