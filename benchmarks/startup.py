"""From the command to the first step: what takes the time, cold and warm.

    python -m benchmarks.startup
    python -m benchmarks.startup --configs tokenpose_b --rounds=3

Whole trainings in processes of their own, `main.py` with its flags, ended after
their first step: on drawn images that are prepared already, one person a step,
so that the step itself takes little. Cold: nothing is compiled yet; warm: the
same command again. Python's modules have been read by the system both times.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from benchmarks import drawn, environment, tables
from tokenpose_jax import cli

CONFIGS = ("demo", "tokenpose_t", "tokenpose_b")
BATCH = 1
STAGES = ("imports", "data", "initialization", "first step")
COLUMNS = ("config", "compile cache", *STAGES, "total, s", "of it CPU, s")


def rows(configs: Any = CONFIGS, rounds: int = 1) -> Iterator[list[str]]:
  """A cold and a warm row for each config; of several rounds the fastest."""
  with tempfile.TemporaryDirectory() as scratch:
    folder = drawn.write(f"{scratch}/drawn")
    _first_step("demo", folder, scratch, "preparing")
    for config in configs:
      taken: dict[str, list[list[float]]] = {"cold": [], "warm": []}
      for number in range(rounds):
        for kind in taken:  # One after the other: neighbors disturb both.
          name = f"{config}-{number}"
          taken[kind].append(_first_step(config, folder, scratch, name))
      for kind, rounds_taken in taken.items():
        best = min(rounds_taken, key=lambda seconds: seconds[-2])
        yield [config, kind, *(f"{seconds:.1f}" for seconds in best)]


def _first_step(
  config: str, folder: str, scratch: str, cache: str
) -> list[float]:
  """Seconds of each stage, of all, and of all in CPU time."""
  flags = {
    "data.name": "coco",
    "data.dir": folder,
    "data.prepared_dir": f"{scratch}/prepared",
    "data.train_split": drawn.SPLIT,
    "data.eval_split": drawn.SPLIT,
    "train.batch_size": BATCH,
    "eval.batch_size": BATCH,
    "compile_cache": f"{scratch}/{cache}",
  }
  with tempfile.TemporaryDirectory() as workdir:
    done = subprocess.run(
      [
        *(sys.executable, "-m", "benchmarks.startup", "--child"),
        f"{time.time()}",
        f"--config=configs/{config}.py",
        f"--workdir={workdir}",
        *(f"--config.{name}={value}" for name, value in flags.items()),
      ],
      env=environment.plain() | {"JAX_COMPILATION_CACHE_DIR": ""},
      capture_output=True,
      text=True,
      check=False,
    )
  if done.returncode:
    sys.exit(f"error: {config} failed:\n{done.stderr}")
  return json.loads(done.stdout)


def _child(began: float, flags: list[str]) -> None:
  """`main.py FLAGS` up to its first step; prints what `_first_step` returns."""
  sys.argv = ["main.py", *flags]
  cli.keep_freed_memory()  # As main.py.
  cli.share_loops()
  import main
  from input_pipeline import runs  # As `main.run` does.

  times = [began, time.time()]
  train, jitted = (runs.train_lib, runs.train_lib.jit_train_step)
  train_and_evaluate = train.train_and_evaluate

  def when_data_is_there(*arguments: Any, **options: Any) -> Any:
    times.append(time.time())
    return train_and_evaluate(*arguments, **options)

  def when_the_state_is_there(*arguments: Any) -> Any:
    times.append(time.time())
    step = jitted(*arguments)

    def first(state: Any, batch: Any) -> Any:
      import jax

      jax.block_until_ready(step(state, batch))
      times.append(time.time())
      cpu = time.process_time()
      stages = [after - before for before, after in itertools.pairwise(times)]
      print(json.dumps([*stages, times[-1] - began, cpu]), flush=True)
      os._exit(0)

    return first

  train.train_and_evaluate = when_data_is_there
  train.jit_train_step = when_the_state_is_there
  main.run()


def main() -> None:
  if sys.argv[1:2] == ["--child"]:
    _child(float(sys.argv[2]), sys.argv[3:])
    return
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--configs", nargs="+", default=CONFIGS)
  parser.add_argument("--rounds", type=int, default=1, help="the best counts")
  options = parser.parse_args()
  print(tables.markdown(COLUMNS, []), flush=True)
  for row in rows(options.configs, options.rounds):
    print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
  main()
