"""What AP is worth on a data set: that of the mean pose, and of no training.

    python -m benchmarks.baselines --config=configs/small.py \
        --config.data.dir=DIR --config.data.train_split=train2017

"mean pose" puts the same keypoints into every box and looks at no pixel: the
mean place of each keypoint in the crops of the training people who have it
labeled. "untrained" is the config's network before its first step, from random
weights. Both are measured as every evaluation is (`eval.*`).
"""

import json

import jax
import numpy as np
from absl import app, flags
from jaxtyping import Float
from ml_collections import ConfigDict, config_flags

from benchmarks import figures
from input_pipeline import batches, datasets
from input_pipeline.people import People
from tokenpose_jax import config as config_lib
from tokenpose_jax import evaluate, geometry, inference, network, sharding
from tokenpose_jax.data import EvalData
from tokenpose_jax.metrics.benchmark import Predictions
from tokenpose_jax.skeletons import Skeleton
from tokenpose_jax.terminal import say

_CONFIG = config_flags.DEFINE_config_file("config")
_OUT = flags.DEFINE_string("out", None, "also written there, JSON")


def main(argv: list[str]) -> None:
  del argv
  config_lib.check(_CONFIG.value)
  split = _CONFIG.value.data.train_split
  skeleton = datasets.skeleton_of(_CONFIG.value.data, split)
  config = config_lib.resolve(_CONFIG.value, skeleton)
  size = config.eval.batch_size
  data = batches.eval_data(config, skeleton, np.arange(size))
  found = {}
  for name, predict in (("mean pose", mean_pose), ("untrained", untrained)):
    predictions = predict(config, skeleton, data)
    say(f"{name}, boxes: {data.source}, {len(data.boxes)} people")
    found[name] = figures.told(data, predictions, config.eval.bootstrap)
  if _OUT.value:
    with open(_OUT.value, "w") as file:
      json.dump(found, file, indent=1)


def mean_pose(
  config: ConfigDict, skeleton: Skeleton, data: EvalData
) -> Predictions:
  """The same place in each box."""
  split = datasets.prepare(config.data, config.data.train_split, skeleton)
  people = datasets.people(split, config)
  labeled = people.visible[..., None] > 0
  places = geometry.transform(to_crop(config, people), people.keypoints)
  mean = (places * labeled).sum(0) / np.maximum(labeled.sum(0), 1)
  split = datasets.prepare(config.data, config.data.eval_split, skeleton)
  boxes = datasets.people(split, config, boxes=config.eval.boxes)
  if count := config.eval.max_images:
    boxes = boxes.first_images(count)
  back = geometry.invert(to_crop(config, boxes))
  points = geometry.transform(
    back, np.broadcast_to(mean, (len(boxes), *mean.shape))
  )
  ones = np.ones(points.shape[:2], np.float32)
  return Predictions(
    boxes=data.boxes,
    keypoints=points.astype(np.float32),
    scores=ones,
    peaks=ones,
    valid=np.ones(len(boxes), bool),
  )


def to_crop(config: ConfigDict, people: People) -> Float[np.ndarray, "n 2 3"]:
  """Image pixels of each person to crop pixels."""
  return geometry.crop_affine(
    people.center, people.scale, 0.0, tuple(config.model.input_hw)
  )


def untrained(
  config: ConfigDict, skeleton: Skeleton, data: EvalData
) -> Predictions:
  """What random weights find."""
  settings = inference.Settings.of(config, skeleton)
  weights = network.init(settings.model, config.seed, config.init.scheme)
  mesh = sharding.create_mesh(jax.devices()[:1])
  return evaluate.predict(
    evaluate.create_eval_step(settings, mesh),
    sharding.put_replicated(mesh, weights),
    data,
    mesh,
    num_keypoints=skeleton.num_keypoints,
    doubt=config.model.doubt,
  )


if __name__ == "__main__":
  app.run(main)
