"""Who the processes of a run are, and what they are told of each other."""

import jax
import pytest

from tokenpose_jax import InputError, processes, sharding, starters

VARIABLES = [
  *starters.VARIABLES,
  "TPU_WORKER_HOSTNAMES",
  "SLURM_JOB_ID",
  "SLURM_NTASKS",
  "SLURM_PROCID",
  "SLURM_LOCALID",
  "SLURM_STEP_NODELIST",
  "OMPI_COMM_WORLD_SIZE",
  "OMPI_COMM_WORLD_RANK",
  "OMPI_MCA_orte_hnp_uri",
]
ADDRESS = {"JAX_COORDINATOR_ADDRESS": "one:1234"}
THREE = {**ADDRESS, "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}
OPTIONS = {
  "coordinator_address": "one:1234",
  "num_processes": 4,
  "process_id": 3,
}
SLURM = {
  "SLURM_JOB_ID": "7",
  "SLURM_NTASKS": "2",
  "SLURM_PROCID": "1",
  "SLURM_LOCALID": "0",
  "SLURM_STEP_NODELIST": "one,two",
}
OMPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3"}


@pytest.fixture
def joined(monkeypatch):
  """The options with which processes are joined, under given variables."""

  def call(variables, given=None):
    calls = []
    monkeypatch.setattr(
      jax.distributed, "initialize", lambda **options: calls.append(options)
    )
    for name in VARIABLES:
      monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
      monkeypatch.setenv(name, value)
    before = jax.config.jax_enable_preemption_service
    try:
      processes.initialize(given)
    finally:
      jax.config.update("jax_enable_preemption_service", before)
    for options in calls:
      assert options.pop("heartbeat_timeout_seconds") > 0
    return calls

  return call


@pytest.mark.parametrize(
  ("variables", "wanted"),
  [
    ({}, []),
    ({"TPU_WORKER_HOSTNAMES": ""}, []),
    ({"TPU_WORKER_HOSTNAMES": "one"}, []),
    ({"TPU_WORKER_HOSTNAMES": "one,two"}, [{}]),
    (THREE, [OPTIONS]),
    # Those that are given go first.
    ({**THREE, "TPU_WORKER_HOSTNAMES": "one,two"}, [OPTIONS]),
    (SLURM, [{}]),
    ({**SLURM, "SLURM_NTASKS": "1"}, []),
    # Of a batch script, which srun has not started.
    ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, []),
    ({**OMPI, "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:1"}, [{}]),
    # Newer ones do not say where the first process is.
    ({**OMPI, **ADDRESS}, [OPTIONS]),
    ({"OMPI_COMM_WORLD_SIZE": "1"}, []),
  ],
)
def test_processes_are_joined_as_the_environment_says(
  joined, variables, wanted
):
  assert joined(variables) == wanted


def test_flags_go_before_variables(joined):
  given = {"JAX_PROCESS_ID": "2"}
  assert joined(THREE, given) == [{**OPTIONS, "process_id": 2}]


@pytest.mark.parametrize(
  ("variables", "says"),
  [
    (ADDRESS, r"is set, but not JAX_NUM_PROCESSES, JAX_PROCESS_ID"),
    ({"JAX_PROCESS_ID": "1"}, "JAX_PROCESS_ID is set, but not JAX_COORD"),
    ({**THREE, "JAX_COORDINATOR_ADDRESS": "one"}, "'one'; expected HOST:PORT"),
    ({**THREE, "JAX_NUM_PROCESSES": "four"}, "'four'; expected a whole"),
    ({**THREE, "JAX_PROCESS_ID": "-1"}, "'-1'; expected a whole"),
    ({**THREE, "JAX_PROCESS_ID": "4"}, "is 4; of 4 processes it is 0 to 3"),
    ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1"}, "start with srun"),
    (OMPI, "set JAX_COORDINATOR_ADDRESS"),
  ],
)
def test_what_is_missing_or_wrong_is_one_line(joined, variables, says):
  with pytest.raises(InputError, match=says) as error:
    joined(variables)
  assert "\n" not in str(error.value)


def test_partners_that_are_not_found(monkeypatch, joined):
  def fail(**_):
    raise RuntimeError("DEADLINE_EXCEEDED:\nnobody came")

  monkeypatch.setattr(jax.distributed, "initialize", fail)
  for name, value in THREE.items():
    monkeypatch.setenv(name, value)
  with pytest.raises(InputError, match=r"find each other: DEAD.*nobody came"):
    processes.initialize()


def test_a_process_alone_agrees_with_itself():
  assert processes.exchange("matter", "text") == ["text"]
  assert processes.all_agree(True)
  assert not processes.all_agree(False)
  processes.require_same("config", {"a": 1})
  with processes.first_process_first("files"):
    pass
  assert processes.Stop(sharding.create_mesh()).asked() == 0
  with pytest.raises(OSError, match="disk"), processes.in_step("evaluation"):
    raise OSError("disk")
