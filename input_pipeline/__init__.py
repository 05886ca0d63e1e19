"""Everything before the device: the only user of TensorFlow."""
