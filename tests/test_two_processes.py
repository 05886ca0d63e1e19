"""Two processes of one run, as on two hosts."""

import json
import pathlib
import re

import jax
import numpy as np
import pytest

from tests.command_line import call, demo, drawn, free_address, start
from tokenpose_jax import checkpoint

STEPS = ("--config.train.steps=12", "--config.train.log_every=4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
  return drawn(tmp_path_factory.mktemp("data"))


def two(*arguments, second=()) -> list[tuple[int, str]]:
  """(exit code, what was said) of both."""
  address = free_address()
  running = [
    start(
      *arguments,
      *more,
      f"--process={index}",
      JAX_COORDINATOR_ADDRESS=address,
      JAX_NUM_PROCESSES="2",
    )
    for index, more in enumerate(((), second))
  ]
  ended = [process.communicate(timeout=240)[1] for process in running]
  return [(p.returncode, s) for p, s in zip(running, ended, strict=True)]


def losses(said: str) -> list[float]:
  """Those that were logged."""
  return [float(number) for number in re.findall(r"loss (\S+)", said)]


def test_two_processes_equal_one(folder, tmp_path):
  """Training, evaluation, checkpoint, and resuming."""
  one, both = tmp_path / "one", tmp_path / "both"
  alone = call(*demo(folder, one, *STEPS))
  assert alone.returncode == 0, alone.stderr
  half = (*STEPS[1:], "--config.train.steps=8")
  found = []
  for steps in (half, STEPS):
    ended = two(*demo(folder, both, *steps))
    assert [code for code, _ in ended] == [0, 0], ended
    found += losses(ended[0][1])
  assert "resuming from step 8" in ended[0][1]
  # Sums are rounded otherwise, and Adam makes much of it in the first steps.
  assert found == pytest.approx(losses(alone.stderr), rel=0.01)
  assert found[0] == pytest.approx(losses(alone.stderr)[0], rel=1e-3)
  weights = [
    checkpoint.read_weights(str(work), "12")[2] for work in (one, both)
  ]
  one_process, shared = (
    np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])
    for params, _ in weights
  )
  assert np.linalg.norm(shared - one_process) < 0.02 * np.linalg.norm(
    one_process
  )
  figures = [
    json.loads((work / "eval/12/gt/metrics.json").read_text())["figures"]
    for work in (one, both)
  ]
  assert figures[0] == pytest.approx(figures[1], abs=0.02)


def test_what_differs_ends_both(folder, tmp_path):
  found = two(
    *demo(folder, tmp_path / "run", *STEPS),
    second=("--config.optim.learning_rate=0.5",),
  )
  assert [code for code, _ in found] == [1, 1], found
  says = "has another config than process 0: optim.learning_rate is 0.5, not"
  for _, said in found:
    assert says in said.splitlines()[-1]
    assert "Traceback" not in said
  assert not list(tmp_path.glob("run/checkpoints/*"))
