"""Preparing by parts: what is done is kept, what is dead is removed."""

import fcntl
import os
import pathlib
import shutil
import socket
import tempfile
import threading
import time

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from input_pipeline import builders, image_files, leftovers, locks, parts
from input_pipeline import store as store_lib
from tests import five_images, fixtures
from tests.five_images import IMAGES, builder_of

DAYS = 2 * leftovers.DAY


@pytest.fixture
def folder(tmp_path):
  return five_images.make(tmp_path)


@pytest.fixture
def killed(folder, monkeypatch):
  """Kills a preparation by two images a part while it reads an image."""
  read = image_files.read

  def kill(number):
    left = iter(range(number))

    def interrupted(*arguments):
      if next(left, None) is None:
        raise KeyboardInterrupt
      return read(*arguments)

    with monkeypatch.context() as patch:
      patch.setattr(image_files, "read", interrupted)
      # A process that is killed cleans nothing up.
      patch.setattr(os, "remove", lambda path: None)
      with pytest.raises(KeyboardInterrupt):
        parts.prepare(builder_of(folder), smallest=2)
    (stopped,) = folder.parent.rglob(leftovers.PARTS)
    return stopped

  return kill


def prepare(folder):
  """Prepares by two images a part; returns the folder."""
  builder = builder_of(folder)
  parts.prepare(builder, smallest=2)
  store = store_lib.open_store(builder, list(IMAGES))
  assert [store.read(n) for n in range(5)] == list(IMAGES.values())
  return pathlib.Path(store.path)


def files_of(path):
  """Inode, time and content of a folder's files, by name."""
  return {
    p.name: (p.stat().st_ino, p.stat().st_mtime_ns, p.read_bytes())
    for p in sorted(path.iterdir())
  }


def contents(path):
  """Of a folder's files, but for the one that has the time."""
  found = {name: content for name, (*_, content) in files_of(path).items()}
  del found["files.json"]
  return found


def test_nothing_is_left_among_temporary_files(folder, monkeypatch, tmp_path):
  temporary = tmp_path / "temporary"
  temporary.mkdir()
  monkeypatch.setattr(tempfile, "tempdir", str(temporary))
  prepare(folder)
  assert not list(temporary.iterdir())


def left_in(folder):
  prepared = folder.parent / "prepared"
  return sorted(p.name for p in prepared.rglob("*incomplete*"))


@pytest.mark.parametrize(
  ("count", "number", "largest"),
  [
    *((0, 1, 0), (1, 1, 1), (256, 1, 256), (257, 2, 256), (6000, 24, 256)),
    *((32768, 128, 256), (118_287, 128, 925), (149_813, 128, 1171)),
  ],
)
def test_parts_of_a_data_set(count, number, largest):
  found = builders.ranges(count)
  assert len(found) == number
  assert max(map(len, found)) == largest
  assert [n for part in found for n in part] == [*range(count)]


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4])
def test_what_is_done_is_not_done_again(
  folder, tmp_path, killed, after, caplog
):
  stopped = killed(after)
  done = {n: f for n, f in files_of(stopped).items() if "partial" not in n}
  assert len(done) == after // 2
  assert len([*stopped.iterdir()]) == after // 2 + 1
  with caplog.at_level("INFO", "absl"):
    path = prepare(folder)
  assert done.items() <= files_of(path).items()
  assert (f"going on: {after // 2} of 3 parts" in caplog.text) == (after >= 2)
  assert left_in(folder) == []
  # With their times, so that they are the same images.
  undisturbed = shutil.copytree(folder, tmp_path / "undisturbed" / "data")
  assert contents(path) == contents(prepare(undisturbed))


def test_a_folder_that_is_whole_but_for_its_name(folder, monkeypatch):
  rename = tf.io.gfile.rename

  def stop(source, target, **options):
    if source.endswith(leftovers.PARTS):
      raise KeyboardInterrupt
    return rename(source, target, **options)

  with monkeypatch.context() as patch:
    patch.setattr(tf.io.gfile, "rename", stop)
    with pytest.raises(KeyboardInterrupt):
      parts.prepare(builder_of(folder), smallest=2)
  (stopped,) = folder.parent.rglob(leftovers.PARTS)
  assert (stopped / "dataset_info.json").exists()
  before = files_of(stopped)
  after = files_of(prepare(folder))
  assert len([n for n, _ in before.items() & after.items() if "-of-" in n]) == 3


def test_parts_of_another_division_are_written_again(folder, killed):
  killed(4)
  builder = builder_of(folder)
  parts.prepare(builder)
  store = store_lib.open_store(builder, list(IMAGES))
  assert [store.read(n) for n in range(5)] == list(IMAGES.values())
  names = [p.name for p in pathlib.Path(store.path).glob("*tfrecord*")]
  assert names == ["coco_keypoints-images.tfrecord-00000-of-00001"]


def test_tfds_itself_writes_the_same(folder, tmp_path):
  shutil.copytree(folder, tmp_path / "again" / "data")
  ours, theirs = (builder_of(f) for f in (folder, tmp_path / "again" / "data"))
  parts.prepare(ours)
  theirs.download_and_prepare()
  found, wanted = (
    {p.name: p.stat().st_size for p in pathlib.Path(b.data_path).iterdir()}
    for b in (ours, theirs)
  )
  assert found == wanted
  found, wanted = (
    [
      # Their fields are in any order.
      tf.train.Example.FromString(record)
      for record in tf.data.TFRecordDataset(
        b.info.splits["images"].filepaths
      ).as_numpy_iterator()
    ]
    for b in (ours, theirs)
  )
  assert found == wanted
  assert ours.info.splits["images"].num_bytes == 4116
  store = store_lib.open_store(theirs, list(IMAGES))
  assert store.read(4) == IMAGES["e.jpg"]


def test_records_are_the_same_in_every_process(folder):
  """Bytes, not only their meaning: the order of fields is always this."""
  builder = builder_of(folder)
  parts.prepare(builder)
  files = builder.info.splits["images"].filepaths
  for record in tf.data.TFRecordDataset(files).as_numpy_iterator():
    fields = (b"file_name", b"image_id", b"image\x12")
    places = [record.index(field) for field in fields]
    assert places == sorted(places)


def test_a_slice_of_the_records(folder):
  builder = builder_of(folder)
  parts.prepare(builder, smallest=2)
  some = builder.as_dataset(split="images[1:4]", shuffle_files=False)
  assert [f["image_id"] for f in tfds.as_numpy(some)] == [99, 98, 97]


def test_a_second_run_waits_for_the_first(folder, monkeypatch, caplog):
  read, reading, go = image_files.read, threading.Event(), threading.Event()

  def slow(*arguments):
    reading.set()
    assert go.wait(60)
    return read(*arguments)

  monkeypatch.setattr(image_files, "read", slow)

  def write():
    parts.prepare(builder_of(folder), smallest=2)

  first = threading.Thread(target=write)
  first.start()
  assert reading.wait(60)
  second = threading.Thread(target=write)
  with caplog.at_level("INFO", "absl"):
    second.start()
    while "waiting for it" not in caplog.text:
      assert second.is_alive()
      time.sleep(0.01)
    go.set()
    for thread in (first, second):
      thread.join(60)
  assert "copying 5 images" not in caplog.text
  assert len(five_images.records(folder)) == 3
  assert left_in(folder) == []
  prepare(folder)


def test_who_waited_locks_the_file_that_is_there(tmp_path):
  """Not the one that the first has removed, which nobody else would find."""
  path, waits, found = str(tmp_path / "lock"), threading.Event(), []

  def wait():
    with locks.held(path, waits.set) as alone:
      found.extend([alone, os.path.exists(path)])

  second = threading.Thread(target=wait)
  with locks.held(path, waits.set) as alone:
    assert alone
    assert not waits.is_set()
    second.start()
    assert waits.wait(60)
  second.join(60)
  assert found == [True, True]
  assert not os.path.exists(path)


@pytest.fixture
def changed(folder, killed):
  """The parts of images that have changed since."""
  stopped = killed(3)
  os.utime(folder / "train" / "a.jpg", ns=(1, 1))
  return stopped


def aged(path, seconds=DAYS):
  """Makes a folder old."""
  then = time.time() - seconds
  for each in (*path.rglob("*"), path):
    os.utime(each, (then, then))


def test_parts_of_changed_images_are_removed(folder, changed, caplog):
  with caplog.at_level("INFO", "absl"):
    prepare(folder)
  assert f"stopped preparation left: {changed}, 0.0 MB" in caplog.text
  assert left_in(folder) == []


def test_not_those_of_a_process_that_is_alive(folder, changed):
  aged(changed)
  with open(changed.with_name(leftovers.LOCK), "r+") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    prepare(folder)
    assert changed.is_dir()


def test_nor_of_another_host_until_they_are_old(folder, changed):
  changed.with_name(leftovers.LOCK).write_text("elsewhere")
  prepare(folder)
  assert changed.is_dir()
  aged(changed)
  leftovers.remove(str(changed.parents[1]), "train")
  assert not changed.exists()


def test_nor_of_other_images_until_they_are_old(folder, changed):
  """Another folder's split of the same name, or another split."""
  lock = changed.with_name(leftovers.LOCK)
  for other in ("train-0123456789abcdef", "val-0123456789abcdef"):
    leftovers.remove(str(changed.parents[1]), f"{other}-{'0' * 16}")
    assert changed.is_dir()
    assert lock.read_text() == socket.gethostname()
  aged(changed)
  leftovers.remove(str(changed.parents[1]), "val")
  assert not changed.exists()
  assert not lock.exists()


@pytest.mark.parametrize(
  ("name", "hours", "stays"),
  [
    ("incomplete.ABC1D2_1.0.0", 25, False),
    ("incomplete.ABC1D2_1.0.0", 23, True),
    ("incomplete.mine", 1000, True),
    ("incomplete.txt_1.0.0", 1000, True),
    ("1.0.0", 1000, True),
  ],
)
def test_what_tfds_left(folder, name, hours, stays, caplog):
  home = folder.parent / "prepared" / "coco_keypoints" / "val-0123456789abcdef"
  (home / name / "sub").mkdir(parents=True)
  (home / name / "sub" / "bucket").write_bytes(bytes(3_000_000))
  aged(home / name, 3600 * hours)
  with caplog.at_level("INFO", "absl"):
    prepare(folder)
  assert (home / name).exists() == stays
  assert ("left: " + str(home / name) + ", 3.0 MB" in caplog.text) != stays


def test_a_single_young_file_keeps_a_folder(folder):
  home = folder.parent / "prepared" / "coco_keypoints" / "val-0123456789abcdef"
  left = home / "incomplete.ABC1D2_1.0.0"
  (left / "sub").mkdir(parents=True)
  (left / "sub" / "bucket").write_bytes(b"1")
  aged(left)
  os.utime(left / "sub" / "bucket")
  prepare(folder)
  assert left.is_dir()


def test_nothing_is_removed_through_a_link(folder, tmp_path):
  home = folder.parent / "prepared" / "coco_keypoints" / "val-0123456789abcdef"
  home.mkdir(parents=True)
  mine = tmp_path / "mine"
  mine.mkdir()
  (mine / "file").write_text("1")
  aged(mine)
  (home / "incomplete.ABC1D2_1.0.0").symlink_to(mine)
  prepare(folder)
  assert (mine / "file").exists()


def test_a_full_disk_keeps_what_is_done(folder, tmp_path):
  """No file may be as large as the last part with its larger image."""
  large = fixtures.encode(fixtures.smooth_image(900, 900, (9, 99, 9)), ".png")
  (folder / "train" / "e.jpg").write_bytes(large)
  with fixtures.small_files(len(large) // 2):
    fixtures.check_refused(
      lambda: parts.prepare(builder_of(folder), smallest=2),
      "data.prepared_dir: cannot write /",
      "File too large; make it writable, with room, or choose another folder",
    )
  (stopped,) = tmp_path.rglob(leftovers.PARTS)
  before = files_of(stopped)
  assert len(before) == 2
  builder = builder_of(folder)
  parts.prepare(builder, smallest=2)
  after = files_of(pathlib.Path(str(builder.data_path)))
  assert before.items() <= after.items()
