"""What the first bytes of an image file say: its format and its size.

Nothing is decoded, and no bytes raise an error.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

JPEG = b"\xff\xd8"  # its first marker
_PNG = b"\x89PNG\r\n\x1a\n"
_END_OF_JPEG = b"\xff\xd9"
# Those with a length; before them may be fill bytes, or garbage.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])", re.DOTALL)
_SEGMENTS = 10_000  # before the frame header of a JPEG, at most
# Frame headers of baseline, extended and progressive Huffman coding.
_USUAL_FRAMES = (0xC0, 0xC1, 0xC2)
_NO_FRAMES = (0xC4, 0xC8, 0xCC)  # tables among the frame headers' numbers
_END, _SCAN = 0xD9, 0xDA
_GIF_FRAME, _GIF_EXTENSION = b",", b"!"

# What else lies in image folders, by its first bytes: a name, and what to do.
_CONVERT = "convert it to JPEG or PNG"
_OTHERS: tuple[tuple[re.Pattern[bytes], str, str], ...] = tuple(
  (re.compile(start, re.DOTALL), name, advice)
  for start, name, advice in (
    (rb"II[*+]\x00|MM\x00[*+]", "TIFF", _CONVERT),
    (rb"....ftyp(hei|hev|mif1|msf1)", "HEIC", _CONVERT),
    (rb"....ftypavi", "AVIF", _CONVERT),
    (rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI ", "a video", "take its frames"),
    (rb"\x00{3}\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000", _CONVERT),
    (rb"\x00{3}\x0cJXL |\xff\x0a", "JPEG XL", _CONVERT),
    (rb"\x00\x00\x01\x00", "ICO", _CONVERT),
    (rb"P[1-7]\s", "PNM", _CONVERT),
    (rb"8BPS", "PSD", _CONVERT),
    (rb"\x76\x2f\x31\x01", "OpenEXR", _CONVERT),
    (rb".{128}DICM", "DICOM", _CONVERT),
    (rb"\x93NUMPY", "a NumPy array", _CONVERT),
    (rb"%PDF", "PDF", _CONVERT),
    (rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf", "an archive", "unpack it"),
    (rb"version https://git-lfs", "a Git LFS pointer", "run git lfs pull"),
    (rb"\s*<(?i:!doctype html|html)", "an HTML page", "download it again"),
    (rb"\s*<(\?xml|svg)", "SVG or XML", _CONVERT),
  )
)


class Header(NamedTuple):
  """What is known of an image before it is decoded.

  Attributes:
    format: "JPEG", "PNG", "GIF", "BMP", "WebP"; "" if it is none of them.
    height: pixels; 0 where the header does not say.
    width: likewise.
    bits: of a sample of a PNG or JPEG, else 8.
    usual: that every decoder reads the format's variant.
    start: where what comes before the pixels ends.
  """

  format: str
  height: int = 0
  width: int = 0
  bits: int = 8
  usual: bool = True
  start: int = 0


def read(encoded: bytes) -> Header:
  """An image's header.

  Args:
    encoded: the image, or anything.
  """
  for start, read_format in _READERS:
    if start.match(encoded):
      return read_format(encoded)
  return Header("")


def what_else(encoded: bytes) -> str:
  """What bytes are that are no image which can be read, and what to do."""
  for start, name, advice in _OTHERS:
    if start.match(encoded):
      return f"it is {name}: {advice}"
  return "it is not an image"


def ends_early(encoded: bytes) -> bool:
  """Is a JPEG cut off? Its upper part can be read.

  Args:
    encoded: an image of any format.
  """
  if not encoded.startswith(JPEG):
    return False
  # Not before the frame: an embedded thumbnail has an end of its own.
  return encoded.rfind(_END_OF_JPEG, read(encoded).start) < 0


def pixels_of_gif(encoded: bytes) -> int:
  """Pixels of all frames of a GIF, which a decoder may hold all at once.

  A frame may be larger than the image's header says.

  Args:
    encoded: a GIF, whole or not.
  """
  place, pixels = _after_colors(encoded, 10, 13), 0
  while (kind := encoded[place : place + 1]) in (_GIF_FRAME, _GIF_EXTENSION):
    place += 2
    if kind == _GIF_FRAME:
      width, height = (_little(encoded, place + n, 2) for n in (3, 5))
      pixels += width * height
      place = _after_colors(encoded, place + 7, place + 8) + 1
    while size := _little(encoded, place, 1):
      place += 1 + size
    place += 1
  return pixels


def _after_colors(encoded: bytes, flags: int, place: int) -> int:
  """Where a GIF goes on: after the table of colors that the flags tell of."""
  value = _little(encoded, flags, 1)
  return place + (3 << (value & 7) + 1 if value & 0x80 else 0)


def _jpeg(encoded: bytes) -> Header:
  place = len(JPEG)
  for _ in range(_SEGMENTS):
    found = _MARKER.search(encoded, place)
    if not found:
      break
    kind, place = found[1][0], found.end()
    length = _big(encoded, place, 2)
    if kind in (_END, _SCAN) or length < 2:
      break
    if 0xC0 <= kind <= 0xCF and kind not in _NO_FRAMES:
      bits, components = (
        _big(encoded, place + 2, 1),
        encoded[place + 7 : place + 8],
      )
      usual = kind in _USUAL_FRAMES and components in (b"\1", b"\3", b"\4")
      return Header(
        "JPEG",
        height=_big(encoded, place + 3, 2),
        width=_big(encoded, place + 5, 2),
        bits=bits,
        usual=usual and bits == 8,
        start=place,
      )
    place += length
  return Header("JPEG")


def _png(encoded: bytes) -> Header:
  if encoded[12:16] != b"IHDR":
    return Header("PNG")
  height, width = _big(encoded, 20, 4), _big(encoded, 16, 4)
  return Header("PNG", height, width, bits=_big(encoded, 24, 1))


def _gif(encoded: bytes) -> Header:
  return Header("GIF", _little(encoded, 8, 2), _little(encoded, 6, 2))


def _bmp(encoded: bytes) -> Header:
  if _little(encoded, 14, 4) == 12:  # OS/2's header
    return Header("BMP", _little(encoded, 20, 2), _little(encoded, 18, 2))
  height, width = (
    # Rows from the top have a negative height.
    abs(int.from_bytes(encoded[n : n + 4], "little", signed=True))
    for n in (22, 18)
  )
  return Header("BMP", height, width)


def _webp(encoded: bytes) -> Header:
  kind = encoded[12:16]
  if kind == b"VP8X":
    height, width = (1 + _little(encoded, n, 3) for n in (27, 24))
  elif kind == b"VP8L":
    bits = _little(encoded, 21, 4)
    height, width = 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
  else:
    height, width = (_little(encoded, n, 2) & 0x3FFF for n in (28, 26))
  # The sizes less one are of a header that is there.
  return Header("WebP", height, width) if len(encoded) >= 30 else Header("WebP")


_READERS: tuple[tuple[re.Pattern[bytes], Callable[[bytes], Header]], ...] = (
  (re.compile(re.escape(JPEG) + b"\xff"), _jpeg),
  (re.compile(re.escape(_PNG)), _png),
  (re.compile(rb"GIF8"), _gif),
  (re.compile(rb"BM"), _bmp),
  (re.compile(rb"RIFF....WEBP", re.DOTALL), _webp),
)


def _big(encoded: bytes, place: int, length: int) -> int:
  """A number, the highest byte first; 0 where the bytes end before."""
  part = encoded[place : place + length]
  return int.from_bytes(part, "big") if len(part) == length else 0


def _little(encoded: bytes, place: int, length: int) -> int:
  """A number, the lowest byte first; 0 where the bytes end before."""
  part = encoded[place : place + length]
  return int.from_bytes(part, "little") if len(part) == length else 0
