"""The figures of an explanation: which there are, and what they choose."""

import dataclasses
import pathlib
import sys

import cv2
import numpy as np
import pytest

from tests import explained, tiny
from tokenpose_jax import InputError, skeletons
from tokenpose_jax.explanation import evidence, figures
from tokenpose_jax.models.published import PUBLISHED

NAMES = ("visual_cues", "constraint_cues", "token_similarity", "heatmaps")


@pytest.fixture(scope="module")
def explanation():
  return explained.explanation(tiny.model())


def test_all_of_them(explanation, tmp_path, monkeypatch):
  pytest.importorskip("matplotlib")
  # Other tests may have imported it.
  monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
  paths = figures.write(explanation, str(tmp_path / "new/figures"))
  assert [pathlib.Path(path).stem for path in paths] == [*NAMES, "sensitivity"]
  for path in paths:
    picture = cv2.imread(path)
    assert min(picture.shape[:2]) > 400
    assert picture.std() > 20  # not empty
    assert (picture[[0, -1]] == 255).mean() > 0.9  # nothing is cut off
  assert "matplotlib.pyplot" not in sys.modules


def test_without_a_probe_and_with_names_of_strangers(explanation, tmp_path):
  pytest.importorskip("matplotlib")
  names = ("$x_$\u202e\x1b", *explanation.skeleton.keypoints[1:])
  skeleton = dataclasses.replace(explanation.skeleton, keypoints=names)
  shown = dataclasses.replace(explanation, places=None, skeleton=skeleton)
  paths = figures.write(shown, str(tmp_path))
  assert [pathlib.Path(path).stem for path in paths] == [*NAMES]


def test_patches_that_are_left(explanation, tmp_path):
  pytest.importorskip("matplotlib")
  patches = explanation.evidence.attention.shape[-1] - 17
  kept = np.ones((2, patches), bool)
  kept[1, : patches // 2] = False
  found = explanation.evidence._replace(kept=kept)
  shown = dataclasses.replace(explanation, places=None, evidence=found)
  paths = figures.write(shown, str(tmp_path))
  assert pathlib.Path(paths[-1]).stem == "patches"
  picture = cv2.imread(paths[-1])
  left, right = np.array_split(picture, 2, axis=1)
  # Of the second layer the upper half is gone.
  assert right[: len(right) // 2].mean() < 0.8 * left[: len(left) // 2].mean()


def test_without_matplotlib(explanation, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
  with pytest.raises(InputError, match="pip install matplotlib"):
    figures.write(explanation, str(tmp_path / "figures"))
  assert not (tmp_path / "figures").exists()


def test_one_of_each_mirrored_pair_has_a_row():
  coco = skeletons.COCO_17
  named = [coco.keypoints[i] for i in figures.rows(coco)]
  assert named[0] == "nose"
  assert len(named) == 9
  assert not [name for name in named if name.startswith("right")]
  assert figures.rows(coco, 3) == [0, 7, 15]
  many = dataclasses.replace(coco, flip_pairs=())
  assert figures.rows(many)[:: len(figures.rows(many)) - 1] == [0, 16]


def test_first_and_last_layer_have_a_column(explanation):
  assert figures.columns(explanation) == [0, 1]
  layers = evidence.layer_names(PUBLISHED["tokenpose_l_d24"])
  long = dataclasses.replace(explanation, layers=layers)
  chosen = figures.columns(long)
  assert (chosen[0], chosen[-1], len(chosen)) == (0, 23, 6)
  assert np.ptp(np.diff(chosen)) <= 1
