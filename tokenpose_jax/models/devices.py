"""What a program is traced for."""

import jax


def kind() -> str:
  """`device_kind` of the devices that the program is to run on."""
  mesh = jax.sharding.get_abstract_mesh()
  device = None if mesh.empty else mesh.abstract_device
  return (device or jax.devices()[0]).device_kind


def is_one_cpu() -> bool:
  """Whether that is a single CPU device.

  Then a loop over images is not one over those of other devices.
  """
  return kind() == "cpu" and jax.sharding.get_abstract_mesh().size <= 1
