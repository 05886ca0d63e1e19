"""What a prediction leaves behind, written as it comes.

Whatever ends the command, what was written until then can be used:
results.json is whole JSON after every photo, a drawn video plays up to its last
second.
"""

import csv
import json
import os
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from tokenpose_jax import visualize
from tokenpose_jax.errors import InputError, one_line
from tokenpose_jax.models.doubt import Doubt
from tokenpose_jax.predict.estimator import Poses
from tokenpose_jax.predict.sources import Frame, Source
from tokenpose_jax.skeletons import Skeleton

RESULTS, TABLE, JSON, DRAWN = "results.json", "keypoints.csv", "json", "drawn"
KINDS = ("coco", "json", "csv", "drawn")


class Written(NamedTuple):
  """People of a frame, to be written.

  Attributes:
    source: of the frame.
    frame: with its pixels.
    poses: the people.
    box_scores: (N,) how sure their boxes are.
    ids: (N,) of the people through a video; -1: none.
    image_id: in COCO results.
    rate: frames a second of the video; 0: a photo.
  """

  source: Source
  frame: Frame
  poses: Poses
  box_scores: Float[np.ndarray, " n"]
  ids: Int[np.ndarray, " n"]
  image_id: int | str
  rate: float


@runtime_checkable
class Writer(Protocol):
  """One kind of output."""

  def add(self, item: Written) -> None:
    """Writes the people of a frame."""

  def close(self) -> None:
    """Finishes the files."""


def writers(
  kinds: Sequence[str],
  folder: str,
  skeleton: Skeleton,
  *,
  category_id: int = 1,
  min_score: float = 0.2,
) -> list[Writer]:
  """The writers of some kinds of output.

  Args:
    kinds: of `KINDS`.
    folder: that is there.
    skeleton: of the people.
    category_id: of the people in COCO results.
    min_score: keypoints below are not drawn.

  Raises:
    InputError: a file cannot be made.
  """
  try:
    made: dict[str, Any] = {
      "coco": lambda: Results(os.path.join(folder, RESULTS), category_id),
      "csv": lambda: Table(os.path.join(folder, TABLE), skeleton),
      "json": lambda: People(os.path.join(folder, JSON)),
      "drawn": lambda: Drawings(os.path.join(folder, DRAWN), min_score),
    }
    return [made[kind]() for kind in kinds]
  except OSError as error:
    raise InputError(f"cannot write to {folder}: {one_line(error)}") from None


class Results:
  """COCO results: one array, whole after every frame."""

  _END = b"\n]\n"

  def __init__(self, path: str, category_id: int):
    """Makes the file, with nobody in it."""
    self._category_id = category_id
    self._file = open(path, "wb")  # noqa: SIM115 - closed in `close`
    self._file.write(b"[" + self._END)
    self._file.flush()
    self._first = True

  def add(self, item: Written) -> None:
    """Writes the people of a frame."""
    text = ""
    found = item.poses.to_coco(item.image_id, self._category_id)
    kept = np.isfinite(item.poses.keypoints).all((1, 2))
    for result, track in zip(found, item.ids[kept].tolist(), strict=True):
      if track >= 0:
        result["track_id"] = track
      text += ("\n" if self._first else ",\n") + json.dumps(result)
      self._first = False
    if text:
      # One write, so that a kill finds the array before or after it.
      self._file.seek(-len(self._END), os.SEEK_END)
      self._file.write(text.encode() + self._END)
      self._file.flush()

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


class Table:
  """A row for every person."""

  def __init__(self, path: str, skeleton: Skeleton):
    """Makes the file, with its header."""
    self._file = open(path, "w", newline="")  # noqa: SIM115
    self._rows = csv.writer(self._file)
    header = ["image", "frame", "time", "person", "track", "score"]
    header += ["box_x", "box_y", "box_w", "box_h"]
    for name in skeleton.keypoints:
      header += [f"{name}_x", f"{name}_y", f"{name}_score"]
    self._rows.writerow(header)
    self._file.flush()

  def add(self, item: Written) -> None:
    """Writes the people of a frame; a keypoint that is NaN is empty."""
    frame, poses = item.frame, item.poses
    for n in range(len(poses)):
      flat = np.column_stack([poses.keypoints[n], poses.scores[n]]).ravel()
      cells = [
        *(item.source.name, frame.number, frame.time, n),
        int(item.ids[n]) if item.ids[n] >= 0 else None,
        *_rounded([poses.person_scores[n], *poses.boxes[n], *flat]),
      ]
      self._rows.writerow(["" if c is None else c for c in cells])
    self._file.flush()

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


class People:
  """Named keypoints: a file for each photo, a line for each frame."""

  def __init__(self, folder: str):
    """Makes the folder."""
    self._folder = folder
    self._lines: Any = None
    self._path = ""
    os.makedirs(folder)

  def add(self, item: Written) -> None:
    """Writes the people of a frame."""
    content = described(item)
    if item.frame.number is None:
      path = _below(self._folder, item.source.name, ".json")
      with open(f"{path}.partial", "w") as file:
        json.dump(content, file, indent=1)
      os.replace(f"{path}.partial", path)
      return
    path = _below(self._folder, item.source.name, ".jsonl")
    if path != self._path:
      self.close()
      self._path, self._lines = path, open(path, "w")  # noqa: SIM115
    self._lines.write(json.dumps(content) + "\n")
    self._lines.flush()

  def close(self) -> None:
    """Closes the file of a video."""
    if self._lines:
      self._lines.close()
      self._lines = None


def described(item: Written) -> dict[str, Any]:
  """The people of a frame, JSON types; a keypoint that is NaN is null.

  Args:
    item: the people.
  """
  poses = item.poses
  height, width, _ = item.frame.image.shape
  content: dict[str, Any] = {
    "image": item.source.name,
    "image_id": item.image_id,
    "width": width,
    "height": height,
  }
  if item.frame.number is not None:
    content |= {"frame": item.frame.number, "time": item.frame.time}
  people = []
  for n in range(len(poses)):
    numbers = np.column_stack([poses.keypoints[n], poses.scores[n]])
    named = {
      name: dict(zip(("x", "y", "score"), _rounded(row), strict=True))
      for name, row in zip(poses.skeleton.keypoints, numbers, strict=True)
    }
    for said in Doubt._fields if poses.doubt else ():
      values = _rounded(getattr(poses.doubt, said)[n])
      for one, value in zip(named.values(), values, strict=True):
        one[said] = value
    person: dict[str, Any] = {
      "box": _rounded(poses.boxes[n]),
      "score": _rounded([poses.person_scores[n]])[0],
      "keypoints": named,
    }
    if item.ids[n] >= 0:
      person["track"] = int(item.ids[n])
    people.append(person)
  return content | {"people": people}


class Drawings:
  """Photos as JPEG, videos as MP4, with the people on them."""

  def __init__(self, folder: str, min_score: float):
    """Makes the folder."""
    self._folder, self._min_score = folder, min_score
    self._video: _Video | None = None
    os.makedirs(folder)

  def add(self, item: Written) -> None:
    """Draws a frame."""
    image = item.poses.draw(item.frame.image, self._min_score)
    image = visualize.draw_ids(image, item.poses.boxes, item.ids)
    if item.frame.number is None:
      path = _below(self._folder, item.source.name, ".jpg")
      with open(path, "wb") as file:
        file.write(visualize.encode_jpeg(image, quality=92))
      return
    path = _below(self._folder, item.source.name, ".mp4")
    if self._video is None or self._video.path != path:
      self.close()
      self._video = _Video(path, image.shape, item.rate)
    self._video.add(image, item.frame.time or 0.0)

  def close(self) -> None:
    """Finishes the video."""
    if self._video:
      self._video.close()
      self._video = None


class _Video:
  """An MP4 that plays as far as it was written."""

  def __init__(self, path: str, shape: tuple[int, ...], rate: float):
    import av

    self.path, self._av = path, av
    # Fragments: no index at the end that a kill could keep from being written.
    self._container = av.open(
      path,
      "w",
      options={
        "movflags": "frag_keyframe+empty_moov+default_base_moof",
        "flush_packets": "1",
      },
    )
    exact = Fraction(rate).limit_denominator(1001)
    self._stream: Any = self._container.add_stream(
      # Frames that wait in the encoder are lost in a kill: few of them.
      "libx264",
      rate=exact,
      options={"rc-lookahead": "5"},
    )
    self._stream.height, self._stream.width = (side & ~1 for side in shape[:2])
    self._stream.pix_fmt = "yuv420p"
    self._stream.codec_context.gop_size = max(1, round(rate))
    self._stream.codec_context.max_b_frames = 0  # They would delay the start.
    # A thousandth of a second: videos of phones have no even rate.
    self._stream.codec_context.time_base = Fraction(1, 1000)
    self._last = -1

  def add(self, image: np.ndarray, time: float) -> None:
    image = np.ascontiguousarray(
      image[: self._stream.height, : self._stream.width]
    )
    frame = self._av.VideoFrame.from_ndarray(image, format="rgb24")
    self._last = max(self._last + 1, round(time * 1000))
    frame.pts, frame.time_base = self._last, Fraction(1, 1000)
    self._container.mux(self._stream.encode(frame))

  def close(self) -> None:
    self._container.mux(self._stream.encode())
    self._container.close()


def _below(folder: str, name: str, ending: str) -> str:
  """Where the output of a source is: its name, ending included, and ours.

  a.jpg and a.png of one folder stay apart.
  """
  path = os.path.join(folder, name + ending)
  if name.lower().endswith(ending):
    path = os.path.join(folder, name)
  os.makedirs(os.path.dirname(path), exist_ok=True)
  return path


def _rounded(values: Any) -> list[float | None]:
  """Numbers for text: thousandths; None for NaN."""
  return [
    round(float(v), 3) if np.isfinite(v) else None for v in np.asarray(values)
  ]
