"""What is known of an image before it is decoded."""

import numpy as np
import pytest

from configs import default
from input_pipeline import decode
from tests import fixtures
from tests.encoded import claimed_png, huge_png, png16, saved
from tokenpose_jax.errors import InputError


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_the_size_is_in_the_header(format_):
  encoded = saved(format_)
  assert decode.examine(encoded) == (30, 40, "")
  window = np.array([[0, 0, 30, 40]], np.int32)
  ((pixels, _),) = decode.decode_windows([encoded], window)
  assert pixels.shape == (30, 40, 3)


@pytest.mark.parametrize(
  ("encoded", "reason"),
  [
    (b"", "zero bytes"),
    (b"text", "not an image"),
    (saved("JPEG")[:40], "not an image, or cut off"),
    (saved("TIFF"), "it is TIFF: convert it"),
    (saved("ICO"), "it is ICO: convert it"),
    (huge_png(23_040, 23_040), "more than the 178,956,970 pixels"),
    (huge_png(13_504, 13_312), "more than the 178,956,970 pixels"),
    (claimed_png(30, 20, text=2**24), "Invalid PNG"),
    (png16(16), "16-bit PNG with values below 4096"),
    (png16(1), "16-bit PNG with values below 4096"),
  ],
)
def test_why_an_image_is_not_read(encoded, reason):
  found = decode.examine(encoded)
  assert found[:2] == (0, 0)
  assert reason in found.reason


def test_bright_16_bit_images_are_read():
  assert decode.examine(png16(257)) == (30, 40, "")


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_any_bytes(format_):
  """A size, or a reason: nothing else, whatever the bytes are."""
  encoded, rng = saved(format_), np.random.default_rng(0)
  for n in range(60):
    broken = bytearray(encoded[: rng.integers(1, len(encoded))])
    for place in rng.integers(0, len(broken), n % 4):
      broken[place] = rng.integers(256)
    height, width, reason = decode.examine(bytes(broken))
    assert bool(reason) == (height == 0) == (width == 0)


def test_of_large_images_only_the_window_is_kept(monkeypatch):
  encoded = saved("PNG")
  windows = np.array([[5, 7, 11, 13], [0, 0, 0, 0]], np.int32)
  (whole, corner), _ = decode.decode_windows([encoded] * 2, windows)
  assert (whole.shape, corner) == ((30, 40, 3), (0, 0))
  monkeypatch.setattr(decode, "MANY_VALUES", 3599)
  (part, corner), (none, _) = decode.decode_windows([encoded] * 2, windows)
  assert corner == (7, 5)
  np.testing.assert_array_equal(part, whole[5:16, 7:20])
  assert none.size == 0


def prepared(tmp_path, images):
  """A split of these images, and what was logged of it."""
  path = tmp_path / "data"
  fixtures.coco_folder(path, images, dict.fromkeys(images, (30, 40)))
  config = default.get_config()
  config.data.dir = str(path)
  config.data.prepared_dir = str(tmp_path / "prepared")
  return fixtures.prepare(config, "train")


def test_unreadable_images_are_said_at_the_start(tmp_path, caplog):
  images = {"a.jpg": saved("JPEG"), "b.jpg": saved("TIFF"), "c.jpg": b""}
  split = prepared(tmp_path, images)
  assert split.store.sizes.tolist() == [[30, 40], [0, 0], [0, 0]]
  assert "b.jpg, its people are skipped: it is TIFF" in caplog.text
  assert "c.jpg, its people are skipped: it has zero bytes" in caplog.text


def test_images_that_are_cut_off_are_said_at_the_start(tmp_path, caplog):
  images = {"a.jpg": saved("JPEG"), "b.jpg": saved("JPEG")[:-9]}
  split = prepared(tmp_path, images)
  assert split.store.sizes.tolist() == [[30, 40], [30, 40]]
  assert "1 of 2 images are cut off" in caplog.text


def test_a_repaired_image_is_read_anew(tmp_path):
  """Not "is 40x30 pixels" for ever."""
  images = {"a.png": saved("PNG"), "b.png": saved("PNG")}
  turned = fixtures.encode(fixtures.smooth_image(40, 30, (9, 9, 9)), ".png")
  with pytest.raises(InputError, match=r"b\.png is 30x40 .*annotated as 40x30"):
    prepared(tmp_path, {**images, "b.png": turned})
  split = prepared(tmp_path, images)
  assert split.store.sizes.tolist() == [[30, 40], [30, 40]]
  assert split.store.read(1) == images["b.png"]


def test_no_image_that_can_be_read(tmp_path):
  images = {"a.jpg": saved("TIFF"), "b.jpg": saved("TIFF")}
  with pytest.raises(InputError, match=r"none of the 2 images .* is TIFF"):
    prepared(tmp_path, images)


def test_no_image_that_is_whole(tmp_path):
  images = {"a.jpg": saved("JPEG")[:-9], "b.jpg": b""}
  with pytest.raises(InputError, match=r"none of the 2 images .* is cut off"):
    prepared(tmp_path, images)


def test_unreadable_images_are_counted(tmp_path, caplog):
  images = {f"{n}.jpg": b"text" for n in range(12)} | {"a.jpg": saved("JPEG")}
  prepared(tmp_path, images)
  assert caplog.text.count("cannot read the image") == 10
  assert "12 of 13 images cannot be read" in caplog.text
