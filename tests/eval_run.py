"""An evaluation of a network that finds people with some error."""

import json

import jax
import numpy as np

from tests import fixtures, tiny
from tokenpose_jax import evaluate, sharding, skeletons
from tokenpose_jax.data import EvalData
from tokenpose_jax.metrics.benchmark import Boxes
from tokenpose_jax.metrics.coco_keypoints import CocoKeypoints

H, W = tiny.FLAGS["model.input_hw"]
IMAGES = 4


class Case:
  """People in four images, and a network that finds them with some error.

  Crops are the images themselves, twice as large in the image's pixels.
  """

  def __init__(
    self, skeleton=skeletons.COCO_17, noise=2.0, boxes="gt", facts=None
  ):
    rng = np.random.default_rng(0)
    k = skeleton.num_keypoints
    self.skeleton = skeleton
    number = 2 * IMAGES + 1
    self.image_id = np.repeat(np.arange(10, 10 + IMAGES), 2)[:number]
    self.image_id = np.append(self.image_id, 10)
    self.corner = rng.uniform(0, 300, (number, 2))
    self.truth = self.corner[:, None] + rng.uniform(0, 2, (number, k, 2)) * [
      W,
      H,
    ]
    off = noise * np.arange(number)[:, None, None]
    self.found = self.truth + off * rng.normal(size=(number, k, 2))
    self.scores = rng.uniform(0.3, 1, (number, k))
    self.annotations = {
      "images": [{"id": 10 + i} for i in range(IMAGES)],
      "categories": [{"id": 1, "name": "person"}],
      "annotations": [
        fixtures.person(
          int(self.image_id[i]),
          (*self.corner[i], 2 * W, 2 * H),
          id=i + 1,
          keypoints=np.column_stack([self.truth[i], np.full(k, 2)])
          .ravel()
          .tolist(),
        )
        for i in range(number)
      ],
    }
    self.data = EvalData(
      batches=self.batches,
      boxes=Boxes(
        image_id=self.image_id,
        category_id=np.ones(number, np.int64),
        score=np.ones(number),
        area=np.full(number, 4.0 * W * H),
      ),
      benchmark=CocoKeypoints(self.annotations, skeleton),
      source=boxes,
      source_facts=facts or {},
    )

  def batches(self):
    number, size = len(self.image_id), 4
    for start in range(0, number, size):
      slots = np.arange(start, start + size)
      index = np.minimum(slots, number - 1)
      affine = np.zeros((size, 2, 3), np.float32)
      affine[:, 0, 0] = affine[:, 1, 1] = 2
      affine[:, :, 2] = self.corner[index]
      images = np.zeros((size, H, W, 3), np.uint8)
      images[:] = (20 * index[:, None, None, None]).astype(np.uint8)
      # The last one cannot be read.
      mask = (slots < number - 1).astype(np.float32)
      yield {
        "image": images,
        "crop_to_image": affine,
        "index": index.astype(np.int32),
        "mask": mask,
      }

  def step(self, params, model_state, batch):
    del params, model_state
    index = np.asarray(batch["index"])
    found = self.found[index]
    return {
      "image": found,
      "crop": (found - self.corner[index][:, None]) / 2,
      "scores": self.scores[index],
      "peaks": self.scores[index],
      "doubt": None,
      "index": index,
      "mask": np.asarray(batch["mask"]),
    }

  def run(self, workdir, kind="raw", **changes):
    settings = tiny.config(
      eval__bootstrap=20, eval__best_and_worst=3, eval__pictures=4, **changes
    )
    finish = evaluate.begin(
      self.step,
      ({"w": np.arange(3.0)}, {}),
      self.data,
      sharding.create_mesh(jax.devices()[:1]),
      config=settings,
      skeleton=self.skeleton,
      workdir=str(workdir),
      step=70,
      kind=kind,
    )
    return finish()


def read(path):
  """The content of a JSON file."""
  return json.loads(path.read_text())
