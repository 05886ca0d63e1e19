"""What a program is traced for."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.sharding import PartitionSpec

_ANY = "any"
_ANYWHERE = contextvars.ContextVar("anywhere", default=False)


@contextlib.contextmanager
def anywhere() -> Iterator[None]:
  """What is traced inside is for no device: for exports, and for counts."""
  token = _ANYWHERE.set(True)
  try:
    yield
  finally:
    _ANYWHERE.reset(token)


def kind() -> str:
  """`device_kind` of the devices that the program is to run on, or "any"."""
  if _ANYWHERE.get():
    return _ANY
  mesh = jax.sharding.get_abstract_mesh()
  device = None if mesh.empty else mesh.abstract_device
  return (device or jax.devices()[0]).device_kind


def on_each(
  function: Callable[..., Any],
  *images: jax.Array,
  whole: Sequence[jax.Array] = (),
  check: bool = True,
) -> Any:
  """A function of (B, ...), of each device's own images.

  A loop over images must not run over those of other devices.

  Args:
    function: of the images, then of what is whole; it returns (B, ...).
    *images: arrays of the batch.
    whole: arrays that every device has, such as a kernel.
    check: that JAX follows which values differ between devices; not where it
      knows nothing of them, as in kernels and in the sums of a loop.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.size <= 1 or mesh.manual_axes:
    return function(*images, *whole)
  rows, all_of_it = PartitionSpec(mesh.axis_names), PartitionSpec()
  split = jax.shard_map(
    function,
    in_specs=(*[rows] * len(images), *[all_of_it] * len(whole)),
    out_specs=rows,
    check_vma=check,
  )
  return split(*images, *whole)
