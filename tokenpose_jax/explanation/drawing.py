"""What the figures are made of: Matplotlib without its global state."""

import io
from collections.abc import Mapping
from typing import Any

from etils import epath
from jaxtyping import Float

from tokenpose_jax import atomic
from tokenpose_jax.arrays import AnyArray
from tokenpose_jax.errors import InputError
from tokenpose_jax.skeletons import Skeleton
from tokenpose_jax.terminal import printable

DPI = 200


def require() -> None:
  """Checks that Matplotlib is installed.

  Raises:
    InputError: it is not.
  """
  try:
    import matplotlib.figure
  except ImportError:
    raise InputError(
      "figures need Matplotlib: pip install matplotlib; the page does not"
    ) from None
  del matplotlib


def figure(width: float, height: float) -> Any:
  """An empty figure.

  Args:
    width: inches.
    height: inches.

  Raises:
    InputError: Matplotlib is not installed.
  """
  require()
  from matplotlib.figure import Figure

  return Figure((width, height), dpi=DPI, layout="constrained")


def _png(drawn: Any) -> bytes:
  """A figure as a file."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg

  file = io.BytesIO()
  # `savefig` would draw everything twice.
  FigureCanvasAgg(drawn).print_png(file)
  return file.getvalue()


def write(drawn: Mapping[str, Any], folder: str) -> list[str]:
  """Writes figures as PNG.

  Args:
    drawn: by name.
    folder: made where it is not there.

  Returns:
    the paths of what was written.

  Raises:
    OSError: a file cannot be written.
  """
  place = epath.Path(folder)
  place.mkdir(parents=True, exist_ok=True)
  paths = [place / f"{name}.png" for name in drawn]
  for path, one in zip(paths, drawn.values(), strict=True):
    atomic.write(path, _png(one))
  return list(map(str, paths))


def matrix(
  axis: Any,
  skeleton: Skeleton,
  values: Float[AnyArray, "k k"],
  least: float,
  most: float,
) -> Any:
  """Draws numbers between keypoints as colors.

  Args:
    axis: is drawn on.
    skeleton: of the keypoints.
    values: (K, K).
    least: where colors begin; below 0: two colors with white at 0.
    most: where they end.

  Returns:
    what a color bar is made for.
  """
  names = [name(keypoint) for keypoint in skeleton.keypoints]
  image = axis.imshow(
    values,
    cmap="RdBu_r" if least < 0 else "Blues",
    vmin=least,
    vmax=most or 1,
  )
  places = range(len(names))
  axis.set_xticks(places, names, rotation=90, fontsize=5.5)
  axis.set_yticks(places, names, fontsize=5.5)
  axis.tick_params(length=0, pad=1.5)
  return image


def name(keypoint: str) -> str:
  """A keypoint's name; $ and the like are no formulas."""
  shown = printable(keypoint).replace("_", " ").replace("$", r"\$")
  return shown if len(shown) <= 18 else f"{shown[:17]}…"
