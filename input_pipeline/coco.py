"""The TFDS builder of COCO keypoint folders, and random access to its images.

A folder holds `annotations/person_keypoints_SPLIT.json` and the images in
`SPLIT/` or `images/SPLIT/`. The builder copies the encoded images, as they are,
into TFDS's TFRecord files; an index of their places beside them gives random
access, which TFRecord has not by itself and which, unlike ArrayRecord's, works
on every file system of TensorFlow.
"""

import contextlib
import dataclasses
import io
import os
import struct
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging

from input_pipeline import annotations as annotations_lib
from input_pipeline.annotations import Annotations
from input_pipeline.synthetic import folder as synthetic_folder
from tokenpose_jax.errors import InputError

SPLIT = "images"  # Each split of a folder is a TFDS config with this one.
INDEX = "index.npy"


@dataclasses.dataclass(kw_only=True)
class CocoConfig(tfds.core.BuilderConfig):
  """Which split of which folder."""

  folder: str
  annotations: Annotations = dataclasses.field(repr=False)


class CocoKeypoints(tfds.core.GeneratorBasedBuilder):
  """The images of one split of a COCO keypoint folder.

  The config's name carries the annotation file's hash, so that a changed file
  is prepared anew, beside what was there.
  """

  VERSION = tfds.core.Version("1.0.0")

  def __init__(
    self, folder: str, split: str, annotations: Annotations, data_dir: str = ""
  ):
    """Args: the folder, its split, its annotations, and where to prepare."""
    config = CocoConfig(
      name=f"{split}-{annotations.sha256[:16]}",
      folder=os.path.join(folder, _image_folder(folder, split)),
      annotations=annotations,
    )
    super().__init__(config=config, data_dir=data_dir or None)

  def _info(self) -> tfds.core.DatasetInfo:
    features = tfds.features.FeaturesDict(
      {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "image_id": np.int64,
        "file_name": tfds.features.Text(),
      }
    )
    return self.dataset_info_from_configs(
      features=features,
      description="The images of a COCO keypoint folder, as they are.",
      # Records in the order of the annotation file's images.
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    del dl_manager  # Nothing is downloaded.
    return {SPLIT: self._generate_examples()}

  def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
    config = self.builder_config
    images = config.annotations.content["images"]
    for number, image in enumerate(images):
      path = os.path.join(config.folder, image["file_name"])
      yield (
        number,
        {
          "image": path,
          "image_id": image["id"],
          "file_name": image["file_name"],
        },
      )


class SyntheticPeople(CocoKeypoints):
  """Drawn people: the folder is made first, then read as any other."""

  def __init__(
    self,
    folder: str,
    split: str,
    *,
    seed: int,
    train_people: int,
    test_people: int,
    skeleton: Any,
    data_dir: str = "",
  ):
    synthetic_folder.write_coco_folder(
      folder, seed=seed, train_people=train_people, test_people=test_people
    )
    annotations = annotations_lib.read(folder, split, skeleton)
    super().__init__(folder, split, annotations, data_dir)


class ImageStore:
  """Random access to the encoded images of a prepared split.

  Attributes:
    names: the images' file names, in the order of the annotation file.
  """

  def __init__(self, builder: CocoKeypoints):
    """Prepares the split where that has not been done."""
    images = builder.builder_config.annotations.content["images"]
    self.names = [image["file_name"] for image in images]
    self.path = str(builder.data_path)
    if not builder.is_prepared():
      _prepare(builder, self.names)
    self._files = [str(file) for file in builder.info.splits[SPLIT].filepaths]
    index = os.path.join(self.path, INDEX)
    if not tf.io.gfile.exists(index):
      _write_index(index, self._files)
    with tf.io.gfile.GFile(index, "rb") as file:
      places = np.load(io.BytesIO(file.read()))
    self._shard, self._offset, self._length = places.T
    if len(self._shard) != len(self.names):
      raise InputError(
        f"prepared data in {self.path} holds {len(self._shard)} images, the"
        f" annotation file {len(self.names)}; delete that folder and start"
        " again"
      )

  def read(self, number: int) -> bytes:
    """The encoded image at that place of the annotation file."""
    with tf.io.gfile.GFile(self._files[self._shard[number]], "rb") as file:
      file.seek(int(self._offset[number]))
      record = file.read(int(self._length[number]))
    example = tf.train.Example.FromString(record)
    return example.features.feature["image"].bytes_list.value[0]


def _image_folder(folder: str, split: str) -> str:
  """`SPLIT` or `images/SPLIT`, whichever exists."""
  candidates = (split, os.path.join("images", split))
  for candidate in candidates:
    if tf.io.gfile.isdir(os.path.join(folder, candidate)):
      return candidate
  return candidates[0]


def _prepare(builder: CocoKeypoints, names: list[str]) -> None:
  _require_files(builder.builder_config.folder, names)
  logging.info("copying %d images to %s", len(names), builder.data_path)
  if not sys.stderr.isatty():
    tfds.disable_progress_bar()
  # TFDS prints to standard output what the line above says.
  with contextlib.redirect_stdout(io.StringIO()):
    builder.download_and_prepare(
      download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )


def _require_files(folder: str, names: list[str]) -> None:
  gfile = tf.io.gfile
  if not gfile.isdir(folder):
    raise InputError(
      f"data.dir: the image folder {folder} does not exist (nor images/ above"
      " it); put the images of that split there"
    )
  missing = [n for n in names if not gfile.exists(os.path.join(folder, n))]
  if missing:
    raise InputError(
      f"{folder} lacks {len(missing)} of the {len(names)} images of its"
      f" annotation file, first {missing[0]}"
    )


def _write_index(path: str, files: list[str]) -> None:
  """Finds each record's place in the TFRecord files.

  A record is its length (8 bytes), a checksum (4), the data, a checksum (4).
  """
  places = []
  for number, name in enumerate(files):
    with tf.io.gfile.GFile(name, "rb") as file:
      size, offset = file.size(), 0
      while offset < size:
        file.seek(offset)
        (length,) = struct.unpack("<Q", file.read(8))
        places.append((number, offset + 12, length))
        offset += 12 + length + 4
  buffer = io.BytesIO()
  np.save(buffer, np.array(places, np.int64).reshape(-1, 3))
  with tf.io.gfile.GFile(path + ".partial", "wb") as file:
    file.write(buffer.getvalue())
  tf.io.gfile.rename(path + ".partial", path, overwrite=True)
  logging.info("indexed %d images in %s", len(places), os.path.dirname(path))
