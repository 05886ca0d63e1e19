"""Photos, videos and cameras as frames: (H, W, 3) uint8, RGB."""

import glob
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from tokenpose_jax import file_kinds
from tokenpose_jax.errors import InputError, one_line

VIDEOS = (
  *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg"),
  *(".wmv", ".flv", ".ts", ".mts", ".3gp"),
)
PHOTOS = (
  *(".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".webp", ".tif", ".tiff"),
  *(".gif", ".ppm", ".pgm", ".jp2", ".avif"),
)
# As many as TensorFlow reads in a training, and Pillow at all.
LARGEST = 178_956_970  # pixels
# Pillow's names of what `PHOTOS` are. It knows formats that are programs (EPS),
# and looks into a file to find its format, whatever it is called.
_PHOTO_FORMATS = (
  *("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF"),
)
# FFmpeg's names of what `VIDEOS` are, for the same reason: it knows lists of
# other files and addresses.
_VIDEO_FORMATS = (
  "mov,mp4,m4a,3gp,3g2,mj2,m4v,matroska,webm,avi,mpeg,mpegvideo,mpegts,asf,flv"
)
_CAMERA = re.compile(r"(?:/dev/video)?(\d+)", re.ASCII)


class Frame(NamedTuple):
  """A photo, or a frame of a video.

  Attributes:
    image: (H, W, 3) RGB.
    number: of the frame in its video, from 0; None: a photo.
    time: of the frame in its video, seconds; None: a photo.
  """

  image: UInt8[np.ndarray, "h w 3"]
  number: int | None = None
  time: float | None = None


class Source(NamedTuple):
  """A file or a camera.

  Attributes:
    path: of the file; the number of a camera.
    name: in the output: the path below the folder that was given.
    kind: photo, video or camera.
  """

  path: str
  name: str
  kind: str


class Broken(Exception):
  """A file cannot be read; the others can."""


def find(inputs: Sequence[str]) -> tuple[list[Source], list[str]]:
  """What the inputs of a command mean.

  Args:
    inputs: files, folders, patterns, cameras: 0 or /dev/video0.

  Returns:
    the sources, each once, and the files of folders that are passed over
    because their ending is of no photo or video.

  Raises:
    InputError: an input is not there, or two sources have one name.
  """
  sources: dict[str, Source] = {}
  passed: list[str] = []
  for given in inputs:
    camera = _CAMERA.fullmatch(given)
    if camera and not (os.path.isfile(given) or os.path.isdir(given)):
      number = camera[1]
      sources[number] = Source(number, f"camera{number}", "camera")
    elif os.path.isdir(given):
      files = sorted(p for p in pathlib.Path(given).rglob("*") if p.is_file())
      for file in files:
        name = file.relative_to(given)
        if any(part.startswith(".") for part in name.parts):
          continue
        if file.suffix.lower() in (*VIDEOS, *PHOTOS):
          _add(sources, str(file), name.as_posix())
        else:
          passed.append(str(file))
    elif os.path.exists(given):
      _add(sources, given, os.path.basename(given))
    elif found := sorted(glob.glob(given, recursive=True)):
      for path in found:
        if not os.path.isdir(path):
          _add(sources, path, os.path.basename(path))
    else:
      raise InputError(f"the input {given} does not exist")
  if not sources:
    raise InputError(
      f"no photo or video in {' '.join(inputs)} ({len(passed)} other files)"
    )
  return _named(list(sources.values())), passed


def _add(sources: dict[str, Source], path: str, name: str) -> None:
  kind = "video" if pathlib.Path(path).suffix.lower() in VIDEOS else "photo"
  sources.setdefault(os.path.realpath(path), Source(path, name, kind))


def _named(sources: list[Source]) -> list[Source]:
  """Files of one name are told apart by their folders."""
  if len({source.name for source in sources}) == len(sources):
    return sources
  files = [s for s in sources if s.kind != "camera"]
  common = os.path.commonpath([os.path.abspath(s.path) for s in files])
  return [
    s
    if s.kind == "camera"
    else s._replace(
      name=pathlib.PurePath(
        os.path.relpath(os.path.abspath(s.path), common)
      ).as_posix()
    )
    for s in sources
  ]


def read_photo(path: str) -> UInt8[np.ndarray, "h w 3"]:
  """A photo as it is meant to be seen: turned as its EXIF says.

  Grey and palette images become RGB, CMYK is converted, transparency is
  dropped as in a training, and of 16 bits the upper 8 are kept. Of several
  frames it is the first.

  Args:
    path: of the file.

  Raises:
    Broken: it cannot be read; one line.
  """
  import PIL.Image
  import PIL.ImageOps

  try:
    file_kinds.check(path)
    with PIL.Image.open(path, formats=_PHOTO_FORMATS) as image:
      if image.width * image.height > LARGEST:
        raise Broken(
          f"{image.width} x {image.height} pixels, more than {LARGEST:,}"
        )
      return _rgb(PIL.ImageOps.exif_transpose(image))
  except Broken:
    raise
  except PIL.UnidentifiedImageError:
    raise Broken("not an image, or of a format that is not read") from None
  except Exception as error:  # Of many kinds, as many as there are formats.
    raise Broken(one_line(error, 200)) from None


def _rgb(image: Any) -> UInt8[np.ndarray, "h w 3"]:
  """An image of Pillow as an array."""
  if image.mode.startswith("I;16") or image.mode == "I":
    grey = np.asarray(image).astype(np.int64)
    if grey.min() < 0 or grey.max() > 65535:
      raise Broken(f"values from {grey.min()} to {grey.max()}, not of 16 bits")
    return np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=-1)
  if image.mode == "F":
    raise Broken("values with a fraction; save it with 8 or 16 bits")
  if "transparency" in image.info:
    image = image.convert("RGBA")
  return np.asarray(image.convert("RGB"))


class Video:
  """The frames of a video, in order."""

  def __init__(self, path: str):
    """Opens it.

    Args:
      path: of the file.

    Raises:
      Broken: it is no video.
      InputError: PyAV is not installed.
    """
    try:
      import av
    except ImportError:
      raise InputError(f"{path} needs PyAV: pip install av") from None
    self._error = av.error.FFmpegError
    try:
      file_kinds.check(path)
      # "file:", because a name may look like an address to FFmpeg, which looks
      # into the frames as it opens them.
      limits = {"max_pixels": str(LARGEST)}
      formats = {"format_whitelist": _VIDEO_FORMATS}
      self._container = av.open(f"file:{path}", options=formats | limits)
    except (self._error, OSError, ValueError) as error:
      raise Broken(one_line(error, 200)) from None
    if not self._container.streams.video:
      self._container.close()
      raise Broken("it has no pictures")
    self._stream = self._container.streams.video[0]
    self._stream.thread_type = "AUTO"
    self._stream.codec_context.options = limits
    rate = self._stream.average_rate or self._stream.guessed_rate
    self.rate = float(rate or 25)

  @property
  def length(self) -> int:
    """Frames, as far as the file says; 0: it does not."""
    if self._stream.frames:
      return self._stream.frames
    seconds = 0.0
    if self._stream.duration and self._stream.time_base:
      seconds = float(self._stream.duration * self._stream.time_base)
    elif self._container.duration:
      seconds = self._container.duration / 1e6
    return round(seconds * self.rate)

  def __iter__(self) -> Iterator[Frame]:
    """The frames.

    Raises:
      Broken: the file is damaged from here on.
    """
    number, turn = 0, None
    try:
      for frame in self._container.decode(self._stream):
        image: Any = frame.to_ndarray(format="rgb24")
        if turn is None:
          # As phones write it: counterclockwise, a multiple of 90.
          turn = round(frame.rotation / 90) % 4
        if turn:
          image = np.ascontiguousarray(np.rot90(image, turn))
        time = number / self.rate if frame.time is None else float(frame.time)
        yield Frame(image, number, time)
        number += 1
    except (self._error, OSError, ValueError) as error:
      raise Broken(f"after {number} frames: {one_line(error, 160)}") from None
    if not number:
      raise Broken("it has no frames")

  def close(self) -> None:
    """Closes the file."""
    self._container.close()


class Camera:
  """The frames of a camera, until it is stopped."""

  rate = 25.0
  length = 0

  def __init__(self, number: int):
    """Opens it.

    Args:
      number: of the camera, from 0.

    Raises:
      Broken: there is none.
    """
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(0)  # The reason is said below.
    self._capture = cv2.VideoCapture(number)
    cv2.utils.logging.setLogLevel(level)
    if not self._capture.isOpened():
      raise Broken(f"there is no camera {number}, or it is in use")

  def __iter__(self) -> Iterator[Frame]:
    """The frames, with the time since the first."""
    start, number = cv2.getTickCount(), 0
    while True:
      found, image = self._capture.read()
      if not found:
        return
      time = (cv2.getTickCount() - start) / cv2.getTickFrequency()
      yield Frame(np.ascontiguousarray(image[..., ::-1]), number, time)
      number += 1

  def close(self) -> None:
    """Gives the camera back."""
    self._capture.release()
