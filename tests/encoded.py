"""Images as files hold them, some of them odd."""

import io
import struct
import zlib

import cv2
import numpy as np
import PIL.Image

from tests import fixtures


def chunk(kind: bytes, data: bytes) -> bytes:
  check = struct.pack(">I", zlib.crc32(kind + data))
  return struct.pack(">I", len(data)) + kind + data + check


def huge_png(width: int, height: int, depth: int = 1) -> bytes:
  """A small file of many black pixels."""
  rows = bytes(1 + width * depth // 8 + 1) * 64
  packer = zlib.compressobj(9)
  data = b"".join(packer.compress(rows) for _ in range(height // 64))
  head = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
  return (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", head)
    + chunk(b"IDAT", data + packer.flush())
    + chunk(b"IEND", b"")
  )


def claimed_png(width: int, height: int, *, text: int = 0) -> bytes:
  """A PNG of RGB with next to no pixels.

  Args:
    width: as its header says.
    height: likewise.
    text: letters of a compressed comment; 0: none.
  """
  head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
  comment = b"Comment\0\0" + zlib.compress(bytes(text))
  return (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", head)
    + (chunk(b"zTXt", comment) if text else b"")
    + chunk(b"IDAT", zlib.compress(bytes(64)))
    + chunk(b"IEND", b"")
  )


def claimed_jpeg(width: int, height: int) -> bytes:
  """A JPEG of a header and no pixels."""
  frame = struct.pack(">BHHB", 8, height, width, 3)
  frame += bytes((1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0))
  start = b"\xff\xd8\xff\xe0\x00\x10JFIF\0\1\1\0\0\1\0\1\0\0"
  return start + b"\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame


def saved(format_: str) -> bytes:
  """A smooth image of 40x30 pixels in a format of Pillow's."""
  buffer = io.BytesIO()
  image = PIL.Image.fromarray(fixtures.smooth_image(30, 40, (90, 120, 30)))
  image.save(buffer, format_)
  return buffer.getvalue()


def png16(factor: int) -> bytes:
  """The same as a PNG of 16 bits; 257 makes full use of them."""
  image = fixtures.smooth_image(30, 40, (90, 120, 30)).astype(np.uint16)
  return cv2.imencode(".png", image * factor)[1].tobytes()
