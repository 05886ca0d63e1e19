"""A video of two bright people on black, and an estimator that sees them.

Keypoints are the corners of a person, one after the other, so that their mean
is about the center.
"""

import av
import numpy as np

import tokenpose_jax as tp
from tokenpose_jax.skeletons import COCO_17

SIZE = (64, 96)  # height, width
_CORNERS = ((-1, -1), (-1, 1), (1, 1), (1, -1))


def frame(n: int) -> np.ndarray:
  """Two squares: one goes to the right, one stays below it."""
  image = np.zeros((*SIZE, 3), np.uint8)
  image[10:18, 4 + 2 * n : 12 + 2 * n] = 255
  image[44:52, 40:48] = 255
  return image


def centers(n: int) -> np.ndarray:
  """(2, 2) of the squares."""
  return np.array([[7.5 + 2 * n, 13.5], [43.5, 47.5]])


def video(path, count=20) -> str:
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=25)
    stream.height, stream.width = SIZE
    stream.pix_fmt = "yuv420p"
    for n in range(count):
      image = av.VideoFrame.from_ndarray(frame(n), format="rgb24")
      container.mux(stream.encode(image))
    container.mux(stream.encode())
  return str(path)


def find(image: np.ndarray) -> np.ndarray:
  """Boxes (N, 5) of the squares of a frame."""
  boxes = []
  for rows in (slice(0, 32), slice(32, 64)):
    y, x = np.nonzero(image[rows, :, 1] > 128)
    if len(x):
      center = x.mean(), y.mean() + rows.start
      boxes.append([center[0] - 6, center[1] - 8, 12, 16, 0.8])
  return np.array(boxes).reshape(-1, 5)


def estimator() -> tp.Estimator:
  def heatmaps(crops):
    grey = np.asarray(crops)[..., 1] / np.float32(255)
    small = grey.reshape(len(grey), 16, 4, 12, 4).mean((2, 4))
    y, x = np.mgrid[-8:8, -6:6] / np.float32(200)
    corners = [0.9 + side_y * y + side_x * x for side_y, side_x in _CORNERS]
    return np.stack([small * corners[k % 4] for k in range(17)], axis=1)

  return tp.Estimator(
    heatmaps,
    tp.Codec((64, 48), (16, 12)),
    COCO_17,
    flip_test=False,
    decoder="argmax",
  )
