"""Pipes, devices and folders in the place of files: one line, no waiting."""

import os
import shutil
import socket

import numpy as np
import pytest

import tokenpose_jax as tp
from input_pipeline import files, image_files
from tests import checkpoints, odd_files
from tokenpose_jax import (
  InputError,
  checkpoint,
  convert,
  eval_report,
  exported,
  file_kinds,
  json_files,
  skeletons,
  workdir,
)
from tokenpose_jax.predict import boxes, detector, sources

# A name of a file, and who reads it.
READERS = {
  "json": ("a.json", lambda path: json_files.read(path, "results")),
  "annotations": ("a.json", files.read_bytes),
  "image": ("a.jpg", lambda path: image_files.read(*os.path.split(path))),
  "safetensors": ("a.safetensors", convert.read_state_dict),
  "pth": ("a.pth", convert.read_state_dict),
  "skeleton": ("a.json", skeletons.get),
  "boxes": (
    "a.json",
    lambda path: boxes.Listed(
      path, boxes.ImageIds(), category_id=1, min_score=0
    ),
  ),
  "ids": ("a.json", boxes.ImageIds),
  "coco": ("a.json", lambda path: tp.metrics.coco.evaluate(path, [])),
  "mpii": (
    "a.mat",
    lambda path: tp.metrics.mpii.pckh(np.zeros((1, 16, 2)), path),
  ),
  "detector": ("a.onnx", detector.Yolox),
  "photo": ("a.jpg", sources.read_photo),
  "video": ("a.mp4", sources.Video),
  "export": (
    "export.json",
    lambda path: exported.read_meta(os.path.dirname(path)),
  ),
  "sums": (
    "SHA256SUMS",
    lambda path: exported.check_sums(os.path.dirname(path)),
  ),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["a pipe", "a device"])
def test_what_is_no_file_is_not_opened(tmp_path, reader, kind):
  name, read = READERS[reader]
  path = tmp_path / name
  if kind == "a pipe":
    odd_files.pipe(path)
  else:
    path.symlink_to("/dev/null")
  with pytest.raises((InputError, sources.Broken)) as error:
    odd_files.in_time(lambda: read(str(path)), path)
  assert f"it is {kind}, not a file" in str(error.value)
  assert str(error.value).isprintable()


def test_files_and_links_to_files_are_fine(tmp_path):
  path = tmp_path / "a"
  path.write_text("1")
  (tmp_path / "link").symlink_to(path)
  for name in (path, tmp_path / "link", "gs://bucket/a"):
    file_kinds.check(name)
  file_kinds.check_below(tmp_path)
  file_kinds.check_below("gs://bucket")
  (tmp_path / "folder").mkdir()
  with pytest.raises(OSError, match="it is a folder, not a file"):
    file_kinds.check(tmp_path / "folder")
  with pytest.raises(FileNotFoundError):
    file_kinds.check(tmp_path / "gone")
  with socket.socket(socket.AF_UNIX) as opened:
    opened.bind(str(tmp_path / "folder" / "s"))
    with pytest.raises(OSError, match="folder/s: it is a socket"):
      file_kinds.check_below(tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A work directory with steps 1 and 2."""
  path = tmp_path_factory.mktemp("run")
  checkpoints.make(path, metrics=[0.3, 0.5])
  return path


@pytest.fixture
def copied(run, tmp_path):
  shutil.copytree(run, tmp_path, dirs_exist_ok=True)
  return tmp_path


def test_pipes_in_a_checkpoint(copied, caplog):
  opened = checkpoint.Checkpoints(str(copied))
  metrics = odd_files.pipe(copied / "checkpoints/2/metrics/metrics")
  assert odd_files.in_time(lambda: opened.choose("best"), metrics) == 1
  assert "metrics is damaged (it is a pipe, not a file)" in caplog.text
  meta = opened.read_meta(2)
  largest = max(
    (copied / "checkpoints/2/state").rglob("d/*"),
    key=lambda path: path.stat().st_size,
  )
  odd_files.pipe(largest)
  with pytest.raises(checkpoint.Damaged, match="it is a pipe, not a file"):
    odd_files.in_time(lambda: opened.restore_weights(2, meta), largest)
  file = odd_files.pipe(copied / "checkpoints/2/meta/metadata")
  with pytest.raises(checkpoint.Damaged, match="it is a pipe, not a file"):
    odd_files.in_time(lambda: opened.read_meta(2), file)
  with pytest.raises(InputError, match="it is a pipe, not a file; remove it"):
    workdir.require_inside(str(copied))


def test_a_pipe_for_a_lock(tmp_path):
  lock = odd_files.pipe(tmp_path / workdir.FILE)

  def hold():
    with workdir.held(str(tmp_path)):
      pass

  with pytest.raises(InputError, match="it is a pipe, not a file"):
    odd_files.in_time(hold, lock)


def test_a_pipe_for_an_evaluation(tmp_path, caplog):
  folder = tmp_path / "eval/5/gt"
  folder.mkdir(parents=True)
  file = odd_files.pipe(folder / "metrics.json")
  read = odd_files.in_time(lambda: eval_report.read(str(tmp_path), 5), file)
  assert read == []
  assert "it is a pipe, not a file; it is passed over" in caplog.text
