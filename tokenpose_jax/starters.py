"""Who starts the processes of a run, and how each learns of the others."""

import glob
import importlib.util
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from absl import logging

from tokenpose_jax.errors import InputError

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


class Starter(NamedTuple):
  """What starts processes and tells them of each other by variables.

  Attributes:
    processes: the variable that says how many there are.
    process: the one that says which one this is.
    needed: by JAX besides, to find the others by itself.
    remedy: where these are missing.
  """

  processes: str
  process: str
  needed: tuple[str, ...]
  remedy: str


_STARTERS = (
  Starter(
    "SLURM_NTASKS",
    "SLURM_PROCID",
    ("SLURM_JOB_ID", "SLURM_LOCALID", "SLURM_STEP_NODELIST"),
    "start with srun",
  ),
  Starter(
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_RANK",
    ("OMPI_MCA_orte_hnp_uri",),
    "set JAX_COORDINATOR_ADDRESS to HOST:PORT of the first process",
  ),
)


def options(variables: Mapping[str, str]) -> dict[str, Any] | None:
  """How this process joins the others of its run.

  Args:
    variables: of the environment.

  Returns:
    options of `jax.distributed.initialize`; none of them: JAX finds the others
    by itself; None: this process is alone.

  Raises:
    InputError: a variable is missing or wrong.
  """
  if any(variables.get(name) for name in VARIABLES):
    return _given(variables)
  for starter in _STARTERS:
    started = variables.get(starter.processes, "1")
    missing = [name for name in starter.needed if name not in variables]
    if started == "1":
      continue
    if not missing:
      return {}
    first = variables.get(starter.process, "0") == "0"
    if starter.processes == "SLURM_NTASKS" and first:
      # A batch script of a job with several tasks, started once.
      logging.warning(
        "Slurm has %s tasks, and this process is alone; for all of them %s",
        started,
        starter.remedy,
      )
      continue
    raise InputError(
      f"{starter.processes} is {started}, but {', '.join(missing)} is not set:"
      f" {starter.remedy}"
    )
  if "," in variables.get("TPU_WORKER_HOSTNAMES", "") or _has_tpu(variables):
    return {}
  return None


def _given(variables: Mapping[str, str]) -> dict[str, Any]:
  """The options that the three variables say."""
  values = {name: variables.get(name, "") for name in VARIABLES}
  for starter in _STARTERS:
    for name, other in zip(VARIABLES[1:], starter[:2], strict=True):
      values[name] = values[name] or variables.get(other, "")
  missing = [name for name, value in values.items() if not value]
  if missing:
    named = next(name for name, value in values.items() if value)
    raise InputError(f"{named} is set, but not {', '.join(missing)}")
  address, *numbers = values.values()
  if not re.fullmatch(r"\S+:\d{1,5}", address):
    raise InputError(
      f"JAX_COORDINATOR_ADDRESS is {address!r}; expected HOST:PORT"
    )
  for name, text in zip(VARIABLES[1:], numbers, strict=True):
    if not (text.isascii() and text.isdigit()):
      raise InputError(f"{name} is {text!r}; expected a whole number")
  count, index = map(int, numbers)
  if index >= count:
    raise InputError(
      f"JAX_PROCESS_ID is {index}; of {count} processes it is 0 to {count - 1}"
    )
  return {
    "coordinator_address": address,
    "num_processes": count,
    "process_id": index,
  }


def _has_tpu(variables: Mapping[str, str]) -> bool:
  """Are there TPU chips that JAX will use?"""
  wanted = variables.get("JAX_PLATFORMS", "")
  return (
    (not wanted or "tpu" in wanted)
    and importlib.util.find_spec("libtpu") is not None
    and bool(glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*"))
  )
