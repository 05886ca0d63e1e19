"""Everything before the device: the only user of TensorFlow."""

from tokenpose_jax import cli

cli.quiet_tensorflow()
