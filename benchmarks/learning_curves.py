"""What trainings left: their curves, and the AP that was found on the way."""

import csv
import json
import pathlib
import re
from typing import NamedTuple


class Run(NamedTuple):
  """What a training left.

  Attributes:
    seed: of it.
    batch: people in a step.
    curve: (step, loss, accuracy), as logged.
    figures: AP and its interval, if it has one, by step, ascending, and by
      "annotated" or "detected".
  """

  seed: int
  batch: int
  curve: list[tuple[int, float, float]]
  figures: dict[int, dict[str, tuple[float, ...]]]


_LOGGED = re.compile(r"step (\d+)/\d+  loss (\S+)  accuracy (\S+)")


def runs_of(out: pathlib.Path, name: str) -> list[Run]:
  """The trainings of a row, by their seeds."""
  found = []
  for folder in sorted(out.glob(f"{name}-*")):
    text = (folder / "log.txt").read_text()
    curve = {
      int(step): (int(step), float(loss), float(accuracy))
      for step, loss, accuracy in _LOGGED.findall(text)
    }
    figures: dict = {}
    batch = 0
    for path in sorted(folder.glob("run/eval/*/*/metrics.json")):
      told = json.loads(path.read_text())
      made = told["made"]
      batch = made["config"]["train"]["batch_size"]
      if made["weights"] != made["config"]["eval"]["weights"]:
        continue
      boxes = "annotated" if made["boxes"] == "gt" else "detected"
      interval = told["intervals"].get("AP", ())
      figures.setdefault(int(path.parts[-3]), {})[boxes] = (
        told["figures"]["AP"],
        *interval,
      )
    if figures:
      seed = int(folder.name.rpartition("-")[2])
      figures = dict(sorted(figures.items()))
      found.append(Run(seed, batch, list(curve.values()), figures))
  return found


def write(runs: dict[str, list[Run]], path: pathlib.Path) -> None:
  """What was logged, and AP, by people seen."""
  with open(path, "w", newline="") as file:
    lines = csv.writer(file, lineterminator="\n")
    lines.writerow(["row", "seed", "people", "what", "value", "low", "high"])
    for name, found in runs.items():
      for run in found:
        known = [
          (step, what, value)
          for step, *values in run.curve
          for what, value in zip(("loss", "accuracy"), values, strict=True)
        ] + [
          (step, f"AP, {boxes}", *figure)
          for step, of in run.figures.items()
          for boxes, figure in of.items()
        ]
        for step, *cells in known:
          lines.writerow([name, run.seed, step * run.batch, *cells])


def draw(runs: dict[str, list[Run]], path: pathlib.Path) -> None:
  """Loss, accuracy and AP by people seen; the last AP with its interval."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  on_the_way = any(len(run.figures) > 1 for of in runs.values() for run in of)
  figure = Figure(figsize=(17 if on_the_way else 13, 5), layout="constrained")
  FigureCanvasAgg(figure)
  *by_people, last = figure.subplots(1, 4 if on_the_way else 3)
  for number, found in enumerate(runs.values()):
    style = dict(
      color=f"C{number % 10}",
      linestyle=("-", "--", ":")[number // 10 % 3],
    )
    for order, run in enumerate(found):
      for axis, column in zip(by_people[:2], (1, 2), strict=True):
        people = [logged[0] * run.batch / 1000 for logged in run.curve]
        axis.plot(people, [logged[column] for logged in run.curve], **style)
      told = {
        step * run.batch / 1000: of["annotated"]
        for step, of in run.figures.items()
        if "annotated" in of
      }
      for axis in by_people[2:]:
        axis.plot(
          [*told], [ap for ap, *_ in told.values()], marker="o", **style
        )
      for ap, *interval in list(told.values())[-1:]:
        height = number + (order - (len(found) - 1) / 2) / 4
        last.plot(interval, [height] * len(interval), **style)
        last.plot(ap, height, color=style["color"], marker="o")
  titles = ("loss", "training accuracy", "AP, annotated boxes")
  for axis, title in zip(by_people, titles, strict=False):
    axis.set(title=title, xlabel="thousands of people seen")
  last.set(title="last AP, annotated boxes, 95 %")
  last.set_yticks(range(len(runs)), runs)
  last.invert_yaxis()
  for axis in (*by_people, last):
    axis.grid(alpha=0.3)
  figure.savefig(path, dpi=90)
