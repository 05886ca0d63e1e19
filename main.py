r"""Trains or evaluates TokenPose.

    python main.py --config=configs/tokenpose_t.py --workdir=runs/t
    python main.py --config=configs/tokenpose_t.py --workdir=runs/t \
        --mode=evaluate --config.eval.boxes=detections.json

Any field of the config can be set with --config.FIELD=VALUE; configs/default.py
lists them. Bad input prints one line and exits with code 1. SIGTERM and Ctrl-C
save the step under way and exit with 143 and 130; the same command goes on.
"""

import os
import sys

from tokenpose_jax import stopping

if __name__ == "__main__":
  stopping.listen()  # Before the imports, which take seconds.

from tokenpose_jax import cli

if __name__ == "__main__":
  cli.keep_freed_memory()
  cli.share_loops()

from absl import flags
from ml_collections import config_flags

from tokenpose_jax.errors import InputError

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "A file of configs/.", lock_config=True
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Directory of checkpoints, evaluations and summaries."
)
_PLACE = {
  name: flags.DEFINE_string(flag, None, f"In place of {name}.")
  for name, flag in (
    ("JAX_COORDINATOR_ADDRESS", "coordinator"),
    ("JAX_NUM_PROCESSES", "processes"),
    ("JAX_PROCESS_ID", "process"),
  )
}
_MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "What to do.")


def run() -> None:
  """Runs the mode selected by the flags.

  Raises:
    InputError: a flag, file or checkpoint cannot be used.
  """
  if {"-h", "--help", "--helpfull"} & set(sys.argv[1:]):
    print(__doc__ + flags.FLAGS.main_module_help())
    return
  cli.parse_flags(sys.argv, _CONFIG)
  config, workdir = _CONFIG.value, _WORKDIR.value
  for name, value in (("config", config), ("workdir", workdir)):
    if not value:
      raise InputError(
        f"--{name} is missing; for example: python main.py"
        " --config=configs/tokenpose_t.py --workdir=runs/tokenpose_t"
      )
  # Imported now: wrong flags do not wait for TensorFlow.
  from input_pipeline import runs
  from tokenpose_jax import processes

  here = os.path.dirname(os.path.abspath(__file__))
  cli.log_only(
    *(os.path.join(here, n) for n in ("tokenpose_jax", "input_pipeline"))
  )
  start = runs.train if _MODE.value == "train" else runs.evaluate
  given = {n: flag.value for n, flag in _PLACE.items() if flag.value}
  start(config, workdir or "", given)
  processes.part()


if __name__ == "__main__":
  cli.run_to_the_end(run)
