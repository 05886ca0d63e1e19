"""Configs: what is checked, what is derived, and what older ones become."""

import dataclasses

import pytest
from ml_collections import ConfigDict

import configs
from configs import default
from tests import fixtures, tiny
from tokenpose_jax import InputError, ModelConfig, network, skeletons
from tokenpose_jax import config as config_lib
from tokenpose_jax.codec import Codec
from tokenpose_jax.models.config import BACKBONES
from tokenpose_jax.models.published import PUBLISHED

RECIPES = sorted(
  path.stem
  for path in (fixtures.ROOT / "configs").glob("*.py")
  if path.stem != "__init__"
)


def recipe(name: str) -> ConfigDict:
  module = __import__(f"{configs.__name__}.{name}", fromlist=["get_config"])
  return module.get_config()


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_sound(name):
  config = recipe(name)
  config_lib.check(config)
  skeleton = skeletons.get(config.data.skeleton)
  resolved = config_lib.resolve(config, skeleton)
  assert resolved.model.num_keypoints == skeleton.num_keypoints
  if name in PUBLISHED:
    assert ModelConfig.of(config.model) == PUBLISHED[name]


# reference 3, 4.5: batch, sigma, rotation, scale, half body.
COCO, MPII = (45.0, 0.35, 0.3), (30.0, 0.25, 0.0)
PUBLISHED_RECIPES = {
  "tokenpose_t": (128, 2.0, *COCO),
  "tokenpose_s_v1": (128, 2.0, *COCO),
  "tokenpose_s_v2": (48, 2.0, *COCO),
  "tokenpose_b": (128, 2.0, *COCO),
  "tokenpose_l_d6": (64, 2.0, *COCO),
  "tokenpose_l_d24": (64, 2.0, *COCO),
  "tokenpose_l_d24_384x288": (64, 3.0, *COCO),
  "tokenpose_l_d6_mpii": (64, 2.0, *MPII),
  "tokenpose_l_d24_mpii": (64, 2.0, *MPII),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes_are_those_of_the_original(name):
  config = recipe(name)
  optimizer, augment, judged = config.optim, config.augment, config.eval
  assert (
    config.train.batch_size,
    config.codec.sigma,
    augment.rotation_degrees,
    augment.scale,
    augment.half_body_probability,
  ) == PUBLISHED_RECIPES[name]
  assert (augment.flip_probability, augment.rotation_probability) == (0.5, 0.6)
  assert (config.train.epochs, optimizer.drop_epochs) == (300, (200, 260))
  assert (optimizer.learning_rate, optimizer.weight_decay) == (1e-3, 0.0)
  assert (optimizer.clip_norm, optimizer.warmup_epochs) == (0.0, 0.0)
  assert (config.train.ema, config.train.microbatches) == (0.0, 1)
  assert (judged.flip, judged.flip_shift) == (True, False)
  assert (judged.nms_threshold, judged.min_keypoint_score) == (0.9, 0.2)


def test_every_number_and_word_is_checked():
  """A field that nothing checks is one that was forgotten."""
  config = default.get_config()
  for section in ("augment", "optim", "train", "checkpoint", "eval"):
    for field, value in config[section].items():
      if isinstance(value, bool) or field == "boxes":
        continue
      broken = config.copy_and_resolve_references()
      bad = {str: "?", tuple: (0,)}.get(type(value), float("nan"))
      if type(value) is int:
        bad = -1
      with broken.unlocked(), broken.ignore_type():
        broken[section][field] = bad
      with pytest.raises(
        InputError, match=rf"^{section}\.{field} is "
      ) as error:
        config_lib.check(broken)
      assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("field", "value", "says"),
  [
    (
      "augment.scale",
      1.0,
      "augment.scale is 1.0; it must be at least 0 and be",
    ),
    ("augment.flip_probability", 1.5, "at least 0 and at most 1"),
    ("optim.learning_rate", 0.0, "must be above 0"),
    ("optim.drop_epochs", (3, 2), "epochs above 0, ascending"),
    ("optim.schedule", "linear", "'linear'; allowed: step, cosine"),
    ("optim.weight_decay", -0.1, "optim.weight_decay is -0.1; .* at least 0"),
    ("optim.clip_norm", float("nan"), "clip_norm is nan; .* at least 0"),
    ("optim.reference_batch", -1, "reference_batch is -1; .* at least 0"),
    ("train.ema", 1.0, "train.ema is 1.0; it must be at least 0 and below 1"),
    ("train.batch_norm", "local", "'local'; allowed: global, replica"),
    ("train.remat", "all", "'all'; allowed: none, blocks"),
    ("eval.weights", "best", "'best'; allowed: raw, ema"),
    ("train.microbatches", 0, "microbatches is 0; it must be at least 1"),
    ("train.microbatches", 3, r"batch_size is 128; .*microbatches, 3"),
    ("init.scheme", "zeros", "'zeros'; allowed: original, fan_in"),
    ("eval.nms_threshold", 1.1, "above 0 and at most 1"),
    ("eval.checkpoint", "newest", "allowed: best, latest or a step"),
    ("codec.sigma", 0.0, "codec.sigma is 0.0; it must be positive"),
    ("data.padding", -1.0, "data.padding is -1.0; it must be above 0"),
    ("model.input_hw", (256, 190), "multiples of 4"),
  ],
)
def test_a_bad_value_is_named_with_what_is_allowed(field, value, says):
  config = default.get_config()
  config.update_from_flattened_dict({field: value})
  with pytest.raises(InputError, match=says):
    config_lib.check(config)


def test_a_resolved_config_is_not_written_into():
  config = default.get_config()
  config.model.input_hw = (128, 96)
  resolved = config_lib.resolve(config, skeletons.MPII_16)
  assert resolved.model.heatmap_hw == (32, 24)
  assert resolved.model.num_keypoints == 16
  assert config.model.num_keypoints == 17
  assert config_lib.codec_of(config) == Codec((128, 96), (32, 24))
  with pytest.raises((AttributeError, TypeError)):
    resolved.seed = 3


def test_fields_of_format_0_are_found_under_their_new_names():
  old = {
    "seed": 3,
    "sigma": 2.5,
    "udp": True,
    "model": {"dim": 8, "init_backbone": "b.pth"},
    "train": {"init": "fan_in", "init_from": "", "steps": 5},
    "eval": {"keypoint_score": 0.3, "box_score": 0.1, "nms_oks": 0.8},
  }
  assert config_lib.upgrade(old) == {
    "seed": 3,
    "codec": {"sigma": 2.5, "udp": True},
    "init": {"backbone": "b.pth", "scheme": "fan_in", "weights": ""},
    "model": {"dim": 8},
    "train": {"steps": 5},
    "eval": {
      "min_keypoint_score": 0.3,
      "min_box_score": 0.1,
      "nms_threshold": 0.8,
    },
  }


def test_differences_are_data():
  one, other = {"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4}
  found = config_lib.differences(one, other)
  assert found == {"a.c": (2, 3), "d": (None, 4)}
  assert config_lib.lines(found) == ["a.c: 2 -> 3", "d: None -> 4"]


# ModelConfig.


def test_a_network_is_its_config():
  fields = PUBLISHED["tokenpose_b"].to_dict()
  assert ModelConfig.of(fields) == PUBLISHED["tokenpose_b"]
  assert len({PUBLISHED["tokenpose_b"], ModelConfig.of(fields)}) == 1
  del fields["mlp_ratio"]  # as in a checkpoint from before that field
  assert ModelConfig.of(fields) == PUBLISHED["tokenpose_b"]
  as_json = {**fields, "input_hw": [256, 192], "heatmap_hw": [64, 48]}
  assert ModelConfig.of(as_json) == PUBLISHED["tokenpose_b"]


@pytest.mark.parametrize(
  ("change", "says"),
  [
    ({"dept": 3}, "model.dept is not a field .* did you mean depth"),
    ({"dim": "192"}, "model.dim is '192'; it must be a whole number"),
    ({"dim": 192.0}, "model.dim is 192.0; it must be a whole number"),
    ({"backbone": 3}, "model.backbone is 3; it must be text"),
    ({"input_hw": 256}, "model.input_hw is 256; it must be .height, width."),
    ({"backbone": "hrnet_w32", "input_hw": (72, 48)}, "multiples of 16"),
  ],
)
def test_what_is_not_a_network_is_named(change, says):
  with pytest.raises(InputError, match=says):
    ModelConfig.of(change)


def test_every_backbone_has_a_builder():
  for name, facts in BACKBONES.items():
    sides = (8 * facts.multiple, 8 * facts.multiple)
    model = dataclasses.replace(
      tiny.model(),
      backbone=name,
      input_hw=sides,
      heatmap_hw=(),
      patch_hw=(1, 1),
    )
    module = network.abstract_module(model)
    assert (module.backbone is None) == (name == "none")


def test_a_name_is_no_network():
  with pytest.raises(InputError, match=r"got 'tokenpose_t'; .*tp.published"):
    ModelConfig.of("tokenpose_t")
