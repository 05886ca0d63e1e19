"""Data sets by name, and how one is opened."""

import dataclasses
import functools
import os
from typing import Any, Protocol, runtime_checkable

import numpy as np
import tensorflow as tf
from absl import logging
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from input_pipeline import coco, files, image_files, mpii, outside
from input_pipeline.builders import FolderImages
from input_pipeline.decode import examine
from input_pipeline.missing_files import shown
from input_pipeline.people import Annotations, People
from input_pipeline.store import ImageStore, open_store
from input_pipeline.synthetic import dataset as synthetic
from tokenpose_jax import skeletons
from tokenpose_jax.errors import InputError, check_choice
from tokenpose_jax.metrics.benchmark import Benchmark
from tokenpose_jax.metrics.coco_plain import Plain
from tokenpose_jax.skeletons import Skeleton

FROM_ANNOTATIONS = "annotations"
NAMED = 10  # unreadable images; of the others, the number is said


@runtime_checkable
class Dataset(Protocol):
  """What a data set's module has.

  Attributes:
    BUILDER: of the images; its name is that of the prepared folder.
    USES_SIGMAS: its benchmark needs OKS sigmas.
  """

  BUILDER: type[FolderImages]
  USES_SIGMAS: bool

  def read(
    self, data: ConfigDict, split: str, skeleton: Skeleton
  ) -> Annotations:
    """The annotations of a split, checked."""

  def read_unchecked(
    self, folder: str, split: str, skeleton: Skeleton, category: str
  ) -> Plain:
    """The annotations of a split for the doctor, people unchecked."""

  def splits(self, folder: str) -> list[str]:
    """The splits of a folder."""

  def skeleton_of(self, folder: str, split: str, category: str) -> Skeleton:
    """The skeleton that the annotations of a split define."""

  def image_folder(self, folder: str, split: str) -> str:
    """The folder of a split's images."""

  def annotated_people(
    self, annotations: Annotations, input_hw: tuple[int, int], padding: float
  ) -> People:
    """The annotated people of a split."""

  def detected_people(
    self,
    path: str,
    annotations: Annotations,
    skeleton: Skeleton,
    input_hw: tuple[int, int],
    padding: float,
    min_box_score: float,
  ) -> People:
    """The boxes of a detector-box file."""

  def reach(
    self, people: People, skeleton: Skeleton
  ) -> Float[np.ndarray, "n k"]:
    """(N, K) distance at which similarity is 0.5, image pixels.

    NaN where that is not known.
    """

  def detection_facts(
    self, path: str, annotations: Annotations, image_ids: list[int] | None
  ) -> dict[str, Any]:
    """What the report says of a detector-box file: sha256, person_AP."""

  def benchmark(
    self,
    annotations: Annotations,
    people: People,
    skeleton: Skeleton,
    config: ConfigDict,
    image_ids: list[int] | None,
  ) -> Benchmark:
    """What measures predictions of a split."""


# To add one: a module with the functions of `Dataset`, and a row here.
DATASETS: dict[str, Dataset] = {
  "coco": coco,
  "mpii": mpii,
  "synthetic": synthetic,
}


@dataclasses.dataclass(frozen=True)
class Split:
  """A prepared split: annotations in memory, images on disk.

  Attributes:
    dataset: the module of the data set.
    annotations: of the split.
    store: its images.
    skeleton: of the people.
  """

  dataset: Dataset
  annotations: Annotations
  store: ImageStore
  skeleton: Skeleton

  @functools.cached_property
  def widths(self) -> Int[np.ndarray, " n"]:
    """(n,) of the images: the file's, else the annotations', pixels."""
    named = [i.get("width", 0) for i in self.annotations.content["images"]]
    read = self.store.sizes[:, 1]
    return np.where(read > 0, read, np.array(named, np.int64))


def get(name: str) -> Dataset:
  """The data set of that name.

  Raises:
    InputError: there is none.
  """
  check_choice("data.name", name, DATASETS)
  return DATASETS[name]


def skeleton_of(data: ConfigDict, split: str) -> Skeleton:
  """The skeleton that `data.skeleton` names.

  Args:
    data: `config.data`.
    split: whose annotations define it, where it is "annotations".

  Raises:
    InputError: there is no such skeleton, file or data set.
  """
  dataset = get(data.name)
  if data.skeleton != FROM_ANNOTATIONS:
    return skeletons.get(data.skeleton)
  return dataset.skeleton_of(data.dir, split, data.category)


def describe(name: str, skeleton: Skeleton, source: str) -> str:
  """What a start and the doctor say of a skeleton.

  Args:
    name: `data.name`.
    skeleton: of the run.
    source: `data.skeleton`.
  """
  pairs = ", ".join(
    f"{skeleton.keypoints[a]} - {skeleton.keypoints[b]}"
    for a, b in skeleton.flip_pairs
  )
  line = (
    f"skeleton {skeleton.name}: {skeleton.num_keypoints} keypoints, from"
    f" {source}; flip pairs: {pairs or 'none'}"
  )
  if not get(name).USES_SIGMAS:
    return line
  own = skeleton.sigmas and " ".join(f"{s:g}" for s in skeleton.sigmas)
  return f"{line}; sigmas: {own or f'none, {skeletons.DEFAULT_SIGMA} for all'}"


def write_skeleton(skeleton: Skeleton, workdir: str) -> None:
  """Writes WORKDIR/skeleton.json, to be looked at, completed and reused.

  Args:
    skeleton: what the annotations define.
    workdir: of the run.
  """
  path = os.path.join(workdir, "skeleton.json")
  tf.io.gfile.makedirs(workdir)
  # Every process writes the same content.
  files.replace(path, skeletons.to_json(skeleton))


def prepare(data: ConfigDict, split: str, skeleton: Skeleton) -> Split:
  """Opens a split; prepares its images first if needed.

  Args:
    data: `config.data`.
    split: of the folder.
    skeleton: of the people.

  Raises:
    InputError: the folder, or a file in it, cannot be used.
  """
  dataset = get(data.name)
  annotations = dataset.read(data, split, skeleton)
  images = annotations.content["images"]
  folder = dataset.image_folder(data.dir, split)
  names = [image["file_name"] for image in images]
  if not data.allow_outside:
    remedy = "set --config.data.allow_outside=True"
    outside.require_inside(data.dir, folder, names, remedy)
  builder = dataset.BUILDER(split, folder, images, data.prepared_dir)
  store = open_store(builder, names)
  _say_unreadable(store, folder)
  _require_sizes(annotations, store)
  return Split(dataset, _with_sizes(annotations, store), store, skeleton)


def people(split: Split, config: ConfigDict, *, boxes: str = "gt") -> People:
  """The people, or the detector boxes, of a split.

  Args:
    split: as returned by `prepare`.
    config: of the run.
    boxes: "gt" or the path of a detector-box file.

  Raises:
    InputError: there is nobody, or the file cannot be used.
  """
  crop = (tuple(config.model.input_hw), config.data.padding)
  if boxes == "gt":
    return split.dataset.annotated_people(split.annotations, *crop)
  return split.dataset.detected_people(
    boxes, split.annotations, split.skeleton, *crop, config.eval.min_box_score
  )


def _say_unreadable(store: ImageStore, folder: str) -> None:
  """Names the images that cannot be read, once, and counts those cut off.

  Raises:
    InputError: none can.
  """
  total = len(store.names)
  unreadable = store.sizes[:, 0] == 0
  cut_off = store.cut_off & ~unreadable
  if total and (unreadable | cut_off).all():
    why = examine(store.read(0)).reason or "it is cut off"
    raise InputError(
      f"none of the {total} images in {folder} can be read, first"
      f" {shown(store.names[0])}: {why}"
    )
  for number in np.flatnonzero(unreadable)[:NAMED].tolist():
    store.warn_unreadable(number, examine(store.read(number)).reason)
  if (count := int(unreadable.sum())) > NAMED:
    logging.warning("... %d of %d images cannot be read", count, total)
  if count := int(cut_off.sum()):
    logging.warning(
      "%d of %d images are cut off: people in what is missing are skipped, and"
      " the image is named then",
      count,
      total,
    )


def _with_sizes(annotations: Annotations, store: ImageStore) -> Annotations:
  """Images without a size get that of their file, where it can be read."""
  images = [
    image
    if "width" in image or not height
    else {**image, "height": height, "width": width}
    for image, (height, width) in zip(
      annotations.content["images"], store.sizes.tolist(), strict=True
    )
  ]
  content = {**annotations.content, "images": images}
  return dataclasses.replace(annotations, content=content)


def _require_sizes(annotations: Annotations, store: ImageStore) -> None:
  """Raises InputError where an image is not as large as its annotations say."""
  wrong = [
    (image, size)
    for image, size in zip(
      annotations.content["images"], store.sizes.tolist(), strict=True
    )
    if "width" in image
    and size[0]
    and size != [image["height"], image["width"]]
  ]
  if wrong:
    image, (height, width) = wrong[0]
    # Of remote files nobody knows that they changed.
    remote = image_files.is_remote(annotations.path)
    repaired = f"; if they were repaired, delete {store.path}" if remote else ""
    raise InputError(
      f"{annotations.path}: {shown(image['file_name'])} is {width}x{height}"
      f" pixels, annotated as {image['width']}x{image['height']}"
      f" ({len(wrong)} such); if they were resized or rotated, update"
      " the annotations to match"
      f" (see python -m input_pipeline.doctor){repaired}"
    )
