"""What holds for the people of a data set, with intervals.

Of each batch only sums are kept: memory does not grow with the people.
"""

import dataclasses
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from tokenpose_jax.errors import InputError
from tokenpose_jax.explanation import constraints, evidence
from tokenpose_jax.explanation.person import SETTLED, Explainer, box_side

NEAR = 1.5  # patches
SEEN = 0.2
TOP = 2  # constraints of a keypoint
REPLICATES = 400
RANGE = (2.5, 97.5)  # percent of the replicates


AnyValue = Float[np.ndarray, "..."] | np.ndarray | float


class Person(NamedTuple):
  """A person of a data set.

  Attributes:
    image: the name of the photo; people of one are drawn together.
    photo: (H, W, 3) RGB.
    box: (4,) x, y, w, h in image pixels.
    visible: (K,) which keypoints can be seen; None: those predicted with a
      score of at least `SEEN`.
  """

  image: str
  photo: UInt8[np.ndarray, "h w 3"]
  box: Float[np.ndarray, " 4"]
  visible: Bool[np.ndarray, " k"] | None = None


class Estimate(NamedTuple):
  """A mean over people, with an interval; all of one shape.

  Attributes:
    value: of all people; NaN where nobody counts.
    low: lower end of the middle 95 % of bootstrap replicates over photos.
    high: upper end.
  """

  value: Float[np.ndarray, "..."]
  low: Float[np.ndarray, "..."]
  high: Float[np.ndarray, "..."]

  def to_dict(self) -> dict[str, Any]:
    """As JSON types; None for NaN."""
    return {name: _finite(part) for name, part in self._asdict().items()}


class Sums:
  """Sums over people, and over each bootstrap replicate of their photos.

  A replicate takes each photo Poisson(1) times (Chamandy et al., 2012), which
  needs no second pass over the people.
  """

  def __init__(self, replicates: int = REPLICATES, seed: int = 0):
    """Empty sums.

    Args:
      replicates: of the bootstrap.
      seed: of the draws, which depend on it and on the photos' names alone.
    """
    self._replicates, self._seed = replicates, seed
    self._sums: dict[tuple[str, str], Any] = {}

  def add(
    self, image: str, values: Mapping[str, tuple[AnyValue, AnyValue]]
  ) -> None:
    """Adds what was measured of a person.

    Args:
      image: the name of the photo.
      values: by name a value (...) and its weight, which broadcasts to it; the
        shapes are those of every person.
    """
    rng = np.random.default_rng([self._seed, zlib.crc32(image.encode())])
    times = np.concatenate([[1], rng.poisson(1, self._replicates)])
    for name, (value, weight) in values.items():
      value = np.asarray(value, np.float64)
      weight = np.asarray(weight, np.float64)
      weight = weight.reshape((1,) * (value.ndim - weight.ndim) + weight.shape)
      known = np.where(weight > 0, value, 0.0)
      for kind, part in (("value", known * weight), ("weight", weight)):
        added = times.reshape((-1,) + (1,) * part.ndim) * part
        self._sums[name, kind] = self._sums.get((name, kind), 0) + added

  def mean(self, name: str) -> Estimate:
    """The weighted mean of what was measured, with an interval."""
    weight = self._sums[name, "weight"]
    weight = np.where(weight > 0, weight, np.nan)
    return _estimate(self._sums[name, "value"] / weight)

  def weight(self, name: str) -> Float[np.ndarray, "..."]:
    """The sum of the weights."""
    return self._sums[name, "weight"][0]


def _estimate(replicates: Float[np.ndarray, "r ..."]) -> Estimate:
  """An estimate of what was computed of all people and of each replicate.

  Args:
    replicates: (1 + replicates, ...) of all people, then of each replicate.
      NaN where a replicate has nobody.
  """
  some = np.isfinite(replicates).any(0)
  known = np.where(some, replicates, 0.0)
  low, high = np.nanpercentile(known, RANGE, axis=0)
  low, high = (np.where(some, end, np.nan) for end in (low, high))
  return Estimate(np.asarray(replicates[0]), low, high)


@dataclasses.dataclass(frozen=True)
class Study:
  """What holds for the people of a data set.

  Attributes:
    people: how many.
    images: how many photos.
    layers: L names.
    keypoints: K names.
    visible: (K,) how many of each keypoint count.
    near: (L, K) the share of visible keypoints whose token's attention (mean of
      the heads) peaks within `NEAR` patches of the predicted keypoint.
    near_all: (L,) of all keypoints together.
    near_chance: the share of patches within `NEAR` of a visible keypoint.
    on_image: (L, K) the share of attention that goes to patches.
    among: (L, K, K) attention from each keypoint token to each.
    partners: (L, 3) what the `TOP` constraints of each person's keypoints are:
      shares of `constraints.KINDS`.
    partners_tokens: (3,) what the `TOP` most similar learned tokens of each
      keypoint are, by cosine: without any image.
    partners_chance: (3,) the same without looking.
    settled: (L, K) the share of keypoints that stay from this layer on where
      they end (`person.SETTLED`).
    covered: what covering the visible keypoints does; None where nobody asked.
  """

  people: int
  images: int
  layers: tuple[str, ...]
  keypoints: tuple[str, ...]
  visible: Float[np.ndarray, " k"]
  near: Estimate
  near_all: Estimate
  near_chance: Estimate
  on_image: Estimate
  among: Estimate
  partners: Estimate
  partners_tokens: Float[np.ndarray, " s"]
  partners_chance: Float[np.ndarray, " s"]
  settled: Estimate
  covered: "Covered | None"

  def to_dict(self) -> dict[str, Any]:
    """As JSON types."""
    return _plain(self)


@dataclasses.dataclass(frozen=True)
class Covered:
  """What covering keypoints does, compared with the crop as it is.

  Attributes:
    moved: (K,) how far the covered keypoint goes, of the longer side of the
      box.
    lost: (K,) how much its score falls.
    gain: (L, K, K) how much more attention the covered keypoint's token gives
      to each keypoint.
    gain_kinds: (L, 3) the same by `constraints.KINDS`, the sum over the
      keypoints of a kind, the mean over covered keypoints.
    gain_elsewhere: (L, 3) the same where something else is covered, at least
      a square away.
    image: (L, K) how much more goes to patches.
  """

  moved: Estimate
  lost: Estimate
  gain: Estimate
  gain_kinds: Estimate
  gain_elsewhere: Estimate
  image: Estimate

  @classmethod
  def names(cls) -> list[str]:
    """Of the attributes."""
    return [field.name for field in dataclasses.fields(cls)]


def study(
  explainer: Explainer,
  people: Iterable[Person],
  *,
  probe: bool = True,
  cover: str = "gray",
  progress: Any = lambda count: None,
) -> Study:
  """Measures the people of a data set.

  Args:
    explainer: the network.
    people: at least one.
    probe: cover keypoints, too: K more crops for each person.
    cover: one of `occlusion.COVERS`.
    progress: is told how many people were measured.

  Raises:
    InputError: the cover is not known, or there are no people.
  """
  measure = _Measure(explainer, cover if probe else "")
  sums, images, count = Sums(), set(), 0
  for person in people:
    sums.add(person.image, measure(person))
    images.add(zlib.crc32(person.image.encode()))
    count += 1
    progress(1)
  if not count:
    raise InputError("there are no people to study")
  return _study(explainer, sums, count, len(images), probe)


class _Measure:
  """What is added up of a person."""

  def __init__(self, explainer: Explainer, cover: str):
    self._explainer, self._cover = explainer, cover
    model = explainer.saved.model
    self._centers = evidence.patch_centers(model)
    self._patch = np.array(model.input_hw[::-1]) / model.grid_hw[::-1]
    self._kinds = constraints.kinds(explainer.saved.skeleton)

  def __call__(self, person: Person) -> dict[str, Any]:
    crop, affine = self._explainer.crop(person.photo, person.box)
    found = self._explainer.look(crop[None]).of(0)
    attention = np.asarray(found.attention).mean(1)
    points = np.asarray(found.points)
    k = len(self._kinds)
    seen = person.visible
    if seen is None:
      seen = np.asarray(found.scores)[-1] >= SEEN
    visible = seen.astype(np.float64)
    side = box_side(person.box, affine)
    away = np.linalg.norm(
      (self._centers[None] - points[-1][:, None]) / self._patch, axis=-1
    )
    peaks = attention[:, :, k:].argmax(-1)
    near = away[np.arange(k), peaks] <= NEAR
    partners = constraints.top(attention[:, :, :k], TOP)
    layer = evidence.settled(points, np.asarray(SETTLED * side))
    ended = np.arange(len(points))[:, None] >= layer
    count = visible.sum()
    values = {
      "visible": (np.ones(k), visible),
      "near": (near, visible),
      "near_all": ((near * visible).sum(-1) / max(count, 1), count),
      "near_chance": ((away <= NEAR).mean(-1) @ visible / max(count, 1), count),
      "on_image": (attention[:, :, k:].sum(-1), 1),
      "among": (attention[:, :, :k], 1),
      "partners": (constraints.shares(partners, self._kinds), 1),
      "settled": (ended, 1),
    }
    if self._cover:
      scores = np.asarray(found.scores)[-1]
      values |= self._covered(
        crop, attention, points[-1], scores, visible, side
      )
    return values

  def _covered(
    self,
    crop: UInt8[np.ndarray, "h w 3"],
    attention: Float[np.ndarray, "l k n"],
    points: Float[np.ndarray, "k 2"],
    scores: Float[np.ndarray, " k"],
    visible: Float[np.ndarray, " k"],
    side: float,
  ) -> dict[str, Any]:
    """Of a person with each of the keypoints covered."""
    k = len(visible)
    probe = self._explainer.probe(crop, points, self._cover)
    own = np.arange(k)
    # (L, K covered, K tokens, N): what was not there with nothing covered.
    more = probe.attention - attention[:, None]
    among = more[..., :k]
    by_kind = np.stack(
      [
        (among * (self._kinds == n)).sum(-1)
        for n in range(len(constraints.KINDS))
      ],
      axis=-1,
    )
    moved = np.linalg.norm(probe.points - points[None], axis=-1)[own, own]
    lost = scores - probe.scores[own, own]
    far = np.abs(points[:, None] - points[None]).max(-1) >= probe.side
    elsewhere = far * visible
    count, others = visible.sum(), elsewhere.sum()
    of_own = (by_kind[:, own, own] * visible[None, :, None]).sum(1)
    of_others = (by_kind * elsewhere[None, ..., None]).sum((1, 2))
    return {
      "moved": (moved / side, visible),
      "lost": (lost, visible),
      "gain": (among[:, own, own], visible[:, None]),
      "gain_kinds": (of_own / max(count, 1), count),
      "gain_elsewhere": (of_others / max(others, 1), others),
      "image": (more[:, own, own, k:].sum(-1), visible),
    }


def _study(
  explainer: Explainer, sums: Sums, people: int, images: int, probe: bool
) -> Study:
  skeleton = explainer.saved.skeleton
  kinds = constraints.kinds(skeleton)
  alike = constraints.top(explainer.similarity.cosine, TOP)
  covered = Covered(*map(sums.mean, Covered.names())) if probe else None
  return Study(
    people=people,
    images=images,
    layers=evidence.layer_names(explainer.saved.model),
    keypoints=skeleton.keypoints,
    visible=sums.weight("visible"),
    near=sums.mean("near"),
    near_all=sums.mean("near_all"),
    near_chance=sums.mean("near_chance"),
    on_image=sums.mean("on_image"),
    among=sums.mean("among"),
    partners=sums.mean("partners"),
    partners_tokens=constraints.shares(alike, kinds),
    partners_chance=constraints.chance(kinds),
    settled=sums.mean("settled"),
    covered=covered,
  )


def _finite(values: np.ndarray) -> Any:
  """As lists; None for NaN."""
  plain = np.array(values, object)
  plain[~np.isfinite(values)] = None
  return plain.tolist()


def _plain(value: Any) -> Any:
  if isinstance(value, Estimate):
    return value.to_dict()
  if dataclasses.is_dataclass(value):
    return {
      field.name: _plain(getattr(value, field.name))
      for field in dataclasses.fields(value)
    }
  return value.tolist() if isinstance(value, np.ndarray) else value
