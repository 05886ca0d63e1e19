"""What a program is traced for."""

import jax


def kind() -> str:
  """`device_kind` of the devices that the program is to run on."""
  mesh = jax.sharding.get_abstract_mesh()
  device = None if mesh.empty else mesh.abstract_device
  return (device or jax.devices()[0]).device_kind
