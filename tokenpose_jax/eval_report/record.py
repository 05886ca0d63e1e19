"""What metrics.json holds, and how older ones are read."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from tokenpose_jax import json_files
from tokenpose_jax.errors import InputError, one_line
from tokenpose_jax.metrics import coco
from tokenpose_jax.metrics.benchmark import Column
from tokenpose_jax.version import __version__

FORMAT = 1

# Format 1 renamed these facts of "made".
_RENAMED = {
  "box_score": "min_box_score",
  "keypoint_score": "min_keypoint_score",
  "nms_oks": "nms_threshold",
}


@dataclasses.dataclass(frozen=True)
class Record:
  """One evaluation, JSON types.

  Attributes:
    figures: the metrics by name; below 0: not defined.
    columns: how each metric is printed.
    intervals: (low, high) of the metrics, by name.
    replicates: bootstrap replicates that the intervals are made of.
    keypoints: a row per keypoint.
    errors: how many keypoints are of each kind of error.
    people: how many were labeled and found.
    calibration: of the heatmaps' maxima.
    made: the facts of provenance.py by name.
    doubt: calibration of what `model.doubt` says; empty without.
    categories: the metrics of each category; empty where there is one alone.
    pictures: captions of the best and the worst predictions.
  """

  figures: dict[str, float]
  columns: Sequence[Column]
  intervals: dict[str, Any]
  replicates: int
  keypoints: list[dict[str, Any]]
  errors: dict[str, Any]
  people: dict[str, int]
  calibration: dict[str, Any]
  made: dict[str, Any]
  doubt: dict[str, Any] = dataclasses.field(default_factory=dict)
  categories: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  pictures: dict[str, list[dict[str, Any]]] = dataclasses.field(
    default_factory=dict
  )

  def to_json(self) -> str:
    """The text of metrics.json."""
    content = {"format": FORMAT, "software": __version__}
    content |= {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(self)
    }
    return json.dumps(content, indent=2)

  @classmethod
  def from_json(cls, text: str, path: str) -> "Record":
    """Reads a metrics.json of this or an older format.

    Args:
      text: of the file.
      path: of the file, for the error.

    Raises:
      Broken: it is not what was written.
      InputError: a newer software wrote the file.
    """
    try:
      plain = json_files.parse(text, path)
    except InputError as error:
      raise Broken(f"{path} is damaged: {one_line(error, 200)}") from None
    try:
      content = _upgrade(plain, path)
      content["columns"] = tuple(Column(*row) for row in content["columns"])
      names = {field.name for field in dataclasses.fields(cls)}
      record = cls(**{n: v for n, v in content.items() if n in names})
      _require_known(record)
    except InputError:
      raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
      raise Broken(f"{path} is damaged: {one_line(repr(error), 200)}") from None
    return record


class Broken(InputError):
  """A metrics.json is not what was written: cut off, or of something else."""


def _require_known(record: Record) -> None:
  """Raises TypeError or KeyError where others could not use it."""
  figures = dict(record.figures)
  made = {name: record.made[name] for name in ("data", "boxes", "step")}
  numbers = [*figures.values(), made["step"]]
  if not all(isinstance(value, int | float) for value in numbers):
    raise TypeError(f"the figures are {figures}, of step {made['step']}")
  if not all(isinstance(made[name], str) for name in ("data", "boxes")):
    raise TypeError(f"it was made of {made}")


def _upgrade(content: dict[str, Any], path: str) -> dict[str, Any]:
  number = content.get("format", 0)
  if number > FORMAT:
    raise InputError(
      f"{path} has format {number}, written by tokenpose_jax"
      f" {content.get('software')}; this one reads up to {FORMAT}"
    )
  if number == 0:
    made = {_RENAMED.get(n, n): v for n, v in content["made"].items()}
    columns = [
      Column(n, 100.0, 1) if n in coco.FIGURES else Column(n, 1.0, 2)
      for n in content["figures"]
    ]
    content = {**content, "made": made, "columns": columns}
  return content
