"""Everything before the device: the only user of TensorFlow."""

import importlib
import sys

from tokenpose_jax import cli

cli.quiet_tensorflow()

# TensorFlow's import ends with Keras and its Matplotlib, a fifth of its time.
# It passes over what is not there; whoever asks for Keras later gets it.
_KERAS = "keras.src.optimizers"
if not {_KERAS, "tensorflow"} & sys.modules.keys():
  sys.modules[_KERAS] = None  # type: ignore[assignment]
  try:
    importlib.import_module("tensorflow")
  finally:
    del sys.modules[_KERAS]
