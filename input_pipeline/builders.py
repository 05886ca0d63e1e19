"""TFDS builders: encoded images copied into TFRecord files, unchanged."""

import contextlib
import dataclasses
import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging

from input_pipeline.decode import image_size
from tokenpose_jax.errors import InputError

SPLIT = "images"  # Each split of a folder is a TFDS config with this one.


@runtime_checkable
class RecordBuilder(Protocol):
  """A TFDS builder whose records hold an image each."""

  @property
  def data_path(self) -> Any:
    """The folder of the prepared data."""

  @property
  def info(self) -> Any:
    """Of TFDS, with the files of each split."""

  def is_prepared(self) -> bool:
    """Whether the records are written."""

  def download_and_prepare(self, **options: Any) -> None:
    """Writes the records."""

  def image_of(self, example: tf.train.Example) -> tuple[bytes, int, int]:
    """The image's bytes in a record, its height and width."""


@dataclasses.dataclass(kw_only=True)
class ImagesConfig(tfds.core.BuilderConfig):
  """Which images of which folder."""

  folder: str
  images: list[Mapping[str, Any]] = dataclasses.field(repr=False)


class FolderImages(tfds.core.GeneratorBasedBuilder):
  """The images of one split of a folder.

  The config's name carries the annotation file's hash, so that a changed file
  is prepared again, next to what was there.
  """

  VERSION = tfds.core.Version("1.0.0")

  def __init__(
    self,
    name: str,
    folder: str,
    images: Sequence[Mapping[str, Any]],
    data_dir: str = "",
  ):
    """Describes the images.

    Args:
      name: of the split, with the hash of its annotations.
      folder: of the image files.
      images: COCO's entries, with id and file_name.
      data_dir: where to prepare them; "": TFDS's own directory.
    """
    config = ImagesConfig(name=name, folder=folder, images=list(images))
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
      description="The images of a keypoint folder, as they are.",
      # Records in the order of the annotation file's images.
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    del dl_manager  # Nothing is downloaded.
    config = self.builder_config
    _require_files(config.folder, [i["file_name"] for i in config.images])
    number = len(config.images)
    logging.info("copying %d images to %s", number, self.data_path)
    return {SPLIT: self._generate_examples()}

  def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
    config = self.builder_config
    for number, image in enumerate(config.images):
      path = os.path.join(config.folder, image["file_name"])
      yield (
        number,
        {
          "image": path,
          "image_id": image["id"],
          "file_name": image["file_name"],
        },
      )

  def image_of(self, example: tf.train.Example) -> tuple[bytes, int, int]:
    """The encoded image of a record, its height and width."""
    encoded = example.features.feature["image"].bytes_list.value[0]
    return encoded, *image_size(encoded)


class CocoKeypoints(FolderImages):
  """The images of one split of a COCO keypoint folder."""


class MpiiHumanPose(FolderImages):
  """The images of the people of one split of an MPII folder."""


def prepare(builder: RecordBuilder) -> None:
  """Writes a builder's records, unless that has been done."""
  if builder.is_prepared():
    return
  if not sys.stderr.isatty():
    tfds.disable_progress_bar()
  # TFDS prints to standard output what the builders log.
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
