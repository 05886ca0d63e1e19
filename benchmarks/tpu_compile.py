"""What the recipes' training steps cost on TPUs that are not there.

    pip install -r requirements.txt -r requirements-tpu.txt -c constraints.txt
    python -m benchmarks.tpu_compile --out=tpu.json    # everything: hours
    python -m benchmarks.tpu_compile --configs=tokenpose_t --topologies=v5e:2x4
    ... --remat=blocks                                 # with less memory
    ... --quick                                        # does it fit? in minutes

libtpu, the compiler of a Cloud TPU, compiles `train.jit_train_step` in
bfloat16, sharded over a topology of chips, on any Linux CPU. Nothing runs:
cycles are its own estimates and, of Pallas kernels, the lengths of its
schedules (docs/tpu.md). Each row is compiled in a process of its own and
written to --out as it comes; what is there is not compiled again.
"""

import argparse
import collections
import datetime
import importlib
import importlib.metadata
import importlib.util
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from benchmarks import tables
from tokenpose_jax import (
  cli,
  optim,
  recipes,
  sharding,
  skeletons,
  train,
  train_state,
)
from tokenpose_jax import config as config_lib
from tokenpose_jax.errors import InputError, check_choice, one_line
from tokenpose_jax.models.config import ModelConfig
from tokenpose_jax.models.published import PUBLISHED

Row = dict[str, Any]
Key = tuple[str, str, int, str, bool, str]  # _KEY of a row

TOPOLOGIES = ("v5e:2x4", "v6e:2x4", "v5p:2x2x1")
# A whole pod, and two slices over the data center's network.
LARGE = "tokenpose_l_d24_384x288"
LARGE_TOPOLOGIES = ("v5e:16x16", "2*v5e:2x4")
# GiB a chip: docs.cloud.google.com/tpu/docs/v5e, /v6e, /v5p.
HBM = {"v5e": 16, "v6e": 32, "v5p": 95}
FALLBACK = 8  # people a chip where a recipe's batch does not divide
# An asynchronous one is counted at its end, by its outcome. Between outcomes
# stand comments: /*index=5*/. `send` is to another slice.
_COLLECTIVE = re.compile(
  r" = ([^=]*(?:index=[^=]*)*) (all-reduce|all-gather|reduce-scatter"
  r"|all-to-all|collective-permute|collective-broadcast|send(?!-))(?:-done)?\("
)
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
_OUT_OF_MEMORY = re.compile(r"Used ([\d.]+)G of ([\d.]+)G hbm")
# "steps": models/attention_tpu.py. A call's number is not its kernel's.
_KERNEL = re.compile(
  r'%([\w-]+)(?:\.\d+)? = .*custom_call_target="tpu_custom_call"'
  r'.*kernel_metadata=\{\s*"steps":\s*"(\d+)"'
)
# Of each operation only how its final schedule uses the units, a few kB.
_DUMP = (
  "--xla_jf_dump_to={}",
  "--xla_jf_dump_llo_text=true",
  "--xla_jf_dump_category_filter=utilization",
  "--xla_jf_dump_llo_pass_label_regex=.*pre-delay.*",
)
_KEY = ("config", "topology", "people_a_chip", "remat", "quick", "set")
# libtpu reads these in place of the metadata of a TPU.
_ENVIRONMENT = {
  "JAX_PLATFORMS": "cpu",
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_ACCELERATOR_TYPE": "v5litepod-4",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # No chip is claimed.
}


def parse(topology: str) -> tuple[str, str, int, int]:
  """(generation, topology of a slice, slices, chips in all) of a name.

  Raises:
    InputError: it is none such as "v5e:2x4", or "2*v5e:2x4" for two slices.
  """
  match = re.fullmatch(r"(?:(\d+)\*)?((\w+):(\d+(?:x\d+)+))", topology)
  if not match:
    raise InputError(
      f"--topologies: {topology!r} is none; for example v5e:2x4, or 2*v5e:2x4"
      " for two slices"
    )
  check_choice("--topologies: the generation", match[3], HBM)
  slices = int(match[1] or 1)
  a_slice = math.prod(map(int, match[4].split("x")))
  return match[3], match[2], slices, slices * a_slice


def collectives(hlo: str) -> dict[str, dict[str, int]]:
  """The collectives of a compiled module, by kind.

  Args:
    hlo: its text.

  Returns:
    {kind: {"count": ..., "bytes": of the outcomes on a chip}}; what is inside
    a loop counts once.
  """
  found: dict[str, dict[str, int]] = {}
  for outcome, kind in _COLLECTIVE.findall(hlo):
    entry = found.setdefault(kind, {"count": 0, "bytes": 0})
    entry["count"] += 1
    for dtype, sizes in _ARRAY.findall(outcome):
      bits = re.search(r"\d+", dtype)  # None in `pred`.
      width = int(bits[0]) // 8 if bits else 1
      entry["bytes"] += width * math.prod(map(int, re.findall(r"\d+", sizes)))
  return found


def kernel_steps(hlo: str) -> dict[str, int]:
  """How many grid steps a compiled module's Pallas kernels run.

  Args:
    hlo: its text.

  Returns:
    {name: steps of all its calls}; what is inside a loop counts once.
  """
  found: collections.Counter[str] = collections.Counter()
  for name, steps in _KERNEL.findall(hlo):
    found[name] += int(steps)
  return dict(found)


def schedule_length(dumps: pathlib.Path, name: str) -> int:
  """Cycles of one grid step of a kernel: the bundles of its schedule.

  Empty ones are among them, where it waits for a unit; waiting for memory is
  not.

  Args:
    dumps: the folder that libtpu wrote to.
    name: of the kernel.

  Raises:
    FileNotFoundError: libtpu wrote nothing about it.
  """
  # Equal kernels are compiled once, under one of their calls' names.
  pattern = re.compile(rf"\d+-{re.escape(name)}(\.\d+)?-\d+-pre-delay.*\.txt")
  files = [p for p in dumps.iterdir() if pattern.fullmatch(p.name)]
  if not files:
    raise FileNotFoundError(f"no schedule of the kernel {name} in {dumps}")
  lengths = []
  for file in files:
    _, _, bundles = file.read_text().partition("== UTILIZATION:")
    lengths.append(len(bundles.strip().splitlines()))
  return max(lengths)


def table(rows: Iterable[Row]) -> str:
  """Rows as a table in Markdown."""
  titles = ("config", "topology", "people a chip", "compiled in, s")
  titles += ("GiB a chip: arguments + temporaries + code", "of", "fits")
  titles += ("cycles an image", "collectives in a step")
  return "\n".join([tables.markdown(titles, []), *map(line, rows)])


def line(row: Row) -> str:
  """A row of the table."""
  sizes = [size / 2**30 for size in row.get("memory", {}).values()]
  memory = f"{' + '.join(f'{s:.2f}' for s in sizes)} = {sum(sizes):.2f}"
  fits = "yes" if row["fits"] else "no"
  if "needs_gib" in row:
    memory = f"{row['needs_gib']:.2f}"
  elif "error" in row:
    memory, fits = "", f"failed: {row['error']}"
  again = "" if row["remat"] == "none" else f", remat {row['remat']}"
  quick = ", quick" if row["quick"] else ""
  changed = f", {row['set']}" if row["set"] else ""
  cells = (
    f"`{row['config']}`{again}{quick}{changed}",
    row["topology"],
    row["people_a_chip"],
    f"{row['seconds']:.0f}",
    memory,
    HBM[parse(row["topology"])[0]],
    fits,
    f"{row['cycles_an_image']:,}" if "cycles_an_image" in row else "",
    ", ".join(
      f"{entry['count']} {kind} ({entry['bytes'] / 1e6:.1f} MB)"
      for kind, entry in row.get("collectives", {}).items()
    ),
  )
  return f"| {' | '.join(map(str, cells))} |"


def compile_row(
  name: str,
  topology: str,
  people: int,
  remat: str,
  quick: bool,
  changes: str,
  dumps: pathlib.Path,
) -> Row:
  """Compiles a row, in this process.

  Args:
    name: of a config.
    topology: as for `parse`.
    people: a chip.
    remat: `train.remat`.
    quick: without the search for a fast program, whose cycles say nothing.
    changes: of the network: FIELD=VALUE, with spaces between.
    dumps: the folder that libtpu was told to write to.

  Returns:
    seconds, memory in bytes, cycles (not when quick), collectives; or why it
    does not compile.
  """
  if quick:
    jax.config.update("jax_exec_time_optimization_effort", -1.0)
  mesh = create_mesh(topology)
  config = importlib.import_module(f"configs.{name}").get_config()
  if changes:
    model = recipes.change(ModelConfig.of(config.model), changes.split())
    config.model.update(model.to_dict())
  config.model.dtype = "bfloat16"
  config.train.batch_size = people * mesh.size
  config.train.remat = remat
  config = config_lib.resolve(config, skeletons.get(config.data.skeleton))
  schedule = optim.create_schedule(config.optim, config.train.epochs, 1000)
  optimizer = optim.create_optimizer(config.optim, schedule)
  state = train_state.abstract(config.model, optimizer)
  b, k = config.train.batch_size, config.model.num_keypoints
  batch = {
    "image": jax.ShapeDtypeStruct((b, *config.model.input_hw, 3), np.uint8),
    "keypoints": jax.ShapeDtypeStruct((b, k, 2), np.float32),
    "visible": jax.ShapeDtypeStruct((b, k), np.float32),
    "hidden": jax.ShapeDtypeStruct((b, k), np.float32),
    "reach": jax.ShapeDtypeStruct((b, k), np.float32),
    "mask": jax.ShapeDtypeStruct((b,), np.float32),
  }
  step = train.jit_train_step(config, optimizer, schedule, mesh)
  lowered = step.lower(state, batch)
  start = time.monotonic()
  try:
    program = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    row: Row = {"fits": False, "error": one_line(error, 300)}
    if match := _OUT_OF_MEMORY.search(str(error)):
      row["needs_gib"] = float(match[1])
    return row | {"seconds": time.monotonic() - start}
  seconds = time.monotonic() - start
  text, sizes = program.as_text(), program.memory_analysis()
  cycles = sum(map(int, re.findall(r'"estimated_cycles":"(\d+)"', text)))
  memory = {
    "arguments": sizes.argument_size_in_bytes,
    "temporaries": sizes.temp_size_in_bytes,
    "code": sizes.generated_code_size_in_bytes,
  }
  row = {
    "fits": sum(memory.values()) <= HBM[parse(topology)[0]] * 2**30,
    "seconds": seconds,
    "memory": memory,
    "collectives": collectives(text),
  }
  if quick:
    return row
  kernels = {
    kernel: steps * schedule_length(dumps, kernel)
    for kernel, steps in kernel_steps(text).items()
  }
  return row | {
    "cycles_an_image": round((cycles + sum(kernels.values())) / people),
    "kernel_cycles_an_image": {
      kernel: round(cycles / people) for kernel, cycles in kernels.items()
    },
  }


def create_mesh(topology: str) -> Mesh:
  """The mesh of a run on chips that are not there."""
  _, name, slices, _ = parse(topology)
  more = {"num_slices": slices} if slices > 1 else {}
  described = topologies.get_topology_desc(name, platform="tpu", **more)
  return sharding.create_mesh(described.devices)


def measure(key: Key) -> Row:
  """`compile_row` in a process of its own, and what identifies the row."""
  command = (sys.executable, "-m", "benchmarks.tpu_compile", "--row")
  with tempfile.TemporaryDirectory() as dumps:
    given = os.environ.get("LIBTPU_INIT_ARGS", "")
    wanted = " ".join(_DUMP).format(dumps)
    libtpu = {"LIBTPU_INIT_ARGS": f"{given} {wanted}".strip()}
    done = subprocess.run(
      [*command, json.dumps(key), "--dumps", dumps],
      env=os.environ | _ENVIRONMENT | libtpu,
      capture_output=True,
      text=True,
      check=False,
    )
  row: Row = dict(zip(_KEY, key, strict=True))
  row |= {"dtype": "bfloat16", "date": datetime.date.today().isoformat()}
  row |= {n: importlib.metadata.version(n) for n in ("jax", "libtpu")}
  if not done.returncode:
    return row | json.loads(done.stdout.splitlines()[-1])
  said = one_line(done.stderr.strip().rpartition("\n")[2], 300)
  error = f"exit code {done.returncode}, {said}"
  return row | {"fits": False, "seconds": 0.0, "error": error}


def plan(options: argparse.Namespace) -> list[Key]:
  """What identifies every row asked for."""
  names = options.configs or PUBLISHED
  for name in names:
    check_choice("--configs", name, PUBLISHED)
  pairs = [(n, t) for t in options.topologies or TOPOLOGIES for n in names]
  if not options.topologies and LARGE in names:
    pairs += [(LARGE, topology) for topology in LARGE_TOPOLOGIES]
  rows = []
  for name, topology in pairs:
    config = importlib.import_module(f"configs.{name}").get_config()
    people, rest = divmod(config.train.batch_size, parse(topology)[-1])
    people = FALLBACK if rest else people
    people = options.batch_per_chip or people
    rows.append(
      (name, topology, people, options.remat, options.quick, options.set)
    )
  return rows


def run(options: argparse.Namespace) -> None:
  saved = options.out and options.out.exists()
  rows = json.loads(options.out.read_text()) if saved else []
  # What failed, and not for want of memory, is tried again.
  # Those of before --quick and --set do not say it.
  rows = [
    {"quick": False, "set": ""} | row
    for row in rows
    if "error" not in row or "needs_gib" in row
  ]
  known = {tuple(row[name] for name in _KEY): row for row in rows}
  wanted = plan(options)
  missing = [row for row in wanted if row not in known]
  if missing and not importlib.util.find_spec("libtpu"):
    raise InputError(
      "libtpu is not installed; pip install -r requirements-tpu.txt -c"
      " constraints.txt"
    )
  print(table([]), flush=True)
  for row in wanted:
    if row in missing:
      known[row] = measure(row)
      if options.out:
        partial = options.out.with_suffix(".partial")
        partial.write_text(json.dumps(list(known.values()), indent=1))
        partial.replace(options.out)
    print(line(known[row]), flush=True)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  names = {"type": lambda text: text.split(","), "help": "with commas"}
  parser.add_argument("--configs", **names)
  parser.add_argument("--topologies", **names)
  parser.add_argument("--batch_per_chip", type=int)
  parser.add_argument("--out", type=pathlib.Path, help="a JSON file of rows")
  parser.add_argument("--remat", choices=("none", "blocks"), default="none")
  parser.add_argument(
    "--quick", action="store_true", help="memory and collectives, no cycles"
  )
  parser.add_argument(
    "--set", default="", help="fields of the network: 'keep=0.7 cycles=2'"
  )
  parser.add_argument("--row", type=json.loads, help=argparse.SUPPRESS)
  parser.add_argument("--dumps", type=pathlib.Path, help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.row:
    print(json.dumps(compile_row(*options.row, options.dumps)))
  else:
    cli.run(lambda: run(options))


if __name__ == "__main__":
  main()
