"""What leaving visual tokens out saves on a CPU: `model.keep` 1, 0.7 and 0.5.

    python -m benchmarks.pruning

Images a second at 256x192, float32, all cores, 16 people: the whole training
step of the recipe, and 8-bit crops to heatmaps. Each in a process of its own,
in turns of two seconds; medians of five rounds, and the ratio to all tokens.
"""

import argparse
import json
import statistics
import sys

from benchmarks import environment, rounds, speed, tables
from tokenpose_jax import cli

NETWORKS = ("tokenpose_t", "tokenpose_s_v1", "tokenpose_b")
SHARES = (1.0, 0.7, 0.5)
BATCH = 16


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--seconds", type=float, default=2.0)
  parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.worker:
    network, case, keep = options.worker
    cli.keep_freed_memory()  # As main.py and `tokenpose`.
    if case == "training":
      cli.share_loops()  # As main.py.
    steps = {"training": speed.training_step, "inference": speed.inference_step}
    step = steps[case](network, BATCH, {"keep": keep})
    rounds.serve(step, BATCH, {})
    return
  rows = [
    row(network, case, options)
    for network in NETWORKS
    for case in ("training", "inference")
  ]
  titles = ["network", "case", *(f"keep {share:g}" for share in SHARES)]
  print(tables.markdown(titles, rows))


def row(network: str, case: str, options: argparse.Namespace) -> list[str]:
  """Of the table."""
  command = [sys.executable, "-m", "benchmarks.pruning", "--worker"]
  contenders = [
    rounds.Contender(
      [*command, json.dumps([network, case, share])], environment.plain()
    )
    for share in SHARES
  ]
  try:
    for contender in contenders:
      contender.ready()
    rates = [
      [contender.rate(options.seconds)["rate"] for contender in contenders]
      for _ in range(options.rounds)
    ]
  finally:
    for contender in contenders:
      contender.close()
  medians = [statistics.median(column) for column in zip(*rates, strict=True)]
  cells = [
    f"{rate:.1f}" + (f" ({rate / medians[0]:.2f} x)" if n else "")
    for n, rate in enumerate(medians)
  ]
  return [network, case, *cells]


if __name__ == "__main__":
  main()
