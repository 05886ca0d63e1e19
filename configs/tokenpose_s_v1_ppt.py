r"""TokenPose-S-v1 with fewer visual tokens on the way. COCO, 256x192.

    python main.py --config=configs/tokenpose_s_v1_ppt.py \
        --workdir=runs/s_v1_ppt

PPT (Ma et al., ECCV 2022): 72.2 AP on COCO val2017 at 2.0 GFLOPs, as it counts
multiply-adds, of 2.2. `tokenpose cost` counts 1.97, and 2.38 without.
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
  config = default.get_config("tokenpose_s_v1")
  config.model.keep = 0.7
  config.model.prune_before = (3, 6, 9)
  return config
