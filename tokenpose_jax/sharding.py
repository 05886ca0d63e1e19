"""The device mesh, what is sharded over it, and multi-process set-up."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int
from numpy.typing import ArrayLike

from tokenpose_jax.errors import InputError

# Where SLURM and Open MPI say how many processes they started.
_PROCESS_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
_AXIS = "data"  # of the mesh


def initialize() -> None:
  """Joins the processes of a multi-process run; a no-op for a single one.

  On Cloud TPU pods and under SLURM or Open MPI, JAX finds the other processes
  by itself; elsewhere set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
  JAX_PROCESS_ID.

  Raises:
    InputError: only some of these three are set.
  """
  names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
  if names[0] in os.environ:
    missing = [name for name in names if name not in os.environ]
    if missing:
      raise InputError(f"{names[0]} is set, but not {', '.join(missing)}")
    address, count, index = (os.environ[name] for name in names)
    jax.distributed.initialize(address, int(count), int(index))
    return
  started = [int(os.environ.get(name, 1)) for name in _PROCESS_COUNTS]
  hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
  if max(*started, len(hosts)) > 1:
    jax.distributed.initialize()


@contextlib.contextmanager
def first_process_first(name: str) -> Iterator[None]:
  """Lets process 0 through alone, the others after it.

  For files that are written once and then found there by all.
  """
  if jax.process_index():
    multihost_utils.sync_global_devices(name)
  try:
    yield
  finally:
    if jax.process_index() == 0 and jax.process_count() > 1:
      multihost_utils.sync_global_devices(name)


def all_agree(fine: bool) -> bool:
  """Whether every process says so; all of them wait for each other."""
  if jax.process_count() == 1:
    return fine
  return bool(np.all(multihost_utils.process_allgather(np.array(fine))))


def create_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """All devices, or the given ones, on one axis, `data`."""
  count = jax.device_count() if devices is None else len(devices)
  return jax.make_mesh(
    (count,), (_AXIS,), axis_types=(AxisType.Auto,), devices=devices
  )


def replicated(mesh: Mesh) -> NamedSharding:
  """The whole array on every device."""
  return NamedSharding(mesh, PartitionSpec())


def by_batch(mesh: Mesh) -> NamedSharding:
  """The leading axis split over the devices."""
  return NamedSharding(mesh, PartitionSpec(_AXIS))


def local_slots(
  mesh: Mesh, batch_size: int, field: str, microbatches: int = 1
) -> Int[np.ndarray, " b"]:
  """The slots of a global batch that this process loads, ascending.

  Args:
    mesh: as returned by `create_mesh`.
    batch_size: of the global batch.
    field: the config field of the batch size, for the error.
    microbatches: parts of the batch, each of which is split over all devices.

  Raises:
    InputError: the batch does not divide over the devices.
  """
  if batch_size % (mesh.size * microbatches):
    times = f"train.microbatches, {microbatches}, times "
    raise InputError(
      f"{field} is {batch_size}; it must be a multiple of"
      f" {times if microbatches > 1 else ''}the number of devices, {mesh.size}"
    )
  indices = by_batch(mesh).addressable_devices_indices_map((batch_size,))
  slots = [np.arange(batch_size)[index] for index in indices.values()]
  return np.unique(np.concatenate(slots))


def put_batch(mesh: Mesh, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
  """This process's part of a batch, as global arrays on the devices."""
  sharding = by_batch(mesh)
  return {
    name: jax.make_array_from_process_local_data(sharding, value)
    for name, value in batch.items()
  }


def put_replicated(mesh: Mesh, tree: Any) -> Any:
  """Values that every process holds, on all devices."""
  sharding = replicated(mesh)

  def put(leaf: ArrayLike) -> jax.Array:
    value = np.asarray(leaf)
    return jax.make_array_from_callback(
      value.shape, sharding, lambda index: value[index]
    )

  return jax.tree.map(put, tree)
