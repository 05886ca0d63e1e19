"""A run: the data of a config, a mesh, and training or evaluation on them."""

import contextlib
import importlib.metadata
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import tensorflow as tf
from absl import logging
from jax.sharding import Mesh
from jaxtyping import Int
from ml_collections import ConfigDict

from input_pipeline import batches, datasets, files
from input_pipeline.summaries import Summaries
from tokenpose_jax import checkpoint, compiled, processes, sharding, stopping
from tokenpose_jax import config as config_lib
from tokenpose_jax import evaluate as evaluate_lib
from tokenpose_jax import train as train_lib
from tokenpose_jax import workdir as workdir_lib
from tokenpose_jax.data import EvalData
from tokenpose_jax.errors import InputError, one_line
from tokenpose_jax.skeletons import Skeleton
from tokenpose_jax.version import __version__

# Seconds until a file that one host has written is seen by another one.
_VISIBLE = 15
# Other versions may compute or save something else.
_SAME_VERSIONS = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def train(
  config: ConfigDict, workdir: str, given: Mapping[str, str] | None = None
) -> None:
  """Trains, with evaluations, in a work directory.

  Args:
    config: of configs/.
    workdir: for checkpoints, evaluations and summaries.
    given: as for `processes.initialize`.

  Raises:
    InputError: a field, a file or a checkpoint cannot be used.
  """
  config_lib.check(config)
  _join(workdir, given)
  with _alone(workdir):
    config, skeleton, mesh = _start(config, workdir, config.data.train_split)
    slots = _slots(mesh, config, "train")
    with processes.first_process_first("preparing training data"):
      train_data = batches.train_data(config, skeleton, slots)
    eval_data = _eval_data(config, skeleton, mesh)
    logging.info("%s", _described(config, skeleton))
    _require_same(config, skeleton, train_data.identity)
    with (
      contextlib.closing(Summaries(workdir)) as writer,
      processes.in_step("training"),
    ):
      train_lib.train_and_evaluate(
        config,
        skeleton,
        workdir,
        mesh=mesh,
        train_data=train_data,
        eval_data=eval_data,
        writer=writer,
      )


def evaluate(
  config: ConfigDict, workdir: str, given: Mapping[str, str] | None = None
) -> None:
  """Evaluates a checkpoint of a work directory.

  Args:
    config: of configs/.
    workdir: of a training or of an import.
    given: as for `processes.initialize`.

  Raises:
    InputError: a field, a file or a checkpoint cannot be used.
  """
  config_lib.check(config)
  if not tf.io.gfile.isdir(workdir):
    raise InputError(
      f"--workdir: there is no folder {workdir}; name that of a training"
    )
  # Now, not after the data has been prepared.
  checkpoint.Checkpoints(workdir).choose(config.eval.checkpoint)
  _join(workdir, given)
  stopping.at("in an evaluation")
  config, skeleton, mesh = _start(config, workdir, config.data.eval_split)
  eval_data = _eval_data(config, skeleton, mesh)
  logging.info("%s", _described(config, skeleton))
  _require_same(config, skeleton, {"boxes": len(eval_data.boxes)})
  evaluate_lib.evaluate_checkpoint(
    config, skeleton, workdir, mesh=mesh, data=eval_data
  )


def _join(workdir: str, given: Mapping[str, str] | None) -> None:
  """Looks at the work directory, and joins the processes of the run."""
  workdir_lib.require_inside(workdir)
  _require_writable(workdir)
  processes.initialize(given)


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
  compiled.keep(config.compile_cache)
  return resolved, skeleton, sharding.create_mesh()


@contextlib.contextmanager
def _alone(workdir: str) -> Iterator[None]:
  """No other run is in the work directory, and all processes are in this one.

  Raises:
    InputError: another run is there, or the folder is not shared.
  """
  first = jax.process_index() == 0
  with workdir_lib.held(workdir) if first else contextlib.nullcontext():
    _require_shared(workdir)
    yield


def _require_shared(workdir: str) -> None:
  """Raises InputError where process 0 writes to another folder."""
  if jax.process_count() == 1:
    return
  name = f".shared-{os.getpid()}"
  (mark, *_) = processes.exchange("mark", name)
  path = os.path.join(workdir, mark)
  if jax.process_index() == 0:
    files.write(path, "")
  processes.exchange("the work directory is marked", "")
  end = time.monotonic() + _VISIBLE
  while not (seen := tf.io.gfile.exists(path)) and time.monotonic() < end:
    time.sleep(0.5)
  fine = processes.exchange("the work directory is shared", str(int(seen)))
  if jax.process_index() == 0:
    tf.io.gfile.remove(path)
  if "0" in fine:
    raise InputError(
      f"--workdir: process {fine.index('0')} does not see what process 0"
      f" writes to {workdir}: name a folder that all of them share"
    )


def _require_same(
  config: ConfigDict, skeleton: Skeleton, data: Mapping[str, Any]
) -> None:
  """Raises InputError where processes would train on something else."""
  plain = config_lib.to_dict(config)
  plain.pop("compile_cache")  # Each host may have its own places.
  for name in ("dir", "prepared_dir", "workers"):
    plain["data"].pop(name)
  processes.require_same("config", plain)
  processes.require_same("skeleton", skeleton.to_dict())
  processes.require_same("data", data)
  versions = {n: importlib.metadata.version(n) for n in _SAME_VERSIONS}
  processes.require_same("software", {"tokenpose_jax": __version__, **versions})


def _described(config: ConfigDict, skeleton: Skeleton) -> str:
  data = config.data
  return one_line(datasets.describe(data.name, skeleton, data.skeleton))


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
  with processes.first_process_first("preparing evaluation data"):
    return batches.eval_data(config, skeleton, slots)


def _slots(
  mesh: Mesh, config: ConfigDict, section: str
) -> Int[np.ndarray, " b"]:
  """The slots of the section's batches that this process loads."""
  field = f"{section}.batch_size"
  parts = config[section].get("microbatches", 1)
  return sharding.local_slots(mesh, config[section].batch_size, field, parts)
