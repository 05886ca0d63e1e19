"""Estimates a skeleton's OKS sigmas from repeated annotations.

    python -m input_pipeline.sigmas first.json second.json [third.json ...]

COCO-format files in which different annotators labeled the same people (the
same annotation ids). As COCO's own were made: sigma_k^2 is the mean over people
of the squared distance of keypoint k from its place, over the person's area;
the place is the annotators' mean (hence the division by one fewer than them).
"""

import argparse
import json
import sys

import numpy as np
from jaxtyping import Float, Int

from input_pipeline import repeated
from tokenpose_jax import cli
from tokenpose_jax.errors import InputError
from tokenpose_jax.terminal import say

FEW = 30  # people; with fewer the estimate is said to be rough


def estimate(
  keypoints: Float[np.ndarray, "r n k 3"], areas: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " k"], Int[np.ndarray, " k"]]:
  """Sigmas of K keypoints.

  Args:
    keypoints: x, y, visibility by R annotators of N people; 0 is not labeled.
    areas: of the people, pixels.

  Returns:
    sigmas, NaN where nobody was labeled twice; and of how many people.
  """
  points, labeled = keypoints[..., :2], keypoints[..., 2] > 0
  times = labeled.sum(0)
  weight = labeled[..., None]
  mean = (points * weight).sum(0) / np.maximum(times, 1)[..., None]
  squared = (((points - mean) ** 2) * weight).sum((0, -1))
  twice = times > 1
  variance = squared / np.maximum(times - 1, 1) / areas[:, None]
  count = twice.sum(0)
  total = np.where(twice, variance, 0).sum(0)
  with np.errstate(invalid="ignore"):
    return np.sqrt(np.where(count, total, np.nan) / np.maximum(count, 1)), count


def main(argv: list[str] | None = None) -> int:
  """Prints estimated sigmas; returns the exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("files", nargs="+", help="two or more COCO-format files")
  options = parser.parse_args(argv)
  return cli.exit_code(lambda: _report(options.files))


def _report(files: list[str]) -> None:
  if len(files) < 2:
    raise InputError("two files or more are needed, one per annotator")
  people = repeated.read(files)
  for note in people.notes:
    say(note, aside=True)
  sigmas, count = estimate(people.keypoints, people.areas)
  known = [None if np.isnan(s) or s == 0 else float(f"{s:.4g}") for s in sigmas]
  say(json.dumps(known))
  say(f"people per keypoint: {count.tolist()}", aside=True)
  for reason, where in (
    ("nobody is labeled twice", np.isnan(sigmas)),
    ("the annotators never differ", sigmas == 0),
  ):
    if where.any():
      say(f"{reason} at {np.flatnonzero(where).tolist()}", aside=True)
  if count.min() < FEW:
    say(f"fewer than {FEW} people: a rough estimate", aside=True)


if __name__ == "__main__":
  sys.exit(main())
