"""DARK on the device against the usual loop over keypoints: equal, and faster.

    python -m benchmarks.decoding

Heatmaps of 17 x 64 x 48 as a trained network makes them: a Gaussian each, some
of them faint, on a noisy ground, so that the logarithm's floor is hit in some.
The loop blurs each map with OpenCV and refines it with NumPy. Both in one
process, one after the other; what counts is the ratio.
"""

import time

import cv2
import jax
import numpy as np

from tokenpose_jax import codec

PEOPLE = 512
BATCHES = (32, 128, 512)
KERNEL = 11


def make_heatmaps(seed: int = 0) -> np.ndarray:
  """(PEOPLE, 17, 64, 48) float32."""
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[:64, :48]
  center = rng.uniform((1, 1), (46, 62), (PEOPLE, 17, 2))[..., None, None]
  peak = rng.choice([0.02, 0.3, 0.8, 1.0], (PEOPLE, 17, 1, 1))
  square = (x - center[:, :, 0]) ** 2 + (y - center[:, :, 1]) ** 2
  noise = rng.normal(0, 0.004, (PEOPLE, 17, 64, 48))
  return (peak * np.exp(-square / 8) + noise).astype(np.float32)


def loop_decode(heatmaps: np.ndarray) -> np.ndarray:
  """(N, K, 2): reference 5.1, one keypoint after the other."""
  points = np.zeros((*heatmaps.shape[:2], 2), np.float32)
  height, width = heatmaps.shape[2:]
  border = KERNEL // 2
  for person, maps in enumerate(heatmaps):
    for k, heatmap in enumerate(maps):
      y, x = divmod(int(heatmap.argmax()), width)
      peak = heatmap[y, x]
      if peak <= 0:
        continue
      points[person, k] = x, y
      padded = cv2.copyMakeBorder(heatmap, *[border] * 4, cv2.BORDER_CONSTANT)
      blurred = cv2.GaussianBlur(padded, (KERNEL, KERNEL), 0)
      m = blurred[border:-border, border:-border]
      m = np.log(np.maximum(m * (peak / m.max()), 1e-10))
      if 1 < x < width - 2 and 1 < y < height - 2:
        gradient = 0.5 * np.array(
          [m[y, x + 1] - m[y, x - 1], m[y + 1, x] - m[y - 1, x]]
        )
        xx = 0.25 * (m[y, x + 2] - 2 * m[y, x] + m[y, x - 2])
        yy = 0.25 * (m[y + 2, x] - 2 * m[y, x] + m[y - 2, x])
        xy = 0.25 * (
          m[y + 1, x + 1] - m[y - 1, x + 1] - m[y + 1, x - 1] + m[y - 1, x - 1]
        )
        hessian = np.array([[xx, xy], [xy, yy]])
        if xx * yy - xy**2 != 0:
          points[person, k] -= np.linalg.inv(hessian) @ gradient
  return points


def main() -> None:
  heatmaps = make_heatmaps()
  start = time.perf_counter()
  wanted = loop_decode(heatmaps)
  usual = PEOPLE / (time.perf_counter() - start)
  decode = jax.jit(lambda maps: codec.decode(maps)[0])
  print(f"DARK, 17 x 64 x 48 maps, {jax.devices()[0].device_kind}")
  print(f"{'':<26}{'people/s':>10}{'times':>8}  largest difference, pixels")
  print(f"{'loop, OpenCV and NumPy':<26}{usual:>10.0f}{'':>8}")
  worst = 0.0
  for size in BATCHES:
    placed = jax.device_put(heatmaps[:size])
    found = np.asarray(decode(placed))  # Also compiles.
    seconds = []
    for _ in range(20):
      start = time.perf_counter()
      decode(placed).block_until_ready()
      seconds.append(time.perf_counter() - start)
    rate = size / min(seconds)
    gap = float(np.abs(found - wanted[:size]).max())
    worst = max(worst, gap)
    name = f"jitted, batches of {size}"
    print(f"{name:<26}{rate:>10.0f}{rate / usual:>7.0f}x  {gap:.0e}")
  if worst > 1e-3:
    raise SystemExit("the outcomes differ")


if __name__ == "__main__":
  main()
