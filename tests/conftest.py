"""Set-up of every test: eight fake CPU devices, quick compilation."""

import logging
import os

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
# Commands that run in this process keep no programs for another one.
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"

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
