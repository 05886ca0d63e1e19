"""The processes of one run: how they meet, agree, wait and leave together."""

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh

from tokenpose_jax import sharding, starters, stopping
from tokenpose_jax.config import differences
from tokenpose_jax.errors import InputError, one_line

# Seconds of waiting after which it is said.
_SILENCE = 10
# Seconds without a sign of life after which a process counts as dead.
_HEARTBEAT = 60
# Seconds that process 0, which carries the messages, waits for the others.
_PARTING = 5
_ENDED = "tokenpose/ended"


def initialize(given: Mapping[str, str] | None = None) -> None:
  """Joins the processes of a run; a no-op for a single one.

  On Cloud TPU, GKE, under Slurm and Open MPI, JAX finds the other processes by
  itself; elsewhere JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
  JAX_PROCESS_ID say where they are.

  Args:
    given: values by the names of these variables, in place of the variables.

  Raises:
    InputError: one of the three is missing or wrong, or the others are not
      found.
  """
  options = starters.options({**os.environ, **(given or {})})
  if options is None:
    return
  # It would take SIGTERM away and stop nothing (stopping.py).
  jax.config.update("jax_enable_preemption_service", False)
  what = "waiting for the other processes"
  if options:
    what += f", at {options['coordinator_address']}"
  try:
    with _said_if_long(what):
      jax.distributed.initialize(
        **options, heartbeat_timeout_seconds=_HEARTBEAT
      )
  except Exception as error:  # Whatever its parts raise.
    raise InputError(
      "the processes of the run did not find each other:"
      f" {one_line(error, 300)}"
    ) from None
  if jax.process_count() > 1:
    stopping.tell_others_by(_farewell)
    threading.Thread(target=_hear, name="processes", daemon=True).start()


@contextlib.contextmanager
def _said_if_long(what: str) -> Iterator[None]:
  """Says what is waited for once it takes long."""
  timer = threading.Timer(_SILENCE, lambda: logging.info("%s ...", what))
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()


# --- Messages, by JAX's own key-value store -----------------------------------


def _client() -> Any:
  # There is no public way to it; Orbax goes the same one.
  from jax._src import distributed

  return distributed.global_state.client


def _wait_for(key: str) -> str:
  """The value of a key, once some process sets it."""
  while True:
    try:
      return _client().blocking_key_value_get(key, 1000 * _SILENCE)
    except jax.errors.JaxRuntimeError as error:
      if "DEADLINE_EXCEEDED" not in str(error):
        raise


def exchange(name: str, text: str) -> list[str]:
  """What every process says, in their order; all wait for each other.

  Args:
    name: of the matter, once in a run.
    text: what this process says.
  """
  if jax.process_count() == 1:
    return [text]
  _client().key_value_set(f"tokenpose/{name}/{jax.process_index()}", text)
  with _said_if_long(f"waiting for the other processes: {name}"):
    return [
      _wait_for(f"tokenpose/{name}/{index}")
      for index in range(jax.process_count())
    ]


_matters: dict[str, int] = {}


def _numbered(name: str) -> str:
  """A name for a matter that comes up again and again."""
  _matters[name] = _matters.get(name, 0) + 1
  return f"{name} {_matters[name]}"


def all_agree(fine: bool) -> bool:
  """Whether every process says so; all of them wait for each other."""
  said = exchange(_numbered("is everything fine"), json.dumps(fine))
  return all(map(json.loads, said))


@contextlib.contextmanager
def first_process_first(name: str) -> Iterator[None]:
  """Lets process 0 through alone, the others after it.

  For files that are written once and then found there by all. Where it fails
  in process 0, the others wait until that one leaves, and leave with it.

  Args:
    name: what is done.
  """
  if jax.process_count() == 1:
    yield
    return
  key = f"tokenpose/{_numbered(name)}"
  if jax.process_index():
    with _said_if_long(f"waiting for process 0: {name}"):
      _wait_for(key)
  yield
  if jax.process_index() == 0:
    _client().key_value_set(key, "done")


def require_same(what: str, value: Mapping[str, Any]) -> None:
  """Checks that a value is that of process 0.

  Args:
    what: it is.
    value: JSON types.

  Raises:
    InputError: it is not; the fields that differ are named.
  """
  said = exchange(what, json.dumps(value, sort_keys=True, default=str))
  mine = jax.process_index()
  differing = differences(json.loads(said[0]), json.loads(said[mine]))
  if not differing:
    # What another one finds ends all.
    return
  name, (first, here) = next(iter(differing.items()))
  raise InputError(
    f"this process has another {what} than process 0: {name} is"
    f" {one_line(here, 80)}, not {one_line(first, 80)}"
    + (f", and {len(differing) - 1} more" if len(differing) > 1 else "")
    + "; start all processes with the same command, software and data"
  )


class Stop:
  """Whether any process was told to stop, the same for all at each step."""

  def __init__(self, mesh: Mesh):
    """Asks nobody yet.

    Args:
      mesh: of the run.
    """
    self._mesh = mesh
    self._largest = jax.jit(
      lambda numbers: numbers.max(), out_shardings=sharding.replicated(mesh)
    )
    self._pending: jax.Array | None = None

  def asked(self) -> int:
    """The signal that stops all of them; 0: go on.

    With several processes it is the answer to the call before: it has come
    while the step was computed, and no device waits for the host.
    """
    if jax.process_count() == 1:
      return stopping.asked()
    mine = np.full(self._mesh.local_mesh.size, stopping.asked(), np.int32)
    placed = sharding.put_batch(self._mesh, {"signal": mine})["signal"]
    before, self._pending = self._pending, self._largest(placed)
    return 0 if before is None else int(before)


# --- Leaving ------------------------------------------------------------------


def _farewell(code: int, line: str) -> None:
  """Tells the others that this process leaves, and why."""
  mine = jax.process_index()
  client = _client()
  with contextlib.suppress(jax.errors.JaxRuntimeError):
    # Only the first one to leave is heard.
    client.key_value_set(_ENDED, json.dumps([mine, code, line]))
  client.key_value_set(f"tokenpose/left/{mine}", "")
  if mine == 0:
    end = time.monotonic() + _PARTING
    for other in range(1, jax.process_count()):
      left = max(1, round(1000 * (end - time.monotonic())))
      client.blocking_key_value_get(f"tokenpose/left/{other}", left)
    time.sleep(1)  # They have said so; now they are leaving.


def part() -> None:
  """At a good end: waits for the others and ends this process.

  Python would end the thread that hears them inside of its C++ code, which
  aborts. A process alone just goes on.
  """
  if jax.process_count() == 1:
    return
  exchange("the end", "")
  stopping.tell_others_by(lambda code, line: None)
  jax.distributed.shutdown()
  stopping.leave(0)


def _hear() -> None:
  """Leaves when another process has left."""
  try:
    who, code, line = json.loads(_wait_for(_ENDED))
  except Exception:
    # The run is over, or process 0 is gone: JAX will say which.
    return
  if who != jax.process_index():
    kind, _, reason = line.rpartition("error: ")
    error = "error: " if kind or code == 1 else ""
    stopping.leave(code, f"{error}process {who}: {reason}")


class OutOfStep(InputError):
  """This process cannot go on, and the others wait for it in a collective."""


@contextlib.contextmanager
def in_step(what: str) -> Iterator[None]:
  """What is in here is done by all processes together.

  Args:
    what: is done.

  Raises:
    OutOfStep: of several processes, this one failed or another one is gone.
  """
  try:
    yield
  except Exception as error:
    if jax.process_count() == 1:
      raise
    if isinstance(error, InputError):
      raise OutOfStep(str(error)) from None
    reason = one_line(error, 300)
    if isinstance(error, jax.errors.JaxRuntimeError):
      time.sleep(3)  # If another one has said why it left, `_hear` says it.
      reason = f"another process is gone ({reason})"
    raise OutOfStep(
      f"the {what} stops: {reason}; the same command goes on from the last"
      " checkpoint"
    ) from error
