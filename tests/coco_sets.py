"""Random COCO sets, and pycocotools, which judges our evaluation of them."""

import contextlib
import copy
import io
import json
import warnings

import numpy as np
import pytest

from tokenpose_jax.metrics import coco


def official_metrics(truth, results, sigmas=None, image_ids=None) -> dict:
  """The official evaluation of copies of the inputs, without its prints."""
  truth, results = copy.deepcopy((truth, results))
  with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
    warnings.simplefilter("ignore")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    ground_truth = COCO()
    ground_truth.dataset = truth
    ground_truth.createIndex()
    if results:
      detections = ground_truth.loadRes(results)
    else:  # loadRes looks at the first result.
      detections = COCO()
      detections.dataset = truth | {"annotations": []}
      detections.createIndex()
    evaluation = COCOeval(ground_truth, detections, "keypoints")
    if sigmas is not None:
      evaluation.params.kpt_oks_sigmas = np.asarray(sigmas)
    if image_ids is not None:
      evaluation.params.imgIds = list(image_ids)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
  return dict(zip(coco.FIGURES, map(float, evaluation.stats), strict=True))


def random_set(seed, k=17, num_images=10, num_categories=1, grid=False):
  """Random people and noisy detections of them, in COCO's layout.

  Has crowds, unlabelled people, a `num_keypoints` that the keypoints belie,
  images without people or detections, more than 20 detections in an image,
  and equal scores. `grid` takes integer coordinates and areas and spoils
  whole keypoints, which makes many equal OKS and some equal to a threshold.
  """
  rng = np.random.default_rng(seed)
  images = [{"id": 3 * int(i) + 1} for i in rng.permutation(num_images)]
  people, results = [], []
  for image in images:
    for _ in range(rng.integers(0, 6)):
      size = float(rng.choice([15, 40, 80, 150, 400]))
      corner = rng.uniform(0, 400, 2)
      points = corner + size * rng.random((k, 2))
      points = np.round(points) if grid else points
      visibility = rng.integers(0, 3, k) * (rng.random() > 0.15)
      labelled = int(np.sum(visibility > 0))
      if rng.random() < 0.05:
        labelled = 0 if labelled else 1
      ids = {
        "image_id": image["id"],
        "category_id": int(rng.integers(1, num_categories + 1)),
      }
      people.append(
        ids
        | {
          "id": len(people) + 1,
          "iscrowd": int(rng.random() < 0.12),
          "area": size**2 * (1 if grid else rng.uniform(0.4, 1)),
          "bbox": [*corner.tolist(), size, size],
          "num_keypoints": labelled,
          "keypoints": np.column_stack(
            [points * (visibility > 0)[:, None], visibility]
          )
          .ravel()
          .tolist(),
        }
      )
      for _ in range(rng.choice([0, 1, 1, 2, 3, 9])):
        if grid:
          moved = rng.random((k, 1)) < rng.choice([0, 0.1, 0.25, 0.5])
          found = points + moved * rng.choice([1000, 50, 3])
          score = float(rng.choice([0.1, 0.3, 0.5, 0.9]))
        else:
          spread = size * rng.choice([0.01, 0.03, 0.08])
          found = points + rng.normal(0, spread, (k, 2))
          score = round(rng.random(), int(rng.choice([1, 6])))
        results.append(
          ids
          | {
            "score": score,
            "keypoints": np.column_stack([found, rng.random(k)])
            .ravel()
            .tolist(),
          }
        )
  results = [results[i] for i in rng.permutation(len(results))]
  categories = [{"id": i + 1, "name": f"c{i}"} for i in range(num_categories)]
  return {
    "images": images,
    "annotations": people,
    "categories": categories,
  }, results


def check_same(ours, theirs):
  """Every figure equals the official one, to 1e-9."""
  assert tuple(ours) == coco.FIGURES
  assert all(type(value) is float for value in ours.values())
  assert ours == pytest.approx(theirs, abs=1e-9, rel=0)


def official_box_ap(truth, boxes) -> float:
  """The AP of boxes, by pycocotools."""
  with contextlib.redirect_stdout(io.StringIO()):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    ground_truth = COCO()
    ground_truth.dataset = json.loads(json.dumps(truth))
    ground_truth.createIndex()
    detections = ground_truth.loadRes(json.loads(json.dumps(boxes)))
    judge = COCOeval(ground_truth, detections, "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
  return judge.stats[0]
