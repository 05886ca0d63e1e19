"""Trains or evaluates TokenPose.

    python main.py --config=configs/tokenpose_t.py --workdir=runs/t
    python main.py --config=configs/tokenpose_t.py --workdir=runs/t \\
        --mode=evaluate --config.eval.boxes=detections.json

Any field of the config can be set with --config.FIELD=VALUE; configs/default.py
lists them. Bad input ends with one line and exit code 1.
"""

import os
import sys

# Before TensorFlow and JAX are imported: no start-up chatter, and no search for
# a Google Cloud that is not there, which can hang for minutes.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("NO_GCE_CHECK", "true")

import jax
import tensorflow as tf
from absl import flags, logging
from clu import metric_writers
from jax.sharding import Mesh
from ml_collections import ConfigDict, config_flags

from input_pipeline import batches as pipeline
from tokenpose_jax import config as config_lib
from tokenpose_jax import evaluate, report, sharding, skeletons, train
from tokenpose_jax.errors import InputError
from tokenpose_jax.skeletons import Skeleton

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "A file of configs/.", lock_config=True
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Directory of checkpoints, evaluations and summaries."
)
_MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "What to do.")


def run() -> None:
  """Does what the flags say.

  Raises:
    InputError: something given cannot be used.
  """
  config, workdir = _CONFIG.value, _WORKDIR.value or ""
  train_mode = _MODE.value == "train"
  config.data.skeleton = pipeline.skeleton_file(
    config,
    workdir,
    config.data.train_split if train_mode else config.data.eval_split,
  )
  skeleton = _with_sigmas(config, config_lib.resolve(config))
  # TensorFlow only reads images here; the accelerators are JAX's.
  tf.config.set_visible_devices([], "GPU")
  sharding.initialize()
  mesh = sharding.create_mesh()
  if train_mode:
    train_split = _prepare(config, config.data.train_split)
    eval_data = _eval_data(config, mesh)
    writer = _writer(workdir)
    train.train_and_evaluate(
      config,
      skeleton,
      workdir,
      mesh=mesh,
      train_data=_train_data(config, train_split, mesh),
      eval_data=eval_data,
      writer=writer,
    )
    writer.close()
  else:
    evaluate.evaluate_checkpoint(
      config, skeleton, workdir, mesh=mesh, data=_eval_data(config, mesh)
    )


def _with_sigmas(config: ConfigDict, skeleton: Skeleton) -> Skeleton:
  """OKS needs sigmas; MPII is measured by PCKh."""
  if skeleton.sigmas is None and config.data.name != "mpii":
    logging.warning(
      "the skeleton %s has no sigmas: OKS and AP take %s for every keypoint"
      " (docs/own_skeleton.md says how to estimate them)",
      skeleton.name,
      skeletons.DEFAULT_SIGMA,
    )
    skeleton = skeletons.with_sigmas(skeleton)
  return skeleton


def _prepare(config: ConfigDict, split: str) -> pipeline.Split:
  with sharding.first_process_first(f"prepare {split}"):
    return pipeline.prepare(config, split)


def _train_data(
  config: ConfigDict, split: pipeline.Split, mesh: Mesh
) -> train.TrainData:
  people = pipeline.people(config, split)
  with sharding.first_process_first("prepare person crops"):
    reader = pipeline.prepare_crops(
      config, split, people, config.data.train_split
    )
  slots = sharding.local_slots(
    mesh, config.train.batch_size, "train.batch_size"
  )
  return train.TrainData(
    batches=lambda first: pipeline.train_batches(
      config, split, people, slots=slots, first_step=first, reader=reader
    ),
    people=len(people),
    identity={
      "annotations_sha256": split.annotations.sha256,
      "people": len(people),
      **({"crop_density": config.data.crop_density} if reader else {}),
    },
  )


def _eval_data(config: ConfigDict, mesh: Mesh) -> evaluate.EvalData:
  split = _prepare(config, config.data.eval_split)
  people = pipeline.people(config, split, boxes=config.eval.boxes)
  images = split.annotations.content["images"]
  image_ids = None
  if config.eval.max_images:
    people = people.first_images(config.eval.max_images)
    image_ids = [image["id"] for image in images[: config.eval.max_images]]
  slots = sharding.local_slots(mesh, config.eval.batch_size, "eval.batch_size")
  return evaluate.EvalData(
    batches=lambda: pipeline.eval_batches(config, split, people, slots=slots),
    image_id=people.image_id,
    score=people.score,
    area=people.area,
    annotations=split.annotations.content,
    image_ids=image_ids,
    boxes=config.eval.boxes,
    ground_truth=pipeline.ground_truth(config, people),
  )


def _writer(workdir: str) -> metric_writers.MetricWriter:
  """TensorBoard summaries, written by one process in the background."""
  if jax.process_index():
    return metric_writers.MultiWriter([])
  return metric_writers.AsyncWriter(metric_writers.SummaryWriter(workdir))


def main(argv: list[str]) -> None:
  """Parses the flags; turns bad input into one line and exit code 1."""
  try:
    config_lib.parse_flags(argv, _CONFIG)
    for flag in (_CONFIG, _WORKDIR):
      if not flag.value:
        raise InputError(
          f"--{flag.name} is missing; for example: python main.py"
          " --config=configs/tokenpose_t.py --workdir=runs/tokenpose_t"
        )
    here = os.path.dirname(os.path.abspath(__file__))
    ours = ("main.py", "tokenpose_jax", "input_pipeline")
    report.log_only(*(os.path.join(here, name) for name in ours))
    run()
  except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
  main(sys.argv)
