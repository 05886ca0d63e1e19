"""Photos of any form and turn, videos, and what inputs mean."""

import struct
import tracemalloc

import av
import numpy as np
import PIL.Image
import pytest

from tests import encoded
from tokenpose_jax import InputError
from tokenpose_jax.predict import sources

# Darker to the right and to the bottom: no turn of it is another.
RED = np.add.outer(np.arange(30) * 2, np.arange(20) * 5).astype(np.uint8) + 40
COLOR = np.stack([RED, 255 - RED, RED // 2], axis=-1)


def exif(turn: int) -> PIL.Image.Exif:
  made = PIL.Image.Exif()
  made[0x0112] = turn
  return made


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_photo_is_turned_as_its_exif_says(tmp_path, turn):
  # What the sensor saw, by EXIF's own definition of the eight.
  seen = {
    1: COLOR,
    2: COLOR[:, ::-1],
    3: COLOR[::-1, ::-1],
    4: COLOR[::-1],
    5: COLOR.swapaxes(0, 1),
    6: np.rot90(COLOR, 1),
    7: COLOR[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90(COLOR, -1),
  }[turn]
  image = PIL.Image.fromarray(np.ascontiguousarray(seen))
  image.save(tmp_path / "a.png", exif=exif(turn))
  np.testing.assert_array_equal(
    sources.read_photo(str(tmp_path / "a.png")), COLOR
  )


def saved(path, image, **options):
  image.save(path, **options)
  return sources.read_photo(str(path))


def test_photos_of_any_form(tmp_path):
  color, grey = PIL.Image.fromarray(COLOR), PIL.Image.fromarray(RED)
  as_grey = np.repeat(RED[..., None], 3, axis=-1)
  png = tmp_path / "a.png"
  np.testing.assert_array_equal(saved(png, color), COLOR)
  np.testing.assert_array_equal(saved(png, grey), as_grey)
  np.testing.assert_array_equal(saved(png, grey.convert("LA")), as_grey)
  seen_through = color.convert("RGBA")
  seen_through.putalpha(PIL.Image.fromarray(255 - RED))
  np.testing.assert_array_equal(saved(png, seen_through), COLOR)
  deep = PIL.Image.fromarray(RED.astype(np.uint16) * 256 + 7)
  np.testing.assert_array_equal(saved(png, deep), as_grey)
  np.testing.assert_array_equal(saved(tmp_path / "a.tiff", deep), as_grey)
  bits = saved(png, PIL.Image.fromarray(RED > 90))
  np.testing.assert_array_equal(np.unique(bits), [0, 255])
  few = color.quantize(200)
  palette = saved(png, few)
  np.testing.assert_array_equal(palette, np.asarray(few.convert("RGB")))
  assert np.abs(palette.astype(int) - COLOR).mean() < 4
  few.info["transparency"] = 3
  np.testing.assert_array_equal(saved(png, few, transparency=3), palette)
  print_colors = saved(tmp_path / "a.jpg", color.convert("CMYK"), quality=98)
  assert np.abs(print_colors.astype(int) - COLOR).mean() < 3
  moving = saved(
    tmp_path / "a.gif", few, save_all=True, append_images=[grey.convert("P")]
  )
  assert np.abs(moving.astype(int) - COLOR).mean() < 4


def test_photos_that_cannot_be_read(tmp_path, monkeypatch):
  color = PIL.Image.fromarray(COLOR)
  color.save(tmp_path / "whole.png")
  noise = np.random.default_rng(0).integers(0, 256, (90, 60, 3), np.uint8)
  PIL.Image.fromarray(noise).save(tmp_path / "cut.jpg")
  raw = (tmp_path / "cut.jpg").read_bytes()
  (tmp_path / "cut.jpg").write_bytes(raw[: len(raw) // 2])
  (tmp_path / "text.jpg").write_text("<html>")
  (tmp_path / "empty.jpg").write_bytes(b"")
  (tmp_path / "folder.jpg").mkdir()
  PIL.Image.fromarray(RED / np.float32(3)).save(tmp_path / "float.tiff")
  for name, says in (
    ("cut.jpg", "truncated"),
    ("text.jpg", "not an image"),
    ("empty.jpg", "not an image"),
    ("folder.jpg", "a folder, not a file"),
    ("float.tiff", "a fraction"),
    ("gone.jpg", "No such file"),
  ):
    with pytest.raises(sources.Broken, match=says) as error:
      sources.read_photo(str(tmp_path / name))
    assert "\n" not in str(error.value)
  monkeypatch.setattr(sources, "LARGEST", 500)
  with pytest.raises(sources.Broken, match="20 x 30 pixels, more than 500"):
    sources.read_photo(str(tmp_path / "whole.png"))


@pytest.mark.parametrize(
  ("name", "content", "says"),
  [
    ("a.png", encoded.claimed_png(100_000, 100_000), "exceeds limit"),
    ("a.jpg", encoded.claimed_jpeg(65_000, 65_000), "exceeds limit"),
    ("text.png", encoded.claimed_png(20, 30, text=2**24), "too large"),
    # A program, which Pillow would run.
    (
      "a.jpg",
      b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
      "not an im",
    ),
  ],
  ids=["png", "jpeg", "text", "eps"],
)
def test_photos_that_play_tricks(tmp_path, name, content, says):
  (tmp_path / name).write_bytes(content)
  tracemalloc.start()
  with pytest.raises(sources.Broken, match=says):
    sources.read_photo(str(tmp_path / name))
  assert tracemalloc.get_traced_memory()[1] < 2**24
  tracemalloc.stop()


def video(path, count=10, rate=25):
  """A square that moves to the right, of even sides."""
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=rate)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for n in range(count):
      image = np.zeros((48, 64, 3), np.uint8)
      image[4:12, 4 * n : 4 * n + 8] = 255
      frame = av.VideoFrame.from_ndarray(image, format="rgb24")
      container.mux(stream.encode(frame))
    container.mux(stream.encode())


def test_frames_of_a_video(tmp_path):
  video(tmp_path / "a.mp4", rate=20)
  opened = sources.Video(str(tmp_path / "a.mp4"))
  assert (opened.length, opened.rate) == (10, 20)
  frames = list(opened)
  opened.close()
  assert [f.number for f in frames] == list(range(10))
  np.testing.assert_allclose([f.time for f in frames], np.arange(10) / 20)
  for n, frame in enumerate(frames):
    assert frame.image.shape == (48, 64, 3)
    x = np.flatnonzero(frame.image[8, :, 1] > 128)
    assert abs(x.mean() - (4 * n + 3.5)) < 1


def test_a_video_of_a_phone_is_upright(tmp_path):
  path = tmp_path / "a.mp4"
  video(path)
  raw = path.read_bytes()
  one = 1 << 16
  as_it_is = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
  # The matrix of a track: shown turned clockwise by 90 degrees.
  turned = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
  assert raw.count(as_it_is) == 2  # of the movie and of its track
  first = raw.index(as_it_is)
  second = raw.index(as_it_is, first + 1)
  path.write_bytes(raw[:second] + turned + raw[second + len(turned) :])
  opened = sources.Video(str(path))
  frame = next(iter(opened))
  opened.close()
  assert frame.image.shape == (64, 48, 3)
  # From the upper left corner it comes to the upper right one.
  assert frame.image[4, 40, 1] > 128
  assert frame.image[4, 4, 1] < 50


def test_videos_that_cannot_be_read(tmp_path):
  (tmp_path / "text.mp4").write_text("text")
  with pytest.raises(sources.Broken, match="Invalid data"):
    sources.Video(str(tmp_path / "text.mp4"))
  with pytest.raises(sources.Broken, match="No such file"):
    sources.Video(str(tmp_path / "gone.mp4"))
  with av.open(str(tmp_path / "sound.mp4"), "w") as container:
    container.add_stream("aac", rate=8000)
  with pytest.raises(sources.Broken):
    sources.Video(str(tmp_path / "sound.mp4"))
  with pytest.raises(sources.Broken, match="no camera 77"):
    sources.Camera(77)


def test_a_list_of_videos_is_none(tmp_path):
  """A stranger's file does not have another one opened."""
  video(tmp_path / "mine.mp4")
  (tmp_path / "a.mp4").write_text("ffconcat version 1.0\nfile mine.mp4\n")
  with pytest.raises(sources.Broken, match=r"a\.mp4"):
    sources.Video(str(tmp_path / "a.mp4"))


def test_a_name_is_no_address(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  video(tmp_path / "mine.mp4")
  (tmp_path / "mine.mp4").rename("concat:a|b.mp4")
  opened = sources.Video("concat:a|b.mp4")
  assert len(list(opened)) == 10
  opened.close()


def test_frames_without_end_are_not_decoded(tmp_path, monkeypatch):
  video(tmp_path / "a.mp4")
  monkeypatch.setattr(sources, "LARGEST", 64 * 48 - 1)
  opened = sources.Video(str(tmp_path / "a.mp4"))
  with pytest.raises(sources.Broken, match="after 0 frames"):
    list(opened)
  opened.close()


def test_what_inputs_mean(tmp_path):
  for name in ("b/1.jpg", "b/2.PNG", "c/1.jpg", "b/notes.txt", "b/.x.jpg"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("")
  (tmp_path / "b" / "v.MOV").write_text("")

  def found(*inputs):
    listed, passed = sources.find([str(tmp_path / i) for i in inputs])
    return [(s.name, s.kind) for s in listed], passed

  all_of_b = [("1.jpg", "photo"), ("2.PNG", "photo"), ("v.MOV", "video")]
  assert found("b") == (all_of_b, [str(tmp_path / "b" / "notes.txt")])
  assert found("b", "b/1.jpg")[0] == all_of_b
  assert found("b/*.jpg")[0] == [("1.jpg", "photo")]
  # Of one name: told apart by their folders.
  assert found("*/1.jpg")[0] == [("b/1.jpg", "photo"), ("c/1.jpg", "photo")]
  for given in ("0", "/dev/video0"):
    camera = sources.Source("0", "camera0", "camera")
    assert sources.find([given])[0] == [camera]
  for given, says in (
    ("gone.jpg", "gone.jpg does not exist"),
    ("*.bmp", r"\*.bmp does not exist"),
  ):
    with pytest.raises(InputError, match=says):
      found(given)
  (tmp_path / "none").mkdir()
  with pytest.raises(InputError, match="no photo or video in"):
    found("none")
