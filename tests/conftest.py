"""Set-up of every test: eight fake CPU devices, quick compilation."""

import logging
import os
import pathlib

# Before JAX and TensorFlow are imported. The preset compiles about three times
# faster and changes results in the last digits only.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "")
  + " --xla_cpu_opt_preset=CPU_OPT_PRESET_FAST_COMPILE"
  + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("NO_GCE_CHECK", "true")
# Many tests compile the same programs, in both workers and in processes of
# their own; they are not kept in the home of whoever runs the tests.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(
  pathlib.Path(__file__).parents[1] / ".pytest_cache/xla"
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

import jax
import pytest

# A shape that broadcasts by accident is an error.
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True)
def _heard():
  """What the software logs is heard, whatever was set by tests before.

  Commands run in this process set levels, and so do libraries.
  """
  logging.disable(logging.NOTSET)
  ours = logging.getLogger("absl")
  ours.setLevel(logging.NOTSET)
  ours.disabled, ours.propagate = False, True
