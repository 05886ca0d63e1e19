"""The device mesh, and what is sharded over it."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int
from numpy.typing import ArrayLike

from tokenpose_jax.errors import InputError

T = TypeVar("T")

_AXIS = "data"  # of the mesh


def create_mesh(devices: Sequence[Any] | None = None) -> Mesh:
  """All devices, or the given ones, on one axis, `data`.

  Those of several slices of TPUs stand slice by slice: what is summed over all
  is summed within each slice first.

  Args:
    devices: of JAX, or descriptions of such.
  """
  devices = jax.devices() if devices is None else devices
  count = len(devices)
  slices = len({getattr(device, "slice_index", 0) for device in devices})
  if slices > 1:
    placed = mesh_utils.create_hybrid_device_mesh(
      (count // slices,), (slices,), devices
    )
    return Mesh(placed, (_AXIS,))
  return jax.make_mesh(
    (count,), (_AXIS,), axis_types=(AxisType.Auto,), devices=devices
  )


def replicated(mesh: Mesh) -> NamedSharding:
  """The whole array on every device."""
  return NamedSharding(mesh, PartitionSpec())


def by_batch(mesh: Mesh) -> NamedSharding:
  """The leading axis split over the devices."""
  return NamedSharding(mesh, PartitionSpec(_AXIS))


def knowing(mesh: Mesh, function: Callable[..., T]) -> Callable[..., T]:
  """A function that is traced knowing what its batch is split over.

  Loops over images run on each device over its own ones then
  (`models.attention`).

  Args:
    mesh: as returned by `create_mesh`.
    function: to be jitted.
  """

  @functools.wraps(function)
  def traced(*args: Any, **options: Any) -> T:
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return function(*args, **options)

  return traced


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
