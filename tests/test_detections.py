"""The command that writes detector boxes."""

import json

import numpy as np
import pytest

from configs import default
from input_pipeline import datasets, detections
from tests import fixtures
from tokenpose_jax.errors import InputError

SIZES = {"a.jpg": (60, 80), "bad.jpg": (10, 10), "b.jpg": (90, 70)}


@pytest.fixture
def folder(tmp_path):
  images = {
    name: fixtures.encode(fixtures.smooth_image(*size, (200, 90, 60)))
    for name, size in SIZES.items()
  }
  images["bad.jpg"] = b"no image"
  fixtures.coco_folder(tmp_path / "data", images, SIZES)
  return tmp_path / "data"


def middle(image):
  """One sure box in the middle, one unsure box; what a detector returns."""
  h, w, channels = image.shape
  assert image.dtype == np.uint8
  assert channels == 3
  assert image[..., 0].mean() > image[..., 2].mean()  # RGB
  return np.array(
    [[w * 0.25, h * 0.25, w * 0.5, h * 0.5, 0.9], [0, 0, 9, 9, 0.1]]
  )


def test_the_file_is_what_an_evaluation_reads(folder, tmp_path, caplog):
  path = str(tmp_path / "boxes.json")
  assert detections.write(middle, str(folder), "train", path) == 4
  assert detections.write(middle, str(folder), "train", path, 0.5) == 2
  assert "bad.jpg" in caplog.text
  found = json.loads((tmp_path / "boxes.json").read_text())
  assert found[0] == {
    "image_id": 100,
    "category_id": 1,
    "bbox": [20, 15, 40, 30],
    "score": 0.9,
  }
  config = default.get_config()
  config.data.dir = str(folder)
  config.data.prepared_dir = str(tmp_path / "prepared")
  split = fixtures.prepare(config, "train")
  people = datasets.people(split, config, boxes=path)
  np.testing.assert_array_equal(people.image_id, [100, 98])
  np.testing.assert_allclose(people.center, [[39.5, 29.5], [34.5, 44.5]])


def test_nobody_found_is_no_mistake(folder, tmp_path):
  path = str(tmp_path / "boxes.json")
  for nothing in ([], np.zeros((0, 5)), np.zeros((0,))):
    number = detections.write(
      lambda _, n=nothing: n, str(folder), "train", path
    )
    assert number == 0
    assert (tmp_path / "boxes.json").read_text() == "[]"


@pytest.mark.parametrize(
  ("returned", "message"),
  [
    ([[1, 2, 3, 4]], r"a\.jpg.*shape \(1, 4\).*\(N, 5\)"),
    ([1, 2, 3, 4, 5], r"shape \(5,\)"),
    ([[1, 2, np.nan, 4, 5]], "finite"),
    ([[10, 10, 0, 5, 1]], "without area.*not two corners"),
  ],
)
def test_what_is_no_box_is_named_and_nothing_written(
  folder, tmp_path, returned, message
):
  path = tmp_path / "boxes.json"
  with pytest.raises(InputError, match=message):
    detections.write(lambda _: returned, str(folder), "train", str(path))
  assert not path.exists()


def test_the_command(folder, tmp_path, monkeypatch, capsys):
  (tmp_path / "my_detector.py").write_text(
    "def find(image):\n  return [[1, 2, 30, 40, 0.5]]\n"
  )
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr("sys.path", ["", *__import__("sys").path])
  arguments = [str(folder), "train", "out.json"]
  assert detections.main(["my_detector:find", *arguments]) == 0
  assert "2 boxes: out.json" in capsys.readouterr().out
  assert len(json.loads((tmp_path / "out.json").read_text())) == 2
  for wrong in ("my_detector", "my_detector:nothing", "no_module:find", ":f"):
    assert detections.main([wrong, *arguments]) == 1
    assert "MODULE:FUNCTION" in capsys.readouterr().err
  assert detections.main(["my_detector:find", "no", "train", "o.json"]) == 1
  assert "no does not exist" in capsys.readouterr().err
