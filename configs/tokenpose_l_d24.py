r"""TokenPose-L/D24: HRNet-W48 to stage 3, three stacks of 8 blocks. COCO.

    python main.py --config=configs/tokenpose_l_d24.py --workdir=runs/l_d24 \
        --config.init.backbone=hrnet_w48_imagenet.pth

Paper, at 256x192: 75.8 AP on COCO val2017 with detector boxes of 56.4 AP, 75.1
on test-dev; 27,482,400 parameters. The backbone starts from ImageNet weights.
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
  config = default.get_config("tokenpose_l_d24")
  config.train.batch_size = 64  # 16 on each of 4 GPUs (reference 3)
  return config
