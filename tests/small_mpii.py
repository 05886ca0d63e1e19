"""MPII folders of six people in three images, in each of its formats."""

import json

import numpy as np
import scipy.io

from input_pipeline import mpii_files
from tests import fixtures
from tokenpose_jax import skeletons

MPII = skeletons.MPII_16
COUNT = 6
SIZES = [(120 + n, 160 - n) for n in range(3)]  # two people an image


def person(number, **changes):
  """An entry of the common JSON; the second joint is not labelled."""
  g = fixtures.rng(number)
  joints = np.round(g.uniform(20, 100, (16, 2)), 3)
  joints[1] = 0
  entry = {
    "joints_vis": [1, 0] + [1] * 14,
    "joints": joints.tolist(),
    "image": f"{number // 2:09d}.jpg",
    "scale": 0.5 + 0.1 * number,
    "center": [60.0 + number, 55.0],
  }
  return {**entry, **changes}


def head_box(number):
  return [30.0 + number, 20.0, 45.0 + number, 40.0 + number]


def write_json(folder, entries, split="valid"):
  (folder / "annot").mkdir(parents=True, exist_ok=True)
  (folder / "annot" / f"{split}.json").write_text(json.dumps(entries))


def write_images(folder):
  (folder / "images").mkdir(parents=True)
  for number, size in enumerate(SIZES):
    image = fixtures.smooth_image(*size, (200 - 50 * number, 90, 60))
    path = folder / "images" / f"{number:09d}.jpg"
    path.write_bytes(fixtures.encode(image))


def write_evaluation_mat(folder, entries, **changes):
  """The toolkit's ground truth of the validation split."""
  joints = np.array([e["joints"] for e in entries])
  content = {
    "pos_gt_src": joints.transpose(1, 2, 0),
    "jnt_missing": 1 - np.array([e["joints_vis"] for e in entries]).T,
    "headboxes_src": np.stack(
      [np.reshape(head_box(n), (2, 2)) for n in range(len(entries))], -1
    ),
  }
  scipy.io.savemat(folder / "annot" / "gt_valid.mat", {**content, **changes})


def write_release(folder, entries, train=(1, 1, 1)):
  """As the release is documented, with its ragged corners.

  A single person is a struct and no array of them, a person of the background
  has no points, a test image has an annorect without any.
  """

  def rect(number, entry):
    points = [
      {"x": x, "y": y, "id": i, "is_visible": "1" if i % 2 else np.zeros(0)}
      for i, ((x, y), seen) in enumerate(
        zip(entry["joints"], entry["joints_vis"], strict=True)
      )
      if seen
    ]
    x1, y1, x2, y2 = head_box(number)
    x, y = entry["center"]
    return {
      **{"x1": x1, "y1": y1, "x2": x2, "y2": y2},
      "annopoints": {"point": points},
      "scale": entry["scale"],
      "objpos": {"x": x, "y": y},
    }

  fields = ("x1", "y1", "x2", "y2", "annopoints", "scale", "objpos")
  annolist = []
  for image in range(3):
    rects = [
      rect(n, e)
      for n, e in enumerate(entries)
      if e["image"] == f"{image:09d}.jpg"
    ]
    rects.append({name: np.zeros(0) for name in fields})
    annolist.append(
      {"image": {"name": f"{image:09d}.jpg"}, "annorect": as_array(rects)}
    )
  annolist.append({"image": {"name": "9.jpg"}, "annorect": np.zeros(0)})
  release = {
    "annolist": as_array(annolist),
    "img_train": np.array([*train, 0]),
  }
  path = folder / "annot" / mpii_files.RELEASE
  path.parent.mkdir(parents=True, exist_ok=True)
  scipy.io.savemat(path, {"RELEASE": release}, oned_as="row")


def as_array(structs):
  """MATLAB's array of structs."""
  array = np.empty(len(structs), [(name, object) for name in structs[0]])
  for place, struct in enumerate(structs):
    array[place] = tuple(struct.values())
  return array
