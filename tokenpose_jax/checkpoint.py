"""Checkpoints of a run: the best and the latest, reading, checking.

A checkpoint holds the training state and, as JSON, what is needed to use it
years later: the format's number, the software's version, the whole config, the
skeleton, the identity of the data, and a checksum of every array, because
Orbax's own files carry none: a flipped bit would be restored as if nothing had
happened.
"""

import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from tokenpose_jax import config as config_lib
from tokenpose_jax import json_files, network, orbax_trees, weight_kinds
from tokenpose_jax.config import Differences
from tokenpose_jax.errors import InputError, check_choice, one_line
from tokenpose_jax.models.config import ModelConfig
from tokenpose_jax.network import Tree
from tokenpose_jax.skeletons import Skeleton
from tokenpose_jax.version import __version__

# Fields of a network that leave its weights as they are.
FREE = frozenset({"attention", "cycles", "keep", "prune_before"})
FOLDER = "checkpoints"
FORMAT = 1

# A benchmark's headline is saved under this name; before format 1, under its
# own name, the first of these.
HEADLINE = "headline"
_OLD_HEADLINES = ("AP", "Mean")


class Damaged(InputError):
  """A checkpoint cannot be read, or is not what was saved.

  Attributes:
    what: which one, and what is wrong with it.
  """

  def __init__(self, what: str, advice: str):
    """The error, in one line.

    Args:
      what: which one, and what is wrong with it.
      advice: what can be done.
    """
    super().__init__(f"{what}. Nothing was changed. {advice}")
    self.what = what


class Checkpoints:
  """The checkpoints of a work directory, as they are: nothing is changed."""

  def __init__(self, workdir: str):
    """Reads nothing yet.

    Args:
      workdir: of a run.
    """
    folder = epath.Path(workdir)
    # Only a local path has a current folder that it can be relative to.
    self.path = (folder if "://" in workdir else folder.absolute()) / FOLDER

  def steps(self) -> list[int]:
    """The steps saved, ascending."""
    if not self.path.exists():
      return []
    return sorted(
      int(folder.name)
      for folder in self.path.iterdir()
      if folder.name.isascii()
      and folder.name.isdigit()
      and ocp.utils.is_checkpoint_finalized(folder)
    )

  def metrics(self, step: int) -> dict[str, float] | None:
    """Those of the evaluation of a checkpoint.

    Args:
      step: of the checkpoint.

    Returns:
      them by name; None: it was not evaluated, or the file is damaged, which
      the log says.
    """
    file = self.metrics_file(step)
    try:
      found = json_files.load(file)
      if not math.isnan(headline_of(found)):
        return found
      reason = f"expected metrics by name, got {one_line(found, 80)}"
    except FileNotFoundError:
      return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
      reason = one_line(error, 200)
    logging.warning(
      "%s is damaged (%s): step %d counts as not evaluated", file, reason, step
    )
    return None

  def metrics_file(self, step: int) -> epath.Path:
    """Where the metrics of a checkpoint are."""
    return self.path / str(step) / "metrics" / "metrics"

  def choose(self, which: str) -> int:
    """Resolves `config.eval.checkpoint` to a step.

    Args:
      which: "best", "latest" or a step.

    Raises:
      InputError: there is no such checkpoint.
    """
    return self.choices(which)[0]

  def choices(self, which: str) -> list[int]:
    """The steps that `config.eval.checkpoint` may mean, the first one first.

    Args:
      which: "best", "latest" or a step, which is the only choice.

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
      return steps[::-1]
    if which == "best":
      metrics = {step: self.metrics(step) for step in steps}
      # Of equal ones, and of those without an evaluation, the latest.
      return sorted(
        steps,
        key=lambda step: (headline_of(metrics[step] or {}), step),
        reverse=True,
      )
    if which.isdigit() and int(which) in steps:
      return [int(which)]
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
    folder, newer = self.path / str(step), False
    try:
      saved = json_files.load(folder / "meta" / "metadata")
      newer = saved.get("format", 0) > FORMAT
      meta = upgrade(saved, folder)
      # Whatever is missing is missed now, not in the middle of the work.
      model = ModelConfig.of(meta["config"]["model"])
      config_lib.codec_with(model, meta["config"]["codec"])
      Skeleton.from_dict(meta["skeleton"])
      dict(meta["data"]), dict(meta["checksums"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
      if isinstance(error, InputError) and newer:
        raise
      reason = f"its meta: {type(error).__name__}: {one_line(error)}"
      raise self.damaged(step, reason) from None
    return meta

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
    check_choice("weights", kind, weight_kinds.KINDS)
    params, model_state = network.abstract(meta["config"]["model"])
    shapes = {"params": params, "model_state": model_state}
    if kind == "ema":
      if not weight_kinds.has_average(meta):
        raise InputError(
          f"{self.path / str(step)} has raw weights alone, no ema: it was"
          " trained with train.ema=0"
        )
      shapes = {"ema": shapes}

    def read() -> dict[str, Any]:
      folder = self.path / str(step) / "state"
      return orbax_trees.read(folder, shapes, partial=True)

    restored = self.unless_damaged(step, read)
    self.check(step, meta["checksums"], restored)
    return weights_of(restored.get("ema", restored))

  def unless_damaged(
    self, step: int, read: Callable[[], dict[str, Any]]
  ) -> dict[str, Any]:
    """What Orbax reads of a checkpoint.

    Args:
      step: of the checkpoint.
      read: calls Orbax.

    Raises:
      Damaged: it cannot.
    """
    try:
      return orbax_trees.attempt(read)
    except orbax_trees.Unreadable as error:
      raise self.damaged(step, error) from None

  def check(
    self, step: int, saved: Mapping[str, str], restored: dict[str, Any]
  ) -> None:
    """Checks arrays against their checksums.

    Args:
      step: of the checkpoint.
      saved: the checksums.
      restored: the tree of arrays.

    Raises:
      Damaged: one is not what was saved.
    """
    checksums = checksums_of(restored)
    wrong = [name for name, v in checksums.items() if saved.get(name) != v]
    if wrong:
      raise self.damaged(
        step, f"{len(wrong)} arrays differ from their checksums, as {wrong[0]}"
      )

  def damaged(self, step: int, reason: object) -> Damaged:
    """The error of a damaged checkpoint, with what can be done.

    Args:
      step: of the checkpoint.
      reason: what is wrong.
    """
    older = [s for s in self.steps() if s < step]
    return Damaged(
      f"the checkpoint {self.path / str(step)} is damaged:"
      f" {one_line(reason, 200)}",
      f"Step {older[-1]} is there as well: move the damaged folder away, or"
      " set checkpoint.on_damage=previous"
      if older
      else "Move the damaged folder away to start training again",
    )


def read_weights(
  workdir: str, which: str, kind: str = ""
) -> tuple[int, dict[str, Any], tuple[Tree, Tree]]:
  """The step, meta and weights of a checkpoint, whatever network it is of.

  Args:
    workdir: of a run.
    which: "best", "latest" or a step.
    kind: "raw" or "ema"; "": `weight_kinds.usual`.

  Raises:
    InputError: there is no such checkpoint, it is damaged, or has no such
      weights.
  """
  checkpoints = Checkpoints(workdir)
  step = checkpoints.choose(which)
  meta = checkpoints.read_meta(step)
  kind = kind or weight_kinds.usual(meta)
  return step, meta, checkpoints.restore_weights(step, meta, kind)


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
  """The fields in which two networks differ, by path.

  What leaves the weights as they are makes no other network.
  """
  a, b = (
    {name: v for name, v in of.to_dict().items() if name not in FREE}
    for of in (one, other)
  )
  return config_lib.differences(a, b, "model.")


def fingerprint(weights: tuple[Tree, Tree]) -> str:
  """CRC-32 of (params, model_state): says which weights these are."""
  value = 0
  for leaf in jax.tree.leaves(weights):
    value = zlib.crc32(_bytes_of(leaf), value)
  return f"{value:08x}"


def headline_of(metrics: Mapping[str, float]) -> float:
  """The metric that decides which checkpoint is best; -inf: there is none."""
  names = (HEADLINE, *_OLD_HEADLINES)
  return next((metrics[n] for n in names if n in metrics), float("-inf"))


def weights_of(tree: Mapping[str, Tree]) -> tuple[Tree, Tree]:
  """(params, model_state) of a tree that was saved."""
  return tree["params"], tree["model_state"]


def checksums_of(tree: dict[str, Any]) -> dict[str, str]:
  """CRC-32 of every array, by its path."""
  return {
    jax.tree_util.keystr(path): f"{zlib.crc32(_bytes_of(leaf)):08x}"
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def _bytes_of(leaf: Any) -> memoryview:
  """The bytes of an array, of which every process holds the whole."""
  if isinstance(leaf, jax.Array):
    leaf = leaf.addressable_data(0)
  # A view where the array is in one piece.
  return np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data
