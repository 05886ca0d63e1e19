"""sharding.py: the mesh, who loads what, arrays on the eight fake devices."""

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from tests import fixtures
from tokenpose_jax import InputError, sharding


@pytest.mark.parametrize("count", [None, 1, 3, 8])
def test_the_mesh_has_one_axis_of_all_or_of_the_given_devices(count):
  devices = jax.devices()[:count]
  mesh = sharding.create_mesh(None if count is None else devices)
  assert mesh.axis_names == ("data",)
  assert mesh.devices.tolist() == devices
  assert len(jax.devices()) == 8


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


@pytest.mark.parametrize(
  ("process", "count", "wanted"),
  [
    (0, 1, ["work"]),
    (0, 2, ["work", "sync"]),
    (1, 2, ["sync", "work"]),
  ],
)
def test_the_first_process_works_before_the_others(
  monkeypatch, process, count, wanted
):
  events = []
  monkeypatch.setattr(jax, "process_index", lambda: process)
  monkeypatch.setattr(jax, "process_count", lambda: count)
  monkeypatch.setattr(
    multihost_utils, "sync_global_devices", lambda _: events.append("sync")
  )
  with sharding.first_process_first("files"):
    events.append("work")
  assert events == wanted


def test_a_first_process_that_fails_does_not_keep_the_others_waiting(
  monkeypatch,
):
  synced = []
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  monkeypatch.setattr(multihost_utils, "sync_global_devices", synced.append)
  with (
    pytest.raises(OSError, match="disk"),
    sharding.first_process_first("files"),
  ):
    raise OSError("disk")
  assert synced == ["files"]


@pytest.mark.parametrize(
  ("variable", "joined"), [("", 0), ("one", 0), ("one,two", 1)]
)
def test_a_host_alone_joins_nobody(monkeypatch, variable, joined):
  calls = []
  monkeypatch.setattr(
    jax.distributed, "initialize", lambda *given: calls.append(given)
  )
  monkeypatch.delenv("JAX_COORDINATOR_ADDRESS", raising=False)
  for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv("TPU_WORKER_HOSTNAMES", variable)
  sharding.initialize()
  assert len(calls) == joined


def test_hosts_are_joined_as_the_environment_says(monkeypatch):
  calls = []
  monkeypatch.setattr(
    jax.distributed, "initialize", lambda *given: calls.append(given)
  )
  monkeypatch.delenv("JAX_COORDINATOR_ADDRESS", raising=False)
  monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "one,two")
  sharding.initialize()
  assert calls == [()]
  monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "one:1234")
  monkeypatch.setenv("JAX_NUM_PROCESSES", "4")
  monkeypatch.setenv("JAX_PROCESS_ID", "3")
  sharding.initialize()
  assert calls[1:] == [("one:1234", 4, 3)]


@pytest.mark.parametrize(
  ("variable", "count", "joins"),
  [
    ("SLURM_STEP_NUM_TASKS", "4", True),
    ("SLURM_STEP_NUM_TASKS", "1", False),
    ("OMPI_COMM_WORLD_SIZE", "2", True),
    ("OMPI_COMM_WORLD_SIZE", "1", False),
  ],
)
def test_processes_of_a_scheduler_join(monkeypatch, variable, count, joins):
  """SLURM and Open MPI: JAX finds the others itself, once it is asked."""
  calls = []
  monkeypatch.setattr(
    jax.distributed, "initialize", lambda *given: calls.append(given)
  )
  for name in (
    "JAX_COORDINATOR_ADDRESS",
    "TPU_WORKER_HOSTNAMES",
    "SLURM_STEP_NUM_TASKS",
    "OMPI_COMM_WORLD_SIZE",
  ):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv(variable, count)
  sharding.initialize()
  assert calls == [()] * joins


def test_half_an_address_is_named(monkeypatch):
  monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "one:1234")
  monkeypatch.setenv("JAX_NUM_PROCESSES", "4")
  monkeypatch.delenv("JAX_PROCESS_ID", raising=False)
  with pytest.raises(InputError, match="is set, but not JAX_PROCESS_ID"):
    sharding.initialize()
