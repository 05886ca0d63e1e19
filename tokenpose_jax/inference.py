"""From 8-bit crops to keypoints in image pixels: one pure function.

Evaluation, prediction and exports share it; jitting and sharding are theirs.
"""

import dataclasses
import functools
from collections.abc import Sequence
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
from tokenpose_jax.models import doubt as doubt_lib
from tokenpose_jax.models.config import ModelConfig
from tokenpose_jax.models.doubt import Doubt
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
    scores: (B, K) heatmap maxima; with `model.doubt`, `Doubt.scores`.
    peaks: (B, K) heatmap maxima.
    doubt: its errors are in image pixels; None without `model.doubt`.
  """

  image: Float[AnyArray, "b k 2"]
  crop: Float[AnyArray, "b k 2"]
  scores: Float[AnyArray, "b k"]
  peaks: Float[AnyArray, "b k"]
  doubt: Doubt | None


class Found(NamedTuple):
  """What a network makes of crops.

  Attributes:
    heatmaps: (B, K, h, w).
    doubt: its errors are in crop pixels; None without `model.doubt`.
  """

  heatmaps: Float[AnyArray, "b k hh ww"]
  doubt: Doubt | None = None


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
  found = find(settings, params, model_state, crops)
  return keypoints_of(settings.codec, settings.decoder, found, crop_to_image)


def find(
  settings: Settings,
  params: Tree,
  model_state: Tree,
  crops: UInt8[AnyArray, "b h w 3"],
) -> Found:
  """Heatmaps, and doubt, of the people in crops, with the flip test.

  Args:
    settings: the network and how it is used.
    params: of the network.
    model_state: of the network.
    crops: (B, H, W, 3) uint8 RGB.
  """
  images = network.normalize(crops)
  run = functools.partial(
    network.last_pass, settings.model, params, model_state
  )
  found = of_pass(settings.codec, run(images))
  if settings.flip_permutation:
    mirrored = of_pass(settings.codec, run(images[:, :, ::-1]))
    found = averaged(
      found, mirrored, settings.flip_permutation, shift=settings.flip_shift
    )
  return found


def of_pass(codec: Codec, made: network.Pass) -> Found:
  """What a pass of the network says, in crop pixels.

  Args:
    codec: where heatmaps lie on crops.
    made: by the network.
  """
  if made.doubt is None:
    return Found(made.heatmaps)
  return Found(made.heatmaps, doubt_lib.of_logits(made.doubt, codec.pixel))


def averaged(
  found: Found,
  mirrored: Found,
  permutation: Sequence[int],
  *,
  shift: bool = False,
) -> Found:
  """With what was made of the mirrored image: the flip test.

  Args:
    found: of the image.
    mirrored: of the mirrored image.
    permutation: (K,) the keypoint that each becomes in a mirror.
    shift: as for `codec.flip`.
  """
  flipped = flip(mirrored.heatmaps, permutation, shift=shift)
  doubt = None
  if found.doubt is not None and mirrored.doubt is not None:
    doubt = doubt_lib.averaged(found.doubt, mirrored.doubt, permutation)
  return Found((found.heatmaps + flipped) / 2, doubt)


def keypoints_of(
  codec: Codec,
  decoder: str,
  found: Found,
  crop_to_image: Float[AnyArray, "b 2 3"],
) -> Keypoints:
  """Keypoints where heatmaps have their maxima.

  Args:
    codec: where heatmaps lie on crops.
    decoder: one of `codec.DECODERS`.
    found: in the crops.
    crop_to_image: (B, 2, 3) crop pixels to image pixels.
  """
  crop, peaks = codec.decode(found.heatmaps, decoder)
  image = (
    jnp.einsum(
      "bkj,bij->bki",
      crop,
      crop_to_image[:, :, :2],
      precision=jax.lax.Precision.HIGHEST,
    )
    + crop_to_image[:, None, :, 2]
  )
  doubt = found.doubt
  if doubt is None:
    return Keypoints(image, crop, peaks, peaks, None)
  size = jnp.sqrt(jnp.abs(jnp.linalg.det(crop_to_image[:, :, :2])))[:, None]
  doubt = doubt._replace(error=doubt.error * size)
  return Keypoints(image, crop, doubt.scores, peaks, doubt)
