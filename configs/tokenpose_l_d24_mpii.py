r"""TokenPose-L/D24 on MPII, 256x256.

    python main.py --config=configs/tokenpose_l_d24_mpii.py \
        --workdir=runs/l_d24_mpii --config.data.dir=DIR \
        --config.init.backbone=hrnet_w48_imagenet.pth

Paper: 90.2 PCKh@0.5 on MPII's validation set; 28,109,920 parameters.
"""

import ml_collections

from configs import default


def get_config(
  network: str = "tokenpose_l_d24_mpii",
) -> ml_collections.ConfigDict:
  config = default.get_config(network)
  # For L/D24 no file is published: that of L/D6, 16 people on each of 4 GPUs
  # (reference 3), for both.
  config.train.batch_size = 64

  config.data.name = "mpii"
  config.data.dir = "data/mpii"
  config.data.skeleton = "mpii_16"
  config.data.train_split = "train"
  config.data.eval_split = "valid"

  config.augment.rotation_degrees = 30.0
  config.augment.scale = 0.25
  config.augment.half_body_probability = 0.0
  return config
