"""AP against pycocotools, OKS-NMS against a loop over pairs: equal, and faster.

    python -m benchmarks.evaluation

On a made-up set of val2017's size: 5,000 images, 11,000 people, 100,000
detections. Both sides get the same lists in memory, in the same process, one
after the other; what counts is the ratio. The best of a few runs of ours is
compared with the best of fewer runs of the slow side.
"""

import contextlib
import copy
import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tokenpose_jax import skeletons
from tokenpose_jax.metrics import bootstrap, coco, nms

IMAGES, PEOPLE, DETECTIONS = 5_000, 11_000, 100_000
SIGMAS = np.array(skeletons.COCO_17.sigmas)
THRESHOLD = 0.9


def make_set(
  seed: int = 0, detections: int = DETECTIONS
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """People at random, and detections of them that are more or less off."""
  rng = np.random.default_rng(seed)
  image = rng.integers(0, IMAGES, PEOPLE) + 1
  size = np.exp(rng.uniform(np.log(30), np.log(400), PEOPLE))
  corner = rng.uniform(0, 400, (PEOPLE, 2))
  points = corner[:, None] + size[:, None, None] * rng.random((PEOPLE, 17, 2))
  seen = rng.integers(0, 3, (PEOPLE, 17))
  annotations = [
    {
      "id": i + 1,
      "image_id": int(image[i]),
      "category_id": 1,
      "iscrowd": int(rng.random() < 0.02),
      "area": float(size[i] ** 2 * 0.6),
      "bbox": [*corner[i].tolist(), float(size[i]), float(size[i])],
      "num_keypoints": int((seen[i] > 0).sum()),
      "keypoints": np.column_stack([points[i], seen[i]]).ravel().tolist(),
    }
    for i in range(PEOPLE)
  ]
  truth = {
    "images": [{"id": i + 1} for i in range(IMAGES)],
    "annotations": annotations,
    "categories": [{"id": 1, "name": "person"}],
  }
  of = rng.integers(0, PEOPLE, detections)
  off = size[of] * rng.choice([0.01, 0.03, 0.1, 0.3], detections)
  noise = rng.normal(size=(detections, 17, 2)) * off[:, None, None]
  return truth, {
    "image_ids": image[of],
    "keypoints": points[of] + noise,
    "scores": rng.random(detections),
    "areas": size[of] ** 2 * rng.uniform(1, 1.4, detections),
  }


def as_results(detections: dict[str, np.ndarray]) -> list[dict[str, Any]]:
  ones = np.ones((DETECTIONS, 17, 1))
  flat = np.concatenate([detections["keypoints"], ones], axis=2)
  columns = (
    detections["image_ids"],
    flat.reshape(DETECTIONS, -1),
    detections["scores"],
  )
  return [
    {"image_id": i, "category_id": 1, "keypoints": k, "score": s}
    for i, k, s in zip(*(c.tolist() for c in columns), strict=True)
  ]


def pycocotools_figures(
  truth: dict[str, Any], results: list[dict[str, Any]]
) -> list[float]:
  with contextlib.redirect_stdout(io.StringIO()):
    ground_truth = COCO()
    ground_truth.dataset = truth
    ground_truth.createIndex()
    judge = COCOeval(ground_truth, ground_truth.loadRes(results), "keypoints")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
  return judge.stats.tolist()


def pairwise_nms(
  image_ids: np.ndarray,
  keypoints: np.ndarray,
  scores: np.ndarray,
  areas: np.ndarray,
) -> np.ndarray:
  """(N,) bool, kept: image by image, OKS pair by pair, as usually written."""
  variance = (2 * SIGMAS) ** 2
  kept = np.zeros(len(image_ids), bool)
  order = np.argsort(image_ids, kind="stable")
  edges = np.flatnonzero(np.diff(image_ids[order])) + 1
  for members in np.split(order, edges):
    left = members[np.argsort(-scores[members], kind="stable")]
    while len(left):
      best, left = left[0], left[1:]
      kept[best] = True
      alike = np.zeros(len(left))
      for n, other in enumerate(left):
        dx = keypoints[other, :, 0] - keypoints[best, :, 0]
        dy = keypoints[other, :, 1] - keypoints[best, :, 1]
        area = (areas[best] + areas[other]) / 2 + np.spacing(1)
        e = (dx**2 + dy**2) / variance / area / 2
        alike[n] = np.sum(np.exp(-e)) / len(e)
      left = left[alike <= THRESHOLD]
  return kept


def best_of(times: int, call: Callable[[], Any]) -> tuple[float, Any]:
  """The shortest of several runs, seconds, and the last outcome."""
  seconds = []
  for _ in range(times):
    start = time.perf_counter()
    outcome = call()
    seconds.append(time.perf_counter() - start)
  return min(seconds), outcome


def main() -> None:
  truth, detections = make_set()
  results = as_results(detections)
  # pycocotools writes into what it is given.
  copies = copy.deepcopy((truth, results))
  ours, figures = best_of(5, lambda: coco.evaluate(truth, results))
  theirs, wanted = best_of(2, lambda: pycocotools_figures(*copies))
  gap = max(abs(a - b) for a, b in zip(figures.values(), wanted, strict=True))

  fast, kept = best_of(
    5,
    lambda: nms.oks_nms_by_image(
      detections["image_ids"],
      detections["keypoints"],
      detections["scores"],
      detections["areas"],
      SIGMAS,
      THRESHOLD,
    ),
  )
  slow, wanted_kept = best_of(1, lambda: pairwise_nms(**detections))
  same = bool((kept == wanted_kept).all())

  matched = coco.match(truth, results)
  seconds, _ = best_of(1, lambda: bootstrap.coco_intervals(matched))

  print(f"{IMAGES} images, {PEOPLE} people, {DETECTIONS} detections")
  print(f"{'':<22}{'usual, s':>10}{'here, s':>10}{'times':>8}  equal")
  rows = (
    ("ten COCO metrics", theirs, ours, f"to {gap:.0e}"),
    ("OKS-NMS", slow, fast, f"{kept.sum()} kept: {'yes' if same else 'NO'}"),
  )
  for name, usual, here, equal in rows:
    print(
      f"{name:<22}{usual:>10.2f}{here:>10.3f}{usual / here:>7.0f}x  {equal}"
    )
  print(f"{'1,000 replicates':<22}{'':>10}{seconds:>10.1f}")
  if gap > 1e-9 or not same:
    raise SystemExit("the outcomes differ")


if __name__ == "__main__":
  main()
