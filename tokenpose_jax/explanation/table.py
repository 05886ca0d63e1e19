"""A study as lines of text."""

from collections.abc import Iterator, Sequence

import numpy as np

from tokenpose_jax.explanation import constraints
from tokenpose_jax.explanation.study import NEAR, TOP, Estimate, Study

_NONE = "-"  # Nobody counts.


def lines(study: Study) -> Iterator[str]:
  """What was found, for a terminal.

  Args:
    study: of the people.
  """
  yield (
    f"{study.people} people in {study.images} photos; in brackets the middle"
    " 95 % of bootstrap replicates over photos"
  )
  yield from _by_layer(study)
  yield from _partners(study)
  if study.covered is not None:
    yield from _covered(study)


def _by_layer(study: Study) -> Iterator[str]:
  yield ""
  yield (
    f"By layer, %. peak: attention of visible keypoints' tokens peaks within"
    f" {NEAR:g} patches of the predicted keypoint (chance"
    f" {_percent(study.near_chance)}); image: attention that goes to patches;"
    f" of a keypoint's {TOP} largest constraints: mirror (chance"
    f" {_number(study.partners_chance[0])}), neighbor"
    f" ({_number(study.partners_chance[1])}), other"
    f" ({_number(study.partners_chance[2])}); settled: keypoints that stay"
    " where they end. tokens: the same of the learned tokens, by cosine"
  )
  head = ("layer", "peak", "image", *constraints.KINDS, "settled")
  rows: list[tuple[str, ...]] = [head]
  for n, name in enumerate(study.layers):
    rows.append(
      (
        name,
        _percent(study.near_all, n),
        _number(study.on_image.value[n].mean()),
        *(_percent(study.partners, n, kind) for kind in range(3)),
        _number(study.settled.value[n].mean()),
      )
    )
  rows.append(("tokens", "", "", *map(_number, study.partners_tokens), ""))
  yield from _aligned(rows)


def _partners(study: Study) -> Iterator[str]:
  """The largest constraints by the mean over people and layers."""
  mean = study.among.value.mean(0)
  order = constraints.top(mean, 3)
  yield ""
  yield "Largest constraints, mean of all people and layers, % of attention"
  yield from _aligned(
    [
      (name, *(f"{study.keypoints[j]} {_number(mean[i, j])}" for j in order[i]))
      for i, name in enumerate(study.keypoints)
    ]
  )


def _covered(study: Study) -> Iterator[str]:
  covered = study.covered
  assert covered is not None
  yield ""
  yield (
    "A visible keypoint covered: how far it moves, % of the box, what its score"
    " loses, and whose attention it gains most, percentage points, mean of the"
    " layers"
  )
  gain = covered.gain.value.mean(0)
  order = constraints.top(gain, TOP)
  rows: list[tuple[str, ...]] = [
    ("keypoint", "people", "moves", "loses", "gains")
  ]
  for i, name in enumerate(study.keypoints):
    rows.append(
      (
        name,
        f"{study.visible[i]:.0f}",
        _percent(covered.moved, i),
        _known(covered.lost.value[i], ".3f"),
        ", ".join(
          f"{study.keypoints[j]} {100 * gain[i, j]:+.2f}"
          for j in order[i]
          if np.isfinite(gain[i, j])
        ),
      )
    )
  yield from _aligned(rows)
  yield ""
  yield (
    "By layer, what the covered keypoint's token gives more, percentage points,"
    " to all of a kind; in turn where a place elsewhere is covered"
  )
  rows = [("layer", *constraints.KINDS, *(f"({k})" for k in constraints.KINDS))]
  for n, name in enumerate(study.layers):
    rows.append(
      (
        name,
        *(_points(covered.gain_kinds, n, kind) for kind in range(3)),
        *(_points(covered.gain_elsewhere, n, kind) for kind in range(3)),
      )
    )
  yield from _aligned(rows)


def _percent(of: Estimate, *index: int) -> str:
  return _interval(of, index, ".1f")


def _points(of: Estimate, *index: int) -> str:
  return _interval(of, index, "+.2f")


def _interval(of: Estimate, index: tuple[int, ...], form: str) -> str:
  value, low, high = (_known(100 * part[index], form) for part in of)
  return value if value == _NONE else f"{value} [{low}, {high}]"


def _number(share: float) -> str:
  return _known(100 * share, ".1f")


def _known(value: float, form: str) -> str:
  return f"{value:{form}}" if np.isfinite(value) else _NONE


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
  """Columns one below the other."""
  widths = np.max([[len(cell) for cell in row] for row in rows], axis=0)
  for row in rows:
    cells = zip(row, widths.tolist(), strict=True)
    yield "  ".join(cell.ljust(width) for cell, width in cells).rstrip()
