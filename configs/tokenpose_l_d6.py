r"""TokenPose-L/D6: L with three stacks of 2 blocks. COCO, 256x192.

    python main.py --config=configs/tokenpose_l_d6.py --workdir=runs/l_d6 \
        --config.init.backbone=hrnet_w48_imagenet.pth

Paper: 75.4 AP on COCO val2017 with detector boxes of 56.4 AP; 20,815,776
parameters.
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
  config = default.get_config("tokenpose_l_d6")
  # No file is published: that of L/D24 (reference 3).
  config.train.batch_size = 64
  return config
