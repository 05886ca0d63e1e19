"""What boxes look like, on real people and in every wrong form."""

import json

import numpy as np
import pytest

from input_pipeline import box_forms
from tests import fixtures


def drawn():
  """People far from the image's corner: boxes, sizes, points."""
  rng = np.random.default_rng(0)
  size = rng.uniform(40, 160, (60, 2))
  corner = rng.uniform(20, 400, (60, 2))
  places = corner[:, None] + rng.uniform(0, 1, (60, 17, 2)) * size[:, None]
  points = np.concatenate([places, np.full((60, 17, 1), 2.0)], 2)
  return np.hstack([corner, size]), np.full((60, 2), 600.0), points


def real():
  """COCO's people."""
  path = fixtures.DATA / "coco" / "annotations"
  file = fixtures.require(path / "person_keypoints_minival.json")
  content = json.loads(file.read_text())
  sizes = {i["id"]: (i["width"], i["height"]) for i in content["images"]}
  people = [a for a in content["annotations"] if not a["iscrowd"]]
  return (
    np.array([a["bbox"] for a in people], np.float64),
    np.array([sizes[a["image_id"]] for a in people], np.float64),
    np.array([a["keypoints"] for a in people], np.float64).reshape(-1, 17, 3),
  )


PEOPLE = {"drawn": drawn, "real": real}


def as_corners(boxes, sizes, points):
  return np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]), sizes, points


def by_centers(boxes, sizes, points):
  return (
    np.hstack([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]]),
    sizes,
    points,
  )


def box_shares(boxes, sizes, points):
  return boxes / np.hstack([sizes, sizes]), sizes, points


def point_shares(boxes, sizes, points):
  points = points.copy()
  points[..., :2] /= sizes[:, None]
  return boxes, sizes, points


def y_before_x(boxes, sizes, points):
  return boxes[:, [1, 0, 3, 2]] + [900, 0, 0, 0], sizes, points


FORMS = {
  as_corners: "two corners",
  by_centers: "the boxes' centers",
  box_shares: "all boxes are below 1.5 pixels",
  point_shares: "all keypoints are below 1.5 pixels",
  y_before_x: "lie outside their boxes",
}


@pytest.mark.parametrize("people", PEOPLE)
def test_sound_boxes(people):
  boxes, sizes, points = PEOPLE[people]()
  assert box_forms.odd(boxes, sizes, points) == ""
  assert box_forms.odd(boxes, sizes) == ""
  assert box_forms.odd(boxes, np.full_like(sizes, np.nan), points) == ""
  # Boxes of people that fill their images, up to the edge and a little beyond.
  whole = np.hstack([np.full_like(sizes, -3.0), sizes + 6])
  assert box_forms.odd(whole, sizes, points) == ""


@pytest.mark.parametrize("people", PEOPLE)
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_other_forms(people, form):
  boxes, sizes, points = form(*PEOPLE[people]())
  assert FORMS[form] in box_forms.odd(boxes, sizes, points)
  # Where nobody knows the sizes, the keypoints tell.
  unknown = np.full_like(sizes, np.nan)
  assert FORMS[form] in box_forms.odd(boxes, unknown, points)


@pytest.mark.parametrize("form", [as_corners, box_shares])
def test_boxes_without_keypoints(form):
  boxes, sizes, _ = form(*drawn())
  assert FORMS[form] in box_forms.odd(boxes, sizes)


def test_too_few_to_judge():
  boxes, sizes, points = (values[:2] for values in as_corners(*drawn()))
  assert box_forms.odd(boxes, sizes, points) == ""
