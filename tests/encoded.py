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
