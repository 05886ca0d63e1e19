"""TokenPose-S-v2: S with small patches, three times the tokens. COCO, 256x192.

    python main.py --config=configs/tokenpose_s_v2.py --workdir=runs/s_v2

Paper: 73.5 AP on COCO val2017 with detector boxes of 56.4 AP, 73.1 on test-dev;
6,227,520 parameters.
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
  config = default.get_config("tokenpose_s_v2")
  config.train.batch_size = 48  # 12 on each of 4 GPUs (reference 3)
  return config
