"""Crops of people, read from the encoded images."""

import threading

import cv2
import numpy as np
import tensorflow as tf
from absl import logging
from jaxtyping import Bool, Float, Int, UInt8

from input_pipeline.decode import decode_windows, reason
from input_pipeline.store import ImageStore
from tokenpose_jax import geometry
from tokenpose_jax.crops import aligned_zeros, warp


class ImageCropReader:
  """Reads crops of people; an unreadable image is named once."""

  def __init__(self, store: ImageStore, image: Int[np.ndarray, " n"]):
    """Opens nothing.

    Args:
      store: the images.
      image: (N,) index of each person's image in the store.
    """
    self._store = store
    self._image = image
    self._bad: set[int] = set()
    self._lock = threading.Lock()
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
    encoded = [self._store.read(int(number)) for number in numbers]
    windows = geometry.source_window(
      affine, output_hw, self._store.sizes[numbers]
    )
    for i, image in enumerate(decode_windows(encoded, windows)):
      if isinstance(image, tf.errors.OpError):
        self._report(int(numbers[i]), image)
      else:
        good[i] = True
        window, corner = image
        warp(window, corner, affine[i], crops[i])
    return crops, good

  def _report(self, number: int, error: tf.errors.OpError) -> None:
    with self._lock:
      new = number not in self._bad
      self._bad.add(number)
    if new:
      logging.warning(
        "cannot read the image %s, its people are skipped: %s (after"
        " repairing it, delete the prepared data in %s)",
        self._store.names[number],
        reason(error),
        self._store.path,
      )
