"""docs/own_skeleton.md: 21 keypoints in JSON, from data to figures."""

import dataclasses
import json

import cv2
import numpy as np
import pytest

from configs import default
from input_pipeline import coco as coco_lib
from input_pipeline import datasets
from tests import command_line, fixtures
from tokenpose_jax import coco_skeletons, skeletons
from tokenpose_jax.errors import InputError

NAMES = ["wrist"] + [
  f"{finger}_{joint}"
  for finger in ("thumb", "index", "middle", "ring", "little")
  for joint in range(1, 5)
]
SKELETON = {
  "name": "hand_21",
  "keypoints": NAMES,
  "limbs": [
    [NAMES[i - 1] if i % 4 != 1 else "wrist", NAMES[i]] for i in range(1, 21)
  ],
  "sigmas": [0.05] * 21,
}


def hand(rng, image_id):
  """(image, annotation): a hand of lines."""
  size = 96
  image = np.full((size, size, 3), rng.integers(30, 90), np.uint8)
  wrist = rng.uniform(40, 56, 2)
  points = [wrist]
  for finger in range(5):
    angle = np.deg2rad(-150 + 30 * finger + rng.uniform(-8, 8))
    points += [
      wrist + r * np.array([np.cos(angle), np.sin(angle)])
      for r in (12, 20, 27, 33)
    ]
  points = np.array(points)
  for i in range(1, 21):
    start = points[i - 1] if i % 4 != 1 else wrist
    ends = [tuple(map(round, p)) for p in (start, points[i])]
    cv2.line(image, *ends, skeletons.color_wheel(21)[i], 3)
  low, high = points.min(0) - 5, points.max(0) + 5
  keypoints = np.column_stack([points, np.full(21, 2)]).round(2)
  return image, {
    "image_id": image_id,
    "bbox": [*low.tolist(), *(high - low).tolist()],
    "area": float(np.prod(high - low)),
    "iscrowd": 0,
    "category_id": 1,
    "num_keypoints": 21,
    "keypoints": keypoints.ravel().tolist(),
  }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp("own") / "hands"
  rng = fixtures.rng(0)
  for split, count in (("train", 24), ("val", 8)):
    names = [f"{n}.jpg" for n in range(count)]
    made = [hand(rng, 100 - n) for n in range(count)]
    content = fixtures.coco_folder(
      path,
      {n: fixtures.encode(i) for n, (i, _) in zip(names, made, strict=True)},
      dict.fromkeys(names, (96, 96)),
      [annotation for _, annotation in made],
      split=split,
    )
    content["categories"] = [
      {
        "id": 1,
        "name": "hand",
        "keypoints": NAMES,
        "skeleton": [
          [NAMES.index(a) + 1, NAMES.index(b) + 1] for a, b in SKELETON["limbs"]
        ],
      }
    ]
    file = path / "annotations" / f"person_keypoints_{split}.json"
    file.write_text(json.dumps(content))
  (path / "hand.json").write_text(json.dumps(SKELETON))
  return path


def test_trains_and_evaluates_with_no_change_of_code(folder, tmp_path):
  done = command_line.call(
    *command_line.demo(folder, tmp_path),
    f"--config.data.skeleton={folder / 'hand.json'}",
    "--config.data.train_split=train",
    "--config.data.eval_split=val",
    "--config.train.steps=2",
  )
  assert done.returncode == 0, done.stderr
  assert "no sigmas" not in done.stderr
  made = tmp_path / "eval" / "2" / "gt"
  assert "AP" in json.loads((made / "metrics.json").read_text())["figures"]
  found = json.loads((made / "results.json").read_text())
  assert len(found) == 8
  assert all(len(entry["keypoints"]) == 3 * 21 for entry in found)


def test_the_annotations_own_skeleton(folder, tmp_path):
  config = default.get_config()
  config.data.dir = str(folder)
  # As the config says.
  assert datasets.skeleton_of(config.data, "train") is skeletons.COCO_17
  config.data.skeleton = "annotations"
  found = datasets.skeleton_of(config.data, "train")
  datasets.write_skeleton(found, str(tmp_path / "run"))
  assert skeletons.get(str(tmp_path / "run" / "skeleton.json")) == found
  wanted = skeletons.Skeleton.from_dict(SKELETON)
  assert found.keypoints == wanted.keypoints
  assert found.limbs == wanted.limbs
  assert found.sigmas is None


# Categories.


def test_coco_categories_are_coco_17():
  coco = skeletons.COCO_17
  category = {
    "name": "person",
    "keypoints": list(coco.keypoints),
    "skeleton": [[a + 1, b + 1] for a, b in coco.limbs],
  }
  assert coco_skeletons.from_category(category) is coco
  category["flip_pairs"] = [[1, 2]]
  assert coco_skeletons.from_category(category).flip_pairs == ((1, 2),)


@pytest.mark.parametrize(
  ("names", "pairs"),
  [
    (skeletons.COCO_17.keypoints, skeletons.COCO_17.flip_pairs),
    (skeletons.MPII_16.keypoints, skeletons.MPII_16.flip_pairs),
    (("nose", "L_eye", "R_eye"), [(1, 2)]),
    (("R_F_Paw", "L_F_Paw", "tail"), [(1, 0)]),
    (("leftEar", "rightEar"), [(0, 1)]),
    (("eye left", "eye right", "left"), [(0, 1)]),
    (("elbow", "relbow", "leftover"), []),
    (("LHip", "RHip"), [(0, 1)]),
    (("rightshoulder", "leftshoulder"), [(1, 0)]),
    (("lshoulder", "rshoulder"), [(0, 1)]),
    (("LF_Paw", "RF_Paw", "LB_Paw", "RB_Paw"), [(0, 1), (2, 3)]),
    (("Lwrist", "Rwrist"), [(0, 1)]),
    (("lankle", "rankle"), [(0, 1)]),
    (("LEFTEYE", "RIGHTEYE"), [(0, 1)]),
    (("r-eye", "l-eye"), [(1, 0)]),
    (("eye_L", "eye_R"), [(0, 1)]),
    (("hipL", "hipR"), [(0, 1)]),
    (("Right Hip", "Left Hip"), [(1, 0)]),
    (("left ear", "right ear", "rear", "lear"), [(0, 1), (3, 2)]),
    (("\u9f3b", "\u5de6\u773c", "\u53f3\u773c"), [(1, 2)]),
    (("\u9f3b", "\u773c"), []),
    (tuple(chr(0x4E00 + n) for n in range(17)), []),
    ((), []),
  ],
)
def test_pairs_follow_from_names(names, pairs):
  assert set(coco_skeletons.name_pairs(names)) == {*map(tuple, pairs)}


@pytest.mark.parametrize(
  ("given", "limbs"),
  [
    ([[1, 2], [2, 3]], ((0, 1), (1, 2))),
    ([[0, 1], [1, 2]], ((0, 1), (1, 2))),
    ([["a", "b"], ["c", "a"]], ((0, 1), (2, 0))),
    ([[1, 2], [2, 9], ["a", "x"], [1], 5, [None, 1], [[1], 2]], ((0, 1),)),
    ([[1.0, 2], [True, 2], [float("nan"), 1]], ((0, 1),)),
    ([[0, 1], [2, 3]], ()),  # of three: counted from neither
    ([["a", "b"], [0, 3]], ((0, 1),)),
    ([[1, 10**400], [1, 1e308]], ()),
    (None, ()),
    ("a-b", ()),
    ({"a": "b"}, ()),
  ],
)
def test_limbs_that_are_certain_are_drawn(given, limbs, caplog):
  category = {"keypoints": ["a", "b", "c"], "skeleton": given}
  assert coco_skeletons.from_category(category).limbs == limbs
  count = len(given) if isinstance(given, list) else int(given is not None)
  assert ("not drawn" in caplog.text) == (len(limbs) < count)


@pytest.mark.parametrize(
  ("fields", "limbs", "red"),
  [
    ({"limbs": [["a", "b"], [1, 2]]}, ((0, 1), (1, 2)), None),
    ({"limbs": [[1, 2], [2, 3]]}, ((1, 2),), None),  # 0-based
    ({"colors": [[9, 0, 0]] * 3}, (), 9),
    ({"colors": ["#fff"] * 3}, (), None),
    ({"colors": [[9, 0, 0]] * 2}, (), None),
    ({"colors": "red"}, (), None),
  ],
)
def test_what_is_drawn_alone_refuses_nothing(fields, limbs, red, caplog):
  names = ["a", "b", "c"]
  found = coco_skeletons.from_category({"keypoints": names, **fields})
  assert found.limbs == limbs
  colors = skeletons.color_wheel(3) if red is None else ((red, 0, 0),) * 3
  assert found.colors == colors
  dropped = len(limbs) < len(fields.get("limbs", ())) or (
    "colors" in fields and red is None
  )
  assert bool(caplog.text) == dropped


def test_cocos_names_with_fields_of_their_own():
  """Nothing that a category says is dropped."""
  coco = skeletons.COCO_17
  category = {"name": "dancer", "keypoints": list(coco.keypoints)}
  found = coco_skeletons.from_category({**category, "sigmas": [0.1] * 17})
  assert found == dataclasses.replace(coco, name="dancer", sigmas=(0.1,) * 17)
  found = coco_skeletons.from_category({**category, "upper_body": ["nose"]})
  assert found == dataclasses.replace(coco, name="dancer", upper_body=(0,))
  assert coco_skeletons.from_category(category) is coco


def test_any_value_of_any_field_of_a_category():
  """What matters is right or refused; what is drawn alone is never refused."""
  category = {
    "id": 1,
    "name": "hand",
    "supercategory": "body",
    "keypoints": ["left", "right", "top"],
    "skeleton": [[1, 2]],
    "limbs": [[0, 1]],
    "colors": [[1, 2, 3]] * 3,
    "flip_pairs": [[0, 1]],
    "upper_body": [2],
    "sigmas": [0.1, 0.2, 0.3],
  }

  def read(changed):
    found = coco_skeletons.from_category(changed)
    assert found.keypoints == ("left", "right", "top")
    assert found.flip_pairs in (((0, 1),), ())  # (): as given
    assert found.upper_body in ((2,), (1,), ())
    assert found.sigmas in ((0.1, 0.2, 0.3), None)
    assert found.limbs in (((0, 1),), ())

  count = fixtures.fuzz(category, category, read)
  drawn = {k: category[k] for k in ("name", "skeleton", "limbs", "colors")}
  rest = {k: v for k, v in category.items() if k not in drawn}
  assert fixtures.fuzz(drawn, drawn, lambda d: read({**rest, **d})) == {
    "right": 14 * len(drawn)
  }
  assert count["refused"]
  assert sum(count.values()) == 14 * len(category)


@pytest.mark.parametrize(
  ("category", "message"),
  [
    ({"keypoints": {"a": 1, "b": 2}}, "expected a list of names"),
    ({"keypoints": ["a", 2]}, "expected a list of names"),
    ({"keypoints": ["a", "a"]}, "names repeat"),
    ({"keypoints": ["a", "b"], "sigmas": [0, 1]}, "above 0"),
    ({}, "0 different keypoint sets"),
  ],
)
def test_bad_categories_are_named(tmp_path, category, message):
  (tmp_path / "annotations").mkdir()
  file = tmp_path / "annotations" / "person_keypoints_x.json"
  content = {"images": [], "annotations": []}
  file.write_text(
    json.dumps({**content, "categories": [{"id": 1, **category}]})
  )
  with pytest.raises(InputError, match=message) as error:
    coco_lib.skeleton_of(str(tmp_path), "x", "")
  assert "\n" not in str(error.value)


def test_default_sigmas_only_where_there_are_none():
  coco = skeletons.COCO_17
  assert skeletons.with_sigmas(coco) is coco
  filled = skeletons.with_sigmas(skeletons.MPII_16)
  assert filled.sigmas == (skeletons.DEFAULT_SIGMA,) * 16
  assert np.median(coco.sigmas) == skeletons.DEFAULT_SIGMA
