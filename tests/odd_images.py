"""Images that are small on the disk and large in memory."""

import struct
import zlib


def png(height: int, width: int, *, text: int = 0) -> bytes:
  """A PNG of 8-bit RGB, as its header says, with next to no pixels.

  Args:
    height: in the header.
    width: in the header.
    text: letters of a compressed comment; 0: none.
  """
  chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))]
  if text:
    chunks.append((b"zTXt", b"Comment\0\0" + zlib.compress(bytes(text))))
  chunks += [(b"IDAT", zlib.compress(bytes(64))), (b"IEND", b"")]
  return b"\x89PNG\r\n\x1a\n" + b"".join(
    struct.pack(">I", len(content))
    + name
    + content
    + struct.pack(">I", zlib.crc32(name + content))
    for name, content in chunks
  )


def jpeg(height: int, width: int) -> bytes:
  """A JPEG of a header and no pixels."""
  frame = struct.pack(">BHHB", 8, height, width, 3)
  frame += bytes((1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0))
  start = b"\xff\xd8\xff\xe0\x00\x10JFIF\0\1\1\0\0\1\0\1\0\0"
  return start + b"\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame
