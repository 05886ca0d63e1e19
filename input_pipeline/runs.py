"""A run: the data of a config, a mesh, and training or evaluation on them."""

import contextlib
import os

import jax
import numpy as np
import tensorflow as tf
from absl import logging
from clu import metric_writers
from jax.sharding import Mesh
from jaxtyping import Int
from ml_collections import ConfigDict

from input_pipeline import batches, datasets, files
from tokenpose_jax import checkpoint, sharding
from tokenpose_jax import config as config_lib
from tokenpose_jax import evaluate as evaluate_lib
from tokenpose_jax import train as train_lib
from tokenpose_jax.data import EvalData
from tokenpose_jax.errors import InputError
from tokenpose_jax.skeletons import Skeleton


def train(config: ConfigDict, workdir: str) -> None:
  """Trains, with evaluations, in a work directory.

  Args:
    config: of configs/.
    workdir: for checkpoints, evaluations and summaries.

  Raises:
    InputError: a field, a file or a checkpoint cannot be used.
  """
  config_lib.check(config)
  _require_writable(workdir)
  config, skeleton, mesh = _start(config, workdir, config.data.train_split)
  slots = _slots(mesh, config, "train")
  with sharding.first_process_first("prepare training data"):
    train_data = batches.train_data(config, skeleton, slots)
  eval_data = _eval_data(config, skeleton, mesh)
  logging.info(_described(config, skeleton))
  with contextlib.closing(_writer(workdir)) as writer:
    train_lib.train_and_evaluate(
      config,
      skeleton,
      workdir,
      mesh=mesh,
      train_data=train_data,
      eval_data=eval_data,
      writer=writer,
    )


def evaluate(config: ConfigDict, workdir: str) -> None:
  """Evaluates a checkpoint of a work directory.

  Args:
    config: of configs/.
    workdir: of a training or of an import.

  Raises:
    InputError: a field, a file or a checkpoint cannot be used.
  """
  config_lib.check(config)
  if not tf.io.gfile.isdir(workdir):
    raise InputError(
      f"--workdir: there is no folder {workdir}; name that of a training"
    )
  _require_writable(workdir)
  config, skeleton, mesh = _start(config, workdir, config.data.eval_split)
  # Now, not after the data has been prepared.
  checkpoint.Checkpoints(workdir, read_only=True).choose(config.eval.checkpoint)
  eval_data = _eval_data(config, skeleton, mesh)
  logging.info(_described(config, skeleton))
  evaluate_lib.evaluate_checkpoint(
    config, skeleton, workdir, mesh=mesh, data=eval_data
  )


def _start(
  config: ConfigDict, workdir: str, split: str
) -> tuple[ConfigDict, Skeleton, Mesh]:
  """The resolved config, its skeleton and the mesh."""
  skeleton = datasets.skeleton_of(config.data, split)
  if not skeleton.flip_pairs and skeleton.num_keypoints > 1:
    logging.warning(
      "the skeleton %s has no flip pairs: mirrored images keep left and right"
      " as they are, which is wrong if there are any; name them with"
      " 'flip_pairs' in a skeleton file (docs/own_skeleton.md)",
      skeleton.name,
    )
  resolved = config_lib.resolve(config, skeleton)
  if config.data.skeleton == datasets.FROM_ANNOTATIONS:
    datasets.write_skeleton(skeleton, workdir)
  # TensorFlow only reads images here; the accelerators are JAX's.
  tf.config.set_visible_devices([], "GPU")
  sharding.initialize()
  return resolved, skeleton, sharding.create_mesh()


def _described(config: ConfigDict, skeleton: Skeleton) -> str:
  return datasets.describe(config.data.name, skeleton, config.data.skeleton)


def _require_writable(workdir: str) -> None:
  """Raises InputError where nothing can be written: now, not after an hour."""
  try:
    tf.io.gfile.makedirs(workdir)
    files.probe(os.path.join(workdir, ".writable"))
  except (OSError, tf.errors.OpError) as error:
    raise InputError(
      f"--workdir: cannot write to {workdir}: {files.reason(error)}; choose"
      " another folder"
    ) from None


def _eval_data(config: ConfigDict, skeleton: Skeleton, mesh: Mesh) -> EvalData:
  slots = _slots(mesh, config, "eval")
  with sharding.first_process_first("prepare evaluation data"):
    return batches.eval_data(config, skeleton, slots)


def _slots(
  mesh: Mesh, config: ConfigDict, section: str
) -> Int[np.ndarray, " b"]:
  """The slots of the section's batches that this process loads."""
  field = f"{section}.batch_size"
  parts = config[section].get("microbatches", 1)
  return sharding.local_slots(mesh, config[section].batch_size, field, parts)


def _writer(workdir: str) -> metric_writers.MetricWriter:
  """TensorBoard summaries, written by one process in the background."""
  if jax.process_index():
    return metric_writers.MultiWriter([])
  return metric_writers.AsyncWriter(metric_writers.SummaryWriter(workdir))
