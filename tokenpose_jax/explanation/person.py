"""One person, explained."""

import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int, UInt8

from tokenpose_jax import crops as crops_lib
from tokenpose_jax import geometry
from tokenpose_jax.errors import InputError
from tokenpose_jax.explanation import constraints, evidence, occlusion
from tokenpose_jax.explanation.evidence import Evidence, Outcome
from tokenpose_jax.models.config import ModelConfig
from tokenpose_jax.predict import saved as saved_lib
from tokenpose_jax.predict.estimator import checked_photo
from tokenpose_jax.predict.saved import Saved
from tokenpose_jax.skeletons import Skeleton

SETTLED = 0.02  # of the longer side of the box
_LARGEST = 10**6  # pixels: a side of a box, with which geometry is still exact
_SHOWN = 512  # pixels: pictures are at least as high
# Crops at once: those of COCO's keypoints, or a sixth of the places. What a
# padded batch costs is little where it is compiled once.
_BATCH = 18

Progress = Callable[[int], Any]
"""Is told how many more crops with something covered have been looked at."""


def _silent(count: int) -> None:
  del count


class Probe(NamedTuple):
  """What changes when squares of the crop are covered, one at a time.

  Attributes:
    centers: (P, 2) of the squares, crop pixels.
    side: of the squares, crop pixels.
    cover: one of `occlusion.COVERS`.
    points: (P, K, 2) where the keypoints are then, crop pixels.
    scores: (P, K) their heatmap maxima.
    attention: (L, P, K, N) the mean of the heads.
  """

  centers: Float[np.ndarray, "p 2"]
  side: int
  cover: str
  points: Float[np.ndarray, "p k 2"]
  scores: Float[np.ndarray, "p k"]
  attention: Float[np.ndarray, "l p k n"]


@dataclasses.dataclass(frozen=True)
class Explanation:
  """What a network did with a person.

  Attributes:
    model: the network.
    skeleton: of the K keypoints.
    picture: (f H, f W, 3) RGB, the crop at a multiple of its size.
    crop: (H, W, 3) RGB, what the network saw.
    crop_to_image: (2, 3) crop pixels to image pixels.
    box: (4,) x, y, w, h in image pixels.
    layers: L names.
    evidence: of this crop: as in `Evidence`, without B.
    settled: (K,) the layer from which on a keypoint stays within `SETTLED`
      times the longer side of the box of where it ends.
    similarity: of the learned keypoint tokens.
    places: squares all over the crop covered; None where nobody asked.
    joints: the K predicted keypoints covered, likewise.
  """

  model: ModelConfig
  skeleton: Skeleton
  picture: UInt8[np.ndarray, "hh ww 3"]
  crop: UInt8[np.ndarray, "h w 3"]
  crop_to_image: Float[np.ndarray, "2 3"]
  box: Float[np.ndarray, " 4"]
  layers: tuple[str, ...]
  evidence: Evidence
  settled: Int[np.ndarray, " k"]
  similarity: constraints.Similarity
  places: Probe | None
  joints: Probe | None

  @property
  def points(self) -> Float[np.ndarray, "k 2"]:
    """(K, 2) the predicted keypoints, crop pixels."""
    return np.asarray(self.evidence.points[-1])

  @property
  def box_side(self) -> float:
    """The longer side of the box, crop pixels."""
    return box_side(self.box, self.crop_to_image)

  @property
  def patch_centers(self) -> Float[np.ndarray, "p 2"]:
    """(P, 2) the middles of the patches, crop pixels, row-major."""
    return evidence.patch_centers(self.model)


class Explainer:
  """A network that explains itself."""

  def __init__(self, saved: Saved):
    """Puts the weights onto the device.

    Args:
      saved: the network.
    """
    self.saved = saved
    self._weights = jax.device_put(saved.weights)
    self._options = dict(
      model=saved.model,
      codec=saved.codec,
      decoder=saved.options.get("decoder", "dark"),
    )
    self.padding = saved.options.get("padding", geometry.CROP_PADDING)

  @property
  def similarity(self) -> constraints.Similarity:
    """Of the learned keypoint tokens."""
    params, _ = self.saved.weights
    return constraints.similarity(np.asarray(params["keypoint_tokens"]))

  def crop(
    self, photo: UInt8[np.ndarray, "h w 3"], box: Float[np.ndarray, " 4"]
  ) -> tuple[UInt8[np.ndarray, "hh ww 3"], Float[np.ndarray, "2 3"]]:
    """A person as the network takes it.

    Args:
      photo: (H, W, 3) RGB.
      box: (4,) x, y, w, h in image pixels.

    Returns:
      the crop, and the map (2, 3) from its pixels to the image's.

    Raises:
      InputError: as `checked_box`.
    """
    box = checked_box(photo, box)
    crops, affine = crops_lib.crop_people(
      photo, box[None], self.saved.model.input_hw, self.padding
    )
    return crops[0], affine[0]

  def look(
    self, crops: UInt8[np.ndarray, "b h w 3"], *, roll: bool = False
  ) -> Evidence:
    """`evidence.look` at crops, on the host.

    Args:
      crops: (B, H, W, 3) RGB; every B is compiled.
      roll: the rollout, too.
    """
    return jax.device_get(
      evidence.look(*self._weights, crops, roll=roll, **self._options)
    )

  def outcomes(self, crops: UInt8[np.ndarray, "p h w 3"]) -> Iterator[Outcome]:
    """`evidence.outcome` of any number of crops, some at a time.

    Args:
      crops: (P, H, W, 3) RGB.
    """
    for start in range(0, len(crops), _BATCH):
      part = crops[start : start + _BATCH]
      n = len(part)
      fill = [(0, _BATCH - n)] + [(0, 0)] * 3
      found = jax.device_get(
        evidence.outcome(*self._weights, np.pad(part, fill), **self._options)
      )
      yield Outcome(found.attention[:, :n], found.points[:n], found.scores[:n])

  def probe(
    self,
    crop: UInt8[np.ndarray, "h w 3"],
    centers: Float[np.ndarray, "p 2"],
    cover: str = "gray",
    progress: Progress = _silent,
  ) -> Probe:
    """Covers a square at each of some places.

    Args:
      crop: (H, W, 3) RGB.
      centers: (P, 2) of the squares, crop pixels.
      cover: one of `occlusion.COVERS`.
      progress: is told how many crops were looked at.

    Raises:
      InputError: the cover is not known.
    """
    side = occlusion.size_of(crop)
    copies = occlusion.covered(crop, centers, side, cover)
    parts = []
    for found in self.outcomes(copies):
      parts.append(found)
      progress(len(found.scores))
    attention, points, scores = (
      np.concatenate([part[i] for part in parts], axis=int(i == 0))
      for i in range(3)
    )
    return Probe(centers, side, cover, points, scores, attention)

  def __call__(
    self,
    photo: Any,
    box: Any = None,
    *,
    probe: bool = True,
    cover: str = "gray",
    progress: Progress = _silent,
  ) -> Explanation:
    """Explains a person.

    Args:
      photo: (H, W, 3) uint8 RGB.
      box: x, y, w, h of the person in image pixels; None: the whole photo.
      probe: cover parts of the crop, which takes a hundred times as long as
        the rest.
      cover: one of `occlusion.COVERS`.
      progress: is told how many crops with covers were looked at.

    Raises:
      InputError: as `checked_box`, or the cover is not known.
    """
    box = checked_box(photo, box)
    crop, crop_to_image = self.crop(photo, box)
    found = self.look(crop[None], roll=True).of(0)
    points = np.asarray(found.points)
    within = SETTLED * box_side(box, crop_to_image)
    every = occlusion.places(crop) if probe else None
    return Explanation(
      self.saved.model,
      self.saved.skeleton,
      _picture(photo, crop, crop_to_image),
      crop,
      crop_to_image,
      box,
      evidence.layer_names(self.saved.model),
      found,
      evidence.settled(points, np.asarray(within)),
      self.similarity,
      None if every is None else self.probe(crop, every, cover, progress),
      self.probe(crop, points[-1], cover, progress) if probe else None,
    )


def explain(
  weights: str | os.PathLike | Saved | None,
  photo: Any,
  box: Any = None,
  *,
  probe: bool = True,
  cover: str = "gray",
) -> Explanation:
  """Shows what a network did with a person, layer by layer.

  `Explainer(saved)` does it for many people.

  Args:
    weights: a work directory, a published folder, a file of weights, or what
      `predict.saved.read` read; None: those that come with the package.
    photo: (H, W, 3) uint8 RGB.
    box: x, y, w, h of the person in image pixels; None: the whole photo.
    probe: cover parts of the crop, too.
    cover: one of `occlusion.COVERS`: gray, blur, noise.

  Raises:
    InputError: the weights cannot be read, or as `Explainer`.
  """
  if weights is None:
    weights = saved_lib.packaged()
  if not isinstance(weights, Saved):
    weights = saved_lib.read(os.fspath(weights))
  return Explainer(weights)(photo, box, probe=probe, cover=cover)


def box_side(
  box: Float[np.ndarray, " 4"], crop_to_image: Float[np.ndarray, "2 3"]
) -> float:
  """The longer side of a box in crop pixels.

  Args:
    box: (4,) x, y, w, h in image pixels.
    crop_to_image: (2, 3) of the crop, which is not rotated.
  """
  return float(max(box[2:]) / abs(crop_to_image[0, 0]))


def checked_box(photo: Any, box: Any) -> Float[np.ndarray, " 4"]:
  """The box of a person, if there is something to see in it.

  Args:
    photo: (H, W, 3) uint8 RGB.
    box: x, y, w, h in image pixels; None: the whole photo.

  Returns:
    (4,) the same.

  Raises:
    InputError: the photo or the box is of another form, or the box has no area,
      is of no size that a photo can have, or lies outside.
  """
  checked_photo(photo, "photo")
  height, width = photo.shape[:2]
  try:
    given = np.asarray([0, 0, width, height] if box is None else box, float)
  except (OverflowError, TypeError, ValueError):
    given = np.zeros(0)
  if given.shape != (4,) or not np.isfinite(given).all():
    raise InputError(f"box: expected four numbers x, y, w, h; got {box!r:.60}")
  x, y, w, h = given.tolist()
  if not (0 < w < _LARGEST and 0 < h < _LARGEST):
    raise InputError(
      f"box: {x:g},{y:g},{w:g},{h:g} has no area, or a side of more than"
      f" {_LARGEST:,} pixels"
    )
  if not (-w < x < width and -h < y < height):
    raise InputError(
      f"box: {x:g},{y:g},{w:g},{h:g} lies outside of the photo of"
      f" {width} x {height}"
    )
  return given


def _picture(
  photo: UInt8[np.ndarray, "h w 3"],
  crop: UInt8[np.ndarray, "hh ww 3"],
  crop_to_image: Float[np.ndarray, "2 3"],
) -> UInt8[np.ndarray, "hhh www 3"]:
  """The crop once more, with more pixels."""
  height, width = crop.shape[:2]
  factor = -(-_SHOWN // height)
  # Pixel centers are at integers: crop = (picture + 0.5) / factor - 0.5.
  shrink = np.array(
    [[1 / factor, 0, 0.5 / factor - 0.5], [0, 1 / factor, 0.5 / factor - 0.5]]
  )
  affine = geometry.compose(crop_to_image, shrink)
  out = np.zeros((factor * height, factor * width, 3), np.uint8)
  crops_lib.warp(photo, (0, 0), geometry.invert(affine), out)
  return out
