"""PyTorch's peers compute the same function with as many parameters."""

import functools

import jax
import numpy as np
import pytest

from tokenpose_jax import network
from tokenpose_jax.models.config import ModelConfig
from tokenpose_jax.models.published import PUBLISHED

torch = pytest.importorskip("torch", reason="no PyTorch to compare with")

from benchmarks import peer_weights, peers_torch  # noqa: E402


@pytest.mark.parametrize("name", peers_torch.SHAPES)
def test_peers_have_as_many_parameters(name):
  peer = peers_torch.build(peers_torch.SHAPES[name])
  params, _ = network.abstract(PUBLISHED[name])
  count = sum(p.numel() for p in peer.parameters())
  assert count == network.count_parameters(params)


# B is made of parts of S and L.
@pytest.mark.parametrize(
  "name", ["tokenpose_t", "tokenpose_s_v1", "tokenpose_l_d24"]
)
def test_peers_are_the_same_functions(name):
  model, shape = PUBLISHED[name], peers_torch.SHAPES[name]
  peer, weights, crops = _same(model, shape, 1)
  apply = jax.jit(functools.partial(network.apply, model))
  wanted = apply(*weights, network.normalize(crops))
  with torch.inference_mode():
    found = peer.eval()(_planes(crops)).numpy()
  assert found.std() > 0.01
  np.testing.assert_allclose(found, wanted, atol=2e-4 * found.std())


@pytest.mark.parametrize("backbone", ["pyramid", "lite0"])
def test_small_networks_are_the_same_function(backbone):
  """In training, where the patch head speaks and norms are of the batch."""
  model = ModelConfig(
    input_hw=(64, 96),
    heatmap_hw=(32, 48),
    backbone=backbone,
    stem_channels=8,
    dim=32,
    depth=3,
    heads=2,
    head_dim=48,
    position="learnable",
    patch_head=True,
  )
  shape = peers_torch.Shape(**peer_weights.shape_of(model))
  peer, weights, crops = _same(model, shape, 4)
  passes, _ = jax.jit(functools.partial(network.train_passes, model))(
    *weights, network.normalize(crops)
  )
  with torch.inference_mode():
    maps, patches = peer.train()(_planes(crops))
    apart = peer.eval()(_planes(crops))
  for found, wanted in zip(
    [maps, *patches], [passes[0].heatmaps, *passes[0].patches], strict=True
  ):
    assert found.std() > 0.01
    np.testing.assert_allclose(
      found.numpy(), wanted, atol=1e-3 * float(found.std())
    )
  assert len(patches) == 2
  assert apart.shape == maps.shape


def _same(model, shape, people: int) -> tuple:
  """A peer and ours with the same weights, and crops to show them."""
  rng = np.random.default_rng(0)
  # Larger than at a start, and norms that do something.
  weights = jax.tree.map(
    lambda leaf: (
      np.abs(leaf + 0.02 * rng.standard_normal(leaf.shape)).astype(leaf.dtype)
      if leaf.ndim == 1
      else leaf
    ),
    network.init(model, 0, "fan_in"),
  )
  peer = peers_torch.build(shape)
  missing, unknown = peer.load_state_dict(
    {
      name: torch.from_numpy(value)
      for name, value in peer_weights.state_of(model, weights).items()
    },
    strict=False,
  )
  of_sines = [] if shape.learned else ["position_table"]
  assert missing == of_sines
  assert unknown == []
  crops = rng.integers(0, 256, (people, *model.input_hw, 3)).astype(np.uint8)
  return peer, weights, crops


def _planes(crops):
  return torch.from_numpy(crops.transpose(0, 3, 1, 2).copy())


def test_a_training_step_of_a_peer_learns():
  shape = peers_torch.SHAPES["tokenpose_t"]
  small = peers_torch.Shape(
    "stem", shape.patch, 2, (1, 1), 0, input_hw=(64, 48), dim=16
  )
  options = {"compiled": False, "channels_last": True}
  step = peers_torch.create_step(small, "training", 2, **options)
  first, *_, last = [float(step()) for _ in range(20)]
  assert last < 0.9 * first


def test_a_wrong_number_of_parameters_is_an_error():
  shape = peers_torch.Shape("none", (16, 12), 16, (1,), 5_816_448)
  with pytest.raises(SystemExit, match="expected 5,816,448"):
    peers_torch.build(shape)


def test_convolutions_are_tried_in_both_orders():
  for name, count in (("tokenpose_t", 4), ("tokenpose_b", 5)):
    ways = peers_torch.variants(name)
    assert len({tuple(way.items()) for way in ways}) == len(ways) == count
  assert {way["channels_last"] for way in ways} == {False, True}
  start = peers_torch.contender(name, ways[-1])
  assert start["words"] == "compiled, allocator, channels last"
  assert {"--compiled", "--channels_last"} < set(start["command"])
  assert start["environment"]["MALLOC_MMAP_MAX_"] == "0"
