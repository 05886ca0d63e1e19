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
    figures: AP and its interval, if it has one, by step and by "annotated" or
      "detected".
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
          for step, of in sorted(run.figures.items())
          for boxes, figure in of.items()
        ]
        for step, *cells in known:
          lines.writerow([name, run.seed, step * run.batch, *cells])


def draw(runs: dict[str, list[Run]], path: pathlib.Path) -> None:
  """Curves: training loss and accuracy, and AP, by people seen."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(12, 4), layout="constrained")
  FigureCanvasAgg(figure)
  axes = figure.subplots(1, 3)
  for color, (name, found) in enumerate(runs.items()):
    for run in found:
      style = dict(
        color=f"C{color % 10}",
        linestyle=("-", "--", ":")[color // 10 % 3],
        label=None if run is not found[0] else name,
      )
      if not run.curve:
        continue
      steps, loss, accuracy = zip(*run.curve, strict=True)
      people = [step * run.batch / 1000 for step in steps]
      axes[0].plot(people, loss, **style)
      axes[1].plot(people, accuracy, **style)
      told = [
        (step * run.batch / 1000, of["annotated"][0])
        for step, of in sorted(run.figures.items())
        if "annotated" in of
      ]
      axes[2].plot(*zip(*told, strict=True), marker="o", **style)
  titles = ("loss", "training accuracy", "AP, annotated boxes")
  for axis, title in zip(axes, titles, strict=True):
    axis.set(title=title, xlabel="thousands of people seen")
    axis.grid(alpha=0.3)
  axes[0].legend(fontsize=8)
  figure.savefig(path, dpi=110)
