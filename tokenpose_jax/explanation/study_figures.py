"""The figures of a study, for papers (extra `explain`: Matplotlib)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tokenpose_jax.explanation import constraints, drawing
from tokenpose_jax.explanation.study import NEAR, TOP, Covered, Estimate, Study
from tokenpose_jax.skeletons import Skeleton

_BLUE, _GRAY, _LIGHT = "#2f6fd0", "#7d8894", "#c5ccd4"
_COLORS = ("#c8452f", _BLUE, _GRAY)  # of constraints.KINDS


def write(study: Study, skeleton: Skeleton, folder: str) -> list[str]:
  """Writes the figures as PNG.

  study_layers.png: by layer and with intervals, how often attention peaks at
  the keypoint, what the largest constraints are, and how many keypoints have
  settled; study_constraints.png: mean attention between keypoints, of the first
  and of the last layer and of all; study_covered.png: what covering keypoints
  does, where it was asked for.

  Args:
    study: of the people.
    skeleton: of the keypoints.
    folder: that is there.

  Returns:
    the paths of what was written.

  Raises:
    InputError: Matplotlib is not installed.
  """
  drawn = {
    "study_layers": _layers(study),
    "study_constraints": _constraints(study, skeleton),
  }
  if study.covered is not None:
    drawn["study_covered"] = _covered(study, study.covered, skeleton)
  return drawing.write(drawn, folder)


def _layers(study: Study) -> Any:
  figure = drawing.figure(10.5, 3.2)
  peak, partners, settled = figure.subplots(1, 3)
  _line(peak, study.near_all, _BLUE, "network")
  chance = float(study.near_chance.value)
  peak.axhline(100 * chance, color=_GRAY, ls="--", lw=1, label="by chance")
  peak.set_title(f"Attention peaks within {NEAR:g} patches", fontsize=9)
  peak.legend(fontsize=7)
  for n, (kind, color) in enumerate(
    zip(constraints.KINDS, _COLORS, strict=True)
  ):
    _line(partners, _of_kind(study.partners, n), color, kind)
    chance = study.partners_chance[n]
    partners.axhline(100 * chance, color=color, ls="--", lw=1)
  partners.set_title(f"Largest {TOP} constraints (dashed: chance)", fontsize=9)
  partners.legend(fontsize=7)
  settled.plot(100 * study.settled.value, color=_LIGHT, lw=0.8)
  settled.plot(100 * study.settled.value.mean(1), "o-", color=_BLUE, ms=3)
  settled.set_title("Settled keypoints (gray: each one)", fontsize=9)
  for axis in (peak, partners, settled):
    _by_layer(axis, study.layers)
    axis.set_ylabel("%", fontsize=8)
    axis.set_ylim(0, 102)
  return figure


def _constraints(study: Study, skeleton: Skeleton) -> Any:
  figure = drawing.figure(10.5, 3.8)
  figure.suptitle(
    f"Attention from keypoint tokens (rows) to keypoint tokens (columns), mean"
    f" of {study.people} people and of the heads, %",
    fontsize=9,
  )
  mean = 100 * study.among.value
  shown = {
    f"layer {study.layers[0]}": mean[0],
    f"layer {study.layers[-1]}": mean[-1],
    "all layers": mean.mean(0),
  }
  for axis, (title, values) in zip(
    figure.subplots(1, 3), shown.items(), strict=True
  ):
    most = values[~np.eye(len(values), dtype=bool)].max(initial=0)
    _matrix(figure, axis, skeleton, values, 0, float(most))
    axis.set_title(title, fontsize=8)
  return figure


def _covered(study: Study, covered: Covered, skeleton: Skeleton) -> Any:
  figure = drawing.figure(10.5, 3.8)
  moves, gains, kinds = figure.subplots(1, 3)
  value, low, high = (100 * part for part in covered.moved)
  places = range(len(study.keypoints))
  moves.barh(places, value, xerr=[value - low, high - value], color=_LIGHT)
  names = [drawing.name(name) for name in study.keypoints]
  moves.set_yticks(places, names, fontsize=6)
  moves.tick_params(labelsize=6)
  moves.invert_yaxis()
  moves.set_xlabel("% of the box's longer side", fontsize=8)
  moves.set_title("A covered keypoint moves", fontsize=9)
  moves.spines[["top", "right"]].set_visible(False)
  gain = 100 * covered.gain.value.mean(0)
  most = float(np.abs(np.nan_to_num(gain)).max())
  _matrix(figure, gains, skeleton, gain, -most or -1.0, most)
  gains.set_title(
    "Attention gained by (column) when\n(row) is covered, points", fontsize=9
  )
  for n, (kind, color) in enumerate(
    zip(constraints.KINDS, _COLORS, strict=True)
  ):
    _line(kinds, _of_kind(covered.gain_kinds, n), color, kind)
    elsewhere = _of_kind(covered.gain_elsewhere, n)
    _line(kinds, elsewhere, color, f"{kind}, elsewhere covered", "o:")
  kinds.set_title("The same by kind", fontsize=9)
  kinds.set_ylabel("points", fontsize=8)
  kinds.legend(fontsize=6)
  _by_layer(kinds, study.layers)
  return figure


def _of_kind(of: Estimate, kind: int) -> Estimate:
  return Estimate(*(part[:, kind] for part in of))


def _line(
  axis: Any, of: Estimate, color: str, label: str, style: str = "o-"
) -> None:
  value, low, high = (100 * part for part in of)
  axis.plot(value, style, color=color, label=label, ms=3, lw=1.2)
  axis.fill_between(range(len(value)), low, high, color=color, alpha=0.2, lw=0)


def _by_layer(axis: Any, layers: Sequence[str]) -> None:
  step = -(-len(layers) // 12)
  places = range(0, len(layers), step)
  axis.set_xticks(places, layers[::step])
  axis.tick_params(labelsize=7)
  axis.set_xlabel("layer", fontsize=8)
  axis.spines[["top", "right"]].set_visible(False)


def _matrix(
  figure: Any,
  axis: Any,
  skeleton: Skeleton,
  values: np.ndarray,
  least: float,
  most: float,
) -> None:
  image = drawing.matrix(axis, skeleton, values, least, most)
  bar = figure.colorbar(image, ax=axis, shrink=0.75, pad=0.02)
  bar.ax.tick_params(labelsize=6)
