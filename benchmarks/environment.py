"""The environment of what is timed: that of a user, and PyTorch's.

In one place, so that no benchmark runs under settings that the commands of
docs/running.md would not have.
"""

import os
from collections.abc import Mapping

# That users of PyTorch find recommended for training on CPUs: memory that was
# freed is kept.
ALLOCATOR = {
  "MALLOC_MMAP_MAX_": "0",
  "MALLOC_TRIM_THRESHOLD_": "100000000000",
  "MALLOC_TOP_PAD_": "268435456",
}
# Whoever set them for this shell did not set them for every user.
_OURS = ("XLA_FLAGS", "GLIBC_TUNABLES", "LD_PRELOAD", *ALLOCATOR)


def plain() -> dict[str, str]:
  """The shell's, without settings of allocators and compilers.

  What `python main.py` and `tokenpose` have; they set their allocator
  themselves (`cli.keep_freed_memory`).
  """
  return {n: v for n, v in os.environ.items() if n not in _OURS}


def torch(variant: Mapping[str, bool]) -> dict[str, str]:
  """Of a process of PyTorch.

  Args:
    variant: of `peers_torch.variants`.
  """
  return plain() | (ALLOCATOR if variant["allocator"] else {})
