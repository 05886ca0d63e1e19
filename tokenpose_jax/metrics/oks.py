"""Object keypoint similarity (OKS), and the score of a detection.

OKS says how far two people's keypoints agree, from 0 to 1. Here it compares
detections with each other, to drop those that show the same person twice;
against ground truth it is computed in `coco.evaluate`. Source: the COCO
site's keypoint evaluation page; reference 5.4.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

Numbers: TypeAlias = ArrayLike | Sequence[Any]
"""What `np.asarray` makes an array of numbers from."""

# Distances held in memory at a time, 8 bytes each and a few copies of them.
_CHUNK = 2**20


def oks(
  a_keypoints: Numbers,
  b_keypoints: Numbers,
  a_area: Numbers,
  b_area: Numbers,
  sigmas: Numbers,
  visible: Numbers | None = None,
) -> np.ndarray:
  """OKS of detections a with detections b (reference 5.4).

  The mean over the keypoints of exp(-d^2 / (2 (2 sigma)^2 area)), where d is
  their distance and area the mean of the two areas. Leading dimensions
  broadcast: (N, 1, K, 2) with (M, K, 2) gives (N, M).

  Args:
    a_keypoints: (..., K, 2 or more) x, y in pixels; what follows is ignored.
    b_keypoints: (..., K, 2 or more), likewise.
    a_area: (...) square pixels.
    b_area: (...) square pixels.
    sigmas: (K,) per-keypoint constants, `Skeleton.sigmas`.
    visible: (..., K) bool, which keypoints count; None: all. Where none
      does, OKS is 0.

  Returns:
    (...) float64, from 0 to 1.
  """
  a = np.asarray(a_keypoints, np.float64)
  b = np.asarray(b_keypoints, np.float64)
  total_area = np.asarray(a_area, np.float64) + np.asarray(b_area, np.float64)
  area = total_area / 2 + np.spacing(
    1
  )  # Never 0, as in the original implementation.
  square = (a[..., 0] - b[..., 0]) ** 2 + (a[..., 1] - b[..., 1]) ** 2
  variance = (2 * np.asarray(sigmas, np.float64)) ** 2
  similarity = np.exp(-square / variance / area[..., None] / 2)
  if visible is None:
    return np.asarray(similarity.mean(axis=-1))
  count = np.sum(visible, axis=-1)
  total = (similarity * visible).sum(axis=-1)
  return np.asarray(total / np.maximum(count, 1))


def oks_matrix(
  keypoints: Numbers,
  areas: Numbers,
  sigmas: Numbers,
  visible: Numbers | None = None,
) -> np.ndarray:
  """OKS of every detection with every other (reference 5.4).

  Args:
    keypoints: (N, K, 2 or more) x, y in pixels; what follows is ignored.
    areas: (N,) square pixels.
    sigmas: (K,) per-keypoint constants.
    visible: (N, K) bool: of each pair, only keypoints that are visible in
      the second detection count, as in the original implementation. None: all.

  Returns:
    (N, N) float64. Symmetric unless `visible` is given.

  Raises:
    ValueError: the shapes do not fit together.
  """
  keypoints, areas, sigmas = checked(keypoints, areas, sigmas)
  if visible is not None:
    visible = np.asarray(visible, bool)
    if visible.shape != keypoints.shape[:2]:
      raise ValueError(
        f"visible has the shape {visible.shape}, expected (N, K) ="
        f" {keypoints.shape[:2]}"
      )
  number = len(keypoints)
  matrix = np.empty((number, number))
  step = max(1, _CHUNK // max(1, number * len(sigmas)))
  for start in range(0, number, step):
    rows = slice(start, start + step)
    matrix[rows] = oks(
      keypoints[rows, None],
      keypoints,
      areas[rows, None],
      areas,
      sigmas,
      visible,
    )
  return matrix


def rescore(
  box_scores: Numbers,
  keypoint_scores: Numbers,
  min_keypoint_score: float = 0.2,
) -> np.ndarray:
  """A detection's score: its box's times its visible keypoints' mean.

  Args:
    box_scores: (N,) the person detector's scores.
    keypoint_scores: (N, K) heatmap maxima.
    min_keypoint_score: only keypoints that score higher count (reference 5.4:
      0.2).

  Returns:
    (N,) float64; 0 where no keypoint counts.

  Raises:
    ValueError: the shapes do not fit together.
  """
  box_scores = np.asarray(box_scores, np.float64)
  keypoint_scores = np.asarray(keypoint_scores, np.float64)
  if keypoint_scores.ndim != 2 or box_scores.shape != keypoint_scores.shape[:1]:
    raise ValueError(
      f"box_scores {box_scores.shape} and keypoint_scores"
      f" {keypoint_scores.shape} do not fit; expected (N,) and (N, K)"
    )
  visible = keypoint_scores > min_keypoint_score
  total = np.sum(keypoint_scores * visible, axis=1)
  return box_scores * total / np.maximum(visible.sum(axis=1), 1)


def checked(
  keypoints: Numbers, areas: Numbers, sigmas: Numbers
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The three as float64.

  Args:
    keypoints: (N, K, 2 or more) x, y in pixels.
    areas: (N,) square pixels.
    sigmas: (K,) per-keypoint constants.

  Raises:
    ValueError: saying which does not fit.
  """
  keypoints = np.asarray(keypoints, np.float64)
  areas = np.asarray(areas, np.float64)
  sigmas = np.asarray(sigmas, np.float64)
  if keypoints.ndim != 3 or keypoints.shape[2] < 2:
    raise ValueError(
      f"keypoints has the shape {keypoints.shape}, expected (N, K, 2 or more)"
    )
  if areas.shape != keypoints.shape[:1]:
    raise ValueError(
      f"areas has the shape {areas.shape}, expected (N,) ="
      f" {keypoints.shape[:1]}"
    )
  if sigmas.shape != keypoints.shape[1:2]:
    raise ValueError(
      f"sigmas has the shape {sigmas.shape}, expected (K,) ="
      f" {keypoints.shape[1:2]}"
    )
  return keypoints, areas, sigmas
