"""TokenPose-L/D6: L with three stacks of 2 blocks. COCO, 256x192.

    python main.py --config=configs/tokenpose_l_d6.py --workdir=runs/l_d6 \\
        --config.model.init_backbone=hrnet_w48_imagenet.pth

Paper: 75.4 AP on COCO val2017 with detector boxes of 56.4 AP; 20,815,776
parameters. No config of it was published: blocks and heads are those of the
published MPII L/D6 (reference 2.1).
"""

import ml_collections

from configs import tokenpose_l_d24


def get_config() -> ml_collections.ConfigDict:
  config = tokenpose_l_d24.get_config()
  config.model.depth = 2
  config.model.heads = 8
  return config
