"""TokenPose-S-v1, trained with two passes and used with one. COCO, 256x192.

    python main.py --config=configs/tokenpose_s_v1_sd.py --workdir=runs/s_v1_sd

SDPose (Chen et al., CVPR 2024): S-v1 72.3 AP on COCO val2017, and 69.5 without,
trained by the same people. Theirs has besides 500 steps of warm-up, 512 people
a step, crops that are moved, and a flip test with a shift.
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
  config = default.get_config("tokenpose_s_v1")
  config.model.cycles = 2
  return config
