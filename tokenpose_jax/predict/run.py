"""Sources in, people out: reading, finding, predicting and writing at once."""

import dataclasses
import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from tokenpose_jax.errors import InputError, one_line
from tokenpose_jax.predict import tracks
from tokenpose_jax.predict.boxes import Boxes, ImageIds
from tokenpose_jax.predict.estimator import BATCH_SIZES, Estimator, Poses
from tokenpose_jax.predict.smooth import Smoother
from tokenpose_jax.predict.sources import (
  Broken,
  Camera,
  Frame,
  Source,
  Video,
  read_photo,
)
from tokenpose_jax.predict.writers import Writer, Written

_READERS = 2  # threads that decode photos
_AHEAD = 16  # photos that are decoded before they are needed
_FRAMES = 16  # of a chunk at most: frames are large
_PEOPLE = BATCH_SIZES[-1]  # of a chunk, about


Found = tuple[Source, Frame, Float[np.ndarray, "_ 5"]]
"""A frame and the boxes in it, x, y, w, h and a score."""


@dataclasses.dataclass
class Count:
  """What a run has done.

  Attributes:
    frames: photos and frames written.
    people: with keypoints.
    doubles: left out because another pose is of the same person.
    broken: (path, reason) of what could not be read.
  """

  frames: int = 0
  people: int = 0
  doubles: int = 0
  broken: list[tuple[str, str]] = dataclasses.field(default_factory=list)


class Following(NamedTuple):
  """How people are followed through a video.

  Attributes:
    detect_every: frames between detections; between them, boxes come from the
      poses of the frame before.
    track: give people ids.
    smooth: cutoff of the One-Euro filter, Hz; 0: none.
  """

  detect_every: int = 1
  track: bool = True
  smooth: float = 0.0


class Run:
  """One estimator on many sources."""

  def __init__(
    self,
    estimator: Estimator,
    boxes: Boxes,
    ids: ImageIds,
    writers: Sequence[Writer],
    following: Following,
    progress: Callable[[int], Any],
    nms: float = 1.0,
  ):
    """Reads nothing yet.

    Args:
      estimator: the network.
      boxes: where people are.
      ids: of photos in COCO results.
      writers: of the output.
      following: of people through videos.
      progress: is told how many frames have been written.
      nms: OKS above which two poses of a photo are of one person, of which
        the better one stays; 1: all stay.
    """
    self._estimator = estimator
    self._boxes, self._ids = boxes, ids
    self._writers = writers
    self._following = following
    self._progress = progress
    self._nms = nms
    self.count = Count()

  def __call__(self, sources: Sequence[Source]) -> Count:
    """Predicts on all sources, photos first.

    Args:
      sources: photos, videos, cameras.

    Raises:
      InputError: the boxes cannot be found, or the output not be written.
    """
    with ThreadPoolExecutor(1) as writing:
      pending: deque[Future] = deque()
      photos = [source for source in sources if source.kind == "photo"]
      others = [source for source in sources if source.kind != "photo"]
      parts = itertools.chain(
        self._photos(photos), *(self._video(source) for source in others)
      )
      for part in parts:
        pending.append(writing.submit(self._write, part))
        # What is not written yet is in memory: little of it.
        if len(pending) > 2:
          pending.popleft().result()
      for future in pending:
        future.result()
    return self.count

  def _photos(self, photos: Sequence[Source]) -> Iterator[list[Written]]:
    """People of photos, in chunks."""

    def found() -> Iterator[Found]:
      for source, image in self._read(photos):
        yield source, Frame(image), self._boxes(source, image)

    for chunk in _chunks(found()):
      yield self._predict(chunk, 0.0)

  def _read(self, photos: Iterable[Source]) -> Iterator[tuple[Source, Any]]:
    """Photos that can be read, in order, decoded ahead in threads."""
    with ThreadPoolExecutor(_READERS) as readers:
      waiting: deque[tuple[Source, Future]] = deque()
      left = iter(photos)
      while True:
        for source in itertools.islice(left, _AHEAD - len(waiting)):
          waiting.append((source, readers.submit(read_photo, source.path)))
        if not waiting:
          return
        source, future = waiting.popleft()
        try:
          yield source, future.result()
        except Broken as error:
          self.count.broken.append((source.path, str(error)))

  def _video(self, source: Source) -> Iterator[list[Written]]:
    """People of a video, in chunks where frames do not wait for each other."""
    try:
      opened = (
        Camera(int(source.path))
        if source.kind == "camera"
        else Video(source.path)
      )
    except Broken as error:
      self.count.broken.append((source.path, str(error)))
      return
    # A person of a camera is shown at once.
    alone = source.kind == "camera" or (
      self._boxes.costly and self._following.detect_every > 1
    )
    follow = _Follower(self._following, self._estimator)
    try:
      find = functools.partial(self._find, source, follow)
      frames = (find(frame) for frame in opened)
      for chunk in _chunks(frames, 1 if alone else _FRAMES):
        written = self._predict(chunk, opened.rate)
        yield [follow(item) for item in written]
    except Broken as error:
      self.count.broken.append((source.path, str(error)))
    finally:
      opened.close()

  def _find(self, source: Source, follow: "_Follower", frame: Frame) -> Found:
    boxes = follow.boxes() if self._boxes.costly else None
    if boxes is None:
      boxes = self._boxes(source, frame.image)
    return source, frame, boxes

  def _predict(
    self,
    chunk: list[Found],
    rate: float,
  ) -> list[Written]:
    """The people of a chunk."""
    found = self._estimator(
      [frame.image for _, frame, _ in chunk],
      [boxes[:, :4] for _, _, boxes in chunk],
    )
    return [
      self._item(source, frame, boxes[:, 4], poses, rate)
      for (source, frame, boxes), poses in zip(chunk, found, strict=True)
    ]

  def _item(
    self,
    source: Source,
    frame: Frame,
    box_scores: Float[np.ndarray, " n"],
    poses: Poses,
    rate: float,
  ) -> Written:
    """The people of a frame, to be written."""
    # The score of a detection is that of its box, too (reference 5.4).
    poses = dataclasses.replace(
      poses, person_scores=poses.person_scores * box_scores
    )
    if self._nms < 1:
      kept = self._estimator.distinct(poses, self._nms)
      self.count.doubles += len(poses) - len(kept)
      poses, box_scores = poses.select(kept), box_scores[kept]
    ids = np.full(len(poses), -1)
    number = self._image_id(source, frame)
    return Written(source, frame, poses, box_scores, ids, number, rate)

  def _image_id(self, source: Source, frame: Frame) -> int | str:
    if frame.number is None:
      return self._ids(source)
    return f"{source.name}#{frame.number}"

  def _write(self, items: list[Written]) -> None:
    for item in items:
      try:
        for writer in self._writers:
          writer.add(item)
      except OSError as error:  # A full disk; PyAV's errors are of it, too.
        raise InputError(
          f"cannot write the people of {item.source.name}: {one_line(error)};"
          " what was written before stays"
        ) from None
      self.count.frames += 1
      self.count.people += int(np.isfinite(item.poses.keypoints[:, 0, 0]).sum())
      self._progress(1)


class _Follower:
  """Ids, boxes and smooth keypoints from frame to frame."""

  def __init__(self, following: Following, estimator: Estimator):
    self._every = following.detect_every
    self._tracker = (
      tracks.Tracker(estimator.skeleton)
      if following.track or following.smooth
      else None
    )
    self._smoother = (
      Smoother(min_cutoff=following.smooth) if following.smooth else None
    )
    self._next: Float[np.ndarray, "n 5"] | None = None
    self._since = 0

  def boxes(self) -> Float[np.ndarray, "n 5"] | None:
    """From the last poses; None: it is time to look."""
    self._since += 1
    if self._next is None or not len(self._next) or self._since >= self._every:
      self._since = 0
      return None
    return self._next

  def __call__(self, item: Written) -> Written:
    """The people with their ids, smooth."""
    poses = item.poses
    if self._every > 1:
      boxes, kept = tracks.boxes_of(
        poses.keypoints, poses.scores, poses.skeleton
      )
      self._next = np.column_stack([boxes, item.box_scores[kept]])
    if self._tracker is None:
      return item
    ids = self._tracker.update(poses.keypoints, poses.scores, poses.boxes)
    if self._smoother:
      smooth = self._smoother(
        ids, poses.keypoints, poses.scores, item.frame.time or 0.0
      )
      poses = dataclasses.replace(poses, keypoints=smooth.astype(np.float32))
    return item._replace(poses=poses, ids=ids)


def _chunks(
  found: Iterable[Found],
  frames: int = _FRAMES,
) -> Iterator[list[Found]]:
  """Frames whose people fill a batch, in order; the last ones, too."""
  chunk: list[Found] = []
  people = 0
  try:
    for item in found:
      chunk.append(item)
      people += len(item[2])
      if people >= _PEOPLE or len(chunk) >= frames:
        yield chunk
        chunk, people = [], 0
  except Broken:
    # What was read before the damage is not lost.
    if chunk:
      yield chunk
    raise
  if chunk:
    yield chunk


def describe(count: Count) -> list[str]:
  """What was done, in lines.

  Args:
    count: of a run.
  """
  lines = [f"{count.frames} photos and frames, {count.people} people"]
  if count.doubles:
    lines.append(
      f"{count.doubles} poses left out as of the same people (--nms)"
    )
  lines += [f"not read: {path}: {one_line(why)}" for path, why in count.broken]
  return lines
