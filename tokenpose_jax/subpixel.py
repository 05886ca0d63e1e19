"""From a heatmap's maximal pixel to the place of its peak between pixels.

DARK and UDP read the logarithm of the blurred map next to the maximum. Only
that neighbourhood is blurred: 5 x 5 values, of 15 x 15 pixels. A constant
factor vanishes in the logarithm's derivatives, so that the rescaling to the
old maximum, which needs the whole blurred map, matters only where the
logarithm's floor cuts something off; only such maps are blurred as a whole.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

# The original blurs with 11 x 11 at both input sizes (reference 5.1, 6). The
# deviation that goes with it is 2.0.
BLUR_KERNEL = 11
_HALF = BLUR_KERNEL // 2
_SIGMA = 0.3 * ((BLUR_KERNEL - 1) * 0.5 - 1) + 0.8
_OFFSETS = np.arange(-_HALF, _HALF + 1)
_TAPS = np.exp(-(_OFFSETS**2) / (2 * _SIGMA**2))
_TAPS /= _TAPS.sum()

DARK_FLOOR = 1e-10  # of the logarithm (reference 5.1)
UDP_FLOOR = 1e-3

_REACH = 2  # the furthest neighbour that a derivative needs, pixels
_NEAR = np.arange(-_REACH, _REACH + 1)
# The neighbours that derivatives need: of 5 x 5, the thirteen in a diamond.
_NEEDED = np.add.outer(abs(_NEAR), abs(_NEAR)) <= _REACH


def whole(
  heatmaps: Float[Array, "b k h w"],
  points: Int[Array, "b k 2"],
  scores: Float[Array, "b k"],
) -> Float[Array, "b k 2"]:
  """The maximal pixels themselves."""
  del heatmaps, scores
  return points.astype(jnp.float32)


def quarter(
  heatmaps: Float[Array, "b k h w"],
  points: Int[Array, "b k 2"],
  scores: Float[Array, "b k"],
) -> Float[Array, "b k 2"]:
  """A quarter pixel towards the higher neighbour, on each axis.

  The rule of Newell et al. (ECCV 2016) and of HRNet: maxima in the outer
  pixel and its neighbour (x or y of 0 and 1, or the last one) stay whole.
  """
  height, width = heatmaps.shape[-2:]
  x, y = points[..., 0], points[..., 1]
  inside = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
  moved = inside & (scores > 0)
  flat = heatmaps.reshape(*heatmaps.shape[:2], -1)

  def at(dx: int, dy: int) -> Float[Array, "b k"]:
    row = jnp.clip(y + dy, 0, height - 1)
    column = jnp.clip(x + dx, 0, width - 1)
    index = (row * width + column)[..., None]
    return jnp.take_along_axis(flat, index, -1)[..., 0]

  slope = jnp.stack([at(1, 0) - at(-1, 0), at(0, 1) - at(0, -1)], -1)
  return points + jnp.where(moved[..., None], 0.25 * jnp.sign(slope), 0.0)


def dark(
  heatmaps: Float[Array, "b k h w"],
  points: Int[Array, "b k 2"],
  scores: Float[Array, "b k"],
) -> Float[Array, "b k 2"]:
  """DARK (Zhang et al., CVPR 2020), as the original has it (reference 5.1).

  The logarithm of the blurred map is developed to second order about the
  maximum, and the maximum of that parabola taken. Maxima in the two outer
  pixels, and maps without a positive value, are not refined.

  Args:
    points: (B, K, 2) the maximal pixels; scores: (B, K) their values.
  """
  height, width = heatmaps.shape[-2:]
  x, y = points[..., 0], points[..., 1]
  inside = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)
  refined = inside & (scores > 0)
  log = _log_neighbours(heatmaps, points, scores, refined, DARK_FLOOR)

  def at(dx: int, dy: int) -> Float[Array, "b k"]:
    return log[..., _REACH + dy, _REACH + dx]

  gx = 0.5 * (at(1, 0) - at(-1, 0))
  gy = 0.5 * (at(0, 1) - at(0, -1))
  hxx = 0.25 * (at(2, 0) - 2 * at(0, 0) + at(-2, 0))
  hyy = 0.25 * (at(0, 2) - 2 * at(0, 0) + at(0, -2))
  hxy = 0.25 * (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1))
  return points + _newton(gx, gy, hxx, hyy, hxy, refined)


def udp(
  heatmaps: Float[Array, "b k h w"],
  points: Int[Array, "b k 2"],
  scores: Float[Array, "b k"],
) -> Float[Array, "b k 2"]:
  """UDP's form of it (Huang et al., CVPR 2020), as its authors' code has it.

  As `dark`, with second differences over one pixel, a floor of 1e-3 and the
  outermost pixels repeated beyond the border, so that maxima there are
  refined too.
  """
  refined = scores > 0
  log = _log_neighbours(heatmaps, points, scores, refined, UDP_FLOOR)

  def at(dx: int, dy: int) -> Float[Array, "b k"]:
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
  gx: Float[Array, "b k"],
  gy: Float[Array, "b k"],
  hxx: Float[Array, "b k"],
  hyy: Float[Array, "b k"],
  hxy: Float[Array, "b k"],
  refined: Bool[Array, "b k"],
) -> Float[Array, "b k 2"]:
  """-H^-1 g; 0 where not refined or H is singular. Not limited."""
  det = hxx * hyy - hxy * hxy
  refined = refined & (det != 0)
  det = jnp.where(refined, det, 1.0)
  step = jnp.stack([hxy * gy - hyy * gx, hxy * gx - hxx * gy], -1)
  return jnp.where(refined[..., None], step / det[..., None], 0.0)


def _log_neighbours(
  heatmaps: Float[Array, "b k h w"],
  points: Int[Array, "b k 2"],
  scores: Float[Array, "b k"],
  refined: Bool[Array, "b k"],
  floor: float,
) -> Float[Array, "b k 5 5"]:
  """The logarithm of the blurred, rescaled maps about the maxima, [y, x].

  Neighbours outside a map are the nearest ones inside. Of use where `refined`.
  """
  near = _blurred_neighbours(heatmaps, points)
  # The blurred maximum is at most the old one, so rescaling only raises: what
  # is above the floor before stays so.
  low = (near < floor) & _NEEDED[None, None]
  cut = refined & low.any((-2, -1))
  peaks = _blurred_peaks(heatmaps, cut)
  # A negative peak (a lone spike among negative values) turns the signs, as
  # in the original.
  scale = jnp.where(cut & (peaks != 0), scores / peaks, 1.0)
  return jnp.log(jnp.maximum(near * scale[..., None, None], floor))


def _blurred_neighbours(
  heatmaps: Float[Array, "b k h w"], points: Int[Array, "b k 2"]
) -> Float[Array, "b k 5 5"]:
  """The blurred maps at the 5 x 5 pixels about each point, [y, x]."""
  height, width = heatmaps.shape[-2:]
  size = 2 * (_HALF + _REACH) + 1
  rows, columns = min(size, height), min(size, width)
  first = points - size // 2
  top = jnp.clip(first[..., 1], 0, height - rows)
  left = jnp.clip(first[..., 0], 0, width - columns)

  def cut(heatmap, top, left):
    return jax.lax.dynamic_slice(heatmap, (top, left), (rows, columns))

  patches = jax.vmap(jax.vmap(cut))(heatmaps, top, left)
  down = _patch_taps(points[..., 1], top, rows, height)
  across = _patch_taps(points[..., 0], left, columns, width)
  # Sums over a middle axis, not matrix products: exact float32 on every device,
  # and measured quicker for so many so small ones.
  half = (patches[..., None, :, :] * down[..., :, :, None]).sum(-2)
  across = jnp.swapaxes(across, -1, -2)
  return (half[..., :, :, None] * across[..., None, :, :]).sum(-2)


def _patch_taps(
  center: Int[Array, "b k"], first: Int[Array, "b k"], length: int, size: int
) -> Float[Array, "b k 5 p"]:
  """The blur's weights of a patch's pixels for each of the five neighbours.

  Args:
    center: of the neighbours, first: of the patch's pixels, on an axis.
    length: of the patch, size: of the map. Outside of it are zeros.
  """
  target = jnp.clip(center[..., None] + _NEAR[None, None], 0, size - 1)
  pixel = first[..., None] + np.arange(length)[None, None]
  distance = jnp.abs(pixel[..., None, :] - target[..., :, None])
  taps = jnp.asarray(_TAPS[_HALF:], jnp.float32)
  weight = taps[jnp.minimum(distance, _HALF)]
  return jnp.where(distance <= _HALF, weight, 0.0)


def _blurred_peaks(
  heatmaps: Float[Array, "b k h w"], wanted: Bool[Array, "b k"]
) -> Float[Array, "b k"]:
  """The maxima of whole blurred maps, where wanted; elsewhere 1.

  One map of every sample at a time, as long as any is wanted: usually never.
  """
  numbers = np.arange(wanted.shape[1])[None]

  def blur_one(state):
    left, peaks = state
    k = left.argmax(-1)
    maps = jnp.take_along_axis(heatmaps, k[:, None, None, None], 1)[:, 0]
    chosen = (numbers == k[:, None]) & left
    highest = _blur(maps).max((-2, -1))[:, None]
    return left & ~chosen, jnp.where(chosen, highest, peaks)

  start = wanted, jnp.ones(wanted.shape, heatmaps.dtype)
  return jax.lax.while_loop(lambda state: state[0].any(), blur_one, start)[1]


def _blur(heatmaps: Float[Array, "b h w"]) -> Float[Array, "b h w"]:
  """Separable Gaussian blur, zeros outside: two small matrix products."""
  rows, columns = (_blur_matrix(size) for size in heatmaps.shape[-2:])
  return jnp.einsum(
    "yi,bij,xj->byx",
    rows,
    heatmaps,
    columns,
    # A reduced precision (TPU's default) would move sub-pixel maxima.
    precision=jax.lax.Precision.HIGHEST,
  )


def _blur_matrix(size: int) -> Float[np.ndarray, "s s"]:
  """The one-dimensional blur of `BLUR_KERNEL` as a banded matrix."""
  distance = abs(np.subtract.outer(np.arange(size), np.arange(size)))
  weight = _TAPS[_HALF:][np.minimum(distance, _HALF)]
  return np.where(distance <= _HALF, weight, 0.0).astype(np.float32)
