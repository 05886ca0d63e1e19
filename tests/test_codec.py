"""Heatmaps of keypoints and back, against the original (reference 4.6, 5.2)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import fixtures
from tests.heatmaps import HEATMAP_HW, INPUT_HW, decoding_case, gauss
from tokenpose_jax import InputError, codec, geometry, skeletons
from tokenpose_jax.codec import Codec

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
  return decoding_case(request.param)


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
