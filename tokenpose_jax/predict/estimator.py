"""Photos and boxes of people in, keypoints out."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from jaxtyping import Float, Int, UInt8

from tokenpose_jax import crops, geometry, inference, skeletons, visualize
from tokenpose_jax.arrays import AnyArray
from tokenpose_jax.codec import DECODERS, Codec
from tokenpose_jax.errors import InputError, check_choice
from tokenpose_jax.metrics import oks
from tokenpose_jax.metrics.nms import oks_nms
from tokenpose_jax.models.doubt import Doubt
from tokenpose_jax.skeletons import Skeleton

Photo = UInt8[np.ndarray, "h w 3"]
Heatmaps = Callable[
  [UInt8[np.ndarray, "b h w 3"]],
  Float[AnyArray, "b k hh ww"] | inference.Found,
]

BATCH_SIZES = (1, 8, 32)  # people; others are padded to the next of these


@dataclasses.dataclass(frozen=True)
class Poses:
  """The people of a photo.

  Attributes:
    keypoints: (N, K, 2) x, y in image pixels; NaN where the box has no area or
      lies outside the photo.
    scores: (N, K) how sure a keypoint is: heatmap maxima, or `doubt.scores`;
      0 where it is NaN.
    person_scores: (N,) the mean of the heatmap maxima above
      `min_keypoint_score`.
    boxes: (N, 4) x, y, w, h in image pixels, as given.
    skeleton: of the keypoints.
    doubt: how far each keypoint is to be trusted, errors in image pixels, NaN
      where it is NaN; None without `model.doubt`, or without people in
      boxes.
  """

  keypoints: Float[np.ndarray, "n k 2"]
  scores: Float[np.ndarray, "n k"]
  person_scores: Float[np.ndarray, " n"]
  boxes: Float[np.ndarray, "n 4"]
  skeleton: Skeleton
  doubt: Doubt | None = None

  def __len__(self) -> int:
    return len(self.boxes)

  def select(self, people: Int[np.ndarray, " m"]) -> "Poses":
    """Those of some indices."""
    return Poses(
      self.keypoints[people],
      self.scores[people],
      self.person_scores[people],
      self.boxes[people],
      self.skeleton,
      self.doubt and Doubt(*(values[people] for values in self.doubt)),
    )

  def to_coco(
    self, image_id: int | str, category_id: int = 1
  ) -> list[dict[str, Any]]:
    """COCO results, JSON types; people without keypoints are left out.

    Args:
      image_id: of the photo.
      category_id: of the people.
    """
    results = []
    for points, scores, score in zip(
      self.keypoints, self.scores, self.person_scores, strict=True
    ):
      if np.isfinite(points).all():
        flat = np.column_stack([points, scores]).ravel().tolist()
        results.append(
          {
            "image_id": image_id,
            "category_id": category_id,
            "keypoints": flat,
            "score": float(score),
          }
        )
    return results

  def to_supervision(self) -> Any:
    """`supervision.KeyPoints`; people without keypoints are left out.

    Raises:
      InputError: supervision is not installed.
    """
    try:
      import supervision
    except ImportError:
      raise InputError(
        "supervision is not installed: pip install supervision"
      ) from None
    found = np.isfinite(self.keypoints).all((1, 2))
    return supervision.KeyPoints(
      xy=self.keypoints[found].astype(np.float32),
      class_id=np.zeros(int(found.sum()), int),
      keypoint_confidence=self.scores[found].astype(np.float32),
      detection_confidence=self.person_scores[found].astype(np.float32),
    )

  def draw(self, photo: Photo, min_score: float = 0.2) -> Photo:
    """A copy of the photo with the people on it.

    Args:
      photo: (H, W, 3) RGB.
      min_score: keypoints below are not drawn.
    """
    for points, scores in zip(self.keypoints, self.scores, strict=True):
      shown = (scores >= min_score) & np.isfinite(points).all(-1)
      places = np.where(shown[:, None], points, 0)
      photo = visualize.draw_pose(photo, places, shown, self.skeleton)
    return photo


class Estimator:
  """A network with all that its use needs.

  Any function from crops to heatmaps can be one.
  """

  def __init__(
    self,
    heatmaps: Heatmaps,
    codec: Codec,
    skeleton: Skeleton,
    *,
    flip_test: bool = True,
    flip_shift: bool = False,
    decoder: str = "dark",
    padding: float = geometry.CROP_PADDING,
    min_keypoint_score: float = 0.2,
    batch_sizes: Sequence[int] = BATCH_SIZES,
  ):
    """Runs nothing yet.

    Args:
      heatmaps: crops (B, H, W, 3) uint8 RGB to heatmaps (B, K, h, w), or to
        `inference.Found`, for any B of `batch_sizes`.
      codec: where heatmaps lie on crops; its `input_hw` is the crops' size.
      skeleton: of the K keypoints.
      flip_test: averages with the mirrored crop.
      flip_shift: shifts the mirrored heatmaps by a pixel, as in HRNet.
      decoder: one of `codec.DECODERS`.
      padding: crop size over box size.
      min_keypoint_score: keypoints above count in a person's score.
      batch_sizes: people that the function is given at once, ascending.

    Raises:
      InputError: the decoder is not known.
    """
    check_choice("decoder", decoder, DECODERS)
    self.codec, self.skeleton = codec, skeleton
    self._heatmaps = heatmaps
    mirror = tuple(skeleton.flip_permutation.tolist())
    self._flip_test = flip_test
    self._padding = padding
    self._min_keypoint_score = min_keypoint_score
    self._batch_sizes = tuple(sorted(batch_sizes))
    self._average = jax.jit(
      functools.partial(
        inference.averaged, permutation=mirror, shift=flip_shift
      )
    )
    self._decode = jax.jit(
      functools.partial(inference.keypoints_of, codec, decoder)
    )

  def __call__(
    self,
    photos: Any,
    boxes: Any = None,
  ) -> Any:
    """Finds the keypoints of people.

    Args:
      photos: (H, W, 3) uint8 RGB, or a list of these.
      boxes: (N, 4) x, y, w, h of the people in image pixels, or a list of
        these; None: each photo is of one person.

    Returns:
      `Poses`, or a list of these. A box without area, or outside of its photo,
      has NaN keypoints and a score of 0, and is said.

    Raises:
      InputError: a photo or boxes are of another form.
    """
    if isinstance(photos, np.ndarray) and photos.ndim == 3:
      (poses,) = self([photos], None if boxes is None else [boxes])
      return poses
    checked = [checked_photo(p, f"photo {n}") for n, p in enumerate(photos)]
    given = [None] * len(checked) if boxes is None else list(boxes)
    if len(given) != len(checked):
      raise InputError(
        f"{len(checked)} photos, but boxes of {len(given)}: give boxes for each"
      )
    people = [
      _boxes(box, photo, n)
      for n, (box, photo) in enumerate(zip(given, checked, strict=True))
    ]
    return self._predict(checked, people)

  def distinct(
    self, poses: Poses, threshold: float = 0.9
  ) -> Int[np.ndarray, " m"]:
    """OKS-NMS as in an evaluation: of poses on one person, the best one.

    Args:
      poses: of one photo.
      threshold: OKS above which two poses are of one person.

    Returns:
      the indices (M,) of the people to keep, ascending. People without
      keypoints (NaN) are kept.
    """
    found = np.isfinite(poses.keypoints).all((1, 2))
    people = np.flatnonzero(found)
    _, scale = geometry.box_to_center_scale(
      poses.boxes[people], self.codec.input_hw, self._padding
    )
    kept = oks_nms(
      poses.keypoints[people],
      poses.person_scores[people],
      geometry.crop_area(scale),
      skeletons.with_sigmas(poses.skeleton).sigmas or (),
      threshold,
    )
    return np.sort(np.concatenate([np.flatnonzero(~found), people[kept]]))

  def _predict(
    self, photos: list[np.ndarray], boxes: list[np.ndarray]
  ) -> list[Poses]:
    k = self.skeleton.num_keypoints
    points = [np.full((len(b), k, 2), np.nan, np.float32) for b in boxes]
    scores = [np.zeros((len(b), k), np.float32) for b in boxes]
    peaks = [np.zeros((len(b), k), np.float32) for b in boxes]
    told: list[Doubt | None] = [None] * len(boxes)
    places = [
      (photo, person)
      for photo, of in enumerate(boxes)
      for person in np.flatnonzero(_inside(of, photos[photo])).tolist()
    ]
    lost = sum(map(len, boxes)) - len(places)
    if lost:
      logging.warning(
        "%d boxes without area, or outside of their photo, have no keypoints",
        lost,
      )
    most = self._batch_sizes[-1]
    for start in range(0, len(places), most):
      part = places[start : start + most]
      made = [
        crops.crop_people(
          photos[photo],
          boxes[photo][person : person + 1],
          self.codec.input_hw,
          self._padding,
        )
        for photo, person in part
      ]
      found = self._run(*map(np.concatenate, zip(*made, strict=True)))
      for n, (photo, person) in enumerate(part):
        points[photo][person] = found.image[n]
        scores[photo][person] = found.scores[n]
        peaks[photo][person] = found.peaks[n]
        if found.doubt is not None:
          said = told[photo] = told[photo] or _untold(scores[photo].shape)
          for place, values in zip(said, found.doubt, strict=True):
            np.asarray(place)[person] = values[n]
    return [
      Poses(
        points[n],
        scores[n],
        oks.rescore(np.ones(len(of)), peaks[n], self._min_keypoint_score),
        of,
        self.skeleton,
        told[n],
      )
      for n, of in enumerate(boxes)
    ]

  def _run(
    self,
    people: UInt8[np.ndarray, "n h w 3"],
    crop_to_image: Float[np.ndarray, "n 2 3"],
  ) -> inference.Keypoints:
    """Keypoints of up to the largest batch of crops."""
    count = len(people)
    size = next(size for size in self._batch_sizes if size >= count)
    fill = [(0, size - count)]
    people = np.pad(people, fill + [(0, 0)] * 3)
    crop_to_image = np.pad(crop_to_image, fill + [(0, 0)] * 2)
    made = self._found(people)
    if self._flip_test:
      turned = np.ascontiguousarray(people[:, :, ::-1])
      made = self._average(made, self._found(turned))
    found = jax.device_get(self._decode(made, crop_to_image))
    return jax.tree.map(lambda part: part[:count], found)

  def _found(self, people: UInt8[np.ndarray, "n h w 3"]) -> inference.Found:
    made = self._heatmaps(people)
    return made if isinstance(made, inference.Found) else inference.Found(made)


def _untold(shape: tuple[int, ...]) -> Doubt:
  return Doubt(*(np.full(shape, np.nan, np.float32) for _ in Doubt._fields))


def checked_photo(photo: Any, name: str) -> Photo:
  """The photo, if it is one.

  Args:
    photo: anything.
    name: of it, for errors.

  Raises:
    InputError: it is no (H, W, 3) uint8.
  """
  if (
    not isinstance(photo, np.ndarray)
    or photo.dtype != np.uint8
    or photo.ndim != 3
    or photo.shape[2] != 3
    or not photo.size
  ):
    what = type(photo).__name__
    if isinstance(photo, np.ndarray):
      what = f"an array {photo.shape} of {photo.dtype}"
    raise InputError(
      f"{name}: expected an array (H, W, 3) of uint8, RGB; got {what}"
    )
  return photo


def _boxes(given: Any, photo: Photo, number: int) -> Float[np.ndarray, "n 4"]:
  if given is None:
    return np.array([[0.0, 0.0, photo.shape[1], photo.shape[0]]])
  try:
    boxes = np.asarray(given, np.float64)
  except (OverflowError, TypeError, ValueError):
    boxes = np.zeros(())
  if not boxes.size and boxes.ndim:
    return np.zeros((0, 4))
  if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
    raise InputError(
      f"boxes of photo {number}: expected finite numbers (N, 4), x, y, w, h;"
      f" got {np.shape(boxes) or repr(given)[:60]}"
    )
  return boxes


def _inside(boxes: Float[np.ndarray, "n 4"], photo: Photo) -> Any:
  """(n,) whether boxes have an area and reach into the photo."""
  corner, size = boxes[:, :2], boxes[:, 2:]
  limit = np.array(photo.shape[1::-1])
  return ((size > 0) & (corner < limit) & (corner + size > 0)).all(1)
