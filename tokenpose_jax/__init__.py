"""TokenPose: keypoint tokens for human pose estimation, in JAX and Flax.

import tokenpose_jax as tp
model = tp.create_model(config.model, rngs=nnx.Rngs(0))
heatmaps = tp.apply(config.model, params, model_state, images)
"""

from tokenpose_jax.convert import export_torch, import_torch
from tokenpose_jax.errors import InputError
from tokenpose_jax.models import create_model
from tokenpose_jax.train_state import apply

__all__ = [
  "InputError",
  "apply",
  "create_model",
  "export_torch",
  "import_torch",
]
