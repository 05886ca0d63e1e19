"""Formats and sizes from the first bytes of files, whatever these are."""

import io
import struct

import numpy as np
import PIL.Image
import pytest

from input_pipeline import decode, image_headers
from tests import fixtures
from tests.encoded import saved

JPEG = saved("JPEG")
SIZE_OF_JPEG = JPEG.index(b"\xff\xc0") + 4  # bits, height, width, components


def patched(place: int, *values: int) -> bytes:
  """The JPEG with other bytes from a place on."""
  return JPEG[:place] + bytes(values) + JPEG[place + len(values) :]


def with_thumbnail() -> bytes:
  """A JPEG with another one, whole, in its EXIF block."""
  length = (len(JPEG) + 2).to_bytes(2, "big")
  return b"\xff\xd8\xff\xe1" + length + JPEG + JPEG[2:]


OTHERS = {
  "TIFF: convert": saved("TIFF"),
  "HEIC: convert": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
  "AVIF: convert": b"\0\0\0\x1cftypavif\0\0\0\0",
  "a video: take its frames": b"\0\0\0\x18ftypmp42\0\0\0\0",
  "JPEG 2000: convert": b"\0\0\0\x0cjP  \r\n\x87\n",
  "JPEG XL: convert": b"\xff\x0a\xfa\x1f",
  "PNM: convert": b"P6\n4 4\n255\n",
  "PDF: convert": b"%PDF-1.7",
  "DICOM: convert": bytes(128) + b"DICM",
  "an archive: unpack": b"PK\x03\x04",
  "a Git LFS pointer: run git": b"version https://git-lfs.github.com/spec/v1",
  "an HTML page: download": b"\n<!DOCTYPE html><title>404</title>",
  "SVG or XML: convert": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
  "not an image": b"text",
}


@pytest.mark.parametrize("said", OTHERS)
def test_what_else_a_file_is(said):
  height, width, reason = decode.examine(OTHERS[said])
  assert (height, width) == (0, 0)
  assert f"it is {said}" in reason
  assert "\n" not in reason


@pytest.mark.parametrize(
  ("encoded", "reason"),
  [
    # 16000 x 12000 and 65500 x 65500 pixels
    (patched(SIZE_OF_JPEG + 1, 0x2E, 0xE0, 0x3E, 0x80), "it is 16000x12000,"),
    (patched(SIZE_OF_JPEG + 1, 0xFF, 0xDC, 0xFF, 0xDC), "it is 65500x65500,"),
    (patched(SIZE_OF_JPEG + 1, 0, 0), "cut off in its header"),
    (patched(SIZE_OF_JPEG, 12), "unusual kind (12 bits"),
    (patched(SIZE_OF_JPEG - 3, 0xC3), "lossless"),
    (JPEG[: SIZE_OF_JPEG + 2], "cut off in its header"),
    (b"\xff\xd8" + b"\xff" * 100_000, "cut off in its header"),
    (b"\xff\xd8" + b"\xff\xe0\0\2" * 100_000 + JPEG[2:], "in its header"),
    (b"GIF89a\x98\x59\x98\x59\0\0\0", "it is 22936x22936, more than"),
    (b"BM" + bytes(16) + b"\x98\x59\0\0" * 2, "it is 22936x22936, more than"),
    (
      b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\xff\0\xff\xff\0",
      "it is 65536x65536, more than",
    ),
  ],
)
def test_headers_alone_refuse(encoded, reason):
  found = decode.examine(encoded)
  assert found[:2] == (0, 0)
  assert reason in found.reason
  assert decode.decode_whole(encoded) == found.reason


@pytest.mark.parametrize(
  "encoded",
  [
    JPEG[:2] + b"\xff" * 9 + JPEG[2:],  # fill bytes
    JPEG[:2] + b"\xff\xfe\0\x05abc" + JPEG[2:],  # a comment
    JPEG + b"trailing bytes",
    with_thumbnail(),
    patched(SIZE_OF_JPEG - 3, 0xC1),  # extended coding
  ],
)
def test_odd_jpegs_are_read(encoded):
  assert decode.examine(encoded) == (30, 40, "")
  assert decode.decode_whole(encoded).shape == (30, 40, 3)
  assert not image_headers.ends_early(encoded)


@pytest.mark.parametrize("encoded", [JPEG, with_thumbnail()])
def test_jpegs_that_end_early(encoded):
  assert image_headers.ends_early(encoded[:-2])
  assert image_headers.ends_early(encoded[: encoded.rindex(b"\xff\xda")])
  assert decode.examine(encoded[:-40]) == (30, 40, "")
  assert decode.decode_whole(encoded[:-40]) == "it is cut off"


@pytest.mark.parametrize("format_", ["PNG", "GIF", "BMP", "WEBP"])
def test_other_formats_that_end_early_are_not_read(format_):
  height, width, reason = decode.examine(saved(format_)[:-30])
  assert (height, width) == (0, 0)
  assert reason


def moving_gif(frames: int, size: int) -> bytes:
  """A GIF whose header says 4 x 4 pixels, whatever its frames have."""
  image = PIL.Image.new("P", (size, size))
  buffer = io.BytesIO()
  image.save(buffer, "GIF")
  one = buffer.getvalue()
  colors = 3 << (one[10] & 7) + 1 if one[10] & 0x80 else 0
  start, frame = one[: 13 + colors], one[13 + colors : -1]
  start = start[:6] + struct.pack("<HH", 4, 4) + start[10:]
  return start + frame * frames + b";"


@pytest.mark.parametrize(("frames", "size"), [(1, 5), (3, 9), (700, 60)])
def test_pixels_of_all_frames_of_a_gif(frames, size, monkeypatch):
  encoded = moving_gif(frames, size)
  total = frames * size**2
  assert image_headers.pixels_of_gif(encoded) == total
  assert decode.examine(encoded).reason == ""
  monkeypatch.setattr(decode, "MAX_PIXELS", total - 1)
  assert f"its frames have {total:,} pixels" in decode.examine(encoded).reason
  for end in range(0, len(encoded), 1 + len(encoded) // 500):
    assert image_headers.pixels_of_gif(encoded[:end]) <= total


def test_pixels_of_a_gif_of_others():
  """With comments and colors of their own."""
  first, *more = (
    PIL.Image.fromarray(fixtures.smooth_image(30, 40, (n, 120, 30)))
    for n in (90, 20, 200)
  )
  buffer = io.BytesIO()
  first.save(
    buffer, "GIF", save_all=True, append_images=more, comment=b"x" * 700
  )
  assert image_headers.pixels_of_gif(buffer.getvalue()) == 3 * 30 * 40


@pytest.mark.parametrize(
  ("mode", "options"),
  [
    ("RGB", {"lossless": True}),
    ("RGBA", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}),  # VP8X
  ],
)
def test_sizes_of_webp(mode, options):
  image = PIL.Image.fromarray(fixtures.smooth_image(30, 40, (90, 120, 30)))
  buffer = io.BytesIO()
  image.convert(mode).save(buffer, "WEBP", **options)
  assert image_headers.read(buffer.getvalue())[:3] == ("WebP", 30, 40)


def test_sixteen_bits_are_those_of_tensorflow():
  """The upper 8 of each sample."""
  image = np.arange(30 * 40, dtype=np.uint16).reshape(30, 40) * 50
  buffer = io.BytesIO()
  PIL.Image.fromarray(image).save(buffer, "PNG")
  pixels = decode.decode_whole(buffer.getvalue())
  np.testing.assert_array_equal(pixels[..., 1], image >> 8)
