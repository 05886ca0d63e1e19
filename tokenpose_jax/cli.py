"""One front for commands: flags in, one line for bad input, readable logs.

    tokenpose cost tokenpose_s_v1
    tokenpose convert inspect tokenpose_s_v1.pth

`python -m tokenpose_jax` is the same command.
"""

import argparse
import ctypes
import glob
import importlib
import importlib.metadata
import importlib.util
import logging as python_logging
import os
import pathlib
import platform
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from tokenpose_jax import stopping
from tokenpose_jax.errors import InputError, one_line
from tokenpose_jax.terminal import printable
from tokenpose_jax.version import __version__

if TYPE_CHECKING:
  from absl import flags


class Command(NamedTuple):
  """A sub-command of `tokenpose`.

  Attributes:
    module: that has `add_arguments(parser)` and `run(arguments)`; its
      docstring is the help.
    help: one line.
  """

  module: str
  help: str


# Of GPUs and TPUs.
_ACCELERATORS = (
  "/dev/nvidia[0-9]*",
  "/dev/kfd",
  "/dev/accel*",
  "/dev/vfio/[0-9]*",
)

# jaxlibs whose XLA has the option of `share_loops`; tried with each.
_LOOPS_ARE_SHARED_BY = ("0.10.2", "0.12.0.1")

# malloc.h: M_TRIM_THRESHOLD (never), M_TOP_PAD, M_MMAP_MAX and M_ARENA_MAX.
_MALLOC = ((-1, -1), (-2, 2**28), (-4, 0), (-8, 1))

COMMANDS = {
  "predict": Command(
    "tokenpose_jax.predict.command", "keypoints in photos and videos"
  ),
  "explain": Command(
    "tokenpose_jax.explanation.command", "what keypoint tokens look at"
  ),
  "cost": Command("tokenpose_jax.cost", "what a network costs"),
  "convert": Command(
    "tokenpose_jax.convert.command", "weights from and to PyTorch"
  ),
  "export": Command(
    "tokenpose_jax.export.command", "a network for other runtimes"
  ),
  "verify": Command("tokenpose_jax.exported", "that an export is what it was"),
  "publish": Command("tokenpose_jax.hub", "a folder that others can load"),
}


def main(argv: Sequence[str] | None = None) -> None:
  """The command `tokenpose`: runs a sub-command.

  Args:
    argv: arguments; None: those of the process.
  """
  arguments = list(sys.argv[1:] if argv is None else argv)
  command = COMMANDS.get(arguments[0]) if arguments else None
  if command is None:
    _front().parse_args(arguments or ["--help"])
    return
  if argv is None:  # The process is this command's.
    keep_freed_memory()
  # Imported now: the help of the others does not wait for JAX.
  module = importlib.import_module(command.module)
  parser = _Parser(
    prog=f"tokenpose {arguments[0]}",
    description=module.__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  module.add_arguments(parser)
  options = parser.parse_args(arguments[1:])
  if importlib.util.find_spec("absl"):  # `verify` does without.
    from absl import flags, logging

    flags.FLAGS(["tokenpose"])  # absl's logging waits for flags: here are none
    log_only(os.path.dirname(os.path.abspath(__file__)), level=logging.WARNING)
  run(lambda: module.run(options))


def run(command: Callable[[], int | None]) -> None:
  """Runs a command; exits where its code is not 0.

  Args:
    command: as for `exit_code`.
  """
  if code := exit_code(command):
    sys.exit(code)


def run_to_the_end(command: Callable[[], int | None]) -> None:
  """Runs a command that has threads and partners; leaves at its end.

  A failure ends all of them: no thread of a checkpoint or of TensorFlow keeps
  the process alive, and the other processes of a run hear why.

  Args:
    command: as for `exit_code`.
  """
  try:
    code, line = command() or 0, ""
  except InputError as error:
    code, line = 1, f"error: {one_line(error)}"
    if "jax" not in sys.modules:  # Nothing has begun.
      print(line, file=sys.stderr)
      sys.exit(code)
  except Exception as error:
    print(printable(traceback.format_exc(), "\n"), file=sys.stderr)
    code, line = 1, f"error: {one_line(error)}"
  if code:
    stopping.leave(code, line)


def exit_code(command: Callable[[], int | None]) -> int:
  """Runs a command; bad input is one line and code 1.

  Args:
    command: returns the exit code; None: 0.
  """
  try:
    return command() or 0
  except InputError as error:
    # A name in a file may hold anything, line breaks too.
    print("error:", one_line(error), file=sys.stderr)
    return 1


def keep_freed_memory() -> None:
  """Lets the allocator of a process on CPUs keep what is freed.

  Call it before JAX and TensorFlow start threads. XLA's temporaries are freed
  at the end of a step, and would come fresh from the system in the next one,
  page by page: up to a third of its processor time. The process keeps the
  memory of its largest step. Does nothing where the C library is not GNU's, or
  where steps run elsewhere: a data pipeline's many threads want heaps of their
  own.
  """
  glibc = sys.platform == "linux" and platform.libc_ver()[0] == "glibc"
  if glibc and _steps_run_on_cpu():
    library = ctypes.CDLL(None)
    for parameter, value in _MALLOC:
      library.mallopt(parameter, value)


def share_loops() -> None:
  """Lets XLA's CPU compiler make one loop for all that the same values give.

  Call it before JAX makes its first array. By default it writes what several
  loops need into each of them: through HRNet's shortcuts that is the branch so
  far, in every block. A training step of B is a third of the program so, and
  starts in half of the time, compiled or kept; with jaxlib 0.12.0.1 its steps
  take two thirds of the time. Whoever sets XLA_FLAGS has
  options of their own. Does nothing where steps run elsewhere, and with a
  jaxlib it was not tried with: an XLA without the option ends the process.
  """
  known = importlib.metadata.version("jaxlib") in _LOOPS_ARE_SHARED_BY
  if known and _steps_run_on_cpu() and not os.environ.get("XLA_FLAGS"):
    option = "xla_cpu_use_multi_output_fusion"
    os.environ["XLA_FLAGS"] = f"--xla_backend_extra_options={option}"


def _steps_run_on_cpu() -> bool:
  platforms = os.environ.get("JAX_PLATFORMS", "")
  devices = (p for pattern in _ACCELERATORS for p in glob.glob(pattern))
  return platforms == "cpu" or not (platforms or next(devices, None))


def quiet_tensorflow() -> None:
  """Silences TensorFlow; call it before TensorFlow is imported.

  No start-up logs, and no probe of the GCE metadata server outside Google
  Cloud, which can hang for minutes. Inside it gives the credentials for gs://.
  """
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
  if not on_google_cloud():
    os.environ.setdefault("NO_GCE_CHECK", "true")


def on_google_cloud(product: str = "/sys/class/dmi/id/product_name") -> bool:
  """Is this a machine of Google Cloud?

  Args:
    product: the file that names the machine's model; google-auth tells by it,
      too.
  """
  try:
    return pathlib.Path(product).read_text().startswith("Google")
  except OSError:
    return False


def log_only(*ours: str, level: int = 0) -> None:
  """Shows log lines from these paths, and only errors from libraries.

  None from Orbax and clu, whose errors arrive as exceptions and are said once.
  What names in files do to a terminal is spelled (`terminal.printable`).

  Args:
    ours: absolute paths of files and folders.
    level: absl's, from which on ours are shown; 0: INFO.
  """
  from absl import logging

  def keep(record: python_logging.LogRecord) -> bool:
    path = record.pathname
    error = record.levelno >= 40 and not re.search("/(orbax|clu)/", path)
    return error or path.startswith(ours)

  logging.use_absl_handler()
  logging.set_verbosity(level)
  logging.set_stderrthreshold(level)
  handler = logging.get_absl_handler()
  handler.addFilter(keep)
  handler.setFormatter(_Printable(logging.PythonFormatter()))


class _Printable(python_logging.Formatter):
  """Another's lines without what a terminal would obey."""

  def __init__(self, other: python_logging.Formatter):
    super().__init__()
    self._other = other

  def format(self, record: python_logging.LogRecord) -> str:
    # A line break that we did not write would make up lines of the log.
    ours = "\n" in str(record.msg) or record.exc_info
    return printable(self._other.format(record), "\n" if ours else "")


def parse_flags(argv: Sequence[str], config: "flags.FlagHolder") -> None:
  """Parses a command line with a config flag and overrides of its fields.

  Args:
    argv: the command line.
    config: as returned by `config_flags.DEFINE_config_file`.

  Raises:
    InputError: the command line or the config file cannot be used.
  """
  from absl import flags

  try:
    _, *stray = flags.FLAGS(argv)
    if config.value is not None:
      # Loading errors only surface when a field is read.
      _ = config.value.seed
  except (AttributeError, KeyError) as error:  # ml_collections: no such field
    raise _unknown_field(argv, str(error)) from None
  except (flags.Error, OSError, TypeError, ValueError) as error:
    absent = re.search("No such file or directory: '(.*)'", str(error))
    raise InputError(
      f"--config: {absent[1]} does not exist" if absent else one_line(error)
    ) from None
  if stray:
    raise InputError(
      f"{stray[0]!r} is no flag; a field is set by --config.FIELD=VALUE"
    )


def _unknown_field(argv: Sequence[str], message: str) -> InputError:
  from tokenpose_jax.config import RENAMED

  given = [a.split("=")[0] for a in argv if a.startswith("--config.")]
  for flag in given:
    if new := RENAMED.get(flag.removeprefix("--config.")):
      return InputError(f"{flag} is now --config.{new}")
  name = re.search(r"\w+", message)
  near = re.search(r'Did you mean "(\w+)"', message)
  return InputError(
    f"the config has no field {name[0] if name else ''!r}"
    + (f", did you mean {near[1]!r}?" if near else "")
    + f" (given: {' '.join(given)}; configs/default.py lists them all)"
  )


class _Parser(argparse.ArgumentParser):
  """Says in one line what it cannot parse."""

  def error(self, message: str) -> NoReturn:
    self.exit(2, f"error: {message} ({self.prog} --help lists everything)\n")


def _front() -> argparse.ArgumentParser:
  rows = [f"  {name:<10}{c.help}" for name, c in COMMANDS.items()]
  parser = _Parser(
    prog="tokenpose",
    description="TokenPose in JAX.\n\ncommands:\n" + "\n".join(rows),
    epilog="example: tokenpose cost tokenpose_s_v1 --batch_size=64",
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--version", action="version", version=__version__)
  parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
  return parser
