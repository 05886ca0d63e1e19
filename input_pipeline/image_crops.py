"""Crops of people, read from the encoded images."""

import cv2
import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float, Int, UInt8

from input_pipeline.decode import decode_windows, examine
from input_pipeline.files import reason
from input_pipeline.store import ImageStore
from tokenpose_jax import geometry
from tokenpose_jax.crops import aligned_zeros, warp


class ImageCropReader:
  """Reads crops of people; a store names an unreadable image once."""

  def __init__(self, store: ImageStore, image: Int[np.ndarray, " n"]):
    """Opens nothing.

    Args:
      store: the images.
      image: (N,) index of each person's image in the store.
    """
    self._store = store
    self._image = image
    cv2.setNumThreads(1)  # tf.data already runs this in parallel.

  def read(
    self,
    people: Int[np.ndarray, " m"],
    affine: Float[np.ndarray, "m 2 3"],
    output_hw: tuple[int, int],
  ) -> tuple[UInt8[np.ndarray, "m h w 3"], Bool[np.ndarray, " m"]]:
    """Some crops.

    Args:
      people: (M,) indices of people.
      affine: (M, 2, 3) pixels of each person's image to crop pixels.
      output_hw: crop size, pixels.

    Returns:
      the crops, RGB, and whose image could be read; zeros where not.
    """
    numbers = self._image[people]
    crops = aligned_zeros((len(numbers), *output_hw, 3))
    good = np.zeros(len(numbers), bool)
    sizes = self._store.sizes[numbers]
    windows = geometry.source_window(affine, output_hw, sizes)
    encoded = [self._store.read(int(number)) for number in numbers]
    for i in np.flatnonzero(sizes[:, 0] == 0).tolist():
      number = int(numbers[i])
      if not self._store.is_named(number):
        self._store.warn_unreadable(number, examine(encoded[i]).reason)
    readable = np.flatnonzero(sizes[:, 0]).tolist()
    decoded = decode_windows([encoded[i] for i in readable], windows[readable])
    for i, image in zip(readable, decoded, strict=True):
      if isinstance(image, tf.errors.OpError):
        self._store.warn_unreadable(int(numbers[i]), reason(image))
      else:
        good[i] = True
        window, corner = image
        warp(window, corner, affine[i], crops[i])
    return crops, good
