"""Which tensor of the original implementation is which of our parameters.

One table (`RULES`) serves both directions; other layouts are renamed to the
original implementation's first (`canonical`).
"""

import re
from collections.abc import Mapping
from typing import Any

from absl import logging

from tokenpose_jax.errors import InputError
from tokenpose_jax.models.config import ModelConfig, Network

# Our path of a module -> its official name. `{b}` and `{t}` are the prefixes of
# the backbone and of the tokens' half, `{s}` the name of a stack; they differ
# by variant (reference 2.4 "Prefixes").
RULES = (
  (r"backbone/(?:stem/)?conv(\d)/conv", r"{b}conv\1"),
  (r"backbone/(?:stem/)?conv(\d)/norm", r"{b}bn\1"),
  (r"backbone/(?:stem/)?layer1/(\d+)/(.+)", r"{b}layer1.\1.<\2>"),
  (r"backbone/transition1/0/(.+)", r"{b}transition1.0.[\1]"),
  (r"backbone/transition(\d)/(\d)/(.+)", r"{b}transition\1.\2.0.[\3]"),
  (r"backbone/(stage\d)/(\d)/branches/(\d)/(\d)/(.+)",
   r"{b}\1.\2.branches.\3.\4.<\5>"),
  (r"backbone/(stage\d)/(\d)/fuse/(\d)/(\d)/up/(.+)",
   r"{b}\1.\2.fuse_layers.\3.\4.[\5]"),
  (r"backbone/(stage\d)/(\d)/fuse/(\d)/(\d)/down/(\d)/(.+)",
   r"{b}\1.\2.fuse_layers.\3.\4.\5.[\6]"),
  # EfficientNet-Lite0 as in efficientnet_lite_pytorch. Its first block has
  # neither `_expand_conv` nor `_bn0`.
  (r"backbone/trunk/stem/conv", r"{b}_conv_stem"),
  (r"backbone/trunk/stem/norm", r"{b}_bn0"),
  (r"backbone/trunk/blocks/(\d+)/expand/conv", r"{b}_blocks.\1._expand_conv"),
  (r"backbone/trunk/blocks/(\d+)/expand/norm", r"{b}_blocks.\1._bn0"),
  (r"backbone/trunk/blocks/(\d+)/depthwise/conv",
   r"{b}_blocks.\1._depthwise_conv"),
  (r"backbone/trunk/blocks/(\d+)/depthwise/norm", r"{b}_blocks.\1._bn1"),
  (r"backbone/trunk/blocks/(\d+)/project/conv",
   r"{b}_blocks.\1._project_conv"),
  (r"backbone/trunk/blocks/(\d+)/project/norm", r"{b}_blocks.\1._bn2"),
  # Of lite0's top-down path, the pyramid and the patch head: names of our own.
  (r"backbone/lateral/(\d)/(.+)", r"{b}lateral.\1.[\2]"),
  (r"backbone/(down|up)/(\d)/(.+)", r"{b}\1.\2.[\3]"),
  (r"backbone/levels/(\d)/(\d)/(.+)", r"{b}levels.\1.\2.<\3>"),
  (r"backbone/merge/(\d)/(.+)", r"{b}merge.\1.<\2>"),
  (r"patch_head/norm", r"{t}patch_head.0"),
  (r"patch_head/linear", r"{t}patch_head.1"),
  (r"patch_embedding", r"{t}patch_to_embedding"),
  (r"stacks/\d/(\d+)/norm1", r"{s}.layers.\1.0.fn.norm"),
  (r"stacks/\d/(\d+)/attention/to_qkv", r"{s}.layers.\1.0.fn.fn.to_qkv"),
  (r"stacks/\d/(\d+)/attention/to_out", r"{s}.layers.\1.0.fn.fn.to_out.0"),
  (r"stacks/\d/(\d+)/norm2", r"{s}.layers.\1.1.fn.norm"),
  (r"stacks/\d/(\d+)/mlp_in", r"{s}.layers.\1.1.fn.fn.net.0"),
  (r"stacks/\d/(\d+)/mlp_out", r"{s}.layers.\1.1.fn.fn.net.3"),
  (r"head/norm1", r"{t}mlp_head.0"),
  (r"head/linear1", r"{t}mlp_head.1"),
  (r"head/norm2", r"{t}mlp_head.2"),
  (r"head/linear2", r"{t}mlp_head.3"),
  (r"doubt", r"{t}doubt"),  # a name of our own
)  # fmt: skip

# Convolution and norm inside a residual block <...>, and inside a pair [...].
INNER = {
  "<conv1/conv>": "conv1",
  "<conv1/norm>": "bn1",
  "<conv2/conv>": "conv2",
  "<conv2/norm>": "bn2",
  "<conv3/conv>": "conv3",
  "<conv3/norm>": "bn3",
  "<downsample/conv>": "downsample.0",
  "<downsample/norm>": "downsample.1",
  "[conv]": "0",
  "[norm]": "1",
}

# Our parameters with a row for each keypoint, the first ones.
PER_KEYPOINT = frozenset({"keypoint_tokens", "position_table"})

# The last part of a name.
LEAVES = {
  "kernel": "weight",
  "scale": "weight",
  "bias": "bias",
  "mean": "running_mean",
  "var": "running_var",
  "count": "num_batches_tracked",
}

# backbone -> prefixes of its layers and of the tokens' half.
PREFIXES = {
  "none": ("", "transformer."),
  "stem": ("features.", "features."),
  "hrnet_w32": ("pre_feature.", "transformer."),
  "hrnet_w48": ("pre_feature.", "transformer."),
  "pyramid": ("pre_feature.", "transformer."),
  "lite0": ("pre_feature.", "transformer."),
}


def prefixes(model: ModelConfig) -> tuple[str, str]:
  """The prefixes of a network's backbone and of its tokens' half.

  Raises:
    InputError: its backbone has no PyTorch names.
  """
  if model.backbone not in PREFIXES:
    raise InputError(
      f"the backbone {model.backbone!r} has no PyTorch names; only networks"
      f" with one of {', '.join(PREFIXES)} can be exchanged with PyTorch"
    )
  return PREFIXES[model.backbone]


def official_name(model: Network, path: str) -> str:
  """The original implementation's name of a parameter or statistic.

  Args:
    model: the network.
    path: of the parameter in our trees, a/b/c.

  Raises:
    InputError: the network's backbone has no PyTorch names.
  """
  config = ModelConfig.of(model)
  backbone, tokens = prefixes(config)
  if path == "keypoint_tokens":
    return f"{tokens}keypoint_token"
  if path == "position_table":
    return f"{tokens}pos_embedding"
  module, _, leaf = path.rpartition("/")
  for pattern, template in RULES:
    if match := re.fullmatch(pattern, module):
      name = match.expand(template)
      name = re.sub(r"<.+>|\[.+\]", lambda inner: INNER[inner[0]], name)
      stack = f"{tokens}transformer"
      if config.stacks > 1 and module.startswith("stacks/"):
        stack += str(int(module.split("/")[1]) + 1)
      for key, value in (("{b}", backbone), ("{t}", tokens), ("{s}", stack)):
        name = name.replace(key, value)
      return f"{name}.{LEAVES[leaf]}"
  raise InputError(f"the parameter {path} has no PyTorch name")


def canonical(state_dict: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
  """Renames a TokenPose state dict's entries to the original implementation's.

  Known layouts: "official", and "mmpose", that of TokenPose written for
  mmpose 0.x, where the backbone and the head are modules of their own
  (established from github.com/yshMars/DistilPose, its StemNet and HRNet_3stage
  backbones). What wrappers put before the names is dropped (`part`).

  Returns:
    the entries, and the layout's name.

  Raises:
    InputError: there are several networks.
  """
  entries = part(state_dict, _TOKEN)
  if not any(name.startswith(_MMPOSE_HEAD) for name in entries):
    return entries, "official"
  hrnet = any(name.startswith("backbone.stage") for name in entries)
  backbone, tokens = PREFIXES["hrnet_w32" if hrnet else "stem"]
  renamed = {}
  for name, value in entries.items():
    if name.startswith(_MMPOSE_HEAD):
      name = tokens + name.removeprefix(_MMPOSE_HEAD)
    elif name.startswith("backbone."):
      name = backbone + name.removeprefix("backbone.")
    renamed[name] = value
  return renamed, "mmpose"


_MMPOSE_HEAD = "keypoint_head.tokenpose."
_TOKEN = re.compile(
  r"(?P<prefix>|.*\.)(transformer|features|keypoint_head\.tokenpose)"
  r"\.keypoint_token"
)
BACKBONE = re.compile(
  r"(?P<prefix>|.*\.)(layer1\.0\.\w+|levels\.0\.0\.\w+|_conv_stem)\.\w+"
)
# What is averaged over steps, or of a teacher.
AVERAGED = re.compile(r"ema|teacher|averag|shadow|swa")
# Counters of tools that measure networks (thop), in every module.
_COUNTERS = ("total_ops", "total_params")


def part(
  state_dict: Mapping[str, Any], anchor: re.Pattern[str]
) -> dict[str, Any]:
  """The entries of one network, without what wrappers put before their names.

  `module.` (parallel, averaged), `_orig_mod.` (compiled), `model.` (Lightning),
  any other, and any of them together. What lies outside is passed over, with a
  line that names it.

  Args:
    state_dict: of a network, perhaps inside of others.
    anchor: fits the names of entries that it alone has; the group "prefix" is
      what comes before the names of all.

  Raises:
    InputError: several networks have such entries.
  """
  fits = (anchor.fullmatch(name) for name in state_dict)
  found = [*dict.fromkeys(fit["prefix"] for fit in fits if fit)]
  plain = [prefix for prefix in found if not AVERAGED.search(prefix)] or found
  if len(plain) > 1:
    raise InputError(
      f"there are {len(plain)} networks, under {', '.join(plain)}; save the"
      " state dict of one"
    )
  prefix = plain[0] if plain else ""
  entries = {
    name.removeprefix(prefix): value
    for name, value in state_dict.items()
    if name.startswith(prefix) and not name.endswith(_COUNTERS)
  }
  outside = [name for name in state_dict if not name.startswith(prefix)]
  if outside:
    logging.info(
      "%d tensors outside of %s* passed over, as %s",
      len(outside),
      prefix,
      ", ".join(outside[:3]),
    )
  return entries
