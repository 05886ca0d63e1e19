"""A network and a run small enough for tests, of the same code."""

from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import default
from tokenpose_jax import config as config_lib
from tokenpose_jax import (
  gradients,
  network,
  optim,
  sharding,
  skeletons,
  train,
  train_state,
)
from tokenpose_jax.models import initial
from tokenpose_jax.models.config import ModelConfig

FLAGS = {
  "model.input_hw": (64, 48),
  "model.stem_channels": 4,
  "model.patch_hw": (4, 3),
  "model.dim": 32,
  "model.depth": 2,
  "model.heads": 2,
  "model.attention_scale": "head",
  "model.head_dim": 32,
  "train.batch_size": 16,
  "eval.batch_size": 8,
  "model.position": "sine-full",
  "optim.learning_rate": 1e-3,
  "init.scheme": "original",
  "data.synthetic_train_people": 40,
  "data.synthetic_test_people": 12,
}


def config(**changes) -> ConfigDict:
  """The default config, tiny; `section__field=value` changes a field."""
  result = default.get_config()
  fields = FLAGS | {k.replace("__", "."): v for k, v in changes.items()}
  for name, value in fields.items():
    result.update_from_flattened_dict({name: value})
  config_lib.check(result)
  return config_lib.resolve(result, skeletons.get(result.data.skeleton))


train_passes = jax.jit(network.train_passes, static_argnums=0)
of_batch = jax.jit(
  gradients.of_batch, static_argnums=(0, 4), static_argnames="loss_weights"
)


def built(module: Any) -> Any:
  """A part of a network, with arrays in place of shapes."""
  graph, *trees = network.split_module(module)
  values = jax.device_put([initial.draw(tree, 0) for tree in trees])
  return network.merge_module(graph, *values)


def batch(settings: ConfigDict, seed: int = 0) -> dict[str, np.ndarray]:
  """A training batch of noise with points inside the crop."""
  rng = np.random.default_rng(seed)
  b, (h, w) = settings.train.batch_size, settings.model.input_hw
  k = settings.model.num_keypoints
  return {
    "image": rng.integers(0, 256, (b, h, w, 3), np.uint8),
    "keypoints": (rng.random((b, k, 2)) * [w, h]).astype(np.float32),
    "visible": (rng.random((b, k)) < 0.8).astype(np.float32),
    "mask": np.ones(b, np.float32),
    "hidden": (rng.random((b, k)) < 0.2).astype(np.float32),
    "reach": rng.uniform(2, 20, (b, k)).astype(np.float32),
  }


def heatmap_batch(model: ModelConfig, seed: int = 0) -> gradients.Batch:
  """Four people of noise as `gradients` has them; one does not count."""
  rng = np.random.default_rng(seed)
  shape = (4, model.num_keypoints)
  return gradients.Batch(
    rng.integers(0, 256, (4, *model.input_hw, 3), np.uint8),
    rng.random((*shape, *model.heatmap_hw), np.float32),
    rng.integers(0, 2, shape).astype(np.float32),
    np.array([1, 1, 0, 1], np.float32),
  )


def training(settings: ConfigDict, devices):
  """(state, jitted step, mesh) on the given devices."""
  mesh = sharding.create_mesh(devices)
  schedule = optim.create_schedule(settings.optim, 10, 5)
  optimizer = optim.create_optimizer(settings.optim, schedule)
  state = train_state.create(settings.model, optimizer, settings.seed)
  step = train.jit_train_step(settings, optimizer, schedule, mesh)
  return sharding.put_replicated(mesh, state), step, mesh


def model() -> ModelConfig:
  """The tiny network, its heatmaps following the crop's size."""
  fields = ModelConfig.of(config().model).to_dict() | {"heatmap_hw": ()}
  return ModelConfig.of(fields)
