"""metrics/boxes.py: the AP of person boxes, as pycocotools measures it."""

import json

import pytest

from tests import coco_sets, fixtures
from tokenpose_jax.metrics import boxes as boxes_lib


def test_person_boxes_of_the_papers_detector():
  """The part for minival of the boxes with 56.4 AP on all of val2017."""
  folder = fixtures.require(fixtures.DATA / "coco")
  truth = json.loads(
    (folder / "annotations/person_keypoints_minival.json").read_text()
  )
  boxes = json.loads(
    (folder / "person_detection_results/detections_minival.json").read_text()
  )
  boxes = [box for box in boxes if box["category_id"] == 1]
  assert boxes_lib.box_ap(truth, boxes) == pytest.approx(0.584, abs=5e-4)
  some = {image["id"] for image in truth["images"][:100]}
  found = boxes_lib.box_ap(truth, boxes, some)
  truth["images"] = truth["images"][:100]
  truth["annotations"], boxes = (
    [one for one in entries if one["image_id"] in some]
    for entries in (truth["annotations"], boxes)
  )
  assert found == pytest.approx(
    coco_sets.official_box_ap(truth, boxes), abs=1e-9
  )
  assert 0.5 < found < 0.65
