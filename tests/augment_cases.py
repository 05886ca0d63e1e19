"""Our crops of the people whom the fixtures hold."""

import dataclasses
import types

import numpy as np

from configs import default
from input_pipeline import augment
from input_pipeline.sampling import Draws
from tests import fixtures
from tokenpose_jax import geometry, skeletons


def draws_of(case):
  """The original's draws as ours; what it did not draw must not matter."""
  used = dict(map(tuple, case["draws_used_in_order"]))
  return dict(
    half_body=used.get("halfbody_uniform", 0.0),
    # A normal number < 0.5 is our uniform number < 0.6915.
    upper=0.0 if used.get("halfbody_normal", 0.0) < 0.5 else 0.99,
    scale=used["scale_normal"],
    rotate=used["rot_uniform"],
    rotation=used.get("rot_normal", 1.5),
    flip=used["flip_uniform"],
  )


def settings_of(case):
  """`config.augment` with the numbers of the case's dataset."""
  given, settings = case["settings"], default.get_config().augment
  settings.scale = given["scale_factor"]
  settings.rotation_degrees = float(given["rot_factor"])
  settings.half_body_probability = given["half_body_prob"]
  if case["dataset"] == "coco":  # The defaults are the original's for COCO.
    assert settings == default.get_config().augment
    assert settings.half_body_min_keypoints == given["half_body_min_visible"]
  return settings


def stacked(*draws):
  """Draws of several people, from the numbers of each by name."""
  names = [field.name for field in dataclasses.fields(Draws)]
  return Draws(**{n: np.array([draw[n] for draw in draws]) for n in names})


def plain_crops(center, scale, keypoints, visible, input_hw):
  """The crops of an evaluation: no augmentation."""
  affine = geometry.crop_affine(center, scale, 0.0, input_hw)
  points = np.where(
    visible[..., None] > 0, geometry.transform(affine, keypoints), 0
  )
  order = np.broadcast_to(np.arange(visible.shape[1]), visible.shape)
  return augment.Crops(affine, points.astype(np.float32), visible, order)


def first(crops):
  """The first of several crops, alone."""
  fields = dataclasses.fields(crops)
  return types.SimpleNamespace(
    **{field.name: getattr(crops, field.name)[0] for field in fields}
  )


def crop_of(case):
  """Our crop of a case, and the image's width."""
  center, scale = (
    np.array(case["record_center"]),
    np.array(case["record_scale"]),
  )
  if case["record_center_dtype"] == "float32":
    center, scale = center.astype(np.float32), scale.astype(np.float32)
  keypoints = np.array(case["record_joints_xy"], np.float64)
  visible = np.array(case["record_joints_vis"], np.float32)
  person = [v[None] for v in (center, scale, keypoints, visible)]
  input_hw = case["settings"]["image_size_wh"][::-1]
  width = fixtures.expected()["decoded_images"][case["image"]]["shape"][1]
  if case["mode"] == "eval":
    return first(plain_crops(*person, input_hw)), width
  crops = augment.augmented_crops(
    *person,
    input_hw=input_hw,
    image_width=np.array([width]),
    draws=stacked(draws_of(case)),
    settings=settings_of(case),
    skeleton={"coco": skeletons.COCO_17, "mpii": skeletons.MPII_16}[
      case["dataset"]
    ],
  )
  return first(crops), width
