"""Checkpoints of a run: saving, the best and the latest, resuming, checking.

A checkpoint holds the training state and, as JSON, what is needed to use it
years later: the format's number, the software's version, the whole config, the
skeleton, the identity of the data, and a checksum of every array, because
Orbax's own files carry none: a flipped bit would be restored as if nothing had
happened.
"""

import contextlib
import dataclasses
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from ml_collections import ConfigDict
from orbax.checkpoint import checkpoint_managers

from tokenpose_jax import config as config_lib
from tokenpose_jax import network, orbax_trees, sharding
from tokenpose_jax.config import Differences
from tokenpose_jax.errors import InputError, check_choice, one_line
from tokenpose_jax.models.config import ModelConfig
from tokenpose_jax.network import Tree
from tokenpose_jax.train_state import TrainState
from tokenpose_jax.version import __version__

FOLDER = "checkpoints"
FORMAT = 1

# A benchmark's headline is saved under this name; before format 1, under its
# own name, the first of these.
_HEADLINE = "headline"
_OLD_HEADLINES = ("AP", "Mean")


class Checkpoints:
  """The checkpoints of a work directory."""

  def __init__(self, workdir: str, *, keep: int = 2, read_only: bool = False):
    """Opens them.

    Args:
      workdir: of a run.
      keep: how many of the latest stay; the best one stays as well.
      read_only: makes no folder and deletes nothing.

    Raises:
      InputError: the folder cannot be made.
    """
    folder = epath.Path(workdir)
    # Only a local path has a current folder that it can be relative to.
    self.path = (folder if "://" in workdir else folder.absolute()) / FOLDER
    policy = checkpoint_managers.AnyPreservationPolicy(
      [
        checkpoint_managers.LatestN(keep),
        checkpoint_managers.BestN(
          get_metric_fn=_metric, n=1, keep_checkpoints_without_metrics=False
        ),
      ]
    )
    options = ocp.CheckpointManagerOptions(
      preservation_policy=policy,
      best_fn=_metric,
      best_mode="max",
      create=not read_only,
      read_only=read_only,
    )
    try:
      self._manager = ocp.CheckpointManager(self.path, options=options)
    except OSError as error:
      raise InputError(f"cannot write {self.path}: {error.strerror}") from None

  def steps(self) -> list[int]:
    """The steps saved, ascending."""
    return sorted(self._manager.all_steps())

  def save(self, state: TrainState, meta: Mapping[str, Any]) -> None:
    """Saves in the background.

    Args:
      state: its arrays may be donated once this returns.
      meta: JSON types (`describe`).

    Raises:
      InputError: this one, or the one before, cannot be written.
    """
    step = int(state.step)
    if step in self._manager.all_steps():
      return
    with self._writing():
      self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(_plain(state)),
          meta=ocp.args.JsonSave(
            {**meta, "checksums": _checksums(_plain(state))}
          ),
        ),
        force=True,
      )

  def wait(self) -> None:
    """Waits for a save under way.

    Raises:
      InputError: it failed.
    """
    with self._writing():
      self._manager.wait_until_finished()

  def add_metrics(
    self, step: int, metrics: Mapping[str, float], headline: str
  ) -> None:
    """Adds an evaluation to a checkpoint that is saved, or being saved.

    Orbax takes metrics only with the state. Saved first, a state does not
    depend on its evaluation; so this writes the file that Orbax would.

    Args:
      step: of the checkpoint.
      metrics: of the evaluation.
      headline: the one of them that decides which checkpoint is best.

    Raises:
      InputError: the checkpoint could not be saved.
    """
    self.wait()
    with sharding.first_process_first("metrics of a checkpoint"):
      if jax.process_index() == 0:
        file = self._metrics_file(step)
        file.parent.mkdir(exist_ok=True)
        # Whole or not there: a kill may come at any time.
        partial = file.with_name(f"{file.name}.partial")
        partial.write_text(
          json.dumps({_HEADLINE: metrics[headline], **metrics})
        )
        partial.replace(file)
      self._manager.reload()

  def has_metrics(self, step: int) -> bool:
    """Was the checkpoint evaluated?"""
    return self._metrics_file(step).exists()

  def _metrics_file(self, step: int) -> epath.Path:
    return self.path / str(step) / "metrics" / "metrics"

  def choose(self, which: str) -> int:
    """Resolves `config.eval.checkpoint` to a step.

    Args:
      which: "best", "latest" or a step.

    Raises:
      InputError: there is no such checkpoint.
    """
    steps = self.steps()
    if not steps:
      raise InputError(
        f"{self.path} holds no checkpoint; train first, or name the work"
        " directory of a training"
      )
    if which == "latest":
      return steps[-1]
    if which == "best":
      best = self._manager.best_step()
      return steps[-1] if best is None else best
    if which.isdigit() and int(which) in steps:
      return int(which)
    raise InputError(
      f"eval.checkpoint is {which!r}; allowed: best, latest or one of {steps}"
    )

  def read_meta(self, step: int) -> dict[str, Any]:
    """What was saved next to the state: config, skeleton, data.

    Args:
      step: of the checkpoint.

    Returns:
      the meta in today's format (`upgrade`).

    Raises:
      InputError: the checkpoint is damaged, or from a newer software.
    """

    def read() -> dict[str, Any]:
      return self._manager.restore(
        step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
      )["meta"]

    return upgrade(self._unless_damaged(step, read), self.path / str(step))

  def restore(
    self, step: int, template: TrainState, meta: Mapping[str, Any]
  ) -> TrainState:
    """Reads a state and checks it against its checksums.

    Args:
      step: of the checkpoint.
      template: a state of the same shapes, types and shardings.
      meta: as returned by `read_meta`.

    Returns:
      the state; with a moving average where the checkpoint has one, whatever
      the template has.

    Raises:
      InputError: the checkpoint is damaged, or from a different network.
    """
    same = (template.params, template.model_state)
    template = dataclasses.replace(
      template, ema=same if has_average(meta) else None
    )
    shapes = jax.tree.map(
      lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding),
      _plain(template),
    )

    def read() -> dict[str, Any]:
      return self._manager.restore(
        step,
        args=ocp.args.Composite(state=ocp.args.StandardRestore(shapes)),
      )["state"]

    restored = self._unless_damaged(step, read)
    self._check(step, meta["checksums"], restored)
    if "ema" in restored:
      restored["ema"] = _pair(restored["ema"])
    return dataclasses.replace(template, **restored)

  def restore_weights(
    self, step: int, meta: Mapping[str, Any], kind: str = "raw"
  ) -> tuple[Tree, Tree]:
    """Reads (params, model_state) alone, NumPy, and checks them.

    Independent of the optimizer; the network comes from the checkpoint's own
    config.

    Args:
      step: of the checkpoint.
      meta: as returned by `read_meta`.
      kind: "raw", or "ema" for their moving average.

    Raises:
      InputError: the checkpoint is damaged, or has no such weights.
    """
    check_choice("weights", kind, config_lib.WEIGHTS)
    params, model_state = network.abstract(meta["config"]["model"])
    shapes = {"params": params, "model_state": model_state}
    if kind == "ema":
      if not has_average(meta):
        raise InputError(
          f"{self.path / str(step)} has raw weights alone, no ema: it was"
          " trained with train.ema=0"
        )
      shapes = {"ema": shapes}

    def read() -> dict[str, Any]:
      folder = self.path / str(step) / "state"
      return orbax_trees.read(folder, shapes, partial=True)

    restored = self._unless_damaged(step, read)
    self._check(step, meta["checksums"], restored)
    return _pair(restored.get("ema", restored))

  def _unless_damaged(
    self, step: int, read: Callable[[], dict[str, Any]]
  ) -> dict[str, Any]:
    try:
      return orbax_trees.attempt(read)
    except orbax_trees.Unreadable as error:
      raise self._damaged(step, error) from None

  def _check(
    self, step: int, saved: Mapping[str, str], restored: dict[str, Any]
  ) -> None:
    """Raises InputError where a restored array is not the saved one."""
    checksums = _checksums(restored)
    wrong = [name for name, v in checksums.items() if saved.get(name) != v]
    if wrong:
      raise self._damaged(
        step, f"{len(wrong)} arrays differ from their checksums, as {wrong[0]}"
      )

  def _damaged(self, step: int, reason: object) -> InputError:
    older = [s for s in self.steps() if s < step]
    return InputError(
      f"the checkpoint {self.path / str(step)} is damaged:"
      f" {one_line(reason, 200)}. Nothing was changed. "
      + (
        f"Step {older[-1]} is intact: move the damaged folder away to resume"
        " from it"
        if older
        else "Move the damaged folder away to start training again"
      )
    )

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    """Says in one line why a checkpoint cannot be written."""
    try:
      yield
    except Exception as error:  # Orbax raises whatever its writers raise.
      steps = self.steps()
      raise InputError(
        f"cannot write a checkpoint to {self.path}: {one_line(error, 200)}. "
        + (
          f"Step {steps[-1]} is saved: the same command goes on from there"
          if steps
          else "None is saved yet"
        )
      ) from error

  def close(self) -> None:
    """Waits for a save under way.

    Raises:
      InputError: it failed.
    """
    with self._writing():
      self._manager.close()


def has_average(meta: Mapping[str, Any]) -> bool:
  """Does a checkpoint hold a moving average of its weights?"""
  return any(name.startswith("['ema']") for name in meta["checksums"])


def usual_kind(meta: Mapping[str, Any]) -> str:
  """Which weights of a checkpoint are used unless others are asked for.

  Those that its own training was judged by (`eval.weights`).

  Args:
    meta: as returned by `Checkpoints.read_meta`.
  """
  asked = meta["config"].get("eval", {}).get("weights", "raw")
  return asked if has_average(meta) else "raw"


def read_weights(
  workdir: str, which: str, kind: str = ""
) -> tuple[int, dict[str, Any], tuple[Tree, Tree]]:
  """The step, meta and weights of a checkpoint, whatever network it is of.

  Args:
    workdir: of a run.
    which: "best", "latest" or a step.
    kind: "raw" or "ema"; "": `usual_kind`.

  Raises:
    InputError: there is no such checkpoint, it is damaged, or has no such
      weights.
  """
  checkpoints = Checkpoints(workdir, read_only=True)
  step = checkpoints.choose(which)
  meta = checkpoints.read_meta(step)
  weights = checkpoints.restore_weights(step, meta, kind or usual_kind(meta))
  checkpoints.close()
  return step, meta, weights


def describe(
  config: ConfigDict | Mapping[str, Any],
  skeleton: Mapping[str, Any],
  data: Mapping[str, Any],
) -> dict[str, Any]:
  """The meta of a checkpoint.

  Args:
    config: resolved, or its JSON types.
    skeleton: `Skeleton.to_dict`.
    data: what identifies the training data, JSON types.
  """
  if isinstance(config, ConfigDict):
    config = config_lib.to_dict(config)
  return {
    "format": FORMAT,
    "software": __version__,
    "config": dict(config),
    "skeleton": dict(skeleton),
    "data": dict(data),
  }


def upgrade(meta: Mapping[str, Any], path: object) -> dict[str, Any]:
  """A meta of this or an older format in today's.

  Format 0 has no number; its config has other field names.

  Args:
    meta: as saved.
    path: of the checkpoint, for the error.

  Raises:
    InputError: a newer software wrote it.
  """
  number = meta.get("format", 0)
  if number > FORMAT:
    raise InputError(
      f"{path} has format {number}, written by tokenpose_jax"
      f" {meta.get('software')}; this one reads up to {FORMAT}"
    )
  config = meta["config"] if number else config_lib.upgrade(meta["config"])
  return {**meta, "config": config_lib.complete(config)}


def mismatches(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Differences:
  """Differences between two metas that need the user's consent.

  Those of network, codec, skeleton and data, by path.

  Args:
    saved: of a checkpoint.
    now: of a run.
  """
  models = [ModelConfig.of(meta["config"]["model"]) for meta in (saved, now)]
  codecs = [meta["config"]["codec"] for meta in (saved, now)]
  return {
    **network_differences(*models),
    **config_lib.differences(codecs[0], codecs[1], "codec."),
    **config_lib.differences(saved["skeleton"], now["skeleton"], "skeleton."),
    **config_lib.differences(saved["data"], now["data"], "data."),
  }


def network_differences(one: ModelConfig, other: ModelConfig) -> Differences:
  """The fields in which two networks differ, by path."""
  return config_lib.differences(one.to_dict(), other.to_dict(), "model.")


def fingerprint(weights: tuple[Tree, Tree]) -> str:
  """CRC-32 of (params, model_state): says which weights these are."""
  value = 0
  for leaf in jax.tree.leaves(weights):
    value = zlib.crc32(_local(leaf).tobytes(), value)
  return f"{value:08x}"


def _metric(metrics: Mapping[str, float]) -> float:
  names = (_HEADLINE, *_OLD_HEADLINES)
  return next((metrics[n] for n in names if n in metrics), float("-inf"))


def _plain(state: TrainState) -> dict[str, Any]:
  plain = {
    "step": state.step,
    "params": state.params,
    "model_state": state.model_state,
    "opt_state": state.opt_state,
  }
  if state.ema is not None:
    params, model_state = state.ema
    plain["ema"] = {"params": params, "model_state": model_state}
  return plain


def _pair(weights: Mapping[str, Tree]) -> tuple[Tree, Tree]:
  return weights["params"], weights["model_state"]


def _checksums(tree: dict[str, Any]) -> dict[str, str]:
  """CRC-32 of every array, by its path."""
  return {
    jax.tree_util.keystr(path): f"{zlib.crc32(_local(leaf).tobytes()):08x}"
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def _local(leaf: Any) -> np.ndarray:
  """The values of an array, of which every process holds the whole."""
  if isinstance(leaf, jax.Array):
    leaf = leaf.addressable_data(0)
  return np.asarray(leaf)
