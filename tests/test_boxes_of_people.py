"""Where `tokenpose predict` looks for people."""

import json

import numpy as np
import pytest

from tests import fixtures
from tokenpose_jax import InputError
from tokenpose_jax.predict import boxes as boxes_lib
from tokenpose_jax.predict.sources import Source

PHOTO = np.zeros((40, 60, 3), np.uint8)
ONE = Source("a/000000000785.jpg", "000000000785.jpg", "photo")
RESULT = {"image_id": 785, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}


def listed(tmp_path, entries, **options):
  path = tmp_path / "boxes.json"
  path.write_text(json.dumps(entries))
  options = {"category_id": 1, "min_score": 0.0} | options
  return boxes_lib.Listed(str(path), boxes_lib.ImageIds(), **options)


def test_the_whole_image_and_given_boxes():
  assert boxes_lib.Whole()(ONE, PHOTO).tolist() == [[0, 0, 60, 40, 1]]
  given = boxes_lib.Given(["1,2,3,4", " 5, 6.5 ,7,8"])
  assert given(ONE, PHOTO).tolist() == [[1, 2, 3, 4, 1], [5, 6.5, 7, 8, 1]]
  for text in ("1,2,3", "1,2,3,x", "1,2,3,nan", "", "1 2 3 4"):
    with pytest.raises(InputError, match="expected x,y,w,h"):
      boxes_lib.Given([text])


def test_boxes_of_a_file(tmp_path):
  entries = [
    RESULT,
    RESULT | {"score": 0.1},
    RESULT | {"category_id": 3},
    RESULT | {"image_id": 7},
    {"image_id": "785", "bbox": ["5", 6, 7, 8]},
  ]
  boxes = listed(tmp_path, entries, min_score=0.2)
  assert boxes(ONE, PHOTO).tolist() == [[1, 2, 3, 4, 0.5], [5, 6, 7, 8, 1]]
  nobody = ONE._replace(name="000000000001.jpg")
  assert boxes(nobody, PHOTO).shape == (0, 5)


def test_any_content_of_a_file_of_boxes(tmp_path):
  entry = dict(RESULT)
  count = fixtures.fuzz([entry], entry, lambda c: listed(tmp_path, c))
  assert count["refused"] > 20
  for content, says in (({}, "holds a dict"), ([7], "entry 0"), (None, "None")):
    with pytest.raises(InputError, match=says):
      listed(tmp_path, content)


def test_the_ids_of_photos(tmp_path):
  ids = boxes_lib.ImageIds()
  assert ids(ONE) == 785
  assert ids(ONE._replace(name="b/me.jpg")) == "b/me.jpg"
  path = tmp_path / "images.json"
  images = [{"id": 4, "file_name": "val/000000000785.jpg"}]
  path.write_text(json.dumps({"images": images}))
  ids = boxes_lib.ImageIds(str(path))
  assert ids(ONE) == 4
  with pytest.raises(InputError, match="is not in the file of --images"):
    ids(ONE._replace(path="other.jpg"))

  def check(content):
    path.write_text(json.dumps({"images": content}))
    boxes_lib.ImageIds(str(path))

  assert fixtures.fuzz(images, images[0], check)["refused"]
  path.write_text("[]")
  with pytest.raises(InputError, match="lists no images"):
    boxes_lib.ImageIds(str(path))


def test_a_detector_of_any_kind(tmp_path, monkeypatch):
  def detector(_):
    return np.array([[1, 2, 3, 4, 0.9], [1, 2, 3, 4, 0.1], [np.nan] * 5])

  boxes = boxes_lib.Detected(detector, 0.3)
  assert boxes(ONE, PHOTO).tolist() == [[1, 2, 3, 4, 0.9]]
  assert boxes_lib.Detected(lambda _: [], 0.3)(ONE, PHOTO).shape == (0, 5)
  with pytest.raises(InputError, match=r"the detector gave \(2, 4\) for 0"):
    boxes_lib.Detected(lambda _: np.ones((2, 4)), 0.3)(ONE, PHOTO)
  with pytest.raises(InputError, match="the detector failed on 0"):
    boxes_lib.Detected(lambda _: fail("by 0"), 0.3)(ONE, PHOTO)
  (tmp_path / "finder.py").write_text("def find(photo):\n  return []\n")
  monkeypatch.chdir(tmp_path)
  found = boxes_lib.detector_of("finder:find", "bgr", 0.3)
  assert found(PHOTO) == []
  for text in ("none.onnx", "finder", "finder:none", "nothing:find"):
    with pytest.raises(InputError) as error:
      boxes_lib.detector_of(text, "bgr", 0.3)
    assert "\n" not in str(error.value)


def fail(text):
  raise ZeroDivisionError(text)
