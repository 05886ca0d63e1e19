"""TokenPose-L/D24 at 384x288. COCO.

    python main.py --config=configs/tokenpose_l_d24_384x288.py \\
        --workdir=runs/l_d24_384 \\
        --config.model.init_backbone=hrnet_w48_imagenet.pth

Paper: 75.9 AP on COCO test-dev; 29,808,672 parameters.
"""

import ml_collections

from configs import tokenpose_l_d24


def get_config() -> ml_collections.ConfigDict:
  config = tokenpose_l_d24.get_config()
  config.model.input_hw = (384, 288)
  config.model.heatmap_hw = (96, 72)
  config.model.patch_hw = (6, 4)
  config.sigma = 3.0
  return config
