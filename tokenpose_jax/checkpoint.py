"""Every Orbax call: saving, the best and the latest, resuming, checking.

A checkpoint holds the training state and, as JSON, what is needed to use it
years later: the whole config, the skeleton, the identity of the data, and a
checksum of every array, because Orbax's own files carry none: a flipped bit
would be restored as if nothing had happened.
"""

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from ml_collections import ConfigDict
from orbax.checkpoint import checkpoint_managers

from tokenpose_jax import config as config_lib
from tokenpose_jax import models, train_state
from tokenpose_jax.errors import InputError
from tokenpose_jax.train_state import TrainState, Tree

# What makes a checkpoint the best: COCO's AP, or MPII's weighted mean PCKh.
METRICS = ("AP", "Mean")
FOLDER = "checkpoints"


class Checkpoints:
  """The checkpoints of a work directory."""

  def __init__(self, workdir: str, *, keep: int = 2, read_only: bool = False):
    """Opens them.

    Args:
      keep: how many of the latest stay; the best one stays beside them.
      read_only: makes no folder and deletes nothing.
    """
    self.path = epath.Path(workdir).absolute() / FOLDER
    policy = checkpoint_managers.AnyPreservationPolicy(
      [
        checkpoint_managers.LatestN(keep),
        checkpoint_managers.BestN(
          get_metric_fn=_metric, n=1, keep_checkpoints_without_metrics=False
        ),
      ]
    )
    self._manager = ocp.CheckpointManager(
      self.path,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=policy,
        best_fn=_metric,
        best_mode="max",
        create=not read_only,
        read_only=read_only,
      ),
    )

  def steps(self) -> list[int]:
    """The steps saved, ascending."""
    return sorted(self._manager.all_steps())

  def save(
    self,
    state: TrainState,
    meta: dict[str, Any],
    metrics: dict[str, float] | None = None,
  ) -> None:
    """Saves in the background.

    Args:
      state: its arrays may be donated once this returns.
      meta: JSON types (`describe`).
      metrics: of an evaluation at this step; the first of `METRICS` that it
        has decides what is best.
    """
    step = int(state.step)
    if step in self._manager.all_steps():
      return
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(_plain(state)),
        meta=ocp.args.JsonSave(
          {**meta, "checksums": _checksums(_plain(state))}
        ),
      ),
      metrics=metrics,
      force=True,
    )

  def choose(self, which: str) -> int:
    """The step that `config.eval.checkpoint` means.

    Raises:
      InputError: there is no such checkpoint.
    """
    steps = self.steps()
    if not steps:
      raise InputError(
        f"--workdir: {self.path} holds no checkpoint; train first, or give the"
        " work directory of a training run"
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
    """What was saved beside the state: config, skeleton, data."""
    try:
      restored = self._manager.restore(
        step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
      )
      return restored["meta"]
    except Exception as error:
      raise self._damaged(step, error) from None

  def restore(
    self, step: int, template: TrainState, meta: dict[str, Any]
  ) -> TrainState:
    """Reads a state and checks it against its checksums.

    Args:
      template: a state of the same shapes, types and shardings.
      meta: of `read_meta`.

    Raises:
      InputError: the checkpoint is damaged, or of another network.
    """
    shapes = jax.tree.map(
      lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding),
      _plain(template),
    )
    try:
      restored = self._manager.restore(
        step,
        args=ocp.args.Composite(state=ocp.args.StandardRestore(shapes)),
      )["state"]
    except Exception as error:
      raise self._damaged(step, error) from None
    self._check(step, meta["checksums"], _checksums(restored))
    return dataclasses.replace(template, **restored)

  def restore_weights(
    self, step: int, meta: dict[str, Any]
  ) -> tuple[Tree, Tree]:
    """Reads (params, model_state) alone, NumPy, and checks them.

    Whatever the optimiser was: the checkpoint's own config says the network.

    Raises:
      InputError: the checkpoint is damaged.
    """
    params, model_state = train_state.abstract(meta["config"]["model"])
    wanted = {"params": params, "model_state": model_state}
    try:
      with ocp.PyTreeCheckpointer() as reader:
        restored = reader.restore(
          self.path / str(step) / "state",
          ocp.args.PyTreeRestore(
            item=wanted,
            restore_args=jax.tree.map(
              lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted
            ),
            partial_restore=True,
          ),
        )
    except Exception as error:
      raise self._damaged(step, error) from None
    found = _checksums(restored)
    saved = {name: meta["checksums"].get(name) for name in found}
    self._check(step, saved, found)
    return restored["params"], restored["model_state"]

  def _check(
    self, step: int, saved: dict[str, Any], found: dict[str, str]
  ) -> None:
    wrong = config_lib.differences(saved, found)
    if wrong:
      names = [line.split(":")[0] for line in wrong]
      raise self._damaged(
        step, f"{len(names)} arrays differ from their checksums, as {names[0]}"
      )

  def _damaged(self, step: int, reason: object) -> InputError:
    older = [s for s in self.steps() if s < step]
    message = " ".join(str(reason).split())[:200] or type(reason).__name__
    return InputError(
      f"the checkpoint {self.path / str(step)} is damaged: {message}. Nothing"
      " was changed; "
      + (f"step {older[-1]} is there too: to go" if older else "to go")
      + " on, move that folder away"
      + (" and start again" if older else "; training then starts anew")
    )

  def close(self) -> None:
    """Waits for saves under way."""
    self._manager.wait_until_finished()
    self._manager.close()


def describe(
  config: ConfigDict, skeleton: dict[str, Any], data: dict[str, Any]
) -> dict[str, Any]:
  """The meta of a checkpoint.

  Args:
    skeleton: `Skeleton.to_dict`.
    data: what identifies the training data, JSON types.
  """
  return {
    "config": config_lib.to_dict(config),
    "skeleton": skeleton,
    "data": data,
  }


def mismatches(saved: dict[str, Any], now: dict[str, Any]) -> list[str]:
  """How a run differs from a checkpoint in what must not change unasked.

  Returns:
    a line per difference in network, skeleton or data.
  """
  return [
    *network_differences(saved["config"]["model"], now["config"]["model"]),
    *config_lib.differences(saved["skeleton"], now["skeleton"], "skeleton."),
    *config_lib.differences(saved["data"], now["data"], "data."),
  ]


def network_differences(
  one: Mapping[str, Any], other: Mapping[str, Any]
) -> list[str]:
  """Lines of where two `config.model`, as JSON types, mean other networks."""
  return config_lib.differences(
    models.network_fields(one), models.network_fields(other), "model."
  )


def _metric(metrics: Any) -> float:
  return next(metrics[name] for name in METRICS if name in metrics)


def _plain(state: TrainState) -> dict[str, Any]:
  return {
    "step": state.step,
    "params": state.params,
    "model_state": state.model_state,
    "opt_state": state.opt_state,
  }


def _checksums(tree: dict[str, Any]) -> dict[str, str]:
  """CRC-32 of every array, by its path. Every process holds the whole state."""
  sums = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    value = leaf
    if isinstance(leaf, jax.Array):
      value = np.asarray(leaf.addressable_data(0))
    sums[jax.tree_util.keystr(path)] = f"{zlib.crc32(value.tobytes()):08x}"
  return sums
