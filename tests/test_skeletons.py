"""Skeletons: data, its checks, and JSON files."""

import dataclasses
import json

import numpy as np
import pytest

from tests import fixtures
from tokenpose_jax import skeletons
from tokenpose_jax.errors import InputError
from tokenpose_jax.skeletons import COCO_17, MPII_16, Skeleton

NAMED = pytest.mark.parametrize("skeleton", [COCO_17, MPII_16])
THREE = {"name": "three", "keypoints": ["left", "right", "top"]}


@NAMED
def test_flip_permutation_is_an_involution(skeleton):
  order = skeleton.flip_permutation
  assert order.dtype == np.int32
  np.testing.assert_array_equal(order[order], np.arange(len(order)))
  for index, name in enumerate(skeleton.keypoints):
    swap = {"left": "right", "right": "left"}
    side, _, rest = name.partition("_")
    other = f"{swap[side]}_{rest}" if side in swap else name
    assert skeleton.keypoints[order[index]] == other


@pytest.mark.parametrize(
  ("skeleton", "pairs"),
  [
    (COCO_17, [(i, i + 1) for i in range(1, 17, 2)]),
    (MPII_16, [(0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)]),
  ],
)
def test_flip_pairs_are_the_published_ones(skeleton, pairs):
  """reference 1."""
  assert {frozenset(p) for p in skeleton.flip_pairs} == set(
    map(frozenset, pairs)
  )


def test_coco_is_the_published_set():
  assert COCO_17.num_keypoints == 17
  assert COCO_17.upper_body == tuple(range(11))
  np.testing.assert_allclose(
    np.array(COCO_17.sigmas) * 1000,
    [26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89],
  )
  assert MPII_16.num_keypoints == 16
  assert MPII_16.sigmas is None


@NAMED
def test_json_roundtrip(skeleton, tmp_path):
  path = tmp_path / "skeleton.json"
  path.write_text(json.dumps(skeleton.to_dict()))
  assert skeletons.get(str(path)) == skeleton
  assert skeletons.get(skeleton.name) is skeleton


def test_names_or_indices():
  fields = {
    **THREE,
    "limbs": [["left", "top"], [1, 2]],
    "flip_pairs": [["left", 1]],
    "upper_body": ["top", 0],
    "sigmas": [1, 2, 3],
  }
  skeleton = Skeleton.from_dict(fields)
  assert skeleton.limbs == ((0, 2), (1, 2))
  assert skeleton.flip_pairs == ((0, 1),)
  assert skeleton.upper_body == (2, 0)
  assert skeleton.sigmas == (1.0, 2.0, 3.0)
  np.testing.assert_array_equal(skeleton.flip_permutation, [1, 0, 2])


def test_defaults():
  skeleton = Skeleton.from_dict({"keypoints": ["a", "b"]})
  assert skeleton.name == "custom"
  assert skeleton.limbs == skeleton.flip_pairs == skeleton.upper_body == ()
  assert skeleton.sigmas is None
  np.testing.assert_array_equal(skeleton.flip_permutation, [0, 1])


def test_default_colors_differ():
  colors = skeletons.color_wheel(17)
  assert len(set(colors)) == 17
  assert all(0 <= c <= 255 for color in colors for c in color)
  assert skeletons.color_wheel(0) == ()


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"keypoints": ["a", "a", "b"]}, "keypoint names repeat"),
    ({"limbs": [[0, 3]]}, r"limbs has \(0, 3\).*from 0 to 2"),
    ({"limbs": [[-1, 2]]}, "limbs has"),
    ({"limbs": [[0, 1, 2]]}, "limbs has"),
    ({"limbs": [["left", "nose"]]}, "'nose' is not one of the keypoints"),
    ({"flip_pairs": [[0, 9]]}, "flip_pairs has"),
    ({"flip_pairs": [[0, 1], [1, 2]]}, "flip_pairs names a keypoint twice"),
    ({"upper_body": [3]}, "upper_body is out of range"),
    ({"upper_body": ["nose"]}, "'nose' is not one of the keypoints"),
    ({"sigmas": [1, 2]}, "sigmas has 2 entries, expected 3"),
    ({"colors": [[1, 2, 3]] * 4}, "colors has 4 entries, expected 3"),
    ({"sigma": [1, 2, 3]}, r"unknown fields \['sigma'\]"),
    ({"flipPairs": [[0, 1]]}, "'flipPairs' meant to be 'flip_pairs'"),
    ({"swap_pairs": [[0, 1]]}, "'swap_pairs' meant to be 'flip_pairs'"),
    ({"oks_sigmas": [1, 2, 3]}, "meant to be 'sigmas'"),
    ({"keypoints": {"left": 0, "right": 1}}, "expected a list of names"),
    ({"keypoints": "abc"}, "keypoints is 'abc', expected a list of names"),
    ({"keypoints": []}, "expected a list of names"),
    ({"keypoints": ["a", " "]}, "expected a list of names"),
    ({"keypoints": ["a", 1]}, "expected a list of names"),
    ({"name": 5}, "name is 5, expected text"),
    ({"limbs": {"left": "right"}}, "limbs is .*expected a list"),
    ({"limbs": "left-right"}, "limbs is .*expected a list"),
    ({"limbs": ["left", "right"]}, "limbs has 'left'.*two names or indices"),
    ({"limbs": [[0.5, 1]]}, "limbs has 0.5.*name or index"),
    ({"limbs": [[0, None]]}, "limbs has None.*name or index"),
    ({"flip_pairs": [[True, 0]]}, "flip_pairs has True"),
    ({"flip_pairs": [[1, 1]]}, "flip_pairs names a keypoint twice"),
    ({"upper_body": "top"}, "upper_body is 'top', expected a list"),
    ({"sigmas": 0.1}, "sigmas is 0.1, expected a list"),
    ({"sigmas": [1, 2, None]}, "sigmas has None; expected a finite number"),
    ({"sigmas": [1, 2, float("nan")]}, "sigmas has nan"),
    ({"sigmas": [1, 2, float("inf")]}, "sigmas has inf"),
    ({"sigmas": [1, 2, 10**400]}, "sigmas has 1000"),
    ({"sigmas": [1, 2, True]}, "sigmas has True"),
    ({"sigmas": [1, 2, 0]}, "sigmas has 0; expected numbers above 0"),
    ({"sigmas": [1, 2, -1]}, "sigmas has -1; expected numbers above 0"),
    ({"sigmas": [1, 2, 1e-200]}, "sigmas has 1e-200"),
    ({"colors": [[1, 2]] * 3}, "colors has .*red, green and blue"),
    ({"colors": ["#ff0000"] * 3}, "colors has '#ff0000'"),
    ({"colors": [[0, 0, 256]] * 3}, "colors has .*whole numbers from 0 to 255"),
    ({"colors": [[0.5, 0, 1]] * 3}, "colors has .*whole numbers"),
  ],
)
def test_bad_field_is_named(change, message):
  Skeleton.from_dict(THREE)  # Good without the change.
  with pytest.raises(InputError, match=message) as error:
    Skeleton.from_dict({**THREE, **change})
  assert "\n" not in str(error.value)


def test_any_value_of_any_field(tmp_path):
  """The sound skeleton, its fields or their defaults, or one line."""
  path = tmp_path / "skeleton.json"
  fields = {
    **THREE,
    "limbs": [[0, 2]],
    "flip_pairs": [["left", "right"]],
    "upper_body": [2],
    "sigmas": [0.1, 0.2, 0.3],
    "colors": [[1, 2, 3]] * 3,
  }
  sound = Skeleton.from_dict(fields)
  bare = Skeleton.from_dict({"keypoints": THREE["keypoints"]})

  def read(changed):
    path.write_text(json.dumps(changed))
    for field, value in dataclasses.asdict(skeletons.get(str(path))).items():
      may_be = [getattr(sound, field), getattr(bare, field)]
      # What fits in its place: another name, an index that is 1.
      assert value in may_be or value in ("x", (1,), ())

  count = fixtures.fuzz(fields, fields, read)
  assert count["right"] >= 6  # null, as if missing
  assert sum(count.values()) == 14 * len(fields)


@pytest.mark.parametrize("content", [None, [], "x", 5, True, [1], {}])
def test_a_file_of_no_skeleton_is_named(tmp_path, content):
  path = tmp_path / "skeleton.json"
  path.write_text(json.dumps(content))
  fixtures.check_refused(lambda: skeletons.get(str(path)), path, "keypoints")


@pytest.mark.parametrize("number", [2, "1", None, [], "x" * 999])
def test_a_file_of_another_format_is_named(tmp_path, number):
  path = tmp_path / "skeleton.json"
  path.write_text(json.dumps({**THREE, "format": number, "software": []}))
  fixtures.check_refused(
    lambda: skeletons.get(str(path)), path, "format", "this one reads 1"
  )


def test_a_remark_plays_no_part(caplog):
  skeleton = Skeleton.from_dict({**THREE, "description": "mine", "_x": None})
  assert skeleton == Skeleton.from_dict(THREE)
  assert "['description', '_x'] are not known" in caplog.text


def test_what_is_certain_is_taken():
  fields = {**THREE, "flip_pairs": [["left", 1.0]], "sigmas": ["0.1", 2, 3.0]}
  skeleton = Skeleton.from_dict(fields)
  assert skeleton.flip_pairs == ((0, 1),)
  assert skeleton.sigmas == (0.1, 2.0, 3.0)


def test_keypoints_are_required():
  with pytest.raises(InputError, match="'keypoints' is missing"):
    Skeleton.from_dict({"name": "none"})


def test_a_skeleton_checks_itself_however_it_is_made():
  with pytest.raises(InputError, match="limbs"):
    dataclasses.replace(COCO_17, limbs=((0, 17),))


@pytest.mark.parametrize(
  ("name", "text", "message"),
  [
    ("missing.json", None, "missing.json does not exist"),
    ("bad.json", "{", "bad.json is not JSON: "),
    ("coco_18", None, "unknown skeleton .*coco_17, mpii_16"),
  ],
)
def test_bad_file_is_named(tmp_path, name, text, message):
  path = tmp_path / name
  if text is not None:
    path.write_text(text)
  argument = str(path) if name.endswith(".json") else name
  with pytest.raises(InputError, match=message) as error:
    skeletons.get(argument)
  assert "\n" not in str(error.value)
