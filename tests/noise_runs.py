"""Trainings on noise, which need no data."""

import jax
import numpy as np

from tests import tiny
from tokenpose_jax import sharding, skeletons, train
from tokenpose_jax.data import TrainData


class Writer:
  """Keeps what is written, as clu's writers would."""

  def __init__(self):
    self.scalars, self.images = {}, {}

  def write_scalars(self, step, values):
    self.scalars.setdefault(step, {}).update(values)

  def write_images(self, step, values):
    self.images.setdefault(step, {}).update(values)

  def flush(self):
    pass


def run(
  settings, workdir, first_bad=None, evaluation=None, people=80, **identity
):
  """(the state, the writer) of a run; NaN from the step `first_bad` on."""

  def batches(first):
    for step in range(first, 1000):
      made = tiny.batch(settings, seed=step)
      if first_bad is not None and step >= first_bad:
        made["keypoints"][:] = np.nan
      yield made

  identity = {"annotations_sha256": "x", "people": people} | identity
  data = TrainData(batches=batches, people=people, identity=identity)
  writer = Writer()
  state = train.train_and_evaluate(
    settings,
    skeletons.COCO_17,
    str(workdir),
    mesh=sharding.create_mesh(jax.devices()[:1]),
    train_data=data,
    eval_data=evaluation,
    writer=writer,
  )
  return state, writer


def same(one, other) -> bool:
  """Are two trees of arrays the same to the bit?"""
  pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
  return all(np.array_equal(a, b) for a, b in pairs)
