"""Prints what a network costs.

    python -m tokenpose_jax.models --config=configs/tokenpose_s_v1.py
    python -m tokenpose_jax.models --config=configs/tokenpose_t.py \\
        --batch_size=64 --config.model.depth=6
"""

import sys

from absl import flags
from ml_collections import config_flags

from tokenpose_jax import config as config_lib
from tokenpose_jax.errors import InputError
from tokenpose_jax.models import summary

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "A file of configs/.", lock_config=True
)
_BATCH_SIZE = flags.DEFINE_integer(
  "batch_size", 32, "People whose activations are counted.", lower_bound=1
)


def main(argv: list[str]) -> None:
  """Prints the table; bad input is one line and exit code 1."""
  try:
    config_lib.parse_flags(argv, _CONFIG)
    if _CONFIG.value is None:
      raise InputError("--config is missing: a file of configs/")
    config_lib.resolve(_CONFIG.value)
    costs = summary.summarize(_CONFIG.value.model, _BATCH_SIZE.value)
  except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)
  print(summary.format_table(costs, _BATCH_SIZE.value))


if __name__ == "__main__":
  main(sys.argv)
