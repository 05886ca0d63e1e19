"""From a heatmap's maximal pixel to the place of its peak between pixels.

DARK and UDP read the logarithm of the blurred map next to the maximum. Only
that neighborhood is blurred: 5 x 5 values, of 15 x 15 pixels. A constant
factor vanishes in the logarithm's derivatives, so that the rescaling to the
old maximum, which needs the whole blurred map, matters only where the
logarithm's floor cuts something off; only such maps are blurred as a whole.
"""

import contextlib
import contextvars
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from tokenpose_jax.arrays import AnyArray

# The original implementation blurs with 11 x 11 at both input sizes (reference
# 5.1, 6). The standard deviation that goes with it is 2.0.
BLUR_KERNEL = 11
_HALF = BLUR_KERNEL // 2
_SIGMA = 0.3 * ((BLUR_KERNEL - 1) * 0.5 - 1) + 0.8
_OFFSETS = np.arange(-_HALF, _HALF + 1)
_TAPS = np.exp(-(_OFFSETS**2) / (2 * _SIGMA**2))
_TAPS /= _TAPS.sum()

DARK_FLOOR = 1e-10  # of the logarithm (reference 5.1)
UDP_FLOOR = 1e-3

_REACH = 2  # the furthest neighbor that a derivative needs, pixels
_NEAR = np.arange(-_REACH, _REACH + 1)
# The neighbors that derivatives need: of 5 x 5, the thirteen in a diamond.
_NEEDED = np.add.outer(abs(_NEAR), abs(_NEAR)) <= _REACH


_LOOPS = contextvars.ContextVar("loops", default=True)


@contextlib.contextmanager
def without_loops() -> Iterator[None]:
  """What is traced inside blurs every map: no loop over those that need it.

  The same values, in programs that any runtime can read.
  """
  token = _LOOPS.set(False)
  try:
    yield
  finally:
    _LOOPS.reset(token)


def whole(
  heatmaps: Float[AnyArray, "b k h w"],
  points: Int[AnyArray, "b k 2"],
  scores: Float[AnyArray, "b k"],
) -> Float[AnyArray, "b k 2"]:
  """The maximal pixels themselves.

  Args:
    heatmaps: (B, K, h, w); play no part.
    points: (B, K, 2) the maximal pixels.
    scores: (B, K) their values; play no part.
  """
  del heatmaps, scores
  return points.astype(jnp.float32)


def quarter(
  heatmaps: Float[AnyArray, "b k h w"],
  points: Int[AnyArray, "b k 2"],
  scores: Float[AnyArray, "b k"],
) -> Float[AnyArray, "b k 2"]:
  """A quarter pixel towards the higher neighbor, on each axis.

  The rule of Newell et al. (ECCV 2016) and of HRNet: maxima in the outer
  pixel and its neighbor (x or y of 0 and 1, or the last one) stay whole, and
  so do maps without a positive value.

  Args:
    heatmaps: (B, K, h, w).
    points: (B, K, 2) the maximal pixels.
    scores: (B, K) their values.
  """
  height, width = heatmaps.shape[-2:]
  x, y = points[..., 0], points[..., 1]
  inside = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
  moved = inside & (scores > 0)
  flat = heatmaps.reshape(*heatmaps.shape[:2], -1)

  def at(dx: int, dy: int) -> Float[AnyArray, "b k"]:
    row = jnp.clip(y + dy, 0, height - 1)
    column = jnp.clip(x + dx, 0, width - 1)
    index = (row * width + column)[..., None]
    return jnp.take_along_axis(flat, index, -1)[..., 0]

  slope = jnp.stack([at(1, 0) - at(-1, 0), at(0, 1) - at(0, -1)], -1)
  return points + jnp.where(moved[..., None], 0.25 * jnp.sign(slope), 0.0)


def dark(
  heatmaps: Float[AnyArray, "b k h w"],
  points: Int[AnyArray, "b k 2"],
  scores: Float[AnyArray, "b k"],
) -> Float[AnyArray, "b k 2"]:
  """DARK (Zhang et al., CVPR 2020), as in the original code (reference 5.1).

  The logarithm of the blurred map is expanded to second order around the
  maximum, and the peak of that quadratic is returned. Maxima in the two outer
  pixels, and maps without a positive value, are not refined.

  Args:
    heatmaps: (B, K, h, w).
    points: (B, K, 2) the maximal pixels.
    scores: (B, K) their values.
  """
  height, width = heatmaps.shape[-2:]
  x, y = points[..., 0], points[..., 1]
  inside = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)
  refined = inside & (scores > 0)
  log = _log_neighbors(heatmaps, points, scores, refined, DARK_FLOOR)

  def at(dx: int, dy: int) -> Float[AnyArray, "b k"]:
    return log[..., _REACH + dy, _REACH + dx]

  gx = 0.5 * (at(1, 0) - at(-1, 0))
  gy = 0.5 * (at(0, 1) - at(0, -1))
  hxx = 0.25 * (at(2, 0) - 2 * at(0, 0) + at(-2, 0))
  hyy = 0.25 * (at(0, 2) - 2 * at(0, 0) + at(0, -2))
  hxy = 0.25 * (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1))
  return points + _newton(gx, gy, hxx, hyy, hxy, refined)


def udp(
  heatmaps: Float[AnyArray, "b k h w"],
  points: Int[AnyArray, "b k 2"],
  scores: Float[AnyArray, "b k"],
) -> Float[AnyArray, "b k 2"]:
  """UDP's variant of DARK (Huang et al., CVPR 2020), following its code.

  As `dark`, with second differences over one pixel, a floor of 1e-3 and the
  outermost pixels repeated beyond the border, so that maxima there are
  refined too.

  Args:
    heatmaps: (B, K, h, w).
    points: (B, K, 2) the maximal pixels.
    scores: (B, K) their values.
  """
  refined = scores > 0
  log = _log_neighbors(heatmaps, points, scores, refined, UDP_FLOOR)

  def at(dx: int, dy: int) -> Float[AnyArray, "b k"]:
    return log[..., _REACH + dy, _REACH + dx]

  eps = float(np.finfo(np.float32).eps)  # added to the Hessian's diagonal
  gx = 0.5 * (at(1, 0) - at(-1, 0))
  gy = 0.5 * (at(0, 1) - at(0, -1))
  hxx = at(1, 0) - 2 * at(0, 0) + at(-1, 0) + eps
  hyy = at(0, 1) - 2 * at(0, 0) + at(0, -1) + eps
  straight = at(1, 0) + at(0, 1) + at(-1, 0) + at(0, -1)
  hxy = 0.5 * (at(1, 1) + at(-1, -1) + 2 * at(0, 0) - straight)
  return points + _newton(gx, gy, hxx, hyy, hxy, refined)


def _newton(
  gx: Float[AnyArray, "b k"],
  gy: Float[AnyArray, "b k"],
  hxx: Float[AnyArray, "b k"],
  hyy: Float[AnyArray, "b k"],
  hxy: Float[AnyArray, "b k"],
  refined: Bool[AnyArray, "b k"],
) -> Float[AnyArray, "b k 2"]:
  """-H^-1 g; 0 where not refined or H is singular. The step is not clipped."""
  det = hxx * hyy - hxy * hxy
  refined = refined & (det != 0)
  det = jnp.where(refined, det, 1.0)
  step = jnp.stack([hxy * gy - hyy * gx, hxy * gx - hxx * gy], -1)
  return jnp.where(refined[..., None], step / det[..., None], 0.0)


def _log_neighbors(
  heatmaps: Float[AnyArray, "b k h w"],
  points: Int[AnyArray, "b k 2"],
  scores: Float[AnyArray, "b k"],
  refined: Bool[AnyArray, "b k"],
  floor: float,
) -> Float[AnyArray, "b k 5 5"]:
  """The logarithm of the blurred, rescaled maps about the maxima, [y, x].

  Neighbors outside a map are the nearest ones inside. Of use where `refined`.
  """
  near = _blurred_neighbors(heatmaps, points)
  # The blurred maximum is at most the old one, so rescaling only raises: what
  # is above the floor before stays so.
  low = (near < floor) & _NEEDED[None, None]
  cut = refined & low.any((-2, -1))
  peaks = _blurred_peaks(heatmaps, cut)
  # A negative peak (a lone spike among negative values) turns the signs, as
  # in the original implementation.
  scale = jnp.where(cut & (peaks != 0), scores / peaks, 1.0)
  return jnp.log(jnp.maximum(near * scale[..., None, None], floor))


def _blurred_neighbors(
  heatmaps: Float[AnyArray, "b k h w"], points: Int[AnyArray, "b k 2"]
) -> Float[AnyArray, "b k 5 5"]:
  """The blurred maps at the 5 x 5 pixels about each point, [y, x]."""
  height, width = heatmaps.shape[-2:]
  size = 2 * (_HALF + _REACH) + 1
  rows, columns = min(size, height), min(size, width)
  first = points - size // 2
  top = jnp.clip(first[..., 1], 0, height - rows)
  left = jnp.clip(first[..., 0], 0, width - columns)

  def cut(
    heatmap: Float[AnyArray, "h w"],
    top: Int[AnyArray, ""],
    left: Int[AnyArray, ""],
  ) -> Float[AnyArray, "r c"]:
    return jax.lax.dynamic_slice(heatmap, (top, left), (rows, columns))

  patches = jax.vmap(jax.vmap(cut))(heatmaps, top, left)
  down = _patch_taps(points[..., 1], top, rows, height)
  across = _patch_taps(points[..., 0], left, columns, width)
  # Sums over a middle axis, not matrix products: exact float32 on every device,
  # and measured to be faster for many products this small.
  half = (patches[..., None, :, :] * down[..., :, :, None]).sum(-2)
  across = jnp.swapaxes(across, -1, -2)
  return (half[..., :, :, None] * across[..., None, :, :]).sum(-2)


def _patch_taps(
  center: Int[AnyArray, "b k"],
  first: Int[AnyArray, "b k"],
  length: int,
  size: int,
) -> Float[AnyArray, "b k 5 p"]:
  """The blur's weights of a patch's pixels for each of the five neighbors.

  Args:
    center: (B, K) of the neighbors, on an axis.
    first: (B, K) of the patch's pixels, on that axis.
    length: of the patch, pixels.
    size: of the map, pixels; outside of it are zeros.
  """
  target = jnp.clip(center[..., None] + _NEAR[None, None], 0, size - 1)
  pixel = first[..., None] + np.arange(length)[None, None]
  distance = jnp.abs(pixel[..., None, :] - target[..., :, None])
  taps = jnp.asarray(_TAPS[_HALF:], jnp.float32)
  weight = taps[jnp.minimum(distance, _HALF)]
  return jnp.where(distance <= _HALF, weight, 0.0)


def _blurred_peaks(
  heatmaps: Float[AnyArray, "b k h w"], wanted: Bool[AnyArray, "b k"]
) -> Float[AnyArray, "b k"]:
  """The maxima of whole blurred maps, where wanted; elsewhere 1.

  One map per sample and iteration until none is left; usually zero iterations.
  """
  if not _LOOPS.get():
    maps = heatmaps.reshape(-1, *heatmaps.shape[2:])
    peaks = _blur(maps).max((-2, -1)).reshape(wanted.shape)
    return jnp.where(wanted, peaks, 1.0)
  numbers = np.arange(wanted.shape[1])[None]
  State = tuple[Bool[Array, "b k"], Float[Array, "b k"]]

  def blur_one(state: State) -> State:
    left, peaks = state
    k = left.argmax(-1)
    maps = jnp.take_along_axis(heatmaps, k[:, None, None, None], 1)[:, 0]
    chosen = (numbers == k[:, None]) & left
    highest = _blur(maps).max((-2, -1))[:, None]
    return left & ~chosen, jnp.where(chosen, highest, peaks)

  start = jnp.asarray(wanted), jnp.ones(wanted.shape, heatmaps.dtype)
  return jax.lax.while_loop(lambda state: state[0].any(), blur_one, start)[1]


def _blur(heatmaps: Float[AnyArray, "b h w"]) -> Float[AnyArray, "b h w"]:
  """Separable Gaussian blur, zeros outside: two small matrix products."""
  rows, columns = (_blur_matrix(size) for size in heatmaps.shape[-2:])
  # A reduced precision (TPU's default) would move sub-pixel maxima.
  precise = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
  return precise(precise(rows, heatmaps), columns.T)


def _blur_matrix(size: int) -> Float[np.ndarray, "s s"]:
  """The one-dimensional blur of `BLUR_KERNEL` as a banded matrix."""
  distance = abs(np.subtract.outer(np.arange(size), np.arange(size)))
  weight = _TAPS[_HALF:][np.minimum(distance, _HALF)]
  return np.where(distance <= _HALF, weight, 0.0).astype(np.float32)
