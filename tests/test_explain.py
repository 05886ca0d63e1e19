"""What explanations say, against the weights and tokens themselves."""

import dataclasses
import pathlib
import re

import jax
import numpy as np
import pytest

import tokenpose_jax as tp
from tests import by_hand, exporting, fixtures, moving, tiny
from tokenpose_jax import config as config_lib
from tokenpose_jax import convert, network, skeletons
from tokenpose_jax.explanation import constraints, evidence, occlusion, person
from tokenpose_jax.models.config import ModelConfig
from tokenpose_jax.predict.saved import Saved


def _inputs(model: ModelConfig, code, captured) -> list[np.ndarray]:
  """What each block's attention was given, (B, N, d)."""
  k = model.num_keypoints
  made = []
  last = captured["embed"]
  for s in range(model.stacks):
    for i in range(model.depth):
      x = np.float64(last)
      if i and model.position == "sine-full":
        x[:, k:] += code
      made.append(x)
      last = captured[f"block.{s}.{i}"]
  return made


@pytest.mark.parametrize(
  "stem", ["model_T", "model_S-v1", "model_L-D24-256x192"]
)
def test_evidence_is_what_weights_and_tokens_say(stem):
  fixture, arrays = fixtures.load(stem)
  model = ModelConfig.of(fixtures.model_fields(fixture["config"]))
  state = fixtures.state_dict(fixture, arrays["pos_embedding"])
  params, model_state = convert.import_torch(model, state)
  codec = config_lib.codec_with(model, {})
  crops = np.random.default_rng(0).integers(
    0, 256, (1, *model.input_hw, 3), np.uint8
  )

  @jax.jit
  def both(params, model_state, crops):
    found = evidence.look(
      params, model_state, crops, model=model, codec=codec, roll=True
    )
    images = network.normalize(crops)
    return found, network.apply(
      model, params, model_state, images, capture=True
    )

  found, (heatmaps, captured) = jax.device_get(both(params, model_state, crops))
  table = {**params, **model_state}["position_table"]
  blocks = [
    params["stacks"][str(s)][str(i)]
    for s in range(model.stacks)
    for i in range(model.depth)
  ]
  k, depth = model.num_keypoints, model.depth
  tokens = model.grid_hw[0] * model.grid_hw[1] + k
  layers = len(blocks)
  assert found.attention.shape == (layers, 1, model.heads, k, tokens)
  assert found.heatmaps.shape == (layers, 1, k, *model.heatmap_hw)
  np.testing.assert_allclose(found.attention.sum(-1), 1, atol=1e-5)
  np.testing.assert_allclose(found.rollout.sum(-1), 1, atol=1e-5)
  ended = []
  rolled = np.eye(tokens)
  for n, (block, x) in enumerate(
    zip(blocks, _inputs(model, np.asarray(table), captured), strict=True)
  ):
    weights = by_hand.attention(model, block, x)
    np.testing.assert_allclose(found.attention[n], weights[:, :, :k], atol=1e-5)
    rolled = (weights[0].mean(0) + np.eye(tokens)) / 2 @ rolled
    np.testing.assert_allclose(found.rollout[n, 0], rolled[:k], atol=1e-5)
    s, i = divmod(n, depth)
    own = np.float64(captured[f"block.{s}.{i}"][:, :k])
    joined = np.concatenate([*ended, *[own] * (model.stacks - s)], -1)
    wanted = by_hand.head(params, joined)
    limit = 1e-5 * max(1, np.abs(wanted).max())
    ours = found.heatmaps[n].reshape(wanted.shape)
    np.testing.assert_allclose(ours, wanted, atol=limit)
    if i == depth - 1:
      ended.append(own)
  np.testing.assert_allclose(found.heatmaps[-1], heatmaps, atol=2e-5)
  np.testing.assert_allclose(
    found.scores, found.heatmaps.max((-2, -1)), atol=1e-6
  )


def test_layers_and_patches():
  assert evidence.layer_names(tiny.model()) == ("1", "2")
  stacked = dataclasses.replace(tiny.model(), stacks=3)
  assert evidence.layer_names(stacked) == (
    *("1.1", "1.2", "2.1", "2.2", "3.1", "3.2"),
  )
  model = dataclasses.replace(tiny.model(), patch_hw=(8, 6))
  assert model.grid_hw == (2, 2)
  np.testing.assert_allclose(
    evidence.patch_centers(model),
    [[11.5, 15.5], [35.5, 15.5], [11.5, 47.5], [35.5, 47.5]],
  )


def test_a_keypoint_settles_after_it_was_away_for_the_last_time():
  x = np.array([[0, 0, 0, 0], [3, 9, 0, 3], [9, 0, 3, 3], [3, 3, 3, 3]], float)
  points = np.stack([x, np.zeros_like(x)], -1)
  # Of four keypoints: away in layer 2, in 2, in 1, in 0.
  found = evidence.settled(points, np.array(1.0))
  np.testing.assert_array_equal(found, [3, 3, 2, 1])
  np.testing.assert_array_equal(evidence.settled(points, np.array(99.0)), 0)


def test_kinds_of_constraints():
  skeleton = skeletons.Skeleton.from_dict(
    {
      "keypoints": ["left_hip", "right_hip", "left_knee", "nose"],
      "limbs": [[0, 1], [0, 2]],
      "flip_pairs": [[0, 1]],
    }
  )
  kinds = constraints.kinds(skeleton)
  names = [constraints.KINDS[kinds[0, j]] for j in (1, 2, 3)]
  assert names == ["mirror", "neighbor", "other"]
  assert (np.diag(kinds) == -1).all()
  np.testing.assert_array_equal(kinds, kinds.T)
  np.testing.assert_allclose(
    constraints.chance(kinds), [2 / 12, 2 / 12, 8 / 12]
  )
  attention = np.array(
    [[9, 1, 2, 0], [5, 9, 1, 0], [1, 2, 9, 3], [1, 2, 3, 9]], float
  )
  partners = constraints.top(attention, 1)
  np.testing.assert_array_equal(partners[:, 0], [2, 0, 3, 2])
  np.testing.assert_allclose(
    constraints.shares(partners, kinds), [1 / 4, 1 / 4, 2 / 4]
  )
  both = constraints.shares(constraints.top(attention, 2), kinds)
  # 0: 2 and 1, 1: 0 and 2, 2: 3 and 1, 3: 2 and 1.
  np.testing.assert_allclose(both, [2 / 8, 1 / 8, 5 / 8])


@pytest.mark.parametrize(("count", "other"), [(1, 0), (2, 1), (3, 1)])
def test_constraints_of_few_keypoints(count, other):
  """Nobody is a constraint of itself, however few there are."""
  names = [f"k{i}" for i in range(count)]
  skeleton = skeletons.Skeleton.from_dict({"keypoints": names})
  partners = constraints.top(np.eye(count), 2)
  assert partners.shape == (count, min(2, count - 1))
  assert (partners != np.arange(count)[:, None]).all()
  shares = constraints.shares(partners, constraints.kinds(skeleton))
  np.testing.assert_array_equal(shares, [0, 0, other])


def test_tokens_alike():
  tokens = np.array([[3.0, 4.0], [6.0, 8.0], [-4.0, 3.0]])
  found = constraints.similarity(tokens)
  np.testing.assert_allclose(
    found.cosine, [[1, 1, 0], [1, 1, 0], [0, 0, 1]], atol=1e-12
  )
  inner = tokens @ tokens.T
  np.testing.assert_allclose(
    found.inner, (inner - inner.min()) / (inner.max() - inner.min())
  )


def test_only_the_square_is_covered():
  # Another seed than the noise's.
  crop = np.random.default_rng(1).integers(0, 256, (24, 18, 3), np.uint8)
  centers = np.array([[5.0, 10.0], [0.0, 0.0], [-40.0, 3.0]])
  for cover in occlusion.COVERS:
    copies = occlusion.covered(crop, centers, 3, cover)
    changed = (copies != crop).any(-1)
    assert changed[0, 9:12, 4:7].all()
    assert changed[0].sum() == 9
    assert changed[1].sum() == 4  # the rest lies outside
    assert not changed[2].any()
    again = occlusion.covered(crop, centers, 3, cover)
    np.testing.assert_array_equal(copies, again)
  gray = occlusion.covered(crop, centers, 3)[0, 10, 5]
  np.testing.assert_array_equal(gray, [124, 116, 104])
  with pytest.raises(tp.InputError, match=r"cover.*gray, blur, noise"):
    occlusion.covered(crop, centers, 3, "black")


@pytest.fixture(scope="module")
def saved() -> Saved:
  model = tiny.model()
  return Saved(
    model,
    tp.init(model, 0, "fan_in"),
    config_lib.codec_with(model, {}),
    skeletons.COCO_17,
    {},
  )


def test_a_person_is_explained(saved):
  photo = np.ascontiguousarray(moving.frame(3))
  box = (2.0, 4.0, 30.0, 40.0)
  found = tp.explain(saved, photo, box)
  crop = person.Explainer(saved).crop(photo, np.array(box))[0]
  np.testing.assert_array_equal(found.crop, crop)
  heatmaps = tp.apply(saved.model, *saved.weights, tp.normalize(crop[None]))
  points, scores = saved.codec.decode(heatmaps)
  np.testing.assert_allclose(found.points, points[0], atol=1e-3)
  np.testing.assert_allclose(found.evidence.scores[-1], scores[0], atol=1e-6)
  # The large picture shows the same part of the photo.
  factor = found.picture.shape[0] // crop.shape[0]
  height, width = crop.shape[:2]
  assert found.picture.shape == (height * factor, width * factor, 3)
  pixels = found.picture.reshape(height, factor, width, factor, 3)
  small = pixels.mean((1, 3))
  assert np.abs(small - crop).mean() < 4
  places = found.places
  assert places.points.shape == (108, 17, 2)
  n = 40
  side = occlusion.size_of(crop)
  alone = occlusion.covered(crop, places.centers[n : n + 1], side)
  outcome = evidence.outcome(
    *saved.weights, alone, model=saved.model, codec=saved.codec
  )
  np.testing.assert_allclose(places.points[n], outcome.points[0], atol=1e-3)
  np.testing.assert_allclose(
    places.attention[:, n], outcome.attention[:, 0], atol=1e-5
  )
  np.testing.assert_allclose(found.joints.centers, found.points)
  assert found.joints.scores.shape == (17, 17)
  assert 40 / found.box_side == pytest.approx(found.crop_to_image[0, 0])


def test_weights_of_a_file_are_explained(tmp_path, saved):
  path = exporting.tiny_file(tmp_path)
  photo = np.ascontiguousarray(moving.frame(0))
  found = tp.explain(pathlib.Path(path), photo, probe=False)
  assert found.places is None
  assert found.evidence.attention.shape[1] == 8
  np.testing.assert_allclose(found.box, [0, 0, photo.shape[1], photo.shape[0]])


@pytest.mark.parametrize(
  ("photo", "box", "wanted"),
  [
    (np.zeros((4, 4), np.uint8), None, "photo: expected an array"),
    (np.zeros((4, 4, 3)), None, "photo: expected an array"),
    (np.zeros((4, 4, 3), np.uint8), (0, 0, 1), "box: expected four numbers"),
    (np.zeros((4, 4, 3), np.uint8), "0,0,1,1", "box: expected four numbers"),
    (np.zeros((4, 4, 3), np.uint8), (0, 0, 0, 1), "0,0,0,1 has no area"),
    (np.zeros((4, 4, 3), np.uint8), (9, 0, 1, 1), "outside of the photo"),
    (np.zeros((4, 4, 3), np.uint8), (0, 0, 1e300, 1), "a side of more than"),
  ],
)
def test_what_cannot_be_explained(saved, photo, box, wanted):
  with pytest.raises(tp.InputError, match=re.escape(wanted)):
    tp.explain(saved, photo, box)


def test_no_crop_of_nothing(saved):
  """A study crops people itself."""
  photo, box = np.zeros((4, 4, 3), np.uint8), np.array([9.0, 0, 1, 1])
  with pytest.raises(tp.InputError, match="outside of the photo"):
    person.Explainer(saved).crop(photo, box)
