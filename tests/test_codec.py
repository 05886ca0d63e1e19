"""Heatmaps of keypoints and back, against the original (reference 4.6, 5.1-3).

Also the training monitor, which reads maxima of heatmaps.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import fixtures
from tokenpose_jax import InputError, codec, geometry, sharding, skeletons
from tokenpose_jax.codec import Codec
from tokenpose_jax.metrics.accuracy import heatmap_accuracy

INPUT_HW, HEATMAP_HW = (256, 192), (64, 48)
CODEC = Codec(INPUT_HW, HEATMAP_HW)
encode = jax.jit(Codec.encode, static_argnums=0)
decode = jax.jit(codec.decode)
SIZES = [(INPUT_HW, HEATMAP_HW, 2.0), ((384, 288), (96, 72), 3.0)]


def codec_of(case) -> Codec:
  settings = case["settings"]
  return Codec(
    tuple(settings["image_size_wh"][::-1]),
    tuple(settings["heatmap_size_wh"][::-1]),
    settings["sigma"],
  )


def gauss(x, y, height=64, width=48, sigma=2.0, peak=1.0):
  """One map of a Gaussian."""
  across = np.exp(-((np.arange(width) - x) ** 2) / (2 * sigma**2))
  down = np.exp(-((np.arange(height) - y) ** 2) / (2 * sigma**2))
  return (peak * down[:, None] * across).astype(np.float32)


def decode_one(heatmap):
  points, scores = decode(jnp.asarray(heatmap)[None, None])
  return np.asarray(points[0, 0]), float(scores[0, 0])


# Targets.


@pytest.mark.parametrize("name", fixtures.case_names())
def test_joints_in_the_heatmap_are_the_originals(name):
  case = fixtures.case(name)
  crop = np.array(case["joints_in_crop"], np.float32)
  points = codec_of(case).to_heatmap(crop)
  labelled = np.array(case["joints_vis_out"]) > 0
  wanted = np.array(case["joints_in_heatmap"])
  np.testing.assert_allclose(
    np.asarray(points)[labelled], wanted[labelled], rtol=1e-6, atol=1e-3
  )


@pytest.mark.parametrize("name", fixtures.case_names())
def test_targets_are_the_originals(name):
  case = fixtures.case(name)
  with np.load(fixtures.PARITY / "data" / "targets.npz") as arrays:
    wanted = arrays[f"{name}/target"].astype(np.float32)
    wanted_weights = arrays[f"{name}/target_weight"][:, 0]
  targets, weights = encode(
    codec_of(case),
    jnp.asarray(case["joints_in_crop"], jnp.float32)[None],
    jnp.asarray(case["joints_vis_out"], jnp.float32)[None],
  )
  np.testing.assert_array_equal(weights[0], wanted_weights)
  assert np.abs(targets[0] - wanted).max() <= 1e-3
  np.testing.assert_allclose(
    targets[0].sum((-2, -1)), case["target_sum_per_joint"], atol=1e-3
  )
  np.testing.assert_allclose(
    targets[0].max((-2, -1)), case["target_max_per_joint"], atol=1e-4
  )


@pytest.mark.parametrize(("input_hw", "heatmap_hw", "sigma"), SIZES)
def test_to_crop_undoes_to_heatmap(input_hw, heatmap_hw, sigma):
  here = Codec(input_hw, heatmap_hw, sigma)
  points = fixtures.rng(0).uniform(-50, 400, (20, 2)).astype(np.float32)
  back = here.to_crop(here.to_heatmap(points))
  np.testing.assert_allclose(back, points, atol=1e-3)


def test_the_heatmap_is_not_the_crop_over_four():
  """Centers coincide; columns span from edge to edge."""
  points = np.array([[95.5, 127.5], [0.0, 127.5], [191.0, 127.5]], np.float32)
  there = CODEC.to_heatmap(points)
  np.testing.assert_allclose(there, [[23.5, 31.5], [0, 31.5], [47, 31.5]])


@pytest.mark.parametrize(
  ("center", "weight"),
  [
    # 3 sigma = 6; int() truncates towards zero (reference 4.6).
    ((-7.5, 30), 1),  # int(-7.5 + 7) = 0, not below 0
    ((-7.9, 30), 1),
    ((-8.1, 30), 0),
    ((53.9, 30), 1),  # int(53.9 - 6) = 47 < 48
    ((54.1, 30), 0),
    ((20, -7.9), 1),
    ((20, -8.1), 0),
    ((20, 69.9), 1),
    ((20, 70.1), 0),
  ],
)
def test_weight_is_lost_outside(center, weight):
  point = CODEC.to_crop(jnp.asarray(center, jnp.float32))
  targets, weights = encode(CODEC, point[None, None], jnp.ones((1, 1)))
  assert weights[0, 0] == weight
  wanted = gauss(*center) if weight else np.zeros(HEATMAP_HW)
  np.testing.assert_allclose(targets[0, 0], wanted, atol=1e-5)


def test_unlabeled_joints_have_an_empty_target():
  point = jnp.full((1, 2, 2), 90.0)
  targets, weights = encode(CODEC, point, jnp.array([[0.0, 1.0]]))
  np.testing.assert_array_equal(weights, [[0, 1]])
  assert not np.asarray(targets[0, 0]).any()
  # The tails are not cut off at 3 sigma.
  wanted = gauss(*CODEC.to_heatmap(point)[0, 1])
  near = wanted > 1e-12
  np.testing.assert_allclose(
    np.asarray(targets[0, 1])[near], wanted[near], rtol=1e-3
  )


# Decoding.


@pytest.fixture(scope="module", params=fixtures.eval_cases("decode"))
def decoding(request):
  facts, arrays = fixtures.eval_case("decode", request.param)
  for key in ("heatmaps", "heatmaps_flipped_input"):
    arrays[key] = jnp.asarray(arrays[key], jnp.float32)
  width, height = facts["config"]["heatmap_wh"]
  pairs = facts["config"]["flip_pairs"]
  order = np.arange(facts["config"]["joints"])
  for one, other in pairs:
    order[one], order[other] = other, one
  return arrays | {
    "facts": facts,
    "order": order,
    "input_hw": (4 * height, 4 * width),
    "heatmap_hw": (height, width),
  }


def to_image(points, arrays):
  """Heatmap pixels to image pixels."""
  input_hw = arrays["input_hw"]
  crop = Codec(input_hw, arrays["heatmap_hw"]).to_crop(points)
  return np.stack(
    [
      geometry.transform(
        geometry.invert(geometry.crop_affine(center, scale, 0.0, input_hw)),
        one,
      )
      for one, center, scale in zip(
        np.asarray(crop), arrays["center"], arrays["scale"], strict=True
      )
    ]
  )


def test_maxima_are_the_originals(decoding):
  points, values = codec.maxima(decoding["heatmaps"])
  np.testing.assert_array_equal(points, decoding["argmax_xy"])
  np.testing.assert_array_equal(values, decoding["maxvals"][..., 0])
  final = to_image(points.astype(jnp.float32), decoding)
  difference = np.abs(final - decoding["final_xy_no_postprocess"])
  assert difference.max() <= 0.01


def test_decoded_points_are_the_originals(decoding):
  points, scores = decode(decoding["heatmaps"])
  assert np.abs(points - decoding["refined_xy"]).max() <= 1e-3
  np.testing.assert_array_equal(scores, decoding["maxvals"][..., 0])
  final = to_image(points, decoding)
  assert np.abs(final - decoding["final_xy"]).max() <= 0.01


def test_flip_test_is_the_originals(decoding):
  flipped = codec.flip(decoding["heatmaps_flipped_input"], decoding["order"])
  np.testing.assert_array_equal(flipped[:1, :3], decoding["flip_back_first"])
  points, scores = decode((decoding["heatmaps"] + flipped) / 2)
  np.testing.assert_allclose(
    scores, decoding["averaged_maxvals"][..., 0], rtol=1e-6
  )
  final = to_image(points, decoding)
  assert np.abs(final - decoding["averaged_final_xy"]).max() <= 0.01


def test_flip_twice_is_nothing():
  heatmaps = fixtures.rng(0).random((2, 17, 8, 6)).astype(np.float32)
  order = skeletons.COCO_17.flip_permutation
  once = codec.flip(heatmaps, order)
  np.testing.assert_array_equal(once[:, 1], heatmaps[:, 2, :, ::-1])
  np.testing.assert_array_equal(once[:, 0], heatmaps[:, 0, :, ::-1])
  np.testing.assert_array_equal(codec.flip(once, order), heatmaps)


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


@pytest.mark.parametrize(("input_hw", "heatmap_hw", "sigma"), SIZES)
def test_encode_then_decode_returns_the_keypoints(input_hw, heatmap_hw, sigma):
  """Within 0.01 crop pixel, away from the border that the blur feels."""
  g = fixtures.rng(1)
  margin = (5 + 3 * sigma) * input_hw[0] / heatmap_hw[0]
  high = np.array(input_hw[::-1]) - margin
  points = g.uniform(margin, high, (4, 17, 2)).astype(np.float32)
  here = Codec(input_hw, heatmap_hw, sigma)
  targets, weights = encode(here, jnp.asarray(points), jnp.ones((4, 17)))
  assert np.asarray(weights).all()
  back, scores = here.decode(targets)
  assert np.abs(back - points).max() <= 0.01
  assert scores.min() > 0.9


# Decoding beside a plain loop that blurs whole maps.


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


def test_an_unknown_decoder_is_named():
  with pytest.raises(InputError, match=r"eval.decoder is 'sharp'; allowed: da"):
    codec.decode(jnp.zeros((1, 1, 8, 8)), "sharp")


@pytest.mark.parametrize(("input_hw", "heatmap_hw", "sigma"), SIZES)
def test_udp_encodes_and_decodes(input_hw, heatmap_hw, sigma):
  g = fixtures.rng(2)
  margin = 3 * sigma * input_hw[0] / heatmap_hw[0]
  high = np.array(input_hw[::-1]) - margin
  points = g.uniform(margin, high, (4, 17, 2)).astype(np.float32)
  here = Codec(input_hw, heatmap_hw, sigma, udp=True)
  targets, _ = here.encode(jnp.asarray(points), jnp.ones((4, 17)))
  back, _ = here.decode(targets, "udp")
  assert np.abs(back - points).max() <= 0.05
  # With the original implementation's coordinates it is off in y by up to half
  # a pixel: they must agree.
  other, _ = Codec(input_hw, heatmap_hw, sigma).decode(targets, "udp")
  assert 0.1 < np.abs(other - points).max() < 1


def test_udp_corners_lie_on_corners():
  corners = np.array([[0, 0], [191, 0], [191, 255], [0, 255]], np.float32)
  here = Codec(INPUT_HW, HEATMAP_HW, udp=True)
  there = here.to_heatmap(corners)
  wanted = [[0, 0], [47, 0], [47, 63], [0, 63]]
  np.testing.assert_allclose(there, wanted, atol=1e-5)
  back = here.to_crop(there)
  np.testing.assert_allclose(back, corners, atol=1e-4)


def test_shifted_flip_moves_one_pixel_right():
  heatmaps = fixtures.rng(0).random((2, 17, 8, 6)).astype(np.float32)
  order = skeletons.COCO_17.flip_permutation
  plain = np.asarray(codec.flip(heatmaps, order))
  moved = np.asarray(codec.flip(heatmaps, order, shift=True))
  np.testing.assert_array_equal(moved[..., 1:], plain[..., :-1])
  np.testing.assert_array_equal(moved[..., 0], plain[..., 0])


# The training monitor.


def test_accuracy_is_the_originals_on_square_maps(decoding):
  """There its swapped axes do not matter; ties aside it is the same."""
  flipped = codec.flip(decoding["heatmaps_flipped_input"], decoding["order"])
  height, width = decoding["heatmap_hw"]
  side = slice((height - width) // 2, (height + width) // 2)
  truth = decoding["heatmaps"][:, :, side]
  found = ((decoding["heatmaps"] + flipped) / 2)[:, :, side]
  wanted, weights = original_accuracy(np.asarray(found), np.asarray(truth))
  assert 0 < wanted < 1
  ours = heatmap_accuracy(found, truth, jnp.asarray(weights))
  np.testing.assert_allclose(ours, wanted, rtol=1e-6)


def test_accuracy_as_the_original_has_it(decoding):
  """reference 5.3, from which the module departs: our reading is right."""
  flipped = codec.flip(decoding["heatmaps_flipped_input"], decoding["order"])
  found = np.asarray((decoding["heatmaps"] + flipped) / 2)
  average, _ = original_accuracy(found, np.asarray(decoding["heatmaps"]))
  wanted = decoding["facts"]["accuracy_avg"]
  np.testing.assert_allclose(average, wanted, rtol=1e-6)


def original_accuracy(found, truth):
  """reference 5.3, axes swapped; also which joints count, as weights."""
  height, width = found.shape[-2:]

  def place(maps):
    index = maps.reshape(*maps.shape[:2], -1).argmax(-1)
    points = np.stack([index % width, index // width], -1)
    return np.where(maps.max((-2, -1))[..., None] > 0, points, 0)

  a, b = place(found), place(truth)
  counts = (b > 1).all(-1)
  distance = np.linalg.norm((a - b) / (np.array([height, width]) / 10), axis=-1)
  share = [
    (distance[c, k] < 0.5).mean() for k, c in enumerate(counts.T) if c.any()
  ]
  return np.mean(share), counts.astype(np.float32)


@pytest.mark.parametrize(
  ("dx", "dy", "right"),
  [
    (2, 0, 1),  # 2 / 4.8 < 0.5
    (3, 0, 0),  # 3 / 4.8
    (0, 3, 1),  # 3 / 6.4: the original says no, dividing by 4.8
    (0, 4, 0),  # 4 / 6.4
    (2, 2, 0),  # Euclidean
  ],
)
def test_accuracy_measures_x_by_the_width(dx, dy, right):
  truth = gauss(20, 30)[None, None]
  found = gauss(20 + dx, 30 + dy)[None, None]
  assert heatmap_accuracy(found, truth, jnp.ones((1, 1))) == right


def test_accuracy_averages_joints_that_are_labelled():
  near, far = gauss(20, 30), gauss(40, 10)
  truth = jnp.asarray(np.stack([[near] * 3] * 2))  # 2 people, 3 joints
  found = jnp.asarray(np.array([[near, near, far], [far, near, far]]))
  weights = jnp.ones((2, 3))
  got = heatmap_accuracy(found, truth, weights)
  np.testing.assert_allclose(got, (0.5 + 1 + 0) / 3, rtol=1e-6)
  got = heatmap_accuracy(found, truth, weights.at[:, 2].set(0))
  np.testing.assert_allclose(got, (0.5 + 1) / 2, rtol=1e-6)
  got = heatmap_accuracy(found, truth, weights.at[1, 0].set(0))
  np.testing.assert_allclose(got, (1 + 1 + 0) / 3, rtol=1e-6)
  assert heatmap_accuracy(found, truth, jnp.zeros((2, 3))) == 0
