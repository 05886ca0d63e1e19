"""Sigmas from repeated annotations."""

import json

import numpy as np
import pytest

from input_pipeline import repeated as repeated_lib
from input_pipeline import sigmas
from tests import fixtures

TRUE = np.array([0.025, 0.08, 0.1])


def repeated(annotators, people, seed=0):
  """Annotators who miss by a known sigma times the root of the area."""
  g = fixtures.rng(seed)
  areas = g.uniform(1e3, 1e5, people)
  places = g.uniform(0, 500, (people, 3, 2))
  # A distance in two dimensions has twice the variance of a coordinate.
  spread = TRUE[:, None] * np.sqrt(areas / 2)[:, None, None]
  points = places + spread * g.standard_normal((annotators, people, 3, 2))
  visible = np.full((annotators, people, 3, 1), 2.0)
  return np.concatenate([points, visible], -1), areas


@pytest.mark.parametrize("annotators", [2, 5])
def test_known_sigmas_are_found(annotators):
  found, count = sigmas.estimate(*repeated(annotators, 20_000))
  np.testing.assert_allclose(found, TRUE, rtol=0.02)
  np.testing.assert_array_equal(count, [20_000] * 3)


def test_only_who_is_labelled_twice_counts():
  keypoints, areas = repeated(3, 5000)
  g = fixtures.rng(1)
  keypoints[g.random((3, 5000, 3)) < 0.4] = 0
  keypoints[:, :, 2] = 0
  found, count = sigmas.estimate(keypoints, areas)
  np.testing.assert_allclose(found[:2], TRUE[:2], rtol=0.06)
  assert np.isnan(found[2])
  assert count[2] == 0
  assert 2500 < count[0] < 4000


def write(path, keypoints, areas, skip=()):
  entries = [
    {"id": n, "keypoints": k.ravel().tolist(), "area": float(a), "iscrowd": 0}
    for n, (k, a) in enumerate(zip(keypoints, areas, strict=True))
    if n not in skip
  ]
  path.write_text(json.dumps({"annotations": entries}))
  return str(path)


def test_the_command(tmp_path, capsys):
  keypoints, areas = repeated(2, 300)
  one = write(tmp_path / "one.json", keypoints[0], areas)
  two = write(tmp_path / "two.json", keypoints[1], areas, skip=(0, 1, 2))
  assert sigmas.main([one, two]) == 0
  out, err = capsys.readouterr()
  np.testing.assert_allclose(json.loads(out), TRUE, rtol=0.2)
  assert "[297, 297, 297]" in err
  assert sigmas.main([one]) == 1
  assert "two files" in capsys.readouterr().err


def files(tmp_path, change_one=None, change_two=None, people=40):
  """Two annotators' files with images and boxes, changed; their paths."""
  keypoints, areas = repeated(2, people)
  paths = []
  for name, points, change in zip(
    ("one", "two"), keypoints, (change_one, change_two), strict=True
  ):
    content = {
      "images": [{"id": n, "file_name": f"{n}.jpg"} for n in range(people)],
      "annotations": [
        {
          "id": n,
          "image_id": n,
          "keypoints": k.ravel().tolist(),
          "area": float(a),
          "bbox": [0, 0, float(a) ** 0.5, float(a) ** 0.5 / 0.53],
          "iscrowd": 0,
        }
        for n, (k, a) in enumerate(zip(points, areas, strict=True))
      ],
    }
    if change:
      change(content)
    paths.append(str(tmp_path / f"{name}.json"))
    (tmp_path / f"{name}.json").write_text(json.dumps(content))
  return paths


def each(**made):
  """Changes fields of every annotation by functions of their values."""

  def change(content):
    for entry in content["annotations"]:
      for field, make in made.items():
        entry[field] = make(entry.get(field))

  return change


def image_names(make):
  def change(content):
    for image in content["images"]:
      image["file_name"] = make(image["file_name"])

  return change


def dropped(*fields):
  def change(content):
    for entry in content["annotations"]:
      for field in fields:
        entry.pop(field)

  return change


# Other spellings of the same people.
ALIKE = {
  "as it is": None,
  "ids as text": each(id=str, image_id=str),
  "ids as floats": each(id=float),
  "nested keypoints": each(
    keypoints=lambda v: [v[n : n + 3] for n in range(0, 9, 3)]
  ),
  "numbers as text": each(keypoints=lambda v: [str(x) for x in v], area=str),
  "no areas": dropped("area"),
  "areas of 0": each(area=lambda _: 0),
  "areas beyond the box": each(area=lambda a: a * 1e9),
  "no boxes": dropped("bbox"),
  "odd boxes": each(bbox=lambda _: [1, None, "x"]),
  "no crowds": dropped("iscrowd"),
  "images in a folder": image_names(lambda n: "data\\images/" + n),
  "images of another ending": image_names(lambda n: n.replace("jpg", "PNG")),
  "no names": image_names(lambda _: None),
  "no images": lambda c: c.pop("images"),
  "images of nothing": lambda c: c.update(images=[None, {}]),
  "images numbered otherwise": lambda c: (
    each(image_id=lambda n: n + 5)(c),
    [image.update(id=image["id"] + 5) for image in c["images"]],
  ),
  "odd categories": lambda c: c.update(categories={"a": 1}),
}


@pytest.mark.parametrize("kind", ALIKE)
def test_other_spellings_are_the_same(tmp_path, kind):
  people = repeated_lib.read(files(tmp_path, None, ALIKE[kind]))
  wanted = repeated_lib.read(files(tmp_path))
  np.testing.assert_array_equal(people.keypoints, wanted.keypoints)
  np.testing.assert_allclose(people.areas, wanted.areas, rtol=1e-12)
  assert people.notes == ("people in the files: 40, 40; used: 40",)


def other_people(content):
  """The ids are those of the next person, in the same image."""
  entries = content["annotations"]
  for entry in entries:
    entry["id"] = (entry["id"] + 1) % len(entries)
    entry["image_id"] = entry["id"]


@pytest.mark.parametrize(
  ("change", "parts"),
  [
    (other_people, ["of 40 people are too far apart", "do the ids fit?"]),
    (
      lambda c: each(id=lambda n: (n + 1) % 40)(c),
      ["annotation 0 is of image '0.jpg' in", "and of '39.jpg' in"],
    ),
    (image_names(lambda n: "b" + n), ["of image '0.jpg' in", "of 'b0.jpg' in"]),
    (
      lambda c: (c.pop("images"), each(image_id=lambda n: n + 1)(c)),
      ["annotation 0 is of image 0 in", "and of 1 in"],
    ),
    (lambda c: c["annotations"][1].update(id="0"), ["id 0 comes twice"]),
    (each(id=lambda _: None), ["annotation None has no id (and 39 more)"]),
    (each(keypoints=lambda v: v[:6]), ["[2, 3] keypoint numbers"]),
    (
      each(keypoints=lambda v: v[:2]),
      ["annotation 0 has no keypoints of x, y and visibility"],
    ),
    (each(iscrowd=lambda _: 1), ["annotation 0 is a crowd (and 39 more)"]),
    (each(keypoints=lambda v: [10**400, *v[1:]]), ["not numbers of pixels"]),
    (each(keypoints=lambda v: [1e308, *v[1:]]), ["not numbers of pixels"]),
  ],
)
def test_files_that_do_not_belong_together(tmp_path, change, parts):
  paths = files(tmp_path, None, change)
  fixtures.check_refused(lambda: repeated_lib.read(paths), *parts)


def test_copies_are_no_second_annotator(tmp_path):
  one, _ = files(tmp_path)
  fixtures.check_refused(lambda: repeated_lib.read([one, one]), "are copies")


def test_who_is_not_the_same_is_left_out_and_said(tmp_path, capsys):
  def change(content):
    entries = content["annotations"]
    entries[3]["keypoints"] = [v + 1e4 for v in entries[3]["keypoints"]]
    entries[4]["keypoints"] = None
    entries[5]["iscrowd"] = 1
    entries[6]["keypoints"] = [0] * 9

  paths = files(tmp_path, None, change)
  assert sigmas.main(paths) == 0
  out, err = capsys.readouterr()
  np.testing.assert_allclose(json.loads(out), TRUE, rtol=0.4)
  assert "1 of 37 people are too far apart" in err
  assert "annotation 5 is a crowd" in err
  assert "people in the files: 40, 37; used: 36" in err


def test_a_keypoint_without_any_difference_has_no_sigma(tmp_path, capsys):
  def same(content):
    for entry in content["annotations"]:
      entry["keypoints"][:2] = [5, 5]

  assert sigmas.main(files(tmp_path, same, same)) == 0
  out, err = capsys.readouterr()
  assert json.loads(out)[0] is None
  assert "the annotators never differ at [0]" in err


@pytest.mark.parametrize("section", ["images", "annotations"])
def test_any_value_of_any_field(tmp_path, section):
  """The sigmas of the sound files, nearly, or one line."""
  keypoints, areas = repeated(2, 40)
  wanted, _ = sigmas.estimate(keypoints, areas)
  one, two = files(tmp_path)
  content = json.loads((tmp_path / "two.json").read_text())

  def near(changed):
    (tmp_path / "two.json").write_text(json.dumps(changed))
    people = repeated_lib.read([one, two])
    found, _ = sigmas.estimate(people.keypoints, people.areas)
    np.testing.assert_allclose(found, wanted, rtol=0.1)

  count = fixtures.fuzz(content, content[section][-1], near)
  assert count["right"]
  assert sum(count.values()) == 14 * len(content[section][-1])
  outer = fixtures.fuzz(content, content, near)
  assert sum(outer.values()) == 14 * len(content)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("{", "is not JSON"),
    ("[]", "is not a file of keypoint annotations"),
    ('{"annotations": []}', "share no annotation id"),
    ('{"annotations": [{"id": 1, "keypoints": [1, 2, 2]}]}', "with areas"),
    (
      '{"annotations": [{"id": 1, "keypoints": [1, 2, 2], "area": 4}]}',
      "of one skeleton",
    ),
    (
      '{"annotations": [{"id": 1, "keypoints": [1,1,1,1,1,1,1,1,1],'
      ' "area": -1e9}]}',
      "has no area",
    ),
  ],
)
def test_bad_files_are_named(tmp_path, capsys, text, message):
  keypoints, areas = repeated(2, 3)
  one = write(tmp_path / "one.json", keypoints[0], areas)
  (tmp_path / "two.json").write_text(text)
  for other in (str(tmp_path / "two.json"), str(tmp_path / "missing.json")):
    assert sigmas.main([one, other]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert (message if "two" in other else "missing.json") in error
