"""A reduced TokenPose-S on synthetic people: learns in minutes on a CPU.

    make demo

The same code as every other config: fewer channels, blocks and pixels.
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
  config = default.get_config()
  config.model.input_hw = (128, 96)
  config.model.stem_channels = 16
  # Few, large patches: keypoint tokens find what they need among 4 visual
  # tokens at once, where 64 take many times the samples.
  config.model.patch_hw = (16, 12)
  config.model.dim = 96
  config.model.depth = 4
  config.model.heads = 8
  config.model.attention_scale = "head"
  config.model.head_dim = 192
  config.model.position = "learnable"
  config.data.name = "synthetic"
  config.data.dir = "data/synthetic"
  config.data.train_split = "train"
  config.data.eval_split = "test"
  # Training is short: gentle augmentation, and no memory of the first steps'
  # large gradients.
  config.augment.rotation_probability = 0.0
  config.augment.scale = 0.1
  config.augment.half_body_probability = 0.0
  config.optim.schedule = "cosine"
  config.optim.learning_rate = 1.2e-3
  config.optim.warmup_epochs = 0.5
  config.optim.b2 = 0.98
  config.init.scheme = "fan_in"
  config.train.batch_size = 16
  config.train.epochs = 14
  config.train.log_every = 150
  config.train.pictures_every = 1500
  config.train.eval_every_epochs = 0
  config.checkpoint.every_steps = 1500
  return config
