"""The nine networks of the paper, by name.

Source: reference 2.1. `configs/` are recipes that train them.
"""

import dataclasses

from tokenpose_jax.models.config import ModelConfig

_T = ModelConfig(
  backbone="none", patch_hw=(16, 12), heads=16, attention_scale="head"
)
# The original implementation's S divides by the square root of the full width
# (reference 2.4 "Scale quirk"): required for its weights.
_S_V1 = ModelConfig(attention_scale="width")
_L_D24 = ModelConfig(
  backbone="hrnet_w48",
  depth=8,
  stacks=3,
  heads=12,
  # The original implementation asks for a hidden layer that its code then
  # leaves out (reference 2.4).
  head_dim=0,
)
_L_D24_MPII = dataclasses.replace(
  _L_D24,
  input_hw=(256, 256),
  heatmap_hw=(),
  patch_hw=(4, 4),
  num_keypoints=16,
)


# No config of L-D6 at 256x192 was published: blocks and heads are those of the
# published one for MPII (reference 2.1).
def _d6(of: ModelConfig) -> ModelConfig:
  return dataclasses.replace(of, depth=2, heads=8)


PUBLISHED = {
  "tokenpose_t": _T,
  "tokenpose_s_v1": _S_V1,
  "tokenpose_s_v2": dataclasses.replace(_S_V1, patch_hw=(2, 2)),
  "tokenpose_b": ModelConfig(backbone="hrnet_w32"),
  "tokenpose_l_d6": _d6(_L_D24),
  "tokenpose_l_d24": _L_D24,
  "tokenpose_l_d24_384x288": dataclasses.replace(
    _L_D24, input_hw=(384, 288), heatmap_hw=(), patch_hw=(6, 4)
  ),
  "tokenpose_l_d6_mpii": _d6(_L_D24_MPII),
  "tokenpose_l_d24_mpii": _L_D24_MPII,
}
