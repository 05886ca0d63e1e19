"""Weights alone: for people who build the network themselves."""

import dataclasses
import os

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from tokenpose_jax import exported
from tokenpose_jax.export.function import function_of
from tokenpose_jax.predict import saved as saved_lib
from tokenpose_jax.predict.saved import Saved


def write_orbax(saved: Saved, path: str) -> None:
  """Writes {"params": ..., "model_state": ...} as a checkpoint of Orbax.

  Args:
    saved: the network.
    path: of the new folder.
  """
  params, model_state = jax.tree.map(np.asarray, saved.weights)
  with ocp.StandardCheckpointer() as writer:
    tree = {"params": params, "model_state": model_state}
    writer.save(os.path.abspath(path), tree)


def write_safetensors(saved: Saved, folder: str) -> None:
  """Writes config.json, model.safetensors and skeleton.json.

  Args:
    saved: the network.
    folder: that is there.

  Raises:
    InputError: a file cannot be written.
  """
  saved_lib.write(saved, epath.Path(folder))


def model_of(folder: str, name: str) -> exported.Model:
  """The network of an export's weights, as other formats are run.

  Args:
    folder: that `tokenpose export` wrote.
    name: of the file or folder of weights in it.

  Raises:
    InputError: it cannot be read.
  """
  meta = exported.read_meta(folder)
  if name == saved_lib.ORBAX:
    saved = saved_lib.description(folder)
    weights = saved_lib.read_orbax(saved.model, os.path.join(folder, name))
    saved = dataclasses.replace(saved, weights=weights)
  else:
    saved = saved_lib.read(folder)
  function = jax.jit(
    function_of(saved, flip_test=meta["flip_test"], decoder=meta["decoder"])
  )

  def model(crops: np.ndarray) -> dict[str, np.ndarray]:
    found = jax.device_get(function(crops))
    return dict(zip(exported.OUTPUTS, found, strict=True))

  return model
