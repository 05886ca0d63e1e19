"""Prepared images: known by their files, whole or refused, written once."""

import errno
import fcntl
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import image_files
from input_pipeline import store as store_lib
from tests import five_images, fixtures
from tests.five_images import IMAGES, SIZES, builder_of, records, store_of
from tokenpose_jax.errors import InputError


@pytest.fixture
def folder(tmp_path):
  return five_images.make(tmp_path)


def change_annotations(folder):
  path = folder / "annotations" / "person_keypoints_train.json"
  content = json.loads(path.read_text())
  content["annotations"][0]["bbox"][0] += 1
  path.write_text(json.dumps(content))


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


@pytest.mark.parametrize(
  "noted",
  ["", "[]", '{"time": 1, "files": 2}', fixtures.DEEP],
  ids=lambda text: text[:9],
)
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


def test_without_locks_the_slower_run_uses_what_the_other_wrote(
  folder, monkeypatch
):
  def no_locks(*arguments):
    raise OSError(errno.ENOLCK, "No locks available")

  read, started = image_files.read, []

  def overtaken(*arguments):
    if not started:
      started.append(True)
      store_of(folder)
    return read(*arguments)

  monkeypatch.setattr(fcntl, "flock", no_locks)
  monkeypatch.setattr(image_files, "read", overtaken)
  store = store_of(folder)
  assert [store.read(n) for n in range(5)] == list(IMAGES.values())
  assert len(records(folder)) == 1
  assert not list((folder.parent / "prepared").rglob("*incomplete*"))
  assert not list((folder.parent / "prepared").rglob("*partial*"))


def test_prepared_data_cannot_be_written(folder):
  (folder.parent / "prepared").write_text("a file")
  fixtures.check_refused(
    lambda: store_of(folder), "data.prepared_dir", "prepared/coco_keypoints"
  )


@pytest.mark.parametrize(
  "error",
  [
    OSError(errno.ENOSPC, "No space left on device"),
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
