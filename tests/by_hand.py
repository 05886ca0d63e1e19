"""Parts of a network in NumPy, float64, from its weights."""

import numpy as np
from scipy import special

from tokenpose_jax.models.config import ModelConfig


def norm(part: dict, x: np.ndarray) -> np.ndarray:
  x = x - x.mean(-1, keepdims=True)
  x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
  return x * np.float64(part["scale"]) + np.float64(part["bias"])


def linear(part: dict, x: np.ndarray) -> np.ndarray:
  return x @ np.float64(part["kernel"]) + np.float64(part.get("bias", 0))


def attention(model: ModelConfig, block: dict, x: np.ndarray) -> np.ndarray:
  """(B, heads, N, N) of a block's input (B, N, d)."""
  b, n, d = x.shape
  qkv = linear(block["attention"]["to_qkv"], norm(block["norm1"], x))
  q, k, _ = np.moveaxis(qkv.reshape(b, n, 3, model.heads, -1), (2, 3), (0, 2))
  width = d if model.attention_scale == "width" else d // model.heads
  return special.softmax(q @ np.swapaxes(k, -1, -2) / width**0.5, axis=-1)


def head(params: dict, x: np.ndarray) -> np.ndarray:
  """Heatmaps (B, K, pixels) of keypoint tokens (B, K, d)."""
  part = params["head"]
  x = linear(part["linear1"], norm(part["norm1"], x))
  if "linear2" not in part:
    return x
  return linear(part["linear2"], norm(part["norm2"], x))
