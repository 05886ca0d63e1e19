"""Weights to and from PyTorch: names, files, and what a file holds.

tokenpose convert --help
"""

from tokenpose_jax.convert.files import (
  read_state_dict,
  write_state_dict,
)
from tokenpose_jax.convert.weights import (
  export_torch,
  import_backbone,
  import_torch,
)

__all__ = [
  "export_torch",
  "import_backbone",
  "import_torch",
  "read_state_dict",
  "write_state_dict",
]
