"""Encoded images to crops, against the original's pixels (reference 4.4)."""

import zlib

import cv2
import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import decode
from input_pipeline.image_crops import ImageCropReader
from input_pipeline.store import ImageStore
from tests import fixtures
from tests.augment_cases import crop_of
from tokenpose_jax import crops, geometry

IDENTITY = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def encoded_image(name):
  return fixtures.require(fixtures.PARITY / "data/images" / name).read_bytes()


def decode_window(encoded, affine, output_hw):
  """What one crop reads of an image, and the window's corner."""
  size = decode.image_size(encoded)
  windows = geometry.source_window(affine[None], output_hw, np.array([size]))
  (found,) = decode.decode_windows([encoded], windows)
  if isinstance(found, Exception):
    raise found
  return found


def warp(image, corner, affine, output_hw):
  out = np.full((*output_hw, 3), 77, np.uint8)
  crops.warp(image, corner, affine, out)
  return out


def read(encoded, affine, output_hw):
  return warp(*decode_window(encoded, affine, output_hw), affine, output_hw)


class Store(ImageStore):
  """Images in memory."""

  def __init__(self, *images_):
    sizes = [decode.image_size(image) for image in images_]
    table = np.concatenate([np.zeros((len(sizes), 3), int), sizes], 1)
    names = [f"{number}.jpg" for number in range(len(images_))]
    super().__init__("/prepared", names, [], table)
    self.images = images_

  def read(self, number):
    return self.images[number]


def read_one(reader, number):
  pixels, readable = reader.read(np.array([number]), IDENTITY[None], (16, 12))
  return pixels[0], readable[0]


@pytest.mark.parametrize("name", fixtures.case_names())
def test_pixels_are_the_originals(name):
  case = fixtures.case(name)
  crop, _ = crop_of(case)
  output_hw = tuple(case["settings"]["image_size_wh"][::-1])
  ours = read(encoded_image(case["image"]), crop.affine, output_hw)
  png = fixtures.PARITY / "data" / case["crop_png"]
  wanted = cv2.imread(str(png))[..., ::-1]
  assert ours.dtype == np.uint8
  assert ours.shape == wanted.shape
  difference = np.abs(ours.astype(int) - wanted)
  assert difference.mean() <= 0.35
  assert difference.max() <= 6
  assert (difference > 2).mean() <= 0.01
  np.testing.assert_allclose(ours.mean((0, 1)), case["crop_mean_rgb"], atol=0.1)


def test_whole_images_decode_to_the_bit():
  for name, facts in fixtures.expected()["decoded_images"].items():
    size = tuple(facts["shape"][:2])
    image, corner = decode_window(encoded_image(name), IDENTITY, size)
    assert corner == (0, 0)
    assert list(image.shape) == facts["shape"]
    assert zlib.crc32(np.ascontiguousarray(image)) == facts["crc32_rgb"], name


@pytest.mark.parametrize("seed", range(6))
def test_a_window_gives_what_the_whole_image_gives(seed):
  g = fixtures.rng(seed)
  noise = g.integers(0, 256, (30, 40, 3)).astype(np.uint8)
  image = cv2.resize(noise, (400, 300), interpolation=cv2.INTER_CUBIC)
  encoded = fixtures.encode(image)
  affine = geometry.crop_affine(
    g.uniform(0, 300, 2), g.uniform(0.05, 0.7, 2), g.uniform(-90, 90), (64, 48)
  )
  if seed % 2:
    affine = geometry.compose(affine, geometry.mirror(400))
  whole = tf.io.decode_jpeg(encoded, dct_method="INTEGER_ACCURATE").numpy()
  window, _ = decode_window(encoded, affine, (64, 48))
  assert window.size < whole.size
  ours = read(encoded, affine, (64, 48)).astype(int)
  wanted = warp(whole, (0, 0), affine, (64, 48)).astype(int)
  assert wanted.any()
  assert np.abs(ours - wanted).max() <= 1  # the float32 of a shifted map


def test_pixels_outside_are_black():
  image = np.full((40, 60, 3), 200, np.uint8)
  affine = np.array([[1.0, 0, 10], [0, 1.0, 20]])
  for suffix in (".png", ".jpg"):
    crop = read(fixtures.encode(image, suffix), affine, (80, 90))
    assert (np.abs(crop[21:59, 11:69].astype(int) - 200) <= 2).all()
    crop[20:60, 10:70] = 0
    assert not crop.any()


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_crop_wholly_outside_is_black(suffix):
  encoded = fixtures.encode(np.full((40, 60, 3), 200, np.uint8), suffix)
  far = np.array([[1.0, 0, -1000], [0, 1.0, -1000]])
  crop = read(encoded, far, (32, 24))
  assert crop.shape == (32, 24, 3)
  assert not crop.any()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
@pytest.mark.parametrize("grey", [True, False])
def test_formats(suffix, grey):
  image = fixtures.smooth_image(40, 60, (200, 100, 50))
  if grey:
    image = image[..., 0]
  pixels = read(fixtures.encode(image, suffix), IDENTITY, (40, 60)).astype(int)
  wanted = image[..., None].repeat(3, -1) if grey else image
  assert np.abs(pixels - wanted).max() <= (6 if suffix == ".jpg" else 0)


def test_colors_are_rgb():
  red = np.zeros((16, 16, 3), np.uint8)
  red[..., 0] = 250
  for suffix in (".jpg", ".png"):
    pixels = read(fixtures.encode(red, suffix), IDENTITY, (16, 16))
    assert pixels[..., 0].min() > 240
    assert pixels[..., 1:].max() < 10


@pytest.mark.parametrize(
  "bad",
  [b"", b"no image at all", b"\xff\xd8", b"\xff\xd8\xff\xe0 cut"],
)
def test_bytes_that_are_no_image_raise(bad):
  with pytest.raises(tf.errors.InvalidArgumentError):
    read(bad, IDENTITY, (16, 16))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_half_an_image_raises(suffix):
  noise = fixtures.rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
  encoded = fixtures.encode(noise, suffix)
  with pytest.raises(tf.errors.InvalidArgumentError):
    read(encoded[: len(encoded) // 2], IDENTITY, (64, 64))


def test_reader_marks_a_bad_image_and_names_it_once(caplog):
  good = fixtures.encode(fixtures.smooth_image(40, 60, (200, 100, 50)))
  store = Store(good, b"bad", b"worse")
  reader = ImageCropReader(store, np.arange(3))
  for _ in range(3):
    pixels, readable = read_one(reader, 1)
    assert not readable
    assert pixels.shape == (16, 12, 3)
    assert pixels.dtype == np.uint8
    assert not pixels.any()
  (record,) = caplog.records
  assert "1.jpg" in record.getMessage()
  assert "it is not an image" in record.getMessage()
  assert "\n" not in record.getMessage()
  pixels, readable = read_one(reader, 0)
  assert readable
  assert pixels.min() > 0
  assert len(caplog.records) == 1
  read_one(reader, 2)
  assert [r.getMessage().count("2.jpg") for r in caplog.records] == [0, 1]


def test_warp_takes_the_windows_corner_into_account():
  image = fixtures.smooth_image(50, 70, (90, 120, 150))
  affine = np.array([[0.9, 0.1, -20], [-0.1, 0.9, -8]])
  whole = warp(image, (0, 0), affine, (16, 12))
  part = warp(image[8:45, 15:60], (15, 8), affine, (16, 12))
  assert whole.min() > 0
  assert np.abs(whole.astype(int) - part).max() <= 1
