"""TokenPose: keypoint tokens for human pose estimation, in JAX and Flax.

    import jax
    import tokenpose_jax as tp

    model = tp.published["tokenpose_s_v1"]
    params, model_state = tp.init(model, seed=0)
    images = jax.numpy.zeros((1, *model.input_hw, 3))
    heatmaps = tp.apply(model, params, model_state, images)

Citations such as `reference 2.4` are of docs/reference.md.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tokenpose_jax.version import __version__

if TYPE_CHECKING:
  from tokenpose_jax import metrics, skeletons, visualize
  from tokenpose_jax.codec import Codec
  from tokenpose_jax.convert import export_torch, import_torch
  from tokenpose_jax.errors import InputError
  from tokenpose_jax.explanation.person import explain
  from tokenpose_jax.hub import from_pretrained, save_pretrained
  from tokenpose_jax.models.config import ModelConfig
  from tokenpose_jax.models.published import PUBLISHED as published
  from tokenpose_jax.network import apply, create_model, init, normalize
  from tokenpose_jax.predict.estimator import Estimator
  from tokenpose_jax.predict.load import load
  from tokenpose_jax.skeletons import Skeleton

# Public name -> where it is. Imported when first used: `import tokenpose_jax`
# needs little.
_PUBLIC = {
  "Codec": "codec:Codec",
  "Estimator": "predict.estimator:Estimator",
  "InputError": "errors:InputError",
  "ModelConfig": "models.config:ModelConfig",
  "Skeleton": "skeletons:Skeleton",
  "apply": "network:apply",
  "create_model": "network:create_model",
  "explain": "explanation.person:explain",
  "export_torch": "convert:export_torch",
  "import_torch": "convert:import_torch",
  "from_pretrained": "hub:from_pretrained",
  "init": "network:init",
  "load": "predict.load:load",
  "metrics": "metrics:",
  "normalize": "network:normalize",
  "published": "models.published:PUBLISHED",
  "save_pretrained": "hub:save_pretrained",
  "skeletons": "skeletons:",
  "visualize": "visualize:",
}

__all__ = [
  "Codec",
  "Estimator",
  "InputError",
  "ModelConfig",
  "Skeleton",
  "__version__",
  "apply",
  "create_model",
  "explain",
  "export_torch",
  "from_pretrained",
  "import_torch",
  "init",
  "load",
  "metrics",
  "normalize",
  "published",
  "save_pretrained",
  "skeletons",
  "visualize",
]


def __getattr__(name: str) -> Any:
  if name not in _PUBLIC:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  module, _, attribute = _PUBLIC[name].partition(":")
  value = importlib.import_module(f"{__name__}.{module}")
  if attribute:
    value = getattr(value, attribute)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  return sorted({*globals(), *_PUBLIC})
