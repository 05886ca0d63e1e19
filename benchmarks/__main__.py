"""All benchmarks of a CPU, into docs/benchmarks.md: `make bench`.

    python -m benchmarks                        # about 40 minutes
    python -m benchmarks --only=speed,decoding  # the others' tables stay

Each is a program of its own that prints its table, in the environment of a
user (environment.py). Its part of the page also says on what machine, with
which versions and when, because parts can be of different runs. One that fails
leaves a line that says why, and exit code 1.
"""

import argparse
import datetime
import importlib.util
import os
import pathlib
import platform
import subprocess
import sys
import time
from typing import NamedTuple

from benchmarks import environment, limits, tables
from tokenpose_jax.version import installed

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "benchmarks.md"
PACKAGES = ("jax", "flax", "numpy", "onnxruntime", "tensorflow-cpu")
DEMO = ("runs/demo", "data/synthetic/test")


class Section(NamedTuple):
  """A part of the page.

  Attributes:
    arguments: of the module of that name.
    minutes: that it may take.
    needs: files that it reads.
    by_default: measured where nothing is asked for.
  """

  arguments: tuple[str, ...] = ()
  minutes: float = 5.0
  needs: tuple[str, ...] = ()
  by_default: bool = True


SECTIONS = {
  "speed": Section(minutes=50),
  "startup": Section(minutes=10),
  "loop": Section(),
  "memory": Section(minutes=20, by_default=False),
  "decoding": Section(),
  "evaluation": Section(),
  "data": Section(),
  "data_fidelity": Section(),
  "precision": Section(),
  "pruning": Section(minutes=15, by_default=False),
  "video": Section(),
  "export": Section(minutes=15, by_default=False),
  "predict": Section((*DEMO, "--photos=100"), needs=DEMO, by_default=False),
}


def run(name: str, extra: tuple[str, ...] = ()) -> tuple[str, bool]:
  """What a benchmark printed, for the page; and whether it ended well.

  Args:
    name: of `SECTIONS`.
    extra: more arguments.
  """
  section = SECTIONS[name]
  if not importlib.util.find_spec(f"benchmarks.{name}"):
    return f"Not run: there is no `benchmarks.{name}`.", True
  if missing := [path for path in section.needs if not os.path.exists(path)]:
    return f"Not run: {', '.join(missing)} is missing (`make demo`).", True
  command = [sys.executable, "-m", f"benchmarks.{name}"]
  try:
    done = subprocess.run(
      [*command, *section.arguments, *extra],
      env=environment.plain(),
      stdout=subprocess.PIPE,
      text=True,
      timeout=60 * section.minutes,
      check=False,
    )
  except subprocess.TimeoutExpired:
    return f"Failed: it took more than {section.minutes:g} minutes.", False
  text = as_markdown(done.stdout)
  if done.returncode:
    text += f"\n\nFailed: exit code {done.returncode}."
  return text, not done.returncode


def as_markdown(printed: str) -> str:
  """Tables in Markdown as they are, tables of a terminal as code."""
  printed = "\n".join(map(str.rstrip, printed.strip("\n").splitlines()))
  if printed.startswith("|"):
    return printed
  return f"```text\n{printed}\n```"


def described(commit: str, seconds: float, load: float) -> str:
  """The line on machine, versions and date.

  Args:
    commit: as returned by `revision`, before the page changes.
    seconds: that the benchmark took.
    load: of the machine before it began; a core that is busy is 1.
  """
  versions = [f"Python {platform.python_version()}", *installed(PACKAGES)]
  memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
  return (
    f"{datetime.date.today().isoformat()}, {commit}; {processor()},"
    f" {limits.cores()} cores, {memory:.0f} GiB, load {load:.1f} at the start;"
    f" {', '.join(versions)}; {seconds / 60:.1f} minutes."
  )


def processor() -> str:
  """The CPU's name."""
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    return platform.processor() or platform.machine()
  facts = dict(
    (part.strip() for part in line.split(":", 1))
    for line in lines
    if ":" in line
  )
  name = facts.get("model name", platform.machine())
  numbers = [facts.get(key, "?") for key in ("cpu family", "model")]
  return f"{name} (family {numbers[0]}, model {numbers[1]})"


def revision() -> str:
  """The commit, and whether files were changed since."""
  done = subprocess.run(
    ["git", "describe", "--always", "--dirty"],
    cwd=PAGE.parent,
    capture_output=True,
    text=True,
    check=False,
  )
  return done.stdout.strip() or "no revision"


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  usual = [name for name, section in SECTIONS.items() if section.by_default]
  rest = ", ".join(sorted(set(SECTIONS) - set(usual)))
  add("--only", default=",".join(usual), help=f"by commas; not usual: {rest}")
  add("--speed", default="", help="arguments of benchmarks.speed")
  add("--page", type=pathlib.Path, default=PAGE)
  options = parser.parse_args()
  names = options.only.split(",")
  if unknown := set(names) - set(SECTIONS):
    parser.error(f"--only: {unknown} are none of {', '.join(SECTIONS)}")
  failed, commit = [], revision()
  for name in names:
    print(f"\n# {name}\n", flush=True)
    begun, load = time.monotonic(), os.getloadavg()[0]
    extra = tuple(options.speed.split()) if name == "speed" else ()
    text, well = run(name, extra)
    print(text, flush=True)
    text += f"\n\n{described(commit, time.monotonic() - begun, load)}"
    # After each: what was measured stays if the next one is stopped.
    page = options.page.read_text(encoding="utf-8")
    options.page.write_text(tables.replace(page, name, text), encoding="utf-8")
    if not well:
      failed.append(name)
  print(f"\nwritten to {options.page}")
  if failed:
    sys.exit(f"error: failed: {', '.join(failed)}")


if __name__ == "__main__":
  main()
