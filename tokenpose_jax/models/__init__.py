"""Networks: one TokenPose, its backbones, and how a config names one."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from tokenpose_jax.models.tokenpose import TokenPose


def create_model(model: Mapping[str, Any], *, rngs: nnx.Rngs) -> TokenPose:
  """Builds the network that `config.model` describes, and nothing else.

  Args:
    model: `config.model`: the keyword arguments of `TokenPose`.
    rngs: source of the initial weights.
  """
  return TokenPose(**dict(model), rngs=rngs)
