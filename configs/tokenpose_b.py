r"""TokenPose-B: HRNet-W32 up to stage 3 before the tokens. COCO, 256x192.

    python main.py --config=configs/tokenpose_b.py --workdir=runs/b \
        --config.init.backbone=hrnet_w32_imagenet.pth

Paper: 74.7 AP on COCO val2017 with detector boxes of 56.4 AP; 13,465,216
parameters. The backbone starts from ImageNet weights (HRNet's or timm's file).
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
  config = default.get_config("tokenpose_b")
  return config
