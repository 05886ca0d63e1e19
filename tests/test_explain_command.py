"""The command `tokenpose explain`: what it takes, writes and refuses."""

import functools
import json

import cv2
import numpy as np
import pytest

import tokenpose_jax as tp
from tests import exporting, moving
from tokenpose_jax.explanation import command

explain = functools.partial(exporting.command, command)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
  return exporting.tiny_file(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def photos(tmp_path):
  folder = tmp_path / "photos"
  (folder / "more").mkdir(parents=True)
  for n, name in enumerate(("a.png", "b.png", "more/a.png")):
    cv2.imwrite(str(folder / name), moving.frame(4 * n))
  return folder


@pytest.fixture
def annotations(tmp_path, photos):
  keypoints = [9.0, 9.0, 2] * 17
  boxes = [[2, 6, 12, 16], [38, 40, 12, 16]]
  people = [
    {"image_id": n // 2, "bbox": boxes[n % 2], "keypoints": keypoints}
    for n in range(4)
  ]
  images = [{"id": 0, "file_name": "a.png"}, {"id": 1, "file_name": "b.png"}]
  path = tmp_path / "people.json"
  path.write_text(json.dumps({"images": images, "annotations": people}))
  return path


def test_a_page_for_each_person(tmp_path, photos, weights, capsys):
  out = tmp_path / "out"
  (photos / "notes.txt").write_text("")
  (photos / "broken.jpg").write_text("no photo")
  code = explain(
    *(photos, "--weights", weights, "--out", out, "--no-probe"),
    *("--box=2,6,12,16", "--box=38,40,12,16", "--people=5"),
  )
  assert code == 1
  pages = sorted(p.relative_to(out).as_posix() for p in out.rglob("*.html"))
  assert pages == [
    *("a.png/person1.html", "a.png/person2.html"),
    *("b.png/person1.html", "b.png/person2.html"),
    "more/a.png/person1.html",
  ]
  said = capsys.readouterr().out
  for page in pages:
    assert str(out / page) in said
  assert "1 other files passed over" in said
  assert "not read" in said
  assert "broken.jpg" in said


def test_figures_of_a_person(tmp_path, photos, weights, capsys):
  out = tmp_path / "out"
  explain(
    *(photos / "a.png", "--weights", weights, "--out", out),
    *("--no-probe", "--figures"),
  )
  assert len(list((out / "a.png/person1").glob("*.png"))) == 4
  assert "each photo was taken as one person" in capsys.readouterr().out


def test_a_study(tmp_path, photos, annotations, weights, capsys):
  out = tmp_path / "out"
  code = explain(
    *(photos / "a.png", photos / "b.png", "--weights", weights),
    *("--out", out, "--study", "--figures", "--annotations", annotations),
    *("--people=3", "--cover=blur"),
  )
  assert code == 0
  content = json.loads((out / "study.json").read_text())
  assert (content["people"], content["images"]) == (3, 2)
  assert content["visible"] == [3.0] * 17
  assert (content["format"], content["cover"]) == (1, "blur")
  assert content["software"] == tp.__version__
  assert np.shape(content["among"]["value"]) == (2, 17, 17)
  said = capsys.readouterr().out
  assert "3 people in 2 photos" in said
  assert "study.json" in said
  names = sorted(p.name for p in out.glob("*.png"))
  assert names == [
    *("study_constraints.png", "study_covered.png", "study_layers.png"),
  ]
  for name in names:
    picture = cv2.imread(str(out / name))
    assert picture.std() > 5


@pytest.mark.parametrize(
  ("more", "wanted"),
  [
    (["--people=0"], "--people=0: expected at least 1"),
    (["--box=1,2,3,4", "--annotations=a.json"], "exclude each other"),
    (["--annotations=a.json"], "a.json"),
    (["--skeleton=none"], "unknown skeleton 'none'"),
    (["--weights=none.pth"], "none.pth"),
  ],
)
def test_what_is_refused(tmp_path, photos, weights, more, wanted):
  out = tmp_path / "out"
  with pytest.raises(tp.InputError, match=wanted):
    explain(photos, "--weights", weights, "--out", out, *more)
  assert not list(out.rglob("*.html"))


def test_no_videos_and_no_folder_in_use(tmp_path, photos, weights):
  out = tmp_path / "out"
  (tmp_path / "a.mp4").write_bytes(b"")
  with pytest.raises(tp.InputError, match=r"a\.mp4 is a video"):
    explain(tmp_path / "a.mp4", "--weights", weights, "--out", out)
  out.mkdir()
  (out / "mine.txt").write_text("")
  with pytest.raises(tp.InputError, match="is not empty"):
    explain(photos, "--weights", weights, "--out", out)
  assert [p.name for p in out.iterdir()] == ["mine.txt"]


def test_a_study_of_nobody(tmp_path, photos, annotations, weights):
  content = json.loads(annotations.read_text())
  annotations.write_text(json.dumps(content | {"annotations": []}))
  with pytest.raises(tp.InputError, match="no people"):
    explain(
      *(photos / "a.png", "--weights", weights, "--out", tmp_path / "out"),
      *("--study", "--annotations", annotations),
    )


@pytest.mark.parametrize("study", [False, True])
def test_boxes_that_are_none(tmp_path, photos, weights, capsys, study):
  """Where a photo or a box is of no use, the others are."""
  (photos / "broken.jpg").write_text("no photo")
  out = tmp_path / "out"
  code = explain(
    *(photos, "--weights", weights, "--out", out, "--no-probe"),
    *("--box=200,200,5,5", "--box=3,3,0,9", "--box=2,6,12,16", "--people=3"),
    *(["--study"] if study else []),
  )
  assert code == 1
  said = capsys.readouterr().out
  assert (
    f"left out: {photos / 'a.png'}, person 1: box: 200,200,5,5 lies" in said
  )
  assert f"left out: {photos / 'a.png'}, person 2: box: 3,3,0,9 has no" in said
  assert f"not read: {photos / 'broken.jpg'}" in said
  if study:
    assert "3 people in 3 photos" in said
  else:
    made = sorted(p.relative_to(out).as_posix() for p in out.rglob("*.html"))
    assert made == [
      f"{name}/person3.html" for name in ("a.png", "b.png", "more/a.png")
    ]


@pytest.mark.parametrize("name", ["exported", "a.onnx", "a.tflite"])
def test_exports_do_not_explain_themselves(tmp_path, photos, name):
  weights = tmp_path / name
  if name == "exported":
    weights.mkdir()
    (weights / "config.json").write_text("{}")
    (weights / "export.json").write_text("{}")
  else:
    weights.write_bytes(b"model")
  with pytest.raises(tp.InputError, match=f"{name} is an export .*made from"):
    explain(photos, "--weights", weights, "--out", tmp_path / "out")


def test_a_study_without_anybody_says_why(tmp_path, photos, weights, capsys):
  with pytest.raises(tp.InputError, match="no people"):
    explain(
      *(photos / "a.png", "--weights", weights, "--out", tmp_path / "out"),
      *("--study", "--box=200,200,5,5"),
    )
  assert "left out" in capsys.readouterr().out


def test_photos_are_looked_up_before_any_work(
  tmp_path, photos, annotations, weights
):
  out = tmp_path / "out"
  cv2.imwrite(str(photos / "z.png"), moving.frame(0))
  options = photos, "--weights", weights, "--out", out, "--no-probe"
  with pytest.raises(
    tp.InputError, match=r"z\.png is not in the file of --ann"
  ):
    explain(*options, "--annotations", annotations)
  boxes = tmp_path / "boxes.json"
  boxes.write_text(json.dumps([{"image_id": 0, "bbox": [2, 6, 12, 16]}]))
  with pytest.raises(tp.InputError, match=r"z\.png is not in the file of --im"):
    explain(*options, "--boxes", boxes, "--images", annotations)
  assert not list(out.rglob("*.html"))


@pytest.mark.parametrize(
  ("more", "wanted"),
  [([], "what was made until now is in"), (["--study"], "at its end")],
)
def test_stopping(tmp_path, photos, weights, capsys, monkeypatch, more, wanted):
  def stopped(path):
    raise KeyboardInterrupt

  monkeypatch.setattr(command.sources_lib, "read_photo", stopped)
  code = explain(photos, "--weights", weights, "--out", tmp_path / "o", *more)
  assert code == 130
  assert wanted in capsys.readouterr().out
