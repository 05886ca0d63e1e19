"""Explanations of noise, of any network and at once."""

import dataclasses
from typing import Any

import numpy as np

from tokenpose_jax import skeletons
from tokenpose_jax.explanation import constraints, evidence, occlusion
from tokenpose_jax.explanation.person import Explanation, Probe


def explanation(model, seed: int = 0, **changes: Any) -> Explanation:
  """What a network might have done: no two numbers are alike.

  Args:
    model: the network; keypoints have names of their own where it has neither
      16 nor 17.
    seed: of the numbers.
    changes: fields that are set.
  """
  rng = np.random.default_rng(seed)
  layers = evidence.layer_names(model)
  (height, width), k = model.input_hw, model.num_keypoints
  shape = len(layers), model.heads, k, k + int(np.prod(model.grid_hw))
  crop = rng.integers(0, 256, (height, width, 3), np.uint8)
  points = (rng.random((len(layers), k, 2)) * [width, height]).astype("f4")
  heatmaps = rng.normal(0, 0.3, (len(layers), k, *model.heatmap_hw))

  def attention(*shape: int) -> np.ndarray:
    weights = rng.random(shape, np.float32)
    return weights / weights.sum(-1, keepdims=True)

  def probe(centers: np.ndarray) -> Probe:
    return Probe(
      centers,
      occlusion.size_of(crop),
      "gray",
      rng.random((len(centers), k, 2)) * [width, height],
      rng.random((len(centers), k)),
      attention(shape[0], len(centers), *shape[2:]),
    )

  made = Explanation(
    model,
    skeletons.of_count(k)
    or skeletons.Skeleton.from_dict({"keypoints": [f"k{i}" for i in range(k)]}),
    crop.repeat(2, 0).repeat(2, 1),
    crop,
    np.eye(2, 3),
    np.array([4.0, 4, width - 8, height - 8]),
    layers,
    evidence.Evidence(
      attention(*shape),
      attention(shape[0], *shape[2:]),
      heatmaps.astype(np.float32),
      points,
      heatmaps.max((-2, -1)).astype(np.float32),
    ),
    rng.integers(0, len(layers), k),
    constraints.similarity(rng.normal(size=(k, model.dim))),
    probe(occlusion.places(crop)),
    probe(points[-1].astype(float)),
  )
  return dataclasses.replace(made, **changes)
