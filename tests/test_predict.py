"""The command `tokenpose predict`: what it takes, writes and refuses."""

import functools
import json
import shutil

import cv2
import numpy as np
import pytest

import tokenpose_jax as tp
from tests import encoded, exporting, moving, odd_files
from tokenpose_jax.predict import command


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
  return exporting.tiny_file(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def photos(tmp_path):
  folder = tmp_path / "photos"
  folder.mkdir()
  for n in range(3):
    cv2.imwrite(str(folder / f"{n}.png"), moving.frame(4 * n))
  return folder


predict = functools.partial(exporting.command, command)


def test_photos_in_files_out(tmp_path, photos, weights, capsys):
  out = tmp_path / "out"
  (photos / "notes.txt").write_text("")
  code = predict(
    *(photos, "--weights", weights, "--out", out, "--box=2,6,12,16"),
    *("--box=38,40,12,16", "--write=coco,json,csv,drawn"),
  )
  assert code == 0
  results = json.loads((out / "results.json").read_text())
  assert [r["image_id"] for r in results] == [0, 0, 1, 1, 2, 2]
  estimator = tp.load(weights)
  photo = cv2.imread(str(photos / "2.png"))[..., ::-1]
  wanted = estimator(
    np.ascontiguousarray(photo), [[2, 6, 12, 16], [38, 40, 12, 16]]
  )
  for result, one in zip(results[4:], wanted.to_coco(2), strict=True):
    np.testing.assert_allclose(
      result["keypoints"], one["keypoints"], rtol=1e-3, atol=0.05
    )
  names = sorted(p.relative_to(out).as_posix() for p in out.rglob("*.*"))
  assert names == [
    *(f"drawn/{n}.png.jpg" for n in range(3)),
    *(f"json/{n}.png.json" for n in range(3)),
    "keypoints.csv",
    "results.json",
  ]
  said = capsys.readouterr().out.splitlines()
  assert said[0].startswith("1 other files passed over, as ")
  assert said[1] == "3 photos and frames, 6 people"


def test_what_is_broken_is_named_and_the_code_is_1(
  tmp_path, photos, weights, capsys
):
  (photos / "1.png").write_text("text")
  (photos / "4.mp4").write_text("text")
  out = tmp_path / "out"
  assert predict(photos, "--weights", weights, "--out", out) == 1
  said = capsys.readouterr().out
  assert "2 photos and frames, 2 people" in said
  assert "1.png: not an image" in said
  assert "4.mp4: " in said
  assert len(json.loads((out / "results.json").read_text())) == 2


def test_boxes_of_a_file_and_ids_of_another(tmp_path, photos, weights):
  images = [{"id": 70 + n, "file_name": f"{n}.png"} for n in range(3)]
  (tmp_path / "images.json").write_text(json.dumps({"images": images}))
  boxes = [{"image_id": 71, "bbox": [2, 6, 12, 16], "score": 0.5}]
  (tmp_path / "boxes.json").write_text(json.dumps(boxes))
  out = tmp_path / "out"
  code = predict(
    *(photos, "--weights", weights, "--out", out, "--write=coco"),
    *("--boxes", tmp_path / "boxes.json", "--images", tmp_path / "images.json"),
  )
  assert code == 0
  (result,) = json.loads((out / "results.json").read_text())
  assert result["image_id"] == 71


def test_a_video_with_a_detector(tmp_path, weights):
  path = moving.video(tmp_path / "v.mp4", 6)
  out = tmp_path / "out"
  code = predict(
    *(path, "--weights", weights, "--out", out, "--write=json,drawn"),
    *("--detector", "tests.moving:find", "--smooth", "--no-flip-test"),
  )
  assert code == 0
  lines = (out / "json" / "v.mp4.jsonl").read_text().splitlines()
  people = [json.loads(line)["people"] for line in lines]
  assert [[p["track"] for p in frame] for frame in people] == [[0, 1]] * 6
  assert (out / "drawn" / "v.mp4").stat().st_size > 500


W, OUT = "--weights={weights}", "--out={tmp}/out"
PHOTO = "{photos}/0.png"


@pytest.mark.parametrize(
  ("arguments", "says"),
  [
    (["{tmp}/gone.jpg", W, OUT], "gone.jpg does not exist"),
    (["{tmp}/*.bmp", W, OUT], "bmp does not exist"),
    (["{tmp}/empty", W, OUT], "no photo or video in"),
    ([PHOTO, "--weights={tmp}/no.pth", OUT], "no.pth does not exist"),
    ([PHOTO, "--weights={tmp}/text.pth", OUT], "text.pth"),
    ([PHOTO, "--weights={tmp}/empty", OUT], "no checkpoint|does not exist"),
    ([PHOTO, W, "--out={photos}"], "is not empty"),
    ([PHOTO, W, "--out={tmp}/text.pth"], "cannot write to"),
    ([PHOTO, W, "--out={tmp}/text.pth/x"], "cannot write to"),
    ([PHOTO, W, OUT, "--box=1,2,3"], "--box=1,2,3: expected x,y,w,h"),
    ([PHOTO, W, OUT, "--box=a,b,c,d"], "expected x,y,w,h"),
    ([PHOTO, W, OUT, "--box=1,2,3,4", "--detector=x.onnx"], "exclude each"),
    ([PHOTO, W, OUT, "--boxes={tmp}/gone.json"], "gone.json does not exist"),
    ([PHOTO, W, OUT, "--boxes={tmp}/text.pth"], "is not JSON"),
    ([PHOTO, W, OUT, "--boxes={tmp}/dict.json"], "expected a list"),
    ([PHOTO, W, OUT, "--boxes={tmp}/odd.json"], "entry 0 of .* is no box"),
    ([PHOTO, W, OUT, "--images={tmp}/odd.json"], "lists no images"),
    ([PHOTO, W, OUT, "--images={tmp}/other.json"], "not in the file of"),
    ([PHOTO, W, OUT, "--detector={tmp}/no.onnx"], "as an ONNX model"),
    ([PHOTO, W, OUT, "--detector={tmp}/text.pth"], "as an ONNX model"),
    ([PHOTO, W, OUT, "--detector=no_module:f"], "No module named"),
    ([PHOTO, W, OUT, "--detector=json:nothing"], "has no attribute"),
    ([PHOTO, W, OUT, "--detector=math:sqrt"], "the detector failed on 0.png"),
    ([PHOTO, W, OUT, "--write=pdf"], "--write=pdf: allowed: coco"),
    ([PHOTO, W, OUT, "--write="], "allowed: coco"),
    ([PHOTO, W, OUT, "--detect-every=0"], "expected at least 1"),
    ([PHOTO, W, OUT, "--smooth=-1"], "expected a number of Hz"),
    ([PHOTO, W, OUT, "--smooth=nan"], "expected a number of Hz"),
    ([PHOTO, W, OUT, "--nms=0"], "expected an OKS"),
    ([PHOTO, W, OUT, "--skeleton=mpii_16"], "17 keypoints, the skeleton mpii"),
    ([PHOTO, W, OUT, "--step=100"], "step 100: only a work directory has"),
    ([PHOTO, W, OUT, "--kind=ema"], "ema weights: only a work directory"),
    (["{tmp}/v.mp4", W, OUT, "--boxes={tmp}/ok.json"], "v.mp4 is a video"),
  ],
)
def test_bad_input_is_one_line(tmp_path, photos, weights, arguments, says):
  (tmp_path / "text.pth").write_text("text")
  (tmp_path / "empty").mkdir()
  (tmp_path / "dict.json").write_text("{}")
  (tmp_path / "odd.json").write_text('[{"image_id": 0, "bbox": [1]}]')
  (tmp_path / "ok.json").write_text("[]")
  other = {"images": [{"id": 1, "file_name": "x.png"}]}
  (tmp_path / "other.json").write_text(json.dumps(other))
  shutil.copy(photos / "0.png", tmp_path / "v.mp4")
  before = files_of(tmp_path)
  places = {"tmp": tmp_path, "photos": photos, "weights": weights}
  with pytest.raises(tp.InputError, match=says) as error:
    predict(*(argument.format(**places) for argument in arguments))
  assert "\n" not in str(error.value)
  assert before.items() <= files_of(tmp_path).items()


def test_a_link_in_a_full_folder_is_not_written_through(
  tmp_path, photos, weights
):
  mine = tmp_path / "mine.txt"
  mine.write_text("mine")
  (tmp_path / "theirs").mkdir()
  (tmp_path / "theirs" / ".partial").symlink_to(mine)
  with pytest.raises(tp.InputError, match="is not empty"):
    predict(photos, "--weights", weights, "--out", tmp_path / "theirs")
  assert mine.read_text() == "mine"


def test_odd_files_are_passed_over_in_printable_lines(
  tmp_path, photos, weights, capsys
):
  """A pipe, a device, a bomb, and names that would clear the screen."""
  (photos / "\x1b[2J.png").write_bytes(encoded.claimed_png(10**5, 10**5))
  (photos / "\u202egpj.jpg").symlink_to("/dev/null")
  (photos / "notes\r.txt").write_text("")
  pipe = odd_files.pipe(photos / "pipe.png")
  out = tmp_path / "out"

  def run():
    return predict(photos, pipe, "--weights", weights, "--out", out)

  assert odd_files.in_time(run, pipe) == 1
  said = capsys.readouterr().out
  assert all(line.isprintable() for line in said.splitlines())
  for part in (
    "3 photos and frames",
    r"\x1b[2J.png: Image size (10000000000 pixels) exceeds limit",
    "pipe.png: it is a pipe, not a file",
    r"notes\r.txt",
  ):
    assert part in said


def files_of(folder) -> dict[str, bytes]:
  return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_boxes_of_nobody_are_kept_as_such(tmp_path, photos, weights):
  out = tmp_path / "out"
  code = predict(
    *(photos / "0.png", "--weights", weights, "--out", out),
    *("--box=5,5,0,9", "--box=900,5,9,9", "--box=2,6,12,16"),
    *("--write=coco,json,drawn", "--min-score=-1"),
  )
  assert code == 0
  assert len(json.loads((out / "results.json").read_text())) == 1
  people = json.loads((out / "json" / "0.png.json").read_text())["people"]
  x = [p["keypoints"]["nose"]["x"] for p in people]
  assert [value is None for value in x] == [True, True, False]
  assert [p["score"] for p in people[:2]] == [0, 0]
