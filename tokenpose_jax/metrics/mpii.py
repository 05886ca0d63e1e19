"""MPII's measure, PCKh: keypoints found within a share of the head's length.

As in the original implementation (reference 5.6; Andriluka et al., CVPR 2014):
the error over 0.6 times the head box's diagonal, at most 0.5; per joint over
the people in whom it is annotated. The original implementation's row `Mean@0.1`
is taken at 0.11; here both bounds are reported under their own names.
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float

from tokenpose_jax import file_kinds, mat_files, skeletons
from tokenpose_jax.errors import InputError, one_line
from tokenpose_jax.metrics.oks import Numbers

JOINTS = skeletons.MPII_16.keypoints
HEAD_SHARE = 0.6  # of the head box's diagonal: its length
_FARTHEST = 1e30  # pixels; infinity would mean that nothing is annotated

# What a row of the table averages.
_ROWS = {
  "Head": ("head",),
  **{
    part.capitalize(): (f"left_{part}", f"right_{part}")
    for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
  },
}
# Annotated without an independent judgement: they count in no mean.
_NOT_SCORED = ("pelvis", "thorax")
_SCORED = [i for i, name in enumerate(JOINTS) if name not in _NOT_SCORED]
_FIELDS = ("keypoints", "visible", "head_boxes")

FIGURES = (*_ROWS, "Mean", "Mean_plain", "Mean@0.1", "Mean@0.11")


def pckh(
  predictions: Numbers,
  ground_truth: str | os.PathLike | Mapping[str, Any],
  one_based: bool = False,
) -> dict[str, float]:
  """PCKh of MPII predictions, in percent (reference 5.6).

  Args:
    predictions: (N, 16, 2 or more) x, y in image pixels, 0-based; what follows
      is ignored. In the ground truth's order.
    ground_truth: the usual .mat file (pos_gt_src, jnt_missing, headboxes_src;
      1-based), or prepared arrays: keypoints (N, 16, 2) image pixels, 0-based,
      visible (N, 16), head_boxes (N, 4) x1, y1, x2, y2.
    one_based: the predictions are 1-based, as MATLAB's.

  Returns:
    By the names in FIGURES, PCKh@0.5: Head to Ankle, left and right averaged;
    Mean, over the 14 scored joints by how often they are annotated (as HRNet
    and TokenPose report it); Mean_plain, their plain mean. Mean@0.1 and
    Mean@0.11 are Mean at these bounds; the original implementation prints the
    latter as "Mean@0.1". -1 where nothing is annotated.

  Raises:
    InputError: the file or an array cannot be used, or they do not fit.
  """
  return figures(distances(predictions, ground_truth, one_based))


def distances(
  predictions: Numbers,
  ground_truth: str | os.PathLike | Mapping[str, Any],
  one_based: bool = False,
) -> Float[np.ndarray, "n 16"]:
  """Errors in head lengths, NaN where a joint is not annotated.

  Args:
    predictions: as for `pckh`.
    ground_truth: as for `pckh`.
    one_based: as for `pckh`.

  Raises:
    InputError: the file or an array cannot be used, or they do not fit.
  """
  found = _predictions(predictions)
  if isinstance(ground_truth, Mapping):
    truth, offset = _arrays(ground_truth), 1 if one_based else 0
  else:
    truth, offset = _read(ground_truth), 0 if one_based else -1
  keypoints, visible, boxes = (truth[name] for name in _FIELDS)
  if len(found) != len(keypoints):
    raise InputError(
      f"predictions of {len(found)} people, but the ground truth has"
      f" {len(keypoints)}; they must be of the same split, in its order"
    )
  # Shifted in the predictions' own precision, as in the original
  # implementation.
  with np.errstate(over="ignore"):
    moved = found - found.dtype.type(offset)
    error = np.minimum(np.linalg.norm(moved - keypoints, axis=2), _FARTHEST)
  head = np.linalg.norm(boxes[:, 2:] - boxes[:, :2], axis=1) * HEAD_SHARE
  sized = (head > 0) | ~(visible > 0).any(axis=1)
  if not sized.all():
    raise InputError(f"ground truth: head box {int(np.argmin(sized))} is empty")
  head = np.where(head > 0, head, 1.0)
  return np.where(visible > 0, error / head[:, None], np.nan)


def figures(
  distance: Float[np.ndarray, "n 16"],
  weights: Float[np.ndarray, " n"] | None = None,
) -> dict[str, float]:
  """The metrics of `pckh` from `distances`.

  Args:
    distance: (N, 16) as returned by `distances`.
    weights: (N,) how often each person counts; None: once.
  """
  labeled = np.isfinite(distance)
  counted = np.ones(len(distance)) if weights is None else weights
  count = counted @ labeled
  divisor = np.maximum(count, 1)

  def right(bound: float) -> np.ndarray:
    """(16,) percent right."""
    return 100 * (counted @ (labeled & (distance <= bound))) / divisor

  def mean(values: np.ndarray, weight: np.ndarray) -> float:
    total = weight.sum()
    return float((values * weight).sum() / total) if total else -1.0

  half = right(0.5)
  known = (count > 0).astype(float)
  row = {}
  for name, joints in _ROWS.items():
    at = [JOINTS.index(joint) for joint in joints]
    row[name] = mean(half[at], known[at])
  scored = count[_SCORED]
  return {
    **row,
    "Mean": mean(half[_SCORED], scored),
    "Mean_plain": mean(half[_SCORED], known[_SCORED]),
    "Mean@0.1": mean(right(0.1)[_SCORED], scored),
    "Mean@0.11": mean(right(0.11)[_SCORED], scored),
  }


def format_table(values: Mapping[str, float], title: str = "") -> str:
  """The metrics as a small table for terminals.

  Args:
    values: as returned by `pckh`.
    title: a first line; none if empty.
  """
  cells = [f"{v:.2f}" if v >= 0 else "-" for v in values.values()]
  width = max(map(len, [*cells, *values])) + 2
  lines = ["".join(f"{x:>{width}}" for x in row) for row in (values, cells)]
  return "\n".join([title, *lines] if title else lines)


def _predictions(given: Numbers) -> Float[np.ndarray, "n 16 2"]:
  try:
    found = np.asarray(given)
  except (OverflowError, ValueError) as error:
    raise InputError(f"predictions are no array: {one_line(error)}") from None
  if found.ndim != 3 or found.shape[1] != len(JOINTS) or found.shape[2] < 2:
    raise InputError(
      f"predictions have the shape {found.shape}, expected (N, 16, 2)"
    )
  if found.dtype.kind not in "iuf":
    raise InputError(f"predictions are {found.dtype}, expected numbers")
  found = found[..., :2]
  if found.dtype.kind != "f":
    found = found.astype(np.float64)
  if not np.isfinite(found).all():
    index = int(np.argmin(np.isfinite(found).all((1, 2))))
    raise InputError(f"prediction {index} has NaN or infinite values")
  return found


def _arrays(truth: Mapping[str, Any]) -> dict[str, np.ndarray]:
  missing = [name for name in _FIELDS if name not in truth]
  if missing:
    raise InputError(
      f"ground truth: {', '.join(missing)} missing; expected the arrays"
      f" {', '.join(_FIELDS)}"
    )
  shapes = ((-1, 16, 2), (-1, 16), (-1, 4))
  arrays = {
    name: mat_files.pixels(truth[name], shape, f"ground truth: {name}")
    for name, shape in zip(_FIELDS, shapes, strict=True)
  }
  number = len(arrays["keypoints"])
  for name, array in arrays.items():
    if len(array) != number:
      raise InputError(
        f"ground truth: {name} is of {len(array)} people, keypoints of {number}"
      )
  if np.isnan(arrays["visible"]).any():
    raise InputError("ground truth: visible has NaN or infinite values")
  known = arrays["visible"] > 0
  if np.isnan(arrays["keypoints"][known]).any():
    raise InputError("ground truth: an annotated joint is NaN or infinite")
  return arrays


def _read(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """The arrays of the dataset's .mat file, as they are: 1-based."""
  try:
    file_kinds.check(path)
    raw = epath.Path(path).read_bytes()
  except FileNotFoundError:
    raise InputError(f"ground truth: {path} does not exist") from None
  except (OSError, TypeError, ValueError) as error:
    raise InputError(
      f"ground truth: cannot read {path}: {one_line(error)}"
    ) from None
  content = mat_files.parse(raw, f"ground truth: cannot read {path}: it")
  shapes = {
    "pos_gt_src": (16, 2, -1),
    "jnt_missing": (16, -1),
    "headboxes_src": (2, 2, -1),
  }
  if missing := [name for name in shapes if name not in content]:
    raise InputError(
      f"ground truth: {path} has no {', '.join(missing)}; give the gt_valid.mat"
      " of MPII's validation set"
    )
  points, absent, heads = (
    np.moveaxis(
      mat_files.pixels(content[name], shape, f"ground truth: {path}: {name}"),
      -1,
      0,
    )
    for name, shape in shapes.items()
  )
  return _arrays(
    {
      "keypoints": points,
      "visible": absent == 0,
      "head_boxes": heads.reshape(len(heads), 4),
    }
  )
