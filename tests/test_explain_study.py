"""What is said of the people of a data set, and how sure it is."""

import json
import pathlib

import numpy as np
import pytest

import tokenpose_jax as tp
from tests import fixtures, moving, tiny
from tokenpose_jax import config as config_lib
from tokenpose_jax import skeletons
from tokenpose_jax.explanation import (
  constraints,
  evidence,
  people,
  person,
  study,
  table,
)
from tokenpose_jax.predict.saved import Saved
from tokenpose_jax.predict.sources import Source


@pytest.fixture(scope="module")
def explainer() -> person.Explainer:
  model = tiny.model()
  weights = tp.init(model, 0, "fan_in")
  codec = config_lib.codec_with(model, {})
  saved = Saved(model, weights, codec, skeletons.COCO_17, {})
  return person.Explainer(saved)


def _people() -> list[study.Person]:
  made = []
  for n in range(4):
    photo = np.ascontiguousarray(moving.frame(2 * n))
    box = np.array([2.0, 4.0 + n, 30.0, 40.0])
    visible = np.arange(17) % 3 != n % 3
    made.append(study.Person(f"{n // 2}.png", photo, box, visible))
  return made


def test_means_are_of_all_people(explainer):
  given = _people()
  found = study.study(explainer, given)
  assert (found.people, found.images, found.layers) == (4, 2, ("1", "2"))
  seen = np.array([one.visible for one in given])
  np.testing.assert_array_equal(found.visible, seen.sum(0))
  centers = evidence.patch_centers(explainer.saved.model)
  patch = np.array([48 / 4, 64 / 4])  # columns and rows of patches: 4 x 4
  assert explainer.saved.model.grid_hw == (4, 4)
  kinds = constraints.kinds(skeletons.COCO_17)
  near, among, shares, lost, gains = [], [], [], [], []
  for one in given:
    crop, _ = explainer.crop(one.photo, one.box)
    looked = explainer.look(crop[None]).of(0)
    attention = looked.attention.mean(1)
    peaks = centers[attention[:, :, 17:].argmax(-1)]
    away = np.linalg.norm((peaks - looked.points[-1]) / patch, axis=-1)
    near.append(away <= study.NEAR)
    among.append(attention[:, :, :17])
    shares.append(
      constraints.shares(constraints.top(among[-1], study.TOP), kinds)
    )
    probe = explainer.probe(crop, looked.points[-1])
    own = range(17)
    lost.append(looked.scores[-1] - probe.scores[own, own])
    gains.append(
      [probe.attention[:, i, i, :17] - attention[:, i, :17] for i in own]
    )
  weight = seen[:, None]
  wanted = (np.array(near) * weight).sum(0) / weight.sum(0)
  np.testing.assert_allclose(found.near.value, wanted)
  np.testing.assert_allclose(
    found.near_all.value, (np.array(near) * weight).sum((0, 2)) / seen.sum()
  )
  np.testing.assert_allclose(found.among.value, np.mean(among, 0), rtol=1e-6)
  np.testing.assert_allclose(found.partners.value, np.mean(shares, 0))
  np.testing.assert_allclose(
    found.covered.lost.value,
    (np.array(lost) * seen).sum(0) / seen.sum(0),
    atol=1e-6,
  )
  gain = np.moveaxis(np.array(gains), 2, 1)  # people, L, K, K
  gain = (gain * seen[:, None, :, None]).sum(0) / seen.sum(0)[:, None]
  np.testing.assert_allclose(found.covered.gain.value, gain, atol=1e-6)
  of_mirrors = (gain * (kinds == 0)).sum(-1)
  np.testing.assert_allclose(
    found.covered.gain_kinds.value[:, 0],
    of_mirrors @ seen.sum(0) / seen.sum(),
    atol=1e-6,
  )
  np.testing.assert_allclose(found.settled.value[-1], 1)
  assert (np.diff(found.settled.value, axis=0) >= 0).all()
  assert (found.near.low <= found.near.high).all()
  content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
  np.testing.assert_allclose(
    content["covered"]["moved"]["value"], found.covered.moved.value
  )
  assert list(table.lines(found))


def test_a_table_of_what_nobody_shows(explainer):
  one = _people()[0]._replace(visible=np.zeros(17, bool))
  lines = "\n".join(table.lines(study.study(explainer, [one])))
  assert "nan" not in lines
  assert "left_ankle      0       -      -" in lines


def test_without_covers(explainer):
  one = _people()[0]._replace(visible=None)
  found = study.study(explainer, [one], probe=False)
  assert found.covered is None
  crop, _ = explainer.crop(one.photo, one.box)
  scores = explainer.look(crop[None]).of(0).scores[-1]
  np.testing.assert_array_equal(found.visible, scores >= study.SEEN)
  content = json.dumps(found.to_dict(), allow_nan=False)
  assert ("null" in content) == (not (scores >= study.SEEN).all())


def test_nobody(explainer):
  with pytest.raises(tp.InputError, match="no people"):
    study.study(explainer, [])


def test_intervals_cover_the_mean():
  """Of 200 sets of 60 photos; 95 % is meant, and a Poisson bootstrap's."""
  rng = np.random.default_rng(0)
  covered = 0
  for trial in range(200):
    sums = study.Sums(replicates=200, seed=trial)
    for n in range(60):
      share = rng.random()
      for _ in range(rng.integers(1, 4)):
        sums.add(str(n), {"x": (share + rng.normal(0, 0.1), 1.0)})
    low, high = sums.mean("x")[1:]
    covered += low <= 0.5 <= high
  assert 0.88 <= covered / 200 <= 0.99


def test_replicates_take_photos_whole():
  """Two people of one photo are no more sure than one."""
  one, two = study.Sums(), study.Sums()
  for n in range(30):
    one.add(str(n), {"x": (n, 1)})
    for _ in range(2):
      two.add(str(n), {"x": (n, 1)})
  np.testing.assert_allclose(one.mean("x"), two.mean("x"))
  assert one.mean("x").low < 14.5 < one.mean("x").high


PERSON = {"image_id": 1, "bbox": [1, 2, 3, 4], "keypoints": [9, 9, 2] * 17}


def _annotations(path, **fields) -> str:
  keypoints = [1, 2, 2] * 5 + [3, 4, 1] * 5 + [0, 0, 0] * 7
  entries = [
    {"image_id": 1, "bbox": [1, 2, 3, 4], "keypoints": keypoints},
    {"image_id": 1, "bbox": [1, 2, 3, 4], "keypoints": [0] * 51},
    {"image_id": 1, "bbox": [5, 6, 0, 8], "keypoints": keypoints},
    {
      "image_id": 1,
      "bbox": [5, 6, 7, 8],
      "keypoints": keypoints,
      "iscrowd": 1,
    },
    {"image_id": 1, "bbox": [5, 6, 7, 8], "keypoints": [9, 9, 2] * 17},
  ]
  images = [{"id": 1, "file_name": "val/a.jpg"}, {"id": 2, "file_name": "b"}]
  content = {"images": images, "annotations": entries} | fields
  path.write_text(json.dumps(content))
  return str(path)


def test_annotated_people(tmp_path):
  found = people.Annotated(_annotations(tmp_path / "a.json"), 17)
  image = np.zeros((9, 9, 3), np.uint8)
  source = Source("/photos/a.jpg", "a.jpg", "photo")
  np.testing.assert_array_equal(
    found(source, image), [[1, 2, 3, 4, 1], [5, 6, 7, 8, 1]]
  )
  np.testing.assert_array_equal(found.visible(source).sum(1), [5, 17])
  nobody = Source("b", "b", "photo")
  assert found(nobody, image).shape == (0, 5)
  assert found.visible(nobody).shape == (0, 17)
  other = Source("/photos/c.jpg", "c.jpg", "photo")
  with pytest.raises(tp.InputError, match=r"c\.jpg is not in the file"):
    found(other, image)


@pytest.mark.parametrize(
  ("fields", "wanted"),
  [
    ({"annotations": {}}, "is no COCO keypoint file"),
    ({"annotations": [1]}, "is no COCO keypoint file"),
    ({"images": [{"file_name": "a"}]}, "has an image without an id"),
    (
      {
        "annotations": [
          {"image_id": 1, "bbox": [1, 2, 3, 4], "keypoints": [1, 2, 2] * 16}
        ]
      },
      "entry 0 .*48 numbers as keypoints; 17 keypoints of the network need 51",
    ),
    *(
      ({"annotations": [PERSON | {name: value}]}, f"entry 0 of .*{wanted}")
      for name, value, wanted in (
        ("image_id", None, "has no image_id"),
        ("image_id", [1], "has no image_id"),
        ("image_id", 7, "image 7 is not listed"),
        ("bbox", None, "bbox is not x, y, width, height"),
        ("bbox", [1, 2, 3], "bbox is not"),
        ("bbox", ["a", 2, 3, 4], "bbox is not"),
        ("bbox", [float("nan"), 2, 3, 4], "bbox is not"),
        ("keypoints", "nose", "keypoints are not numbers"),
        ("keypoints", [1, 2, "seen"] * 17, "keypoints are not numbers"),
        ("iscrowd", "no", "iscrowd is no, not 0 or 1"),
      )
    ),
  ],
)
def test_files_that_are_no_annotations(tmp_path, fields, wanted):
  path = _annotations(tmp_path / "a.json", **fields)
  with pytest.raises(tp.InputError, match=wanted):
    people.Annotated(path, 17)


def test_fields_of_odd_annotations(tmp_path):
  path = _annotations(tmp_path / "a.json", annotations=[PERSON])
  content = json.loads(pathlib.Path(path).read_text())

  def check(annotations):
    pathlib.Path(path).write_text(
      json.dumps(content | {"annotations": annotations})
    )
    people.Annotated(path, 17)

  assert fixtures.fuzz([PERSON], PERSON, check)["refused"] > 20
