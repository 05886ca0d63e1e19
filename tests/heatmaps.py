"""Heatmaps that several tests decode."""

import jax.numpy as jnp
import numpy as np

from tests import fixtures

INPUT_HW, HEATMAP_HW = (256, 192), (64, 48)


def gauss(x, y, height=64, width=48, sigma=2.0, peak=1.0):
  """One map of a Gaussian."""
  across = np.exp(-((np.arange(width) - x) ** 2) / (2 * sigma**2))
  down = np.exp(-((np.arange(height) - y) ** 2) / (2 * sigma**2))
  return (peak * down[:, None] * across).astype(np.float32)


def decoding_case(name: str) -> dict:
  """A decoding case of the fixtures: its maps, facts and sizes."""
  facts, arrays = fixtures.eval_case("decode", name)
  for key in ("heatmaps", "heatmaps_flipped_input"):
    arrays[key] = jnp.asarray(arrays[key], jnp.float32)
  width, height = facts["config"]["heatmap_wh"]
  pairs = facts["config"]["flip_pairs"]
  order = np.arange(facts["config"]["joints"])
  for one, other in pairs:
    order[one], order[other] = other, one
  return arrays | {
    "facts": facts,
    "order": order,
    "input_hw": (4 * height, 4 * width),
    "heatmap_hw": (height, width),
  }
