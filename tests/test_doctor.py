"""The doctor: each fault made once, each one found, none where none is."""

import io
import json
import shutil

import cv2
import numpy as np
import PIL.Image
import pytest

from input_pipeline import coco, coco_rules, image_files
from input_pipeline.doctor import __main__ as doctor
from input_pipeline.doctor import people, pictures, symmetry
from input_pipeline.doctor.findings import ERROR, has_errors
from input_pipeline.doctor.people import broken
from input_pipeline.synthetic.folder import write_coco_folder
from tests import encoded, fixtures, small_mpii
from tokenpose_jax import skeletons


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
  """Drawn people, of whom left and right are known."""
  path = tmp_path_factory.mktemp("doctor") / "coco"
  write_coco_folder(str(path), train_people=60, test_people=6)
  return path


class Patient:
  """A copy of a folder, to be made ill."""

  def __init__(self, healthy, path):
    self.path = path
    shutil.copytree(healthy, path)
    self.content = {}
    for split in ("train", "test"):
      self.content[split] = json.loads(self.file(split).read_text())
    self.images = self.content["train"]["images"]
    self.people = self.content["train"]["annotations"]

  def file(self, split):
    return self.path / "annotations" / f"person_keypoints_{split}.json"

  def image(self, number):
    return self.path / "train" / self.images[number]["file_name"]

  def pixels(self, number):
    return cv2.imread(str(self.image(number)))[..., ::-1]

  def write(self):
    for split, content in self.content.items():
      self.file(split).write_text(json.dumps(content))

  def examine(self, skeleton=""):
    self.write()
    found, sheet, _ = doctor.examine(str(self.path), "coco", [], skeleton)
    return found, sheet


@pytest.fixture
def patient(healthy, tmp_path):
  return Patient(healthy, tmp_path / "ill")


def save(patient, number, mode=None, exif=None):
  image = PIL.Image.fromarray(patient.pixels(number))
  buffer = io.BytesIO()
  options = {"exif": exif} if exif else {}
  (image.convert(mode) if mode else image).save(buffer, "JPEG", **options)
  patient.image(number).write_bytes(buffer.getvalue())


def rotated_by_exif(patient):
  exif = PIL.Image.Exif()
  exif[0x0112] = 6
  save(patient, 4, exif=exif)


def wrong_size(patient):
  small = cv2.resize(patient.pixels(6), (50, 40))
  patient.image(6).write_bytes(fixtures.encode(small))


def shared(patient):
  name = patient.content["test"]["images"][0]["file_name"]
  shutil.copy(patient.path / "test" / name, patient.image(7))
  size = patient.content["test"]["images"][0]
  patient.images[7].update(width=size["width"], height=size["height"])


def swapped_knees(patient):
  """Knees are names 13 and 14."""
  for entry in patient.people:
    if len(entry["keypoints"]) == 51:
      points = np.reshape(entry["keypoints"], (17, 3))
      points[[13, 14]] = points[[14, 13]]
      entry["keypoints"] = points.ravel().tolist()


def set_keypoint(entry, **changes):
  """Changes x, y or v of a labelled keypoint."""
  points = np.reshape(np.array(entry["keypoints"], float), (-1, 3))
  labelled = int(np.flatnonzero(points[:, 2])[0])
  for name, value in changes.items():
    points[labelled, "xyv".index(name)] = value
  entry["keypoints"] = points.ravel().tolist()


# Each on an image or a person of its own.
FAULTS = {
  pictures.UNREADABLE: lambda p: p.image(0).write_bytes(b"no image"),
  pictures.EMPTY: lambda p: p.image(1).write_bytes(b""),
  pictures.MISSING: lambda p: p.image(2).unlink(),
  pictures.CMYK: lambda p: save(p, 3, "CMYK"),
  pictures.ROTATED: rotated_by_exif,
  pictures.GRAY: lambda p: save(p, 5, "L"),
  pictures.SIZE: wrong_size,
  pictures.SHARED: shared,
  broken(coco_rules.IMAGE_ID): lambda p: p.images.append(dict(p.images[8])),
  broken(coco_rules.ANNOTATION_ID): lambda p: p.people.append(
    dict(p.people[0])
  ),
  broken(coco_rules.NO_IMAGE): lambda p: p.people.append(
    {**p.people[0], "id": -1, "image_id": -7}
  ),
  people.NO_AREA: lambda p: p.people[1].update(area=0),
  people.OUTSIDE: lambda p: set_keypoint(p.people[2], x=-30),
  broken(coco_rules.VISIBILITY): lambda p: set_keypoint(p.people[3], v=3),
  broken(coco_rules.COUNT): lambda p: p.people[4].update(keypoints=[1, 2, 2]),
  people.BOX_OUTSIDE: lambda p: p.people[5].update(bbox=[-50, 0, 99, 99]),
  people.BOX_GONE: lambda p: p.people[6].update(bbox=[5000, 0, 9, 9]),
  broken(coco_rules.BOX): lambda p: p.people[7].update(bbox=["x", 0, 1, 1]),
  broken(coco_rules.KEYPOINTS): lambda p: set_keypoint(p.people[9], x=np.nan),
  broken(coco_rules.CATEGORY): lambda p: p.people[10].update(category_id="a"),
  people.NO_KEYPOINT: lambda p: p.people[8].update(keypoints=[0] * 51),
  people.SWAPPED: swapped_knees,
}


def test_healthy_data_has_no_fault(patient):
  found, _ = patient.examine()
  kinds = {finding.kind for finding in found}
  assert kinds <= {people.OUTSIDE, people.BOX_OUTSIDE, people.NO_KEYPOINT}
  assert not has_errors(found)


def test_every_fault_is_found_in_one_folder(patient):
  before, _ = patient.examine()
  for make in FAULTS.values():
    make(patient)
  found, sheet = patient.examine()
  for kind in FAULTS:
    number = sum(f.kind == kind for f in found)
    healthy = sum(f.kind == kind for f in before)
    assert number > healthy, kind.title
  assert has_errors(found)
  image = cv2.imdecode(np.frombuffer(sheet, np.uint8), cv2.IMREAD_COLOR)
  assert image.shape[1] == 6 * pictures.TILE
  assert image.std() > 20


@pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.title)
def test_a_fault_is_found_alone_and_decides_the_exit_code(
  patient, kind, tmp_path, capsys
):
  """Only what follows from it is found besides."""
  before = {f.kind for f in patient.examine()[0]}
  FAULTS[kind](patient)
  found, _ = patient.examine()
  also = {
    people.NO_AREA: {people.BOX_GONE},
    broken(coco_rules.IMAGE_ID): {pictures.UNREADABLE},
    pictures.SHARED: {people.OUTSIDE, people.BOX_OUTSIDE, people.BOX_GONE},
  }
  kinds = {f.kind for f in found} - before
  assert kind in kinds | before
  assert kinds - also.get(kind, set()) <= {kind}
  out = tmp_path / "worst.png"
  code = doctor.main([str(patient.path), "--out", str(out)])
  assert code == (1 if kind.level == ERROR else 0)
  assert kind.title in capsys.readouterr().out


def test_all_sides_swapped_shows_in_the_eyes(patient):
  order = skeletons.COCO_17.flip_permutation
  for entry in patient.people:
    points = np.reshape(entry["keypoints"], (17, 3))[order]
    entry["keypoints"] = points.ravel().tolist()
  found, _ = patient.examine()
  (swapped,) = (f for f in found if f.kind == people.SWAPPED)
  assert "left_eye and right_eye" in swapped.place


def test_people_of_one_keypoint_have_no_sides(patient):
  """They have no size either: nothing is divided by it."""
  for entry in patient.people[:20]:
    entry["keypoints"] = [10.0, 10.0, 2] + [0, 0, 0] * 16
    entry["num_keypoints"] = 1
  patient.write()
  content, _ = coco.read_unchecked(
    str(patient.path), "train", skeletons.COCO_17, ""
  )
  found, _ = people.check(content, skeletons.COCO_17, "train")
  assert not has_errors(found)


@pytest.mark.parametrize(
  ("flip_pairs", "kind"),
  [
    ([[1, 2], [2, 3]], doctor.SKELETON),  # no involution
    ([[1, 2], [3, 4], [5, 8]], people.PAIR_NAMES),
  ],
)
def test_flip_pairs(patient, tmp_path, flip_pairs, kind):
  fields = skeletons.COCO_17.to_dict() | {"flip_pairs": flip_pairs}
  path = tmp_path / "skeleton.json"
  path.write_text(json.dumps(fields))
  found, _ = patient.examine(str(path))
  assert kind in {f.kind for f in found}
  assert has_errors(found)


def test_flip_pairs_without_names_are_compared_with_the_data(patient, tmp_path):
  pairs = [list(pair) for pair in skeletons.COCO_17.flip_pairs]
  fields = {"keypoints": [f"point {n}" for n in range(17)]}
  path = tmp_path / "skeleton.json"
  kinds = {}
  for name, given in (("right", pairs), ("wrong", [*pairs[:-1], [0, 16]])):
    path.write_text(json.dumps({**fields, "flip_pairs": given}))
    kinds[name] = {f.kind for f in patient.examine(str(path))[0]}
  assert kinds["wrong"] - kinds["right"] == {symmetry.NO_MIRROR}
  out = str(tmp_path / "worst.png")
  arguments = ["--skeleton", str(path), "--out", out]
  assert doctor.main([str(patient.path), *arguments]) == 1


def test_mpii_folders_are_examined(tmp_path, capsys):
  small_mpii.write_images(tmp_path)
  entries = [small_mpii.person(n) for n in range(6)]
  small_mpii.write_json(tmp_path, entries[:4], "train")
  small_mpii.write_json(tmp_path, entries[2:], "valid")
  out = str(tmp_path / "worst.png")
  assert doctor.main([str(tmp_path), "--name", "mpii", "--out", out]) == 0
  text = capsys.readouterr().out
  assert pictures.SHARED.title in text
  (tmp_path / "images" / "000000002.jpg").unlink()
  assert doctor.main([str(tmp_path), "--name", "mpii", "--out", out]) == 1
  assert pictures.MISSING.title in capsys.readouterr().out


def test_no_image_can_be_read(patient, tmp_path, capsys):
  for number in range(len(patient.images)):
    image = PIL.Image.fromarray(patient.pixels(number))
    image.save(patient.image(number), "TIFF")
  patient.write()
  out = str(tmp_path / "worst.png")
  assert doctor.main([str(patient.path), "--out", out]) == 1
  text = capsys.readouterr().out
  assert pictures.NONE_LEFT.title in text
  assert "it is TIFF: convert it to JPEG or PNG" in text


def test_sizes_that_the_annotations_lack(patient):
  for image in patient.images:
    del image["width"], image["height"]
  patient.people[6].update(bbox=[5000, 0, 9, 9])
  found, _ = patient.examine()
  kinds = {finding.kind for finding in found}
  assert {people.ASSUMED, people.BOX_GONE} <= kinds
  assert not has_errors(found)


def test_a_huge_image_is_not_decoded(patient):
  patient.image(0).write_bytes(encoded.huge_png(23_040, 23_040))
  found, sheet = patient.examine()
  (fault,) = (f for f in found if f.kind == pictures.UNREADABLE)
  assert "178,956,970 pixels" in fault.detail
  assert sheet


def test_missing_images_say_what_would_fit(patient):
  for image in patient.images:
    image["file_name"] = f"train\\{image['file_name']}"
  found, _ = patient.examine()
  (one, *_) = missing = [f for f in found if f.kind == pictures.MISSING]
  assert len(missing) == len(patient.images)
  assert "it is there without its folder, as" in one.detail
  assert not missing[1].detail  # said once


def test_files_that_are_never_read(patient):
  """Too large, or endless."""
  with patient.image(0).open("wb") as file:
    file.truncate(3 * 2**30)  # takes no space
  patient.images[1]["file_name"] = "/dev/zero"
  patient.images[2]["file_name"] = "\ud800\n.jpg"
  found, sheet = patient.examine()
  (large,) = (f for f in found if f.kind == pictures.NOT_READ)
  assert "has 3.0 GiB" in large.detail
  assert [f.place for f in found if f.kind == pictures.OUTSIDE] == ["/dev/zero"]
  missing = [f.place for f in found if f.kind == pictures.MISSING]
  assert missing == [r"'\ud800\n.jpg'"]
  assert sheet


def test_images_outside_are_not_read(patient, tmp_path, monkeypatch, capsys):
  """Neither by the checks nor for the sheet, unless they are allowed."""
  secret = tmp_path / "secret.jpg"
  shutil.copy(patient.image(0), secret)
  names = ["../../secret.jpg", str(secret), "link.jpg"]
  (patient.path / "train" / names[2]).symlink_to(secret)
  for image, name in zip(patient.images, names, strict=False):
    image["file_name"] = name
  inside = {image["id"] for image in patient.images[:3]}
  for entry in patient.people:
    if entry["image_id"] in inside:
      entry["area"] = 0  # would be drawn
  read, image_read = [], image_files.read
  monkeypatch.setattr(
    image_files,
    "read",
    lambda folder, name: read.append(name) or image_read(folder, name),
  )
  found, _ = patient.examine()
  assert {f.place for f in found if f.kind == pictures.OUTSIDE} == {*names}
  assert len(read) > 20
  assert not {*read} & {*names}
  out = str(tmp_path / "sheet.png")
  assert doctor.main([str(patient.path), "--out", out]) == 1
  assert "--allow-outside" in capsys.readouterr().out
  doctor.main([str(patient.path), "--out", out, "--allow-outside"])
  assert pictures.OUTSIDE.title not in capsys.readouterr().out
  assert {*read} >= {*names}


@pytest.mark.parametrize("section", ["images", "annotations", "categories"])
def test_any_value_of_any_field(tmp_path, section, capsys):
  """A table and a sheet, whatever a field holds; code 1 where it is odd."""
  sizes = {"a.jpg": (60, 80), "b.jpg": (60, 80)}
  image = fixtures.encode(fixtures.smooth_image(60, 80, (200, 90, 60)))
  content = fixtures.coco_folder(
    tmp_path, dict.fromkeys(sizes, image), sizes, split="a"
  )
  file = tmp_path / "annotations" / "person_keypoints_a.json"
  out = str(tmp_path / "worst.png")
  arguments = [str(tmp_path), "--skeleton", "coco_17", "--out", out]
  codes = []

  def told(changed):
    file.write_text(json.dumps(changed))
    codes.append(doctor.main(arguments))
    said = capsys.readouterr()
    assert "coco_17: 17 keypoints" in said.out
    assert not said.err

  entry = content[section][-1]
  for odd in ([None] * 51, [10**400] * 51, [1e308] * 51, "\ud800", "a\nb"):
    for field in set(entry) - {"file_name"}:
      told(
        {**content, section: [*content[section][:-1], {**entry, field: odd}]}
      )
  assert fixtures.fuzz(content, entry, told) == {"right": 14 * len(entry)}
  assert set(codes) == ({0} if section == "categories" else {0, 1})


def test_names_are_printed_as_text(patient, tmp_path, capsys):
  """Of images, keypoints, categories and splits."""
  trick = "\x1b[2J\u202e\r\n\x9b"
  category = patient.content["train"]["categories"][0]
  category["keypoints"][0] = f"left_{trick}"
  patient.images[0]["file_name"] = f"{trick}.jpg"
  patient.images[1]["file_name"] = f"/{trick}.jpg"
  patient.people[3]["category_id"] = trick
  patient.write()
  patient.file("train").rename(patient.file(f"a{trick}"))
  out = str(tmp_path / "sheet.png")
  assert doctor.main([str(patient.path), "--out", out]) == 1
  said = capsys.readouterr()
  assert len(said.out) > 500
  for text in (said.out, said.err):
    assert all(line.isprintable() for line in text.split("\n"))


def test_a_sheet_that_cannot_be_written_is_one_line(patient, capsys):
  patient.people[1].update(area=0)
  patient.write()
  out = patient.path / "none" / "worst.png"
  assert doctor.main([str(patient.path), "--out", str(out)]) == 1
  printed = capsys.readouterr()
  assert "area 0" in printed.out
  assert printed.err.startswith(f"error: cannot write {out}: ")
  assert printed.err.count("\n") == 1


def test_what_cannot_be_read_at_all_is_one_line(tmp_path, capsys):
  assert doctor.main([str(tmp_path / "nowhere")]) == 1
  assert "nowhere does not exist" in capsys.readouterr().err
  (tmp_path / "annotations").mkdir()
  (tmp_path / "annotations" / "person_keypoints_a.json").write_text("{")
  assert doctor.main([str(tmp_path)]) == 1
  assert "is not JSON" in capsys.readouterr().out
