"""Pictures of a study, for papers."""

import os
from typing import Any

import numpy as np

from tokenpose_jax.explanation import constraints, figures
from tokenpose_jax.explanation.study import NEAR, TOP, Covered, Estimate, Study

_COLORS = ("#c8452f", "#2f6fd0", "#7d8894")  # of constraints.KINDS


def write(study: Study, folder: str) -> list[str]:
  """Writes the pictures as PNG files.

  Args:
    study: of the people.
    folder: that is there.

  Returns:
    the paths: study_layers.png (how often attention peaks at the keypoint, what
    the largest constraints are, how many keypoints have settled, by layer, with
    intervals), study_constraints.png (mean attention between keypoints: first
    and last layer, and the mean of all) and, with covered keypoints,
    study_covered.png.

  Raises:
    InputError: matplotlib is not installed.
    OSError: a file cannot be written.
  """
  made = {
    "study_layers": _layers(study),
    "study_constraints": _constraints(study),
  }
  if study.covered is not None:
    made["study_covered"] = _covered(study, study.covered)
  paths = []
  for name, figure in made.items():
    paths.append(os.path.join(folder, f"{name}.png"))
    figure.savefig(paths[-1], dpi=150)
  return paths


def _layers(study: Study) -> Any:
  figure = figures.new(12, 3.6)
  peak, partners, settled = figure.subplots(1, 3)
  _line(peak, study, study.near_all, _COLORS[1], "network")
  _chance(peak, float(study.near_chance.value), "chance")
  peak.set_title(f"attention peaks within {NEAR:g} patches")
  for n, (kind, color) in enumerate(
    zip(constraints.KINDS, _COLORS, strict=True)
  ):
    part = Estimate(*(end[:, n] for end in study.partners))
    _line(partners, study, part, color, kind)
    _chance(partners, study.partners_chance[n], color=color)
  partners.set_title(f"largest {TOP} constraints (dashed: chance)")
  settled.plot(100 * study.settled.value, color="#b8c0c9", linewidth=0.8)
  settled.plot(100 * study.settled.value.mean(1), color=_COLORS[1], marker="o")
  settled.set_title("settled keypoints (gray: each)")
  for axes in (peak, partners, settled):
    _by_layer(axes, study)
    axes.set_ylabel("%")
    axes.set_ylim(0, 102)
  peak.legend()
  partners.legend()
  return figure


def _constraints(study: Study) -> Any:
  figure = figures.new(15, 5.4)
  mean = study.among.value
  shown = {
    f"layer {study.layers[0]}": mean[0],
    f"layer {study.layers[-1]}": mean[-1],
    "mean of the layers": mean.mean(0),
  }
  for axes, (title, matrix) in zip(
    figure.subplots(1, 3), shown.items(), strict=True
  ):
    figures.matrix(axes, 100 * matrix, study.keypoints, title)
  return figure


def _covered(study: Study, covered: Covered) -> Any:
  figure = figures.new(13, 5.4)
  moves, gains, kinds = figure.subplots(1, 3)
  places = np.arange(len(study.keypoints))
  value, low, high = (100 * part for part in covered.moved)
  moves.barh(places, value, xerr=[value - low, high - value], color="#9db8e6")
  moves.set_yticks(places, study.keypoints, fontsize=7)
  moves.invert_yaxis()
  moves.set_xlabel("% of the box")
  moves.set_title("how far a covered keypoint moves")
  figures.matrix(
    gains,
    100 * covered.gain.value.mean(0),
    study.keypoints,
    "attention gained (points)",
    signed=True,
  )
  for n, (kind, color) in enumerate(
    zip(constraints.KINDS, _COLORS, strict=True)
  ):
    for of, style, name in (
      (covered.gain_kinds, "-", kind),
      (covered.gain_elsewhere, ":", f"{kind}, elsewhere covered"),
    ):
      part = Estimate(*(end[:, n] for end in of))
      _line(kinds, study, part, color, name, style)
  _by_layer(kinds, study)
  kinds.set_ylabel("points")
  kinds.set_title("attention gained by kind")
  kinds.legend(fontsize=7)
  return figure


def _line(
  axes: Any,
  study: Study,
  of: Estimate,
  color: str,
  label: str,
  style: str = "-",
) -> None:
  x = np.arange(len(study.layers))
  value, low, high = (100 * part for part in of)
  axes.plot(x, value, style, color=color, label=label, marker="o", markersize=3)
  axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)


def _chance(
  axes: Any, share: float, label: str = "", color: str = "#7d8894"
) -> None:
  axes.axhline(
    100 * share, linestyle="--", linewidth=1, color=color, label=label or None
  )


def _by_layer(axes: Any, study: Study) -> None:
  count = len(study.layers)
  step = -(-count // 12)
  axes.set_xticks(range(0, count, step), study.layers[::step], fontsize=8)
  axes.set_xlabel("layer")
  axes.spines[["top", "right"]].set_visible(False)
