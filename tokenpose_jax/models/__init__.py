"""Networks: one TokenPose, its backbones, and how a config names one."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt8

from tokenpose_jax.models.tokenpose import TokenPose


def create_model(model: Mapping[str, Any], *, rngs: nnx.Rngs) -> TokenPose:
  """Builds the network that `config.model` describes, and nothing else.

  Args:
    model: `config.model`: the keyword arguments of `TokenPose`; its
      `init_backbone` is for trainings and plays no part here.
    rngs: source of the initial weights.
  """
  return TokenPose(**network_fields(model), rngs=rngs)


def network_fields(model: Mapping[str, Any]) -> dict[str, Any]:
  """`config.model` without what only says where weights come from."""
  return {n: v for n, v in dict(model).items() if n != "init_backbone"}


# Of the images that HRNet was trained on; reference 4.4.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


def normalize(images: UInt8[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
  """8-bit RGB crops as the networks take them."""
  mean = jnp.array(IMAGE_MEAN).reshape(1, 1, 1, 3)
  std = jnp.array(IMAGE_STD).reshape(1, 1, 1, 3)
  return (images.astype(jnp.float32) / 255 - mean) / std
