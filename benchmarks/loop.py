"""What the training loop's time goes on, and what checkpoints and reports cost.

    python -m benchmarks.loop
    python -m benchmarks.loop --steps=1500 --saves=9

Three tables: shares of the time of a training of the demo's config, as its log
says them (docs/running.md); how long a checkpoint of TokenPose-L/D24 keeps the
loop; and what an evaluation of val2017's size does on the host, beside the
next steps. Seconds are of processor time, of the loop's thread or of the
process: neighbors on the machine matter little to them, but shares are of the
wall time and need a quiet machine.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import environment, evaluation, tables
from configs import tokenpose_l_d24
from tokenpose_jax import (
  checkpoint,
  optim,
  saving,
  sharding,
  skeletons,
  train_state,
)
from tokenpose_jax import config as config_lib
from tokenpose_jax.metrics.benchmark import Boxes, Predictions
from tokenpose_jax.metrics.coco_keypoints import CocoKeypoints
from tokenpose_jax.metrics.coco_plain import plain

PEOPLE = 1000  # drawn for the demo: enough, and soon there
BOXES = 6352  # annotated ones of val2017


def shares(steps: int) -> Iterator[list[str]]:
  """Rows of the shares that the log of a training ends with."""
  with tempfile.TemporaryDirectory() as scratch:
    flags = {
      "data.dir": f"{scratch}/data",
      "data.prepared_dir": f"{scratch}/prepared",
      "data.synthetic_train_people": PEOPLE,
      "train.steps": steps,
      "checkpoint.every_steps": steps // 2,
    }
    done = subprocess.run(
      [
        *(sys.executable, "main.py", "--config=configs/demo.py"),
        f"--workdir={scratch}/run",
        *(f"--config.{name}={value}" for name, value in flags.items()),
      ],
      env=environment.plain(),
      stderr=subprocess.PIPE,
      text=True,
      check=False,
    )
  said = re.search(r"wall time: (.*); device busy ([\d.]+%)", done.stderr)
  if done.returncode or not said:
    sys.exit(f"error: the training failed:\n{done.stderr}")
  for share in said[1].split(", "):
    yield share.rsplit(" ", 1)
  yield ["device busy, of all but compilation and evaluation", said[2]]


def pauses(saves: int) -> Iterator[list[str]]:
  """Rows of the seconds that a save of L/D24 takes."""
  skeleton = skeletons.COCO_17
  config = config_lib.resolve(tokenpose_l_d24.get_config(), skeleton)
  schedule = optim.create_schedule(config.optim, config.train.epochs, 100, 64)
  optimizer = optim.create_optimizer(config.optim, schedule)
  state = train_state.create(config.model, optimizer, 0, config.init.scheme)
  state = sharding.put_replicated(sharding.create_mesh(), state)
  meta = checkpoint.describe(config, skeleton.to_dict(), {})
  another = jax.jit(
    lambda state: jax.tree.map(lambda a: a + jnp.ones((), a.dtype), state),
    donate_argnums=0,
  )
  blocked, whole = [], []
  with (
    tempfile.TemporaryDirectory() as workdir,
    saving.opened(workdir, keep=1) as saver,
  ):
    for _ in range(saves):
      state = jax.block_until_ready(another(state))
      start, thread = time.process_time(), time.thread_time()
      saver.save(state, meta)
      blocked.append(time.thread_time() - thread)
      saver.wait()
      whole.append(time.process_time() - start)
  megabytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / 1e6
  title = f"L/D24, {megabytes:.0f} MB"
  for name, seconds in (("in the loop", blocked), ("in all", whole)):
    found = f"{statistics.median(seconds):.2f} (at most {max(seconds):.2f})"
    yield [f"{title}, {name}", found]


def reports() -> Iterator[list[str]]:
  """Rows of the seconds of an evaluation's parts without the device."""
  truth, found = evaluation.make_set(detections=BOXES)
  benchmark = CocoKeypoints(plain(truth, 17)[0], skeletons.COCO_17)
  boxes = Boxes(
    image_id=found["image_ids"],
    category_id=np.ones(BOXES, np.int64),
    score=found["scores"],
    area=found["areas"],
  )
  scores = np.random.default_rng(0).random((BOXES, 17))
  predictions = Predictions(
    boxes, found["keypoints"], scores, scores, np.ones(BOXES, bool)
  )
  measured, seconds = timed(lambda: benchmark.measure(predictions))
  yield ["OKS-NMS and AP", f"{seconds:.2f}"]
  for replicates, name in ((0, "errors by kind"), (1000, "and intervals")):
    _, seconds = timed(
      lambda n=replicates: benchmark.details(measured, predictions, n)
    )
    yield [name, f"{seconds:.2f}"]
  _, seconds = timed(lambda: json.dumps(measured.results))
  yield ["results as JSON", f"{seconds:.2f}"]


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
  """What a call returns, and the processor time that it takes."""
  start = time.process_time()
  return call(), time.process_time() - start


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--steps", type=int, default=600, help="of the demo")
  parser.add_argument("--saves", type=int, default=5)
  options = parser.parse_args()
  for titles, rows in (
    ((f"{options.steps} steps of the demo", "share"), shares(options.steps)),
    (("a checkpoint", "CPU, s"), pauses(options.saves)),
    ((f"an evaluation, {BOXES} boxes, host", "CPU, s"), reports()),
  ):
    print(f"{tables.markdown(titles, rows)}\n", flush=True)


if __name__ == "__main__":
  main()
