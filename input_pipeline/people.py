"""What annotation files become: people as arrays."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from tokenpose_jax import geometry


@dataclasses.dataclass(frozen=True)
class Annotations:
  """A split's annotation file.

  Attributes:
    path: of the file.
    sha256: of its bytes: the identity of the data.
    content: COCO's dict: images, annotations, categories.
  """

  path: str
  sha256: str
  content: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class People:
  """N people (or detector boxes) of a split, as arrays.

  Attributes:
    image: (N,) int32, the image's index in the annotation file's list.
    image_id: (N,) int64, COCO's image ids.
    category_id: (N,) int64, COCO's category ids.
    center: (N, 2) pixels.
    scale: (N, 2) size (w, h) of the padded box, in 200 pixels.
    keypoints: (N, K, 2) float64 image pixels. Zeros for detector boxes.
    visible: (N, K) float32, 1 where labeled. Zeros for detector boxes.
    hidden: (N, K) float32, 1 where labeled as hidden, 0 where not known.
    person_area: (N,) float64 square pixels, as annotated; NaN where unknown.
    score: (N,) float64, 1 for annotated boxes.
    head_box: (N, 4) float64 x1, y1, x2, y2 image pixels, NaN where unknown.
  """

  image: Int[np.ndarray, " n"]
  image_id: Int[np.ndarray, " n"]
  category_id: Int[np.ndarray, " n"]
  center: Float[np.ndarray, "n 2"]
  scale: Float[np.ndarray, "n 2"]
  keypoints: Float[np.ndarray, "n k 2"]
  visible: Float[np.ndarray, "n k"]
  hidden: Float[np.ndarray, "n k"]
  person_area: Float[np.ndarray, " n"]
  score: Float[np.ndarray, " n"]
  head_box: Float[np.ndarray, "n 4"]

  def __len__(self) -> int:
    return len(self.image)

  def first_images(self, count: int) -> "People":
    """Those of the first `count` images of the annotation file."""
    return self.select(self.image < count)

  def select(
    self, keep: Bool[np.ndarray, " n"] | Int[np.ndarray, " m"]
  ) -> "People":
    """Those where (N,) `keep` is true, or at those indices."""
    fields = dataclasses.fields(self)
    return People(**{f.name: getattr(self, f.name)[keep] for f in fields})

  @property
  def area(self) -> Float[np.ndarray, " n"]:
    """(N,) float64 of the padded boxes, square pixels (reference 5.4)."""
    return geometry.crop_area(self.scale)
