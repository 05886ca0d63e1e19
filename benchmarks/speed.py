"""Training and inference beside PyTorch, and beside what the machine can do.

    python -m benchmarks.speed                              # half an hour
    python -m benchmarks.speed --networks=tokenpose_t --cases=inference
    ... --torch=PYTHON      # of another environment that has PyTorch; "": none

Images/s on the CPU, float32, 256x192. Everybody gets ready in a process of its
own, then rounds in turns; medians. Ours: `train.jit_train_step`, or crops to
heatmaps through XLA and through ONNX Runtime from `tokenpose export`, in the
environment of a user's command (environment.py). PyTorch: peers_torch.py, the
fastest of its variants, each of which is tried before.
"""

import argparse
import dataclasses
import functools
import importlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks import environment, limits, rounds, tables
from tokenpose_jax import cli

NETWORKS = ("tokenpose_t", "tokenpose_s_v1", "tokenpose_b", "tokenpose_l_d24")
CASES = {"training": (16,), "inference": (1, 16)}  # and their batches
RUNTIMES = {
  "training": ("XLA",),
  "inference": ("XLA", "ONNX, 1 thread", "ONNX"),
}
TORCH = os.path.join(".venv", "torch", "bin", "python")
TITLES = (
  *("network", "case", "PyTorch", "ours, XLA", "ours, ONNX (1 thread)"),
  *("ours / PyTorch", "limit", "share of it"),
)

Row = dict[str, Any]


class Key(NamedTuple):
  """What is timed."""

  network: str
  case: str
  batch: int


def plan(
  networks: Sequence[str], cases: Sequence[str], batches: Sequence[int] = ()
) -> list[Key]:
  """What is timed, in order.

  Args:
    networks: names of configs.
    cases: of `CASES`.
    batches: (): those of each case.
  """
  return [
    Key(network, case, batch)
    for network in networks
    for case in cases
    for batch in batches or CASES[case]
  ]


def command(key: Key, runtime: str, folder: str) -> list[str]:
  """Starts one of ours."""
  given = json.dumps([*key, runtime, folder])
  return [sys.executable, "-m", "benchmarks.speed", "--worker", given]


def worker(
  network: str, case: str, batch: int, runtime: str, folder: str
) -> None:
  """One of ours, ready to be timed.

  Args:
    network: the name of a config.
    case: of `CASES`.
    batch: images in a step.
    runtime: of `RUNTIMES`.
    folder: of exports.
  """
  cli.keep_freed_memory()  # As main.py and `tokenpose`.
  if case == "training":
    cli.share_loops()  # As main.py.
    step = training_step(network, batch)
  elif runtime == "XLA":
    step = inference_step(network, batch)
  else:
    step = onnx_step(
      os.path.join(folder, network), batch, 1 if "1 thread" in runtime else 0
    )
  rounds.serve(step, batch, {})


def training_step(
  network: str, batch: int, changes: Mapping[str, Any] | None = None
) -> Callable[[], Any]:
  """The training step of a recipe, all of it, on crops that stay placed.

  Args:
    network: of a recipe.
    batch: people.
    changes: of the network's fields.
  """
  import jax
  import numpy as np

  from tokenpose_jax import config as config_lib
  from tokenpose_jax import optim, sharding, skeletons, train, train_state

  config = importlib.import_module(f"configs.{network}").get_config()
  config.train.batch_size = batch
  config.model.update(changes or {})
  config = config_lib.resolve(config, skeletons.get(config.data.skeleton))
  schedule = optim.create_schedule(config.optim, config.train.epochs, 1000)
  optimizer = optim.create_optimizer(config.optim, schedule)
  mesh = sharding.create_mesh()
  state = sharding.put_replicated(
    mesh, train_state.create(config.model, optimizer, 0)
  )
  k, (height, width) = config.model.num_keypoints, config.model.input_hw
  rng = np.random.default_rng(0)
  people = {
    "image": rng.integers(0, 256, (batch, height, width, 3)).astype(np.uint8),
    "keypoints": (rng.random((batch, k, 2)) * (width, height)).astype(
      np.float32
    ),
    "visible": np.ones((batch, k), np.float32),
    "hidden": np.zeros((batch, k), np.float32),
    "reach": np.full((batch, k), 8, np.float32),
    "mask": np.ones(batch, np.float32),
  }
  placed = sharding.put_batch(mesh, people)
  run = train.jit_train_step(config, optimizer, schedule, mesh)

  def step() -> None:
    nonlocal state
    state, metrics = run(state, placed)
    jax.block_until_ready((state, metrics))

  return step


def inference_step(
  network: str, batch: int, changes: Mapping[str, Any] | None = None
) -> Callable[[], Any]:
  """8-bit crops to heatmaps, without the flip test; arguments likewise."""
  import jax

  from tokenpose_jax import inference
  from tokenpose_jax import network as network_lib
  from tokenpose_jax.codec import Codec
  from tokenpose_jax.models.published import PUBLISHED

  model = dataclasses.replace(PUBLISHED[network], **(changes or {}))
  codec = Codec(model.input_hw, model.heatmap_hw, sigma=2.0)
  settings = inference.Settings(model, codec)
  weights = network_lib.init(model, 0)
  run = jax.jit(functools.partial(inference.find, settings))
  crops = random_crops(batch, model.input_hw)

  def step() -> None:
    run(*weights, crops).heatmaps.block_until_ready()

  return step


def onnx_step(folder: str, batch: int, threads: int) -> Callable[[], Any]:
  """The same through ONNX Runtime; keypoints are decoded besides."""
  from tokenpose_jax import exported

  hw = exported.read_meta(folder)["inputs"]["crops"][1:3]
  path = os.path.join(folder, exported.FILES["onnx"])
  session = exported.onnx_session(path, threads)
  crops = random_crops(batch, hw)
  return lambda: session.run(["heatmaps"], {"crops": crops})


def random_crops(batch: int, hw: Sequence[int]) -> Any:
  """(batch, *hw, 3) uint8."""
  import numpy as np

  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (batch, *hw, 3)).astype(np.uint8)


def export(network: str, folder: str) -> None:
  """Writes FOLDER/NETWORK as `tokenpose export` does, with random weights."""
  import tokenpose_jax as tp
  from benchmarks import export as export_lib
  from tokenpose_jax import convert

  model = tp.published[network]
  file = os.path.join(folder, f"{network}.safetensors")
  weights = export_lib.with_statistics(model)
  convert.write_state_dict(file, tp.export_torch(model, *weights))
  export_lib.export(file, os.path.join(folder, network), ["onnx"])


def best_torch(
  python: str, key: Key, seconds: float
) -> tuple[rounds.Contender, str]:
  """The fastest of PyTorch's variants, ready, and what it is in words.

  Args:
    python: of PyTorch's environment.
    key: what is timed.
    seconds: of the round that decides.

  Raises:
    Failed: none of them runs.
  """
  # PyTorch's side knows its variants: this process has no PyTorch.
  asked = [python, "-m", "benchmarks.peers_torch", f"--networks={key.network}"]
  ways = rounds.run_alone([*asked, "--variants"], environment.plain())
  best, best_rate, words = None, 0.0, ""
  for way in ways["variants"]:
    start = [*way["command"], f"--cases={key.case}", f"--batch={key.batch}"]
    contender, loser = rounds.Contender(start, way["environment"]), best
    try:
      facts = contender.ready()
      rate = contender.rate(seconds)["rate"]
      say(f"PyTorch, {way['words']}: {rate:.2f} ({facts['ready_s']} s before)")
      if rate > best_rate:
        best, best_rate, words = contender, rate, way["words"]
      else:
        loser = contender
    except rounds.Failed as error:
      say(f"PyTorch, {way['words']}: {error}")
      loser = contender
    if loser:
      loser.close()
  if best is None:
    raise rounds.Failed("none of PyTorch's variants runs")
  return best, words


def measure(
  key: Key, folder: str, python: str, count: int, seconds: float
) -> Row:
  """One row: medians of rounds in turns.

  Args:
    key: what is timed.
    folder: of exports.
    python: of PyTorch's environment; "": none.
    count: of rounds.
    seconds: of a round.
  """
  row: Row = {**key._asdict(), "rates": {}, "peak_mb": {}, "failed": {}}
  contenders: dict[str, rounds.Contender] = {}
  rates: dict[str, list[float]] = {}

  def drop(name: str, why: Exception) -> None:
    row["failed"][name] = str(why)
    if name in contenders:
      contenders.pop(name).close()

  try:
    if python:
      try:
        contenders["PyTorch"], row["variant"] = best_torch(python, key, seconds)
      except rounds.Failed as error:
        drop("PyTorch", error)
    for name in RUNTIMES[key.case]:
      contenders[name] = rounds.Contender(
        command(key, name, folder), environment.plain()
      )
      try:  # One after the other: compilation uses all cores.
        contenders[name].ready()
      except rounds.Failed as error:
        drop(name, error)
    for _ in range(count):
      for name, contender in list(contenders.items()):
        try:
          answer = contender.rate(seconds)
        except rounds.Failed as error:
          drop(name, error)
        else:
          rates.setdefault(name, []).append(answer["rate"])
          row["peak_mb"][name] = answer["peak_mb"]
  finally:
    for contender in contenders.values():
      contender.close()
  row["rates"] = {name: statistics.median(of) for name, of in rates.items()}
  return row


def completed(row: Row, machine: limits.Limits) -> Row:
  """A row with its limit and the shares.

  Args:
    row: as returned by `measure`.
    machine: what it can do.
  """
  from tokenpose_jax.models.published import PUBLISHED

  needs = limits.needs(PUBLISHED[row["network"]], row["case"], row["batch"])
  bound, name = needs.bound(machine)
  rates = row["rates"]
  ours = max((r for n, r in rates.items() if n != "PyTorch"), default=None)
  row = row | {"limit": bound, "limited_by": name}
  row["gflops_an_image"] = needs.flops / needs.images / 1e9
  if ours:
    row["share"] = ours / bound
    if "PyTorch" in rates:
      row["ratio"] = ours / rates["PyTorch"]
  return row


def line(row: Mapping[str, Any]) -> list[str]:
  """The cells of a row, as `TITLES`."""
  rates = row["rates"]

  def rate(name: str) -> str:
    return f"{rates[name]:.1f}" if name in rates else ""

  onnx = rate("ONNX")
  if single := rate("ONNX, 1 thread"):
    onnx += f" ({single})"
  variant = f" ({row['variant']})" if row.get("variant") else ""
  return [
    row["network"],
    f"{row['case']}, {row['batch']}",
    rate("PyTorch") + variant if "PyTorch" in rates else "",
    rate("XLA"),
    onnx,
    f"{row['ratio']:.2f}" if "ratio" in row else "",
    f"{row['limit']:.1f}, {row['limited_by']}",
    f"{row['share']:.0%}" if "share" in row else "",
  ]


def report(rows: Iterable[Row], machine: limits.Limits, notes: str = "") -> str:
  """The section of the page.

  Args:
    rows: as returned by `completed`.
    machine: what it can do.
    notes: a line on what is missing.
  """
  rows = list(rows)
  failures = [
    f"{row['network']}, {row['case']}, {row['batch']}, {name}: {why}"
    for row in rows
    for name, why in row["failed"].items()
  ]
  said = [
    f"Matrix products {machine.products / 1e9:.0f} GFLOP/s, memory"
    f" {machine.memory / 1e9:.1f} GB/s, the best of this run.",
    *filter(None, [notes]),
    *(f"Failed: {failure}." for failure in failures),
  ]
  return "\n\n".join([tables.markdown(TITLES, map(line, rows)), *said])


def measured_limits(python: str) -> tuple[limits.Limits, str]:
  """Of the machine: the best of NumPy, JAX and PyTorch.

  Args:
    python: of PyTorch's environment; "": none.

  Returns:
    the limits, and why there is no PyTorch; "": there is.
  """
  found = rounds.run_alone(
    [sys.executable, "-m", "benchmarks.limits"], environment.plain()
  )
  fastest, missing = found["products"], "it was not asked for"
  if python:
    peer = [python, "-m", "benchmarks.peers_torch", "--products"]
    try:
      theirs = rounds.run_alone(peer, environment.plain())["products"]
      fastest, missing = max(fastest, theirs), ""
    except (rounds.Failed, OSError) as error:
      missing = str(error)
  return limits.Limits(fastest, found["memory"]), missing


def rows(
  options: argparse.Namespace, network: str, end: float
) -> Iterator[Row]:
  """The rows of a network, as they come; none is begun after the end."""
  with tempfile.TemporaryDirectory() as folder:
    if "inference" in options.cases:
      writer = [sys.executable, "-m", "benchmarks.speed", "--export"]
      try:
        rounds.run_alone([*writer, network, folder])
      except rounds.Failed as error:
        say(f"{network} is not exported: {error}")
    for key in plan([network], options.cases, options.batches):
      if time.monotonic() > end:
        say(f"no time left for {', '.join(map(str, key))}")
        continue
      yield measure(key, folder, options.torch, options.rounds, options.seconds)


def say(text: str) -> None:
  """Progress, apart from the table."""
  print(text, file=sys.stderr, flush=True)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  names = functools.partial(str.split, sep=",")
  add("--networks", type=names, default=list(NETWORKS))
  add("--cases", type=names, default=list(CASES))
  add("--batches", type=lambda t: [int(n) for n in t.split(",")], default=[])
  add("--rounds", type=int, default=5)
  add("--seconds", type=float, default=2.0, help="of a round; a step at least")
  add("--minutes", type=float, default=35.0, help="no row is begun later")
  add("--torch", default=TORCH, help="python of an environment with PyTorch")
  add("--json", help="also writes the rows there, as they come")
  add("--worker", type=json.loads, help=argparse.SUPPRESS)
  add("--export", nargs=2, help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.worker:
    worker(*options.worker)
    return
  if options.export:
    export(*options.export)
    print("{}")
    return
  machine, missing = measured_limits(options.torch)
  notes = ""
  if missing:
    notes = f"PyTorch's columns are empty: {missing}."
    options.torch = ""
  done: list[Row] = []
  end = time.monotonic() + 60 * options.minutes
  for network in options.networks:
    for row in rows(options, network, end):
      done.append(row)
      say(" | ".join(line(completed(row, machine))))
      if options.json:
        with open(options.json, "w") as file:
          json.dump({"limits": machine._asdict(), "rows": done}, file, indent=1)
    # Again, because a busy neighbor hides what the machine can do.
    machine = machine.or_more(measured_limits(options.torch)[0])
    say(f"{machine}")
  asked = plan(options.networks, options.cases, options.batches)
  if late := len(asked) - len(done):
    notes += f"{' ' * bool(notes)}{late} rows were not begun in the time given."
  print(report([completed(row, machine) for row in done], machine, notes))


if __name__ == "__main__":
  main()
