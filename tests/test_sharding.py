"""sharding.py: the mesh, who loads what, arrays on the eight fake devices."""

import dataclasses

import jax
import numpy as np
import pytest

from tests import fixtures
from tokenpose_jax import InputError, sharding


@dataclasses.dataclass(frozen=True)
class Chip:
  """What JAX looks at of a chip that is not there."""

  id: int
  slice_index: int
  coords: tuple[int, int, int]
  core_on_chip: int = 0
  process_index: int = 0
  platform: str = "tpu"
  device_kind: str = "TPU v5 lite"


@pytest.mark.parametrize("count", [None, 1, 3, 8])
def test_the_mesh_has_one_axis_of_all_or_of_the_given_devices(count):
  devices = jax.devices()[:count]
  mesh = sharding.create_mesh(None if count is None else devices)
  assert mesh.axis_names == ("data",)
  assert mesh.devices.tolist() == devices
  assert len(jax.devices()) == 8


def test_chips_of_several_slices_stand_slice_by_slice():
  chips = [Chip(n, n % 2, (n // 2, 0, 0)) for n in range(8)]
  mesh = sharding.create_mesh(chips)
  assert mesh.shape == {"data": 8}
  assert [chip.slice_index for chip in mesh.devices] == [0] * 4 + [1] * 4


@pytest.mark.parametrize(("count", "batch"), [(1, 5), (8, 8), (8, 24), (4, 8)])
def test_a_process_alone_loads_every_slot(count, batch):
  mesh = sharding.create_mesh(jax.devices()[:count])
  slots = sharding.local_slots(mesh, batch, "train.batch_size")
  np.testing.assert_array_equal(slots, np.arange(batch))


@pytest.mark.parametrize("batch", [0, 8, 16])
def test_multiples_of_the_devices_divide(batch):
  slots = sharding.local_slots(sharding.create_mesh(), batch, "x")
  assert len(slots) == batch


@pytest.mark.parametrize("batch", [1, 7, 9, 12])
def test_a_batch_that_does_not_divide_is_named(batch):
  with pytest.raises(
    InputError, match=rf"eval\.batch_size is {batch};.* multiple .*, 8$"
  ):
    sharding.local_slots(sharding.create_mesh(), batch, "eval.batch_size")


def test_every_part_of_a_batch_divides():
  mesh = sharding.create_mesh()
  assert len(sharding.local_slots(mesh, 48, "train.batch_size", 3)) == 48
  with pytest.raises(
    InputError,
    match=r"batch_size is 40;.* train.microbatches, 3, times .* devices, 8$",
  ):
    sharding.local_slots(mesh, 40, "train.batch_size", 3)


def test_a_batch_is_split_over_its_first_axis():
  mesh = sharding.create_mesh()
  batch = {
    "image": fixtures.rng(0).integers(0, 256, (16, 4, 3, 3), np.uint8),
    "mask": np.arange(16, dtype=np.float32),
  }
  placed = sharding.put_batch(mesh, batch)
  assert placed.keys() == batch.keys()
  for name, value in batch.items():
    array = placed[name]
    assert array.dtype == value.dtype
    assert array.sharding == sharding.by_batch(mesh)
    np.testing.assert_array_equal(array, value)
    for shard in array.addressable_shards:
      assert len(shard.data) == 2
      np.testing.assert_array_equal(shard.data, value[shard.index])


def test_slots_are_those_that_the_devices_hold():
  """What a process loads, in that order, is what `put_batch` gives them."""
  mesh = sharding.create_mesh()
  slots = sharding.local_slots(mesh, 24, "train.batch_size")
  array = sharding.put_batch(mesh, {"slot": slots})["slot"]
  held = [np.asarray(shard.data) for shard in array.addressable_shards]
  np.testing.assert_array_equal(np.concatenate(held), np.arange(24))


def test_replicated_values_are_whole_on_every_device():
  mesh = sharding.create_mesh()
  tree = {"w": np.arange(6.0).reshape(2, 3), "step": np.int32(4), "n": 2}
  placed = sharding.put_replicated(mesh, tree)
  assert jax.tree.structure(placed) == jax.tree.structure(tree)
  assert placed["w"].sharding == sharding.replicated(mesh)
  assert placed["step"].dtype == np.int32
  for name, value in tree.items():
    shards = placed[name].addressable_shards
    assert len(shards) == 8
    for shard in shards:
      np.testing.assert_array_equal(shard.data, value)
