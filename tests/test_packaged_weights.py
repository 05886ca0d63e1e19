"""The weights that come with the package: what is used where none are named."""

import functools
import json
import re

import cv2
import numpy as np
import pytest
import yaml

import tokenpose_jax as tp
from tests import exporting, fixtures, moving
from tokenpose_jax import cli, hub
from tokenpose_jax.explanation import command as explain_command
from tokenpose_jax.predict import command as predict_command
from tokenpose_jax.predict import saved as saved_lib

# Before a test puts others in their place.
OURS = saved_lib.PACKAGED
LARGEST = 25e6  # bytes: what everybody who installs the package downloads

predict = functools.partial(exporting.command, predict_command)
explain = functools.partial(exporting.command, explain_command)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Weights in the form of those that come with the package."""
  path = tmp_path_factory.mktemp("pretrained")
  hub.save_pretrained(exporting.tiny_file(path), str(path / "small"))
  return path / "small"


@pytest.fixture
def packaged(folder, monkeypatch):
  monkeypatch.setattr(saved_lib, "PACKAGED", folder)
  return folder


@pytest.fixture
def absent(tmp_path, monkeypatch):
  monkeypatch.setattr(saved_lib, "PACKAGED", tmp_path / "pretrained" / "small")


@pytest.fixture
def photo(tmp_path):
  path = tmp_path / "photo.png"
  cv2.imwrite(str(path), moving.frame(0))
  return path


@pytest.mark.parametrize(
  "choice",
  [{"step": "100"}, {"weights": "ema"}, {"skeleton": "mpii_16"}],
)
def test_what_has_no_choice_refuses_one(folder, choice):
  (value,) = choice.values()
  with pytest.raises(tp.InputError, match=f"{value}.*: .*small"):
    tp.load(str(folder), **choice)


def test_predict_uses_them_and_says_so(tmp_path, photo, packaged, capsys):
  assert predict(photo, "--out", tmp_path / "a") == 0
  line = capsys.readouterr().out.splitlines()[0]
  assert line.startswith("weights: small, which come with the package; ")
  assert line.endswith(f"{packaged}/README.md")
  assert predict(photo, "--out", tmp_path / "b", "--weights", packaged) == 0
  assert "come with" not in capsys.readouterr().out
  one, other = (
    (tmp_path / name / "results.json").read_bytes() for name in "ab"
  )
  assert one == other


def test_explain_uses_them_and_says_so(tmp_path, photo, packaged, capsys):
  out = tmp_path / "out"
  assert explain(photo, "--out", out, "--study", "--no-probe") == 0
  assert "weights: small, which come with" in capsys.readouterr().out
  assert json.loads((out / "study.json").read_text())["weights"] == "small"


def test_python_uses_them(packaged):
  image = np.ascontiguousarray(moving.frame(0))
  one, other = (load(image) for load in (tp.load(), tp.load(str(packaged))))
  np.testing.assert_array_equal(one.keypoints, other.keypoints)
  found = tp.explain(None, image, probe=False)
  wanted = tp.explain(packaged, image, probe=False)
  np.testing.assert_array_equal(found.points, wanted.points)


@pytest.mark.parametrize("command", ["predict", "explain"])
def test_without_them_one_line_says_what_to_do(
  tmp_path, photo, absent, capsys, command
):
  out = tmp_path / "out"
  with pytest.raises(SystemExit, match="1"):
    cli.main([command, str(photo), "--out", str(out)])
  (line,) = capsys.readouterr().err.strip().splitlines()
  assert line.startswith("error: no weights came with this installation")
  assert line.endswith("(--weights)")
  assert not out.exists()


def test_without_them_python_says_the_same(absent):
  for use in (tp.load, lambda: tp.explain(None, moving.frame(0))):
    with pytest.raises(tp.InputError, match="no weights came with"):
      use()


def test_those_that_come_can_be_read_and_say_what_they_are():
  if not OURS.is_dir():
    pytest.skip(f"this checkout has no weights of its own: {OURS}")
  saved = saved_lib.read(str(OURS))
  assert saved.skeleton.num_keypoints == saved.model.num_keypoints
  files = [path for path in OURS.rglob("*") if path.is_file()]
  assert sum(path.stat().st_size for path in files) < LARGEST
  # Nothing that the package would leave out.
  assert {path.parent for path in files} == {OURS}
  card = (OURS / hub.CARD).read_text()
  assert yaml.safe_load(card.split("---\n")[1])["license"]
  data = re.search(r"^## [^\n]*\bdata\b.*?(?=^## )", card, re.I | re.M | re.S)
  assert data, "the card has no section on the data"
  assert re.search("licen[cs]e", data[0], re.I)
  poses = tp.load(str(OURS))(fixtures.smooth_image(90, 60, (9, 99, 199)))
  assert poses.keypoints.shape == (1, saved.model.num_keypoints, 2)
  assert np.isfinite(poses.keypoints).all()
