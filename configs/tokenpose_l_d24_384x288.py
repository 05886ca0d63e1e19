r"""TokenPose-L/D24 at 384x288. COCO.

    python main.py --config=configs/tokenpose_l_d24_384x288.py \
        --workdir=runs/l_d24_384 \
        --config.init.backbone=hrnet_w48_imagenet.pth

Paper: 75.9 AP on COCO test-dev; 29,808,672 parameters.
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
  config = default.get_config("tokenpose_l_d24_384x288")
  # The published file has 32 people on each of 8 GPUs, 256, but its first line
  # says that the default is 64, as at 256x192 (reference 3): so here.
  config.train.batch_size = 64
  config.codec.sigma = 3.0
  return config
