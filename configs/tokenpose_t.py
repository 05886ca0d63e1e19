"""TokenPose-T: patches of the image, no convolution. COCO, 256x192.

    python main.py --config=configs/tokenpose_t.py --workdir=runs/tokenpose_t

Paper: 65.6 AP on COCO val2017 with detector boxes of 56.4 AP; 5,816,448
parameters.
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
  config = default.get_config("tokenpose_t")
  return config
