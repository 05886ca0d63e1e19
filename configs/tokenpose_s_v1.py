"""TokenPose-S-v1: a stem of convolutions before the tokens. COCO, 256x192.

    python main.py --config=configs/tokenpose_s_v1.py --workdir=runs/s_v1

Paper: 72.5 AP on COCO val2017 with detector boxes of 56.4 AP; 6,620,736
parameters.
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
  config = default.get_config("tokenpose_s_v1")
  return config
