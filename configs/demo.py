"""A reduced TokenPose-S on drawn people: learns in minutes on two CPU cores.

    make demo

The same code as every other config: fewer channels, blocks and pixels.
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
  config = default.get_config()
  config.model.input_hw = (128, 96)
  config.model.heatmap_hw = (32, 24)
  config.model.stem_channels = 32
  config.model.patch_hw = (4, 3)
  config.model.dim = 96
  config.model.depth = 4
  config.model.heads = 4
  config.model.head_dim = 192
  config.data.name = "synthetic"
  config.data.dir = "data/synthetic"
  config.data.train_split = "train"
  config.data.eval_split = "test"
  config.sigma = 1.5
  config.augment.rotation_degrees = 20.0
  config.augment.half_body_probability = 0.0
  config.optim.schedule = "cosine"
  config.optim.learning_rate = 2e-3
  config.optim.warmup_epochs = 1.0
  config.train.batch_size = 32
  config.train.epochs = 20
  config.train.log_every = 50
  config.train.pictures_every = 500
  config.train.eval_every_epochs = 0
  config.checkpoint.every_steps = 500
  return config
