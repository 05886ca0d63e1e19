r"""TokenPose-B, two passes in training and fewer visual tokens. COCO, 256x192.

    python main.py --config=configs/tokenpose_b_sdpt.py --workdir=runs/b_sdpt \
        --config.init.backbone=hrnet_w32_imagenet.pth

SPTPose (2025): 74.8 AP on COCO val2017 at 4.7 GFLOPs, 74.7 at 5.7 without. Its
share of tokens falls from 1.0 to 0.7 over 100 epochs after the first 10; here
it is 0.7 from the start. `tokenpose cost` counts 5.52, and 5.93 without: tokens
left out cannot save a whole one, most of the work is HRNet's.
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
  config = default.get_config("tokenpose_b")
  config.model.cycles = 2
  config.model.keep = 0.7
  config.model.prune_before = (3, 6, 9)
  return config
