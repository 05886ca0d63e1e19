"""The COCO and MPII metrics, and what they are made of.

`coco.evaluate` and `mpii.pckh` score predictions without a network;
`coco_keypoints` and `mpii_pckh` are the benchmarks (`benchmark`) that an
evaluation measures with.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from tokenpose_jax.metrics import coco, mpii

__all__ = ["coco", "mpii"]


def __getattr__(name: str) -> Any:
  if name not in __all__:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  return importlib.import_module(f"{__name__}.{name}")
