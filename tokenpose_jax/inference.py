"""From 8-bit crops to keypoints in image pixels: one pure function.

Evaluation, prediction and exports share it; jitting and sharding are theirs.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, UInt8
from ml_collections import ConfigDict

from tokenpose_jax import network
from tokenpose_jax.arrays import AnyArray
from tokenpose_jax.codec import DECODERS, Codec, flip
from tokenpose_jax.config import codec_of
from tokenpose_jax.errors import check_choice
from tokenpose_jax.models.config import ModelConfig
from tokenpose_jax.network import Tree
from tokenpose_jax.skeletons import Skeleton


@dataclasses.dataclass(frozen=True)
class Settings:
  """How keypoints are predicted.

  Attributes:
    model: the network.
    codec: where its heatmaps lie on the crop.
    flip_permutation: (K,) the keypoint that each becomes in a mirror; ():
      no flip test.
    flip_shift: shift the mirrored image's heatmaps by a pixel, as in HRNet.
    decoder: one of `codec.DECODERS`.

  Raises:
    InputError: the decoder is not known.
  """

  model: ModelConfig
  codec: Codec
  flip_permutation: tuple[int, ...] = ()
  flip_shift: bool = False
  decoder: str = "dark"

  def __post_init__(self) -> None:
    check_choice("eval.decoder", self.decoder, DECODERS)

  @classmethod
  def of(cls, config: ConfigDict, skeleton: Skeleton) -> "Settings":
    """Those of `config.eval`.

    Raises:
      InputError: a field of the config cannot be used.
    """
    mirror = tuple(skeleton.flip_permutation.tolist())
    return cls(
      model=dataclasses.replace(
        ModelConfig.of(config.model), cycles=config.eval.cycles
      ),
      codec=codec_of(config),
      flip_permutation=mirror if config.eval.flip else (),
      flip_shift=config.eval.flip_shift,
      decoder=config.eval.decoder,
    )


class Keypoints(NamedTuple):
  """Predicted keypoints.

  Attributes:
    image: (B, K, 2) x, y in image pixels.
    crop: (B, K, 2) x, y in crop pixels.
    scores: (B, K) heatmap maxima.
  """

  image: Float[AnyArray, "b k 2"]
  crop: Float[AnyArray, "b k 2"]
  scores: Float[AnyArray, "b k"]


def keypoints(
  settings: Settings,
  params: Tree,
  model_state: Tree,
  crops: UInt8[AnyArray, "b h w 3"],
  crop_to_image: Float[AnyArray, "b 2 3"],
) -> Keypoints:
  """Keypoints of the people in crops.

  Args:
    settings: the network and how it is used.
    params: of the network.
    model_state: of the network.
    crops: (B, H, W, 3) uint8 RGB.
    crop_to_image: (B, 2, 3) crop pixels to image pixels.
  """
  found = heatmaps(settings, params, model_state, crops)
  return from_heatmaps(settings.codec, settings.decoder, found, crop_to_image)


def heatmaps(
  settings: Settings,
  params: Tree,
  model_state: Tree,
  crops: UInt8[AnyArray, "b h w 3"],
) -> Float[AnyArray, "b k hh ww"]:
  """Heatmaps of the people in crops, with the flip test.

  Args:
    settings: the network and how it is used.
    params: of the network.
    model_state: of the network.
    crops: (B, H, W, 3) uint8 RGB.
  """
  images = network.normalize(crops)
  run = functools.partial(network.apply, settings.model, params, model_state)
  found = run(images)
  if settings.flip_permutation:
    flipped = flip(
      run(images[:, :, ::-1]),
      settings.flip_permutation,
      shift=settings.flip_shift,
    )
    found = (found + flipped) / 2
  return found


def from_heatmaps(
  codec: Codec,
  decoder: str,
  heatmaps: Float[AnyArray, "b k h w"],
  crop_to_image: Float[AnyArray, "b 2 3"],
) -> Keypoints:
  """Keypoints where heatmaps have their maxima.

  Args:
    codec: where heatmaps lie on crops.
    decoder: one of `codec.DECODERS`.
    heatmaps: (B, K, h, w).
    crop_to_image: (B, 2, 3) crop pixels to image pixels.
  """
  crop, scores = codec.decode(heatmaps, decoder)
  image = (
    jnp.einsum(
      "bkj,bij->bki",
      crop,
      crop_to_image[:, :, :2],
      precision=jax.lax.Precision.HIGHEST,
    )
    + crop_to_image[:, None, :, 2]
  )
  return Keypoints(image, crop, scores)
