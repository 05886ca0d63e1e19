"""Runs of main.py in a process of their own, on a tiny network."""

import os
import pathlib
import socket
import subprocess
import sys

from tests import fixtures, tiny

TINY = [
  f"--config.{name}={value}"
  for name, value in tiny.FLAGS.items()
  if not name.startswith("data.synthetic")
]


def drawn(folder: pathlib.Path) -> pathlib.Path:
  """A small COCO folder of drawn people, in a folder."""
  from input_pipeline.synthetic.folder import write_coco_folder

  path = folder / "coco"
  write_coco_folder(str(path), train_people=40, test_people=12)
  return path


def free_address() -> str:
  """HOST:PORT at which nobody listens."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return f"127.0.0.1:{free.getsockname()[1]}"


def command(*arguments) -> list[str]:
  return [sys.executable, str(fixtures.ROOT / "main.py"), *arguments]


def environment(**extra) -> dict[str, str]:
  """One device, so that the batch sizes of any test divide."""
  quick = "--xla_cpu_opt_preset=CPU_OPT_PRESET_FAST_COMPILE"
  return os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": quick} | extra


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
