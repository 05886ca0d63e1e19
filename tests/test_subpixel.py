"""subpixel.py: each decoder, and all of them next to a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import fixtures
from tests.heatmaps import HEATMAP_HW, gauss
from tokenpose_jax import codec, sharding

decode = jax.jit(codec.decode)


def decode_one(heatmap):
  points, scores = decode(jnp.asarray(heatmap)[None, None])
  return np.asarray(points[0, 0]), float(scores[0, 0])


@pytest.mark.parametrize("value", [0.0, -0.3])
def test_a_map_without_a_positive_value_decodes_to_zero(value):
  heatmap = np.full(HEATMAP_HW, value - 1, np.float32)
  heatmap[30, 20] = value
  point, score = decode_one(heatmap)
  np.testing.assert_array_equal(point, [0, 0])
  assert score == np.float32(value)


@pytest.mark.parametrize("value", [0.0, 0.7, -0.7])
def test_a_constant_map_decodes_to_its_first_pixel(value):
  point, score = decode_one(np.full(HEATMAP_HW, value, np.float32))
  np.testing.assert_array_equal(point, [0, 0])
  assert score == np.float32(value)


def test_a_tie_goes_to_the_first_in_row_major_order():
  heatmap = np.zeros((1, 1, *HEATMAP_HW), np.float32)
  heatmap[0, 0, 40, 10] = heatmap[0, 0, 12, 30] = heatmap[0, 0, 12, 33] = 0.5
  points, values = codec.maxima(jnp.asarray(heatmap))
  np.testing.assert_array_equal(points, [[[30, 12]]])
  np.testing.assert_array_equal(values, [[0.5]])
  refined, _ = decode_one(heatmap[0, 0])
  assert np.abs(refined - [30, 12]).max() <= 3
  assert refined[0] > 30.5  # The blurred neighbour draws it to itself.


@pytest.mark.parametrize(
  ("x", "y", "refined"),
  [
    (1, 30, False),
    (46, 30, False),
    (20, 1, False),
    (20, 62, False),
    (2, 2, True),
    (45, 61, True),
  ],
)
def test_maxima_at_the_border_stay_whole(x, y, refined):
  """1 < x < w - 2 and 1 < y < h - 2."""
  inwards = (0.3 if x < 24 else -0.3, 0.3 if y < 32 else -0.3)
  heatmap = gauss(x + inwards[0], y + inwards[1])
  point, _ = decode_one(heatmap)
  assert (np.abs(point - [x, y]).max() > 1e-3) == refined


def test_scores_do_not_change_the_place():
  for peak in (1e-3, 1.0, 50.0):
    point, score = decode_one(gauss(20.3, 30.4, peak=peak))
    np.testing.assert_allclose(point, [20.3, 30.4], atol=2e-3)
    np.testing.assert_allclose(
      score, peak * np.exp(-(0.09 + 0.16) / 8), rtol=1e-5
    )


def test_decode_never_gives_a_number_that_is_none():
  g = fixtures.rng(5)
  maps = g.standard_normal((2, 17, *HEATMAP_HW)).astype(np.float32)
  maps[0, 0] = 0
  maps[0, 1] = -1
  maps[0, 2, 30, 20] = 1e30
  maps[0, 3] *= 1e-30
  maps[0, 4] = -5  # A lone spike among negatives: its blur is negative.
  maps[0, 4, 30, 20] = 1.0
  points, scores = decode(jnp.asarray(maps))
  assert np.isfinite(points).all()
  assert np.isfinite(scores).all()
  np.testing.assert_allclose(points[0, 4], [20, 30], atol=1)


def odd_maps():
  """Maps in which the logarithm's floor, the border and signs matter."""
  g = fixtures.rng(7)
  maps = g.standard_normal((4, 17, 24, 18)).astype(np.float32)
  maps[1] = 0.02 * maps[1] + np.stack(
    [gauss(*g.uniform(0, [17, 23]), 24, 18, 1.5) for _ in range(17)]
  )
  maps[2] = np.abs(maps[2]) ** 9  # lone peaks of very different heights
  maps[3] = np.stack(
    [gauss(*g.uniform(1, [16, 22]), 24, 18, 0.4) - 0.1 for _ in range(17)]
  )
  maps[3, 0] = -5
  maps[3, 0, 10, 8] = 1  # its blur is negative everywhere
  maps[3, 1] = -2
  maps[3, 2] = 0
  maps[3, 3] = 0.3
  maps[3, 4] = 0
  maps[3, 4, 11, 9] = 1e-12  # all of it under the floor
  return maps


def plain_decode(maps, decoder):
  """reference 5.1 and UDP, one map after the other, in float64."""
  height, width = maps.shape[-2:]
  taps = np.exp(-(np.arange(-5, 6) ** 2) / 8)
  taps /= taps.sum()
  points = np.zeros((*maps.shape[:2], 2))
  for index in np.ndindex(*maps.shape[:2]):
    heatmap = maps[index].astype(np.float64)
    y, x = divmod(int(maps[index].argmax()), width)
    if not heatmap[y, x] > 0:
      continue
    points[index] = x, y
    blurred = heatmap
    for axis in (0, 1):
      blurred = np.apply_along_axis(np.convolve, axis, blurred, taps, "same")
    blurred = blurred * heatmap[y, x] / blurred.max()
    floor = 1e-10 if decoder == "dark" else 1e-3
    pad = np.pad(np.log(np.maximum(blurred, floor)), 2, mode="edge")

    def at(dx, dy, pad=pad, x=x, y=y):
      return pad[y + dy + 2, x + dx + 2]

    g = [at(1, 0) - at(-1, 0), at(0, 1) - at(0, -1)]
    if decoder == "dark":
      if not (1 < x < width - 2 and 1 < y < height - 2):
        continue
      xx = (at(2, 0) - 2 * at(0, 0) + at(-2, 0)) / 4
      yy = (at(0, 2) - 2 * at(0, 0) + at(0, -2)) / 4
      xy = (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4
    else:
      eps = np.finfo(np.float32).eps
      xx = at(1, 0) - 2 * at(0, 0) + at(-1, 0) + eps
      yy = at(0, 1) - 2 * at(0, 0) + at(0, -1) + eps
      around = at(1, 0) + at(-1, 0) + at(0, 1) + at(0, -1)
      xy = (at(1, 1) + at(-1, -1) + 2 * at(0, 0) - around) / 2
    hessian = np.array([[xx, xy], [xy, yy]])
    if np.linalg.det(hessian) != 0:
      points[index] -= np.linalg.solve(hessian, np.array(g) / 2)
  return points


@pytest.mark.parametrize("decoder", ["dark", "udp"])
def test_decoding_equals_a_plain_loop(decoder):
  maps = odd_maps()
  found, _ = jax.jit(codec.decode, static_argnums=1)(maps, decoder)
  wanted = plain_decode(maps, decoder)
  # Nearly singular Hessians make far jumps that float32 cannot follow.
  whole = np.stack(np.divmod(maps.reshape(4, 17, -1).argmax(-1), 18)[::-1], -1)
  near = np.abs(wanted - whole).max(-1) < 20
  assert near.sum() > 55
  error = np.abs(np.asarray(found) - wanted)[near]
  assert error.max() <= 2e-3, error.max()


def test_maps_under_the_floor_are_rescaled_by_their_own_maxima():
  """A rare case, found again map by map; the maps around it stay as alone."""
  maps = np.stack(
    [
      [gauss(20, 30), gauss(9.3, 9.4, peak=1.5e-10), gauss(30.2, 40.4)],
      [gauss(20.4, 30.1), gauss(12, 12), gauss(9, 9)],
      [
        gauss(7.3, 9.4, peak=1.2e-10),
        gauss(9, 9),
        gauss(30.4, 9.3, peak=2e-10),
      ],
    ]
  )
  points, _ = decode(jnp.asarray(maps))
  # Blurred and not rescaled, those three are all under DARK's floor: flat.
  for place in ((0, 1), (2, 0), (2, 2)):
    assert np.abs(points[place] - np.round(points[place])).max() > 0.1
  wanted = plain_decode(maps, "dark")
  np.testing.assert_allclose(points, wanted, atol=2e-3)
  for index in np.ndindex(3, 3):
    alone, _ = decode_one(maps[index])
    np.testing.assert_allclose(points[index], alone, atol=1e-5)


def test_decoding_over_eight_devices_equals_one():
  maps = np.concatenate([odd_maps(), odd_maps()[::-1]])
  one, _ = decode(jnp.asarray(maps))
  mesh = sharding.create_mesh()
  split = jax.jit(codec.decode, in_shardings=sharding.by_batch(mesh))
  found, _ = split(jax.device_put(maps, sharding.by_batch(mesh)))
  np.testing.assert_allclose(found, one, rtol=1e-5, atol=1e-4)


def test_quarter_offset():
  maps = np.zeros((1, 6, *HEATMAP_HW), np.float32)
  for k, (x, y) in enumerate([(20, 30), (20, 30), (1, 30), (20, 62), (46, 2)]):
    maps[0, k, y, x] = 1
    maps[0, k, y, x - 1] = 0.5
    maps[0, k, y + 1, x] = 0.4
  maps[0, 1, 30, 21] = 0.6
  points, scores = codec.decode(jnp.asarray(maps), "quarter")
  wanted = [
    (19.75, 30.25),
    (20.25, 30.25),
    (1, 30),  # x of 1 and less stays whole, as in HRNet
    (19.75, 62.25),  # and y of h - 2 does not
    (45.75, 2.25),
    (0, 0),  # nothing positive
  ]
  np.testing.assert_allclose(points[0], wanted, atol=1e-6)
  np.testing.assert_array_equal(scores[0], [1, 1, 1, 1, 1, 0])


def test_argmax_is_the_whole_pixel():
  points, _ = codec.decode(jnp.asarray(gauss(20.4, 30.3))[None, None], "argmax")
  np.testing.assert_array_equal(points, [[[20, 30]]])
