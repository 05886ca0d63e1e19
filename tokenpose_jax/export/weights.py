"""The network of weights that were exported alone."""

import jax
import numpy as np

from tokenpose_jax import exported
from tokenpose_jax.export.function import function_of, outputs_of
from tokenpose_jax.predict import saved as saved_lib


def model_of(folder: str, name: str) -> exported.Model:
  """The network of an export's weights, as other formats are run.

  Args:
    folder: that `tokenpose export` wrote.
    name: of the file or folder of weights in it.

  Raises:
    InputError: it cannot be read.
  """
  meta = exported.read_meta(folder)
  saved = saved_lib.of_folder(folder, name)
  function = jax.jit(
    function_of(
      saved,
      flip_test=meta["flip_test"],
      decoder=meta["decoder"],
      here=True,
    )
  )

  def model(crops: np.ndarray) -> dict[str, np.ndarray]:
    found = jax.device_get(function(crops))
    return dict(zip(outputs_of(saved.model), found, strict=True))

  return model
