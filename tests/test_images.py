"""The TFDS builder of COCO folders, and random access to its images."""

import errno
import glob
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from input_pipeline import builders, image_files
from input_pipeline import coco as coco_lib
from input_pipeline import store as store_lib
from tests import fixtures
from tokenpose_jax import skeletons
from tokenpose_jax.errors import InputError

# Neither in the order of names, nor of ids (100, 99, ...).
COLORS = {
  "c.jpg": (200, 100, 50),
  "a.jpg": (30, 160, 220),
  "d.jpg": (120, 120, 40),
  "b.jpg": (60, 60, 180),
  "e.jpg": (240, 20, 120),
}
SIZES = {name: (30 + n, 40 + 2 * n) for n, name in enumerate(COLORS)}
IMAGES = {
  name: fixtures.encode(fixtures.smooth_image(*SIZES[name], color))
  for name, color in COLORS.items()
}


@pytest.fixture
def folder(tmp_path):
  path = tmp_path / "data"
  fixtures.coco_folder(path, IMAGES, SIZES)
  return path


def builder_of(folder, split="train"):
  annotations = coco_lib.read(
    fixtures.data_of(folder), split, skeletons.COCO_17
  )
  return builders.CocoKeypoints(
    split,
    coco_lib.image_folder(str(folder), split),
    annotations.content["images"],
    str(folder.parent / "prepared"),
  )


def store_of(folder, split="train"):
  return store_lib.open_store(builder_of(folder, split), list(IMAGES))


def records(folder):
  """The prepared TFRecord files of all configs, with their times."""
  pattern = str(folder.parent / "prepared" / "**" / "*tfrecord*")
  return {
    path: os.stat(path).st_mtime_ns
    for path in glob.glob(pattern, recursive=True)
  }


def change_annotations(folder):
  path = folder / "annotations" / "person_keypoints_train.json"
  content = json.loads(path.read_text())
  content["annotations"][0]["bbox"][0] += 1
  path.write_text(json.dumps(content))


def test_reads_the_files_exact_bytes_in_the_files_order(folder):
  store = store_of(folder)
  assert store.names == list(IMAGES)
  for number, name in enumerate(IMAGES):
    assert store.read(number) == IMAGES[name]
  assert store.read(0) == IMAGES["c.jpg"]  # again, backwards


def test_any_bytes_are_kept(folder):
  """What is in a file is looked at when it is read, not before."""
  odd = {
    "c.jpg": b"",
    "a.jpg": b"text",
    "d.jpg": fixtures.encode(np.zeros((4, 4, 3), np.uint8), ".png"),
    "b.jpg": os.urandom(100_000),
    "e.jpg": IMAGES["e.jpg"][:50],
  }
  fixtures.coco_folder(folder, odd, SIZES)
  store = store_of(folder)
  assert [store.read(n) for n in range(5)] == list(odd.values())


def test_is_an_ordinary_tfds_dataset(folder):
  builder = builder_of(folder)
  builder.download_and_prepare()
  assert builder.info.splits["images"].num_examples == 5
  found = list(tfds.as_numpy(builder.as_dataset(split="images")))
  assert [f["file_name"].decode() for f in found] == list(IMAGES)
  assert [f["image_id"] for f in found] == [100, 99, 98, 97, 96]
  for example, (name, color) in zip(found, COLORS.items(), strict=True):
    wanted = fixtures.smooth_image(*SIZES[name], color)
    assert example["image"].shape == wanted.shape
    assert np.abs(example["image"].astype(int) - wanted).max() <= 8
  some = builder.as_dataset(split="images[1:3]", shuffle_files=False)
  assert [f["image_id"] for f in tfds.as_numpy(some)] == [99, 98]


def test_prepared_data_is_used_again(folder):
  first = store_of(folder)
  before = records(folder)
  assert len(before) == 1
  shutil.rmtree(folder / "train")  # Nobody reads the images now.
  second = store_of(folder)
  assert records(folder) == before
  assert second.path == first.path
  assert [second.read(n) for n in range(5)] == list(IMAGES.values())


def test_changed_annotations_copy_no_image_again(folder):
  first = store_of(folder)
  before = records(folder)
  change_annotations(folder)
  second = store_of(folder)
  assert second.path == first.path
  assert records(folder) == before


def repaired(folder):
  """The same bytes, but for one, at the same place."""
  content = bytearray(IMAGES["d.jpg"])
  content[-10] ^= 1
  (folder / "train" / "d.jpg").write_bytes(content)
  return {**IMAGES, "d.jpg": bytes(content)}


def larger(folder):
  image = fixtures.encode(fixtures.smooth_image(90, 80, (9, 99, 9)))
  (folder / "train" / "a.jpg").write_bytes(image)
  return {**IMAGES, "a.jpg": image}


@pytest.mark.parametrize(
  ("change", "first"), [(repaired, "d.jpg"), (larger, "a.jpg")]
)
def test_changed_images_are_prepared_anew_beside(folder, change, first, caplog):
  old = store_of(folder)
  before = records(folder)
  wanted = change(folder)
  with caplog.at_level("INFO", "absl"):
    new = store_of(folder)
  assert [new.read(n) for n in range(5)] == list(wanted.values())
  assert before.items() <= records(folder).items()
  assert "1 changed, 0 new, 0 gone" in caplog.text
  assert f"first {first}; before: {os.path.dirname(old.path)}" in caplog.text
  # The newest is what remains when the images are deleted.
  shutil.rmtree(folder / "train")
  assert store_of(folder).path == new.path


def test_other_images_of_a_split(folder, caplog):
  store_of(folder)
  other = {"z.jpg": IMAGES["c.jpg"], "a.jpg": IMAGES["a.jpg"]}
  fixtures.coco_folder(folder, other, dict.fromkeys(other, (30, 40)))
  with caplog.at_level("INFO", "absl"):
    store = store_lib.open_store(builder_of(folder), list(other))
  assert "1 changed, 1 new, 4 gone" in caplog.text
  assert store.read(0) == IMAGES["c.jpg"]


def test_emptied_folders_use_what_was_prepared_and_say_so(folder, caplog):
  first = store_of(folder)
  for path in (folder / "train").iterdir():
    path.unlink()
  second = store_of(folder)
  assert second.path == first.path
  assert (
    f"are gone: those prepared earlier are used, {first.path}" in caplog.text
  )


@pytest.mark.parametrize("noted", ["", "[]", '{"time": 1, "files": 2}'])
def test_a_damaged_note_of_files_does_no_harm(folder, noted):
  store = store_of(folder)
  pathlib.Path(store.path, "files.json").write_text(noted)
  assert store_of(folder).path == store.path
  larger(folder)
  assert store_of(folder).path != store.path


def test_a_stopped_preparation_is_not_taken_for_a_whole_one(folder):
  first = pathlib.Path(store_of(folder).path)
  # As TFDS leaves it when it is killed.
  *start, last = first.parent.name
  later = first.parent.with_name("".join(start) + ("1" if last == "0" else "0"))
  stopped = later / "incomplete.ABC_1.0.0"
  shutil.copytree(first, stopped)
  noted = json.loads((first / "files.json").read_text())
  noted["time"] += 1
  (stopped / "files.json").write_text(json.dumps(noted))
  shutil.rmtree(folder / "train")
  assert store_of(folder).path == str(first)


@pytest.mark.parametrize("split", ["a[1]", "a*", "two words", "a-b", "ü"])
def test_splits_of_any_name(folder, split):
  fixtures.coco_folder(folder, IMAGES, SIZES, split=split)
  first = store_of(folder, split)
  shutil.rmtree(folder / split)
  assert store_of(folder, split).path == first.path


def test_a_split_is_not_compared_with_one_of_a_longer_name(folder, caplog):
  fixtures.coco_folder(folder, IMAGES, SIZES, split="train-2")
  store_of(folder, "train-2")
  with caplog.at_level("INFO", "absl"):
    store_of(folder)
  assert "prepared anew" not in caplog.text


def test_two_runs_prepare_the_same_at_once(folder, monkeypatch):
  """The slower one uses what the other one wrote."""
  read, started = image_files.read, []

  def overtaken(*arguments):
    if not started:
      started.append(True)
      store_of(folder)
    return read(*arguments)

  monkeypatch.setattr(image_files, "read", overtaken)
  store = store_of(folder)
  assert [store.read(n) for n in range(5)] == list(IMAGES.values())
  assert len(records(folder)) == 1


def test_prepared_data_cannot_be_written(folder):
  (folder.parent / "prepared").write_text("a file")
  fixtures.check_refused(
    lambda: store_of(folder), "data.prepared_dir", "prepared/coco_keypoints"
  )


@pytest.mark.parametrize(
  "error",
  [
    OSError(errno.ENOSPC, "No space left on device"),
    RuntimeError("Failed to finalize writing: No space left on device"),
    tf.errors.ResourceExhaustedError(None, None, "No space left on device"),
  ],
)
def test_a_full_disk_is_one_line(folder, monkeypatch, error):

  def full(*arguments):
    raise error

  with monkeypatch.context() as patch:
    patch.setattr(image_files, "read", full)
    fixtures.check_refused(
      lambda: store_of(folder),
      "data.prepared_dir: cannot write",
      "No space left on device",
    )
  assert store_of(folder).read(0) == IMAGES["c.jpg"]


def renamed(folder, change):
  """`file_name`s of another form."""
  path = folder / "annotations" / "person_keypoints_train.json"
  content = json.loads(path.read_text())
  for image in content["images"]:
    image["file_name"] = change(image["file_name"])
  path.write_text(json.dumps(content))


def into_folder(folder):
  (folder / "train" / "sub").mkdir()
  for name in IMAGES:
    (folder / "train" / name).rename(folder / "train" / "sub" / name)


@pytest.mark.parametrize(
  ("change", "hint"),
  [
    (lambda n: f"train/{n}", "without its folder, as c.jpg"),
    (lambda n: f"C:\\data\\{n}", "without its folder, as c.jpg"),
    (lambda n: n.replace(".", "%2E"), "without URL escapes, as c.jpg"),
    (lambda n: n.replace("jpg", "png"), "with the ending .jpg, as c.jpg"),
    (lambda n: n.removesuffix(".jpg"), "with the ending .jpg, as c.jpg"),
    (str.upper, "in lower case, as c.jpg"),
    (lambda n: f" {n}", "without spaces around it, as c.jpg"),
    (lambda n: f"COCO_{n}", "without COCO_, as c.jpg"),
    (lambda n: f"x/{n[0]}.png", "without its folder, with the ending .jpg, as"),
    (lambda n: f"x/{n.replace('e', 'f')}", "most are there without its folder"),
  ],
)
def test_what_would_fit_is_said(folder, change, hint):
  renamed(folder, change)
  fixtures.check_refused(
    lambda: store_of(folder), "lacks 5 of the 5 images", hint
  )


@pytest.mark.parametrize(
  ("change", "hint"),
  [
    (lambda n: n, "with the prefix sub/, as sub/c.jpg"),
    (lambda n: f"sub\\{n}", "with / for \\, as sub/c.jpg"),
    (lambda n: f"/home/me/{n}", "with the prefix sub/, as sub/c.jpg"),
  ],
)
def test_what_would_fit_in_a_folder_is_said(folder, change, hint):
  into_folder(folder)
  renamed(folder, change)
  fixtures.check_refused(lambda: store_of(folder), hint)


@pytest.mark.parametrize(
  ("to", "hint"),
  [
    (lambda n: f"COCO_val2014_{n}", "with the prefix COCO_val2014_, as COCO_"),
    (lambda n: f"{ord(n[0]):012d}.jpg", "with 12 digits, as 000000000099.jpg"),
  ],
)
def test_files_of_longer_names_are_found(folder, to, hint):
  for name in IMAGES:
    (folder / "train" / name).rename(folder / "train" / to(name))
  if "digits" in hint:
    renamed(folder, lambda n: f"{ord(n[0])}.jpg")
  fixtures.check_refused(lambda: store_of(folder), hint)


@pytest.mark.parametrize("to", ["train2017", "images", "images/train2017"])
@pytest.mark.parametrize("prefix", ["", "train2017/"])
def test_where_the_images_of_a_missing_folder_are(folder, to, prefix):
  (folder / to).parent.mkdir(exist_ok=True)
  (folder / "train").rename(folder / to)
  renamed(folder, lambda n: prefix + n)
  more = ["and take the folder out of file_name"] if prefix else []
  fixtures.check_refused(
    lambda: store_of(folder),
    "data/train does not exist",
    f"c.jpg is in {folder / to}: rename or link that folder",
    *more,
  )


@pytest.mark.parametrize(
  "name",
  ["", "a\0b", "..", "x" * 5000, "a\nb", "\ud800.jpg", "/dev/zero", "a.jpg/"],
)
def test_no_name_of_a_file(folder, name):
  renamed(folder, lambda n: name if n == "a.jpg" else n)
  fixtures.check_refused(lambda: store_of(folder), "lacks 1 of the 5 images")


def test_pipes_are_no_images(folder):
  """Nobody waits for what never comes."""
  (folder / "train" / "a.jpg").unlink()
  os.mkfifo(folder / "train" / "a.jpg")
  fixtures.check_refused(lambda: store_of(folder), "lacks 1 of the 5 images")


def test_files_too_large_for_images_are_refused(folder):
  with open(folder / "train" / "a.jpg", "wb") as file:
    file.truncate(3 * 2**30)  # takes no space
  fixtures.check_refused(lambda: store_of(folder), "a.jpg has 3.0 GiB")
  assert not records(folder)


def test_splits_are_kept_apart(folder):
  flipped = dict(zip(IMAGES, reversed(IMAGES.values()), strict=True))
  fixtures.coco_folder(folder, flipped, SIZES, split="val")
  train = store_of(folder)
  val = store_of(folder, "val")
  assert train.read(0) == val.read(4) == IMAGES["c.jpg"]
  assert train.path != val.path


def test_images_may_lie_in_an_images_folder(folder):
  (folder / "images").mkdir()
  (folder / "train").rename(folder / "images" / "train")
  store = store_of(folder)
  assert store.read(3) == IMAGES["b.jpg"]


def test_several_files_of_records(folder):
  """As large splits have; the order stays the annotation file's."""
  builder = builder_of(folder)
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(num_shards=3)
  )
  assert len(records(folder)) == 3
  store = store_lib.open_store(builder, list(IMAGES))
  assert [store.read(n) for n in range(5)] == list(IMAGES.values())


def test_a_lost_index_is_written_again(folder):
  store = store_of(folder)
  index = os.path.join(store.path, store_lib.INDEX)
  os.remove(index)
  store = store_of(folder)
  assert os.path.exists(index)
  assert store.read(2) == IMAGES["d.jpg"]


def test_an_index_of_other_data_is_refused(folder):
  store = store_of(folder)
  index = os.path.join(store.path, store_lib.INDEX)
  np.save(index, np.zeros((3, store_lib.COLUMNS), np.int64))
  with pytest.raises(
    InputError, match=r"holds 3 images, 5 are expected; delete"
  ) as error:
    store_of(folder)
  assert store.path in str(error.value)


@pytest.mark.parametrize(
  "change",
  [
    lambda content: b"",
    lambda content: b"no array",
    lambda content: content[:200],
  ],
)
def test_a_damaged_index_is_written_again(folder, change):
  index = pathlib.Path(store_of(folder).path, store_lib.INDEX)
  sound = index.read_bytes()
  index.write_bytes(change(sound))
  assert store_of(folder).read(2) == IMAGES["d.jpg"]
  assert index.read_bytes() == sound


def cut(path):
  path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
  ("pattern", "damage", "message"),
  [
    ("*tfrecord*", cut, "is cut off; delete that folder"),
    ("*tfrecord*", pathlib.Path.unlink, r"is damaged \(.*No such file"),
    (
      "dataset_info.json",
      lambda path: path.write_text(""),
      "is damaged .*; delete that folder",
    ),
    ("dataset_info.json", pathlib.Path.unlink, "is damaged .*; delete that"),
  ],
)
def test_damaged_records_are_refused(folder, pattern, damage, message):
  (path,) = pathlib.Path(store_of(folder).path).glob(pattern)
  damage(path)
  with pytest.raises(InputError, match=message) as error:
    store_of(folder)
  assert "\n" not in str(error.value)
  assert str(path.parent.parent) in str(error.value)


def test_damaged_records_without_an_index_are_refused(folder):
  store = store_of(folder)
  os.remove(os.path.join(store.path, store_lib.INDEX))
  (path,) = records(folder)
  cut(pathlib.Path(path))
  with pytest.raises(
    InputError, match=r"is damaged .*truncated record"
  ) as error:
    store_of(folder)
  assert "{{" not in str(error.value)


def test_missing_images_are_named_before_anything_is_prepared(folder):
  (folder / "train" / "b.jpg").unlink()
  (folder / "train" / "e.jpg").unlink()
  message = r"data/train lacks 2 of the 5 images .* first b\.jpg"
  with pytest.raises(InputError, match=message) as error:
    store_of(folder)
  assert "\n" not in str(error.value)
  assert not records(folder)


def test_a_missing_image_folder_is_named(folder):
  shutil.rmtree(folder / "train")
  message = r"data/train does not exist \(nor images/"
  with pytest.raises(InputError, match=message):
    store_of(folder)


def test_records_match_tensorflows_own_reader(folder):
  """The index against TFRecordDataset, example by example."""
  store = store_of(folder)
  (path,) = records(folder)
  for number, record in enumerate(tf.data.TFRecordDataset(path)):
    example = tf.train.Example.FromString(record.numpy())
    image = example.features.feature["image"].bytes_list.value[0]
    assert image == store.read(number)
