"""Runs of main.py in a process of their own, on a tiny network."""

import os
import subprocess
import sys

from tests import fixtures, tiny

TINY = [
  f"--config.{name}={value}"
  for name, value in tiny.FLAGS.items()
  if not name.startswith("data.synthetic")
]


def command(*arguments) -> list[str]:
  return [sys.executable, str(fixtures.ROOT / "main.py"), *arguments]


def environment(**extra) -> dict[str, str]:
  """One device, so that the batch sizes of any test divide."""
  return (
    os.environ
    | {
      "XLA_FLAGS": "",
      "JAX_PLATFORMS": "cpu",
      # Not in the home of whoever runs the tests.
      "JAX_COMPILATION_CACHE_DIR": str(fixtures.ROOT / ".pytest_cache/xla"),
    }
    | extra
  )


def start(*arguments, **extra) -> subprocess.Popen:
  return subprocess.Popen(
    command(*arguments),
    cwd=fixtures.ROOT,
    env=environment(**extra),
    stderr=subprocess.PIPE,
    text=True,
  )


def call(*arguments, **extra) -> subprocess.CompletedProcess:
  return subprocess.run(
    command(*arguments),
    cwd=fixtures.ROOT,
    env=environment(**extra),
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )


def demo(folder, workdir, *more) -> list[str]:
  return [
    "--config=configs/demo.py",
    f"--workdir={workdir}",
    "--config.data.name=coco",
    f"--config.data.dir={folder}",
    f"--config.data.prepared_dir={folder.parent / 'prepared'}",
    *TINY,
    *more,
  ]
