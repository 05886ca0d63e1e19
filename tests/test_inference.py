"""From 8-bit crops to keypoints in the image, without a mesh."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tokenpose_jax as tp
from tests import tiny
from tokenpose_jax import crops, geometry, inference, network


@pytest.fixture(scope="module")
def predicted():
  """Settings, weights, a photo, its people and their crops."""
  model = tiny.model()
  weights = tp.init(model, seed=0, scheme="fan_in")
  photo = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
  boxes = np.array([[20.0, 30, 60, 90], [150, 50, 40, 100]])
  settings = inference.Settings(
    model,
    tp.Codec(model.input_hw, model.heatmap_hw),
    tuple(tp.skeletons.COCO_17.flip_permutation.tolist()),
  )
  return (
    settings,
    weights,
    photo,
    boxes,
    crops.crop_people(photo, boxes, model.input_hw),
  )


def test_is_the_composition_of_its_parts(predicted):
  settings, weights, _, _, (people, to_photo) = predicted
  run = jax.jit(inference.keypoints, static_argnums=0)
  found = run(settings, *weights, people, to_photo)
  assert found.image.shape == found.crop.shape == (2, 17, 2)
  for person in range(2):
    np.testing.assert_allclose(
      found.image[person],
      geometry.transform(to_photo[person], np.asarray(found.crop[person])),
      rtol=1e-5,
      atol=1e-3,
    )
  plain = dataclasses.replace(settings, flip_permutation=())
  heatmaps = network.apply(
    settings.model, *weights, network.normalize(jnp.asarray(people))
  )
  wanted, scores = settings.codec.decode(heatmaps)
  alone = run(plain, *weights, people, to_photo)
  np.testing.assert_allclose(alone.crop, wanted, rtol=1e-3, atol=2e-2)
  np.testing.assert_allclose(alone.scores, scores, rtol=1e-4)
  assert np.abs(np.asarray(alone.scores - found.scores)).max() > 1e-5


def test_a_mirrored_person_is_the_mirror_image(predicted):
  """With the flip test, exactly so: the average is symmetric."""
  settings, weights, _, _, (people, to_photo) = predicted
  settings = dataclasses.replace(settings, decoder="argmax")
  run = jax.jit(inference.keypoints, static_argnums=0)
  one = run(settings, *weights, people, to_photo)
  mirrored = np.ascontiguousarray(people[:, :, ::-1])
  other = run(settings, *weights, mirrored, to_photo)
  order = np.array(settings.flip_permutation)
  width = settings.model.input_hw[1]
  back = np.asarray(other.crop)[:, order] * [-1, 1] + [width - 1, 0]
  same = np.abs(back - one.crop).max(-1) < 1e-3
  assert same.mean() > 0.9  # ties between pixels may go either way
  np.testing.assert_allclose(
    np.asarray(other.scores)[:, order], one.scores, rtol=1e-5
  )


def test_crops_are_those_of_an_evaluation(predicted):
  _, _, photo, boxes, (people, to_photo) = predicted
  center, scale = geometry.box_to_center_scale(boxes, (64, 48))
  affine = geometry.crop_affine(center, scale, 0.0, (64, 48))
  np.testing.assert_allclose(
    to_photo, geometry.invert(affine), rtol=1e-5, atol=1e-4
  )
  wanted = np.zeros((64, 48, 3), np.uint8)
  crops.warp(photo, (0, 0), affine[1], wanted)
  np.testing.assert_array_equal(people[1], wanted)
