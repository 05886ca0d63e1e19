"""TFDS builders: encoded images copied into TFRecord files, unchanged."""

import abc
import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging
from google.protobuf import json_format

from input_pipeline import files, image_files
from input_pipeline.decode import image_size
from input_pipeline.image_headers import ends_early
from tokenpose_jax.errors import InputError

SPLIT = "images"  # Each split of a folder is a TFDS config with this one.
SMALLEST = 256  # records of a part, at least
MOST = 128  # parts: as many files stay open


class Record(NamedTuple):
  """The image of a record.

  Attributes:
    image: its bytes.
    height: pixels; 0 where it cannot be read.
    width: likewise.
    whole: False where only its upper part can be read.
  """

  image: bytes
  height: int
  width: int
  whole: bool = True


def ranges(count: int, smallest: int = SMALLEST) -> list[range]:
  """Records as parts, of which each is a file.

  Args:
    count: of the records.
    smallest: number of records of a part.

  Returns:
    their numbers; at least one part.
  """
  size = max(smallest, -(-count // MOST))
  starts = range(0, max(count, 1), size)
  return [range(start, min(start + size, count)) for start in starts]


class _Info(tfds.core.DatasetInfo):
  """What TFDS knows of a data set, without looking for it elsewhere."""

  def initialize_from_bucket(self) -> None:
    """Google's bucket has none of ours, and asking leaves a folder in /tmp."""


class NumberedRecords(tfds.core.ShardBasedBuilder):
  """A TFDS builder whose records hold an image each, and are numbered.

  `parts.prepare` writes them, so that it can go on after a kill; TFDS's own
  `download_and_prepare` writes the same.
  """

  @property
  @abc.abstractmethod
  def count(self) -> int:
    """Of the records."""

  def begin(self) -> None:
    """Checks and says what is going to be written."""

  @abc.abstractmethod
  def examples(self, numbers: range) -> Iterator[tuple[int, dict[str, Any]]]:
    """Some records, with their numbers."""

  def finish(self, folder: str) -> None:
    """Adds to a folder of all records what else belongs there."""

  @abc.abstractmethod
  def record_of(self, example: tf.train.Example) -> Record:
    """The image of a record."""

  def described(
    self, features: tfds.features.FeaturesDict, description: str
  ) -> tfds.core.DatasetInfo:
    """What TFDS is told of the records, whose order is that of their numbers.

    Args:
      features: of each record.
      description: of the data set.
    """
    return _Info(
      builder=self,
      features=features,
      description=description,
      disable_shuffling=True,
    )

  def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, Any]:
    del dl_manager  # Nothing is downloaded.
    self.begin()
    self.finish(str(self.data_path))
    parts = ranges(self.count)
    return {SPLIT: [functools.partial(self.examples, part) for part in parts]}


@dataclasses.dataclass(kw_only=True)
class ImagesConfig(tfds.core.BuilderConfig):
  """Which images of which folder."""

  folder: str
  images: list[Mapping[str, Any]] = dataclasses.field(repr=False)
  stats: image_files.Stats | None = dataclasses.field(repr=False)
  root: str
  split: str


class FolderImages(NumberedRecords):
  """The images of one split of a folder.

  The config's name carries the images' identity (`image_files`), so that
  changed images are prepared again, next to what was there.
  """

  VERSION = tfds.core.Version("1.0.0")

  def __init__(
    self,
    split: str,
    folder: str,
    images: Sequence[Mapping[str, Any]],
    data_dir: str = "",
  ):
    """Describes the images.

    Args:
      split: whose images they are.
      folder: of the image files.
      images: COCO's entries, with id and file_name.
      data_dir: where to prepare them; "": TFDS's own directory.

    Raises:
      InputError: what is prepared already is damaged.
    """
    data_dir = os.path.expanduser(data_dir or tfds.core.constants.DATA_DIR)
    root = os.path.join(data_dir, self.name)
    names = [image["file_name"] for image in images]
    stats = image_files.stats(folder, names)
    config = ImagesConfig(
      name=image_files.identity(root, split, names, stats),
      folder=folder,
      images=list(images),
      stats=stats,
      root=root,
      split=split,
    )
    try:
      super().__init__(config=config, data_dir=data_dir)
    except (json_format.Error, ValueError, KeyError) as error:
      # TFDS reads what is prepared already.
      raise InputError(
        f"prepared data in {os.path.join(root, config.name)} is damaged"
        f" ({files.reason(error)}); delete that folder and start again"
      ) from None
    gone = stats is None and not image_files.is_remote(folder)
    if gone and self.is_prepared():
      logging.warning(
        "the images of %s are gone: those prepared earlier are used, %s",
        folder,
        self.data_path,
      )

  def _info(self) -> tfds.core.DatasetInfo:
    features = tfds.features.FeaturesDict(
      {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "image_id": np.int64,
        "file_name": tfds.features.Text(),
      }
    )
    return self.described(
      features, "The images of a keypoint folder, as they are."
    )

  @property
  def count(self) -> int:
    """Of the images."""
    return len(self.builder_config.images)

  def begin(self) -> None:
    """Checks that the images are there, and says what is new.

    Raises:
      InputError: some are not.
    """
    config = self.builder_config
    names = [image["file_name"] for image in config.images]
    image_files.require(config.folder, names)
    if new := image_files.changes(config.root, config.split, config.stats):
      logging.info("images of %s are prepared anew: %s", config.split, new)
    path = os.path.join(config.root, config.name)
    logging.info("copying %d images to %s", len(names), path)

  def examples(self, numbers: range) -> Iterator[tuple[int, dict[str, Any]]]:
    """Some of the images.

    Args:
      numbers: of them.

    Raises:
      InputError: one cannot be read.
    """
    config = self.builder_config
    for number in numbers:
      image = config.images[number]
      yield (
        number,
        {
          "image": image_files.read(config.folder, image["file_name"]),
          "image_id": image["id"],
          "file_name": image["file_name"],
        },
      )

  def finish(self, folder: str) -> None:
    """Notes what the images are of: given its final place with them.

    Args:
      folder: of all records.
    """
    image_files.note(folder, self.builder_config.stats)

  def record_of(self, example: tf.train.Example) -> Record:
    """The encoded image of a record."""
    encoded = example.features.feature["image"].bytes_list.value[0]
    return Record(encoded, *image_size(encoded), not ends_early(encoded))


class CocoKeypoints(FolderImages):
  """The images of one split of a COCO keypoint folder."""


class MpiiHumanPose(FolderImages):
  """The images of the people of one split of an MPII folder."""
