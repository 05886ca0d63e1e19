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

from input_pipeline.files import read_bytes, require_file
from tokenpose_jax import cli, json_files
from tokenpose_jax.errors import InputError

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


def read(
  paths: list[str],
) -> tuple[Float[np.ndarray, "r n k 3"], Float[np.ndarray, " n"]]:
  """The people that all files have, with the mean of their areas.

  Raises:
    InputError: a file cannot be used, or the files share nobody.
  """
  files = [_people(path) for path in paths]
  shared = sorted(set.intersection(*(set(file) for file in files)))
  if not shared:
    raise InputError(f"{', '.join(paths)} share no annotation id")
  keypoints = [[file[i]["keypoints"] for i in shared] for file in files]
  counts = {len(points) for file in keypoints for points in file}
  if len(counts) != 1:
    raise InputError(
      f"the files have people of {sorted(counts)} keypoint numbers; all must"
      " be of one skeleton"
    )
  areas = np.mean([[file[i]["area"] for i in shared] for file in files], 0)
  if (areas <= 0).any():
    raise InputError(f"annotation {shared[int(areas.argmin())]} has no area")
  shape = (len(paths), len(shared), -1, 3)
  return np.array(keypoints, np.float64).reshape(shape), areas


def _people(path: str) -> dict[int, dict]:
  require_file(path, "sigmas")
  content = json_files.parse(read_bytes(path), path)
  try:
    people = {
      entry["id"]: {"keypoints": entry["keypoints"], "area": entry["area"]}
      for entry in content["annotations"]
      if not entry.get("iscrowd")
    }
  except (KeyError, TypeError, AttributeError) as error:
    raise InputError(
      f"{path} is not a file of keypoint annotations with areas: {error!r}"
    ) from None
  return people


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
  sigmas, count = estimate(*read(files))
  unknown = np.flatnonzero(np.isnan(sigmas)).tolist()
  print(json.dumps([None if np.isnan(s) else round(s, 4) for s in sigmas]))
  print(f"people per keypoint: {count.tolist()}", file=sys.stderr)
  if unknown:
    print(f"nobody is labeled twice at {unknown}", file=sys.stderr)
  if count.min() < FEW:
    print(f"fewer than {FEW} people: a rough estimate", file=sys.stderr)


if __name__ == "__main__":
  sys.exit(main())
