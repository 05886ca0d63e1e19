"""The official names, against those that the original implementation wrote."""

import numpy as np
import pytest
from flax import traverse_util

from tests import fixtures
from tokenpose_jax import InputError, ModelConfig, network
from tokenpose_jax.convert import names


@pytest.mark.parametrize("stem", fixtures.model_stems())
def test_every_tensor_of_the_original_has_a_place(stem):
  fixture, _ = fixtures.load(stem)
  model = ModelConfig.of(fixtures.model_fields(fixture["config"]))
  ours = {
    names.official_name(model, path): int(np.prod(leaf.shape))
    for tree in network.abstract(model)
    for path, leaf in traverse_util.flatten_dict(tree, sep="/").items()
  }
  theirs = {
    entry["name"]: int(np.prod(entry["shape"]))
    for entry in fixture["state_dict"]
  }
  assert ours == theirs


def test_hrnet_has_a_witness_in_every_clone():
  stored = (fixtures.ROOT / "tests" / "parity").glob("model_*.json")
  backbones = {fixtures.backbone_of(path) for path in stored}
  assert {"none", "stem", "hrnet_w48"} <= backbones


def test_what_has_no_official_name_is_said(monkeypatch):
  model = ModelConfig()
  with pytest.raises(InputError, match="the parameter a/b has no PyTorch name"):
    names.official_name(model, "a/b")
  monkeypatch.delitem(names.PREFIXES, "stem")
  with pytest.raises(InputError, match="'stem' has no PyTorch names"):
    names.official_name(model, "keypoint_tokens")
