"""A small TokenPose-S for real people, trained on a CPU in hours.

    python main.py --config=configs/small.py --workdir=runs/small \
        --config.data.dir=DIR --config.data.train_split=train2017

64 visual tokens of crops of 128x96.
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
  config = default.get_config()
  config.model.input_hw = (128, 96)
  config.model.stem_channels = 32
  config.model.patch_hw = (4, 3)
  config.model.dim = 192
  config.model.depth = 6
  config.model.heads = 8
  config.model.attention_scale = "head"
  config.model.head_dim = 384
  config.init.scheme = "fan_in"
  config.optim.schedule = "cosine"
  config.optim.learning_rate = 1e-3
  config.optim.warmup_epochs = 1.0
  config.optim.b2 = 0.98
  config.optim.weight_decay = 0.01
  config.train.batch_size = 32
  config.train.ema = 0.999
  config.eval.weights = "ema"
  config.train.epochs = 60
  config.train.eval_every_epochs = 10
  return config
