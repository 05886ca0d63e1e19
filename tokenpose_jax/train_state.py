"""The training state: everything that a training step changes."""

import typing

import jax
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Int

from tokenpose_jax import network
from tokenpose_jax.models.config import Network
from tokenpose_jax.network import Tree


# JAX fills trees with anything, shapes and shardings among them: not checked.
@typing.no_type_check
@struct.dataclass
class TrainState:
  """Everything that a training step changes.

  Attributes:
    step: () int32, the number of updates made.
    params: trainable parameters, float32.
    model_state: the network's non-trainable state: batch norm's running
      statistics and the fixed position table.
    opt_state: of the optax chain.
    ema: moving average of (params, model_state) (ema.py); None: none is kept.
  """

  step: Int[Array, ""]
  params: Tree
  model_state: Tree
  opt_state: optax.OptState
  ema: tuple[Tree, Tree] | None = None

  def weights(self) -> dict[str, tuple[Tree, Tree]]:
    """(params, model_state) of each kind that there is: raw, and ema."""
    kinds = {"raw": (self.params, self.model_state)}
    return kinds if self.ema is None else {**kinds, "ema": self.ema}


def create(
  model: Network,
  optimizer: optax.GradientTransformation,
  seed: int,
  scheme: str = "original",
) -> TrainState:
  """A state at step 0, on the default device.

  Args:
    model: the network.
    optimizer: an optax chain.
    seed: of the initial weights.
    scheme: how they are drawn (`network.init`).

  Raises:
    InputError: the network or the scheme cannot be used.
  """
  return from_weights(optimizer, *network.init(model, seed, scheme))


def abstract(
  model: Network,
  optimizer: optax.GradientTransformation,
  sharding: jax.sharding.Sharding | None = None,
) -> TrainState:
  """The shapes and types of a state, without drawing anything.

  Args:
    model: the network.
    optimizer: an optax chain.
    sharding: of all its arrays; None: of the default device.
  """
  shapes = jax.eval_shape(
    lambda weights: from_weights(optimizer, *weights), network.abstract(model)
  )
  return jax.tree.map(
    lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), shapes
  )


def from_weights(
  optimizer: optax.GradientTransformation, params: Tree, model_state: Tree
) -> TrainState:
  """A state at step 0 with the given weights.

  Args:
    optimizer: an optax chain.
    params: trainable parameters.
    model_state: the network's non-trainable state.
  """
  return TrainState(
    step=jax.device_put(np.zeros((), np.int32)),
    params=params,
    model_state=model_state,
    opt_state=optimizer.init(params),
  )
