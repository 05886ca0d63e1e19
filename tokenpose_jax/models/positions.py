"""Position codes of the visual tokens."""

import numpy as np
from jaxtyping import Float

TEMPERATURE = 10000.0


def sine_table(
  rows: int, columns: int, dim: int
) -> Float[np.ndarray, "{rows*columns} {dim}"]:
  """The fixed two-dimensional sine table of reference 2.4.

  Args:
    rows: of the patch grid.
    columns: of the patch grid.
    dim: token width, a multiple of 4.

  Returns:
    One row per patch, row-major: dim / 2 features of the patch's row, then
    dim / 2 of its column, sines and cosines interleaved.
  """
  features = dim // 2
  f = np.arange(features, dtype=np.float32)
  wavelength = np.float32(TEMPERATURE) ** (2 * np.floor(f / 2) / features)

  def code(size: int) -> np.ndarray:
    number = np.arange(1, size + 1, dtype=np.float32)
    turn = number / np.float32(size + 1e-6) * np.float32(2 * np.pi)
    angle = turn[:, None] / wavelength.astype(np.float32)
    return np.where(f % 2 == 0, np.sin(angle), np.cos(angle))

  table = np.concatenate(
    [
      np.repeat(code(rows), columns, axis=0),
      np.tile(code(columns), (rows, 1)),
    ],
    axis=1,
  )
  return table.astype(np.float32)
