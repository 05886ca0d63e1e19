"""The figures of an explanation, for papers (extra `explain`: Matplotlib).

Of mirrored keypoints one is shown where each has a row (COCO: nine rows), and
of many layers six, spread evenly from the first to the last. Attention is the
mean of the heads. Maps over the crop have a scale of their own each, whose end
is written into them.
"""

import textwrap
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float

from tokenpose_jax.explanation import drawing
from tokenpose_jax.explanation.person import Explanation, Probe
from tokenpose_jax.skeletons import Skeleton

_LAYERS, _ROWS = 6, 10  # at most
_TILE = 1.15  # inches: the width of a crop
_COLORS = "magma"
_DIM = 0.6  # of the photo's light is left below colors
_SMALL = dict(fontsize=6.5)


def write(explanation: Explanation, folder: str) -> list[str]:
  """Writes the figures as PNG.

  visual_cues.png: attention to the patches, keypoints by layers (Figures 1 and
  3 of the paper); constraint_cues.png: from keypoints to keypoints by layer
  (Figure 5); token_similarity.png: of the learned tokens (Figure 4);
  heatmaps.png: by layer; sensitivity.png: what covering a place does, where
  there is a probe; patches.png: which patches are left, where some are left out
  on the way (`model.keep`).

  Args:
    explanation: what they show.
    folder: made where it is not there.

  Returns:
    the paths of what was written.

  Raises:
    InputError: Matplotlib is not installed.
  """
  drawn = {
    "visual_cues": _visual_cues(explanation),
    "constraint_cues": _constraint_cues(explanation),
    "token_similarity": _token_similarity(explanation),
    "heatmaps": _heatmaps(explanation),
  }
  if explanation.places is not None:
    drawn["sensitivity"] = _sensitivity(explanation, explanation.places)
  if explanation.evidence.kept is not None:
    drawn["patches"] = _patches(
      explanation, np.asarray(explanation.evidence.kept)
    )
  return drawing.write(drawn, folder)


def rows(skeleton: Skeleton, most: int = _ROWS) -> list[int]:
  """The keypoints that have a row: one of each mirrored pair.

  Args:
    skeleton: of the keypoints.
    most: from more than that, as many spread evenly.
  """
  left_out = {b for _, b in skeleton.flip_pairs}
  kept = [i for i in range(skeleton.num_keypoints) if i not in left_out]
  return [kept[i] for i in _spread(len(kept), most)]


def columns(explanation: Explanation, most: int = _LAYERS) -> list[int]:
  """The layers that have a column, from the first to the last.

  Args:
    explanation: of the layers.
    most: of them, spread evenly.
  """
  return _spread(len(explanation.layers), most)


def _spread(count: int, most: int) -> list[int]:
  chosen = np.linspace(0, count - 1, min(count, most))
  return [int(i) for i in np.round(chosen)]


def _visual_cues(explanation: Explanation) -> Any:
  """Peaks are crosses, joints circles."""
  k = explanation.skeleton.num_keypoints
  weights = np.asarray(explanation.evidence.attention).mean(1)[..., k:]
  grid = explanation.model.grid_hw
  figure, axes = _crops(
    explanation,
    "Attention of keypoint tokens to the image, mean of the heads."
    " Cross: its peak; circle: the predicted joint.",
  )
  for row, keypoint in zip(axes, rows(explanation.skeleton), strict=True):
    for axis, layer in zip(row, columns(explanation), strict=True):
      shown = weights[layer, keypoint]
      most = float(shown.max())
      _over(axis, explanation, shown.reshape(grid), _crop_extent(explanation))
      _mark(axis, explanation.patch_centers[shown.argmax()], "x")
      _mark(axis, explanation.points[keypoint], "o")
      _corner(axis, f"{100 * most:.1f} %")
  return figure


def _heatmaps(explanation: Explanation) -> Any:
  """Circles are the maxima, of which the largest value is written."""
  found = explanation.evidence
  figure, axes = _crops(
    explanation,
    "Heatmaps that the head makes of each layer's tokens. Circle: the maximum.",
  )
  for row, keypoint in zip(axes, rows(explanation.skeleton), strict=True):
    for axis, layer in zip(row, columns(explanation), strict=True):
      heatmap = np.asarray(found.heatmaps)[layer, keypoint]
      _over(axis, explanation, heatmap, _heatmap_extent(explanation))
      _mark(axis, np.asarray(found.points)[layer, keypoint], "o")
      _corner(axis, f"{found.scores[layer, keypoint]:.2f}")
  return figure


def _constraint_cues(explanation: Explanation) -> Any:
  """Colors end at the largest weight off the diagonal."""
  k = explanation.skeleton.num_keypoints
  weights = np.asarray(explanation.evidence.attention).mean(1)[..., :k]
  layers = columns(explanation)
  wide = 2 if len(layers) == 4 else min(3, len(layers))
  figure = drawing.figure(3.1 * wide + 0.3, 3.3 * -(-len(layers) // wide) + 0.5)
  figure.suptitle(
    "Attention from keypoint tokens (rows) to keypoint tokens (columns), mean"
    " of the heads, %",
    fontsize=9,
  )
  axes = figure.subplots(-(-len(layers) // wide), wide, squeeze=False).flat
  for axis in axes[len(layers) :]:
    axis.remove()
  for n, layer in enumerate(layers):
    shown = 100 * weights[layer]
    most = float(shown[~np.eye(k, dtype=bool)].max(initial=0))
    image = drawing.matrix(axes[n], explanation.skeleton, shown, 0, most)
    axes[n].set_title(f"layer {explanation.layers[layer]}", fontsize=8)
    if n % wide:
      axes[n].set_yticklabels([])
    bar = figure.colorbar(
      image, ax=axes[n], extend="max", shrink=0.75, pad=0.02
    )
    bar.ax.tick_params(labelsize=6)
  return figure


def _token_similarity(explanation: Explanation) -> Any:
  figure = drawing.figure(8.6, 4.4)
  figure.suptitle("Learned keypoint tokens, before any image", fontsize=9)
  alike = explanation.similarity
  for axis, (title, values, least) in zip(
    figure.subplots(1, 2),
    (
      ("inner products, scaled to 0 to 1", alike.inner, 0),
      ("cosines", alike.cosine, -1),
    ),
    strict=True,
  ):
    image = drawing.matrix(axis, explanation.skeleton, values, least, 1)
    axis.set_title(title, fontsize=8)
    bar = figure.colorbar(image, ax=axis, shrink=0.75, pad=0.02)
    bar.ax.tick_params(labelsize=6)
  return figure


def _sensitivity(explanation: Explanation, probe: Probe) -> Any:
  """All joints: movement above, loss of score below; one scale for each."""
  names = explanation.skeleton.keypoints
  wide = min(6, len(names))
  high = -(-len(names) // wide)
  height, width = explanation.model.input_hw
  tile = _TILE * height / width + 0.2
  figure = drawing.figure(_TILE * wide + 1.0, 2 * (high * tile + 0.4))
  moved = np.linalg.norm(probe.points - explanation.points, axis=-1)
  lost = np.asarray(explanation.evidence.scores[-1]) - probe.scores
  for part, values, title in zip(
    figure.subfigures(2, 1),
    (100 * moved / explanation.box_side, lost),
    (
      "Movement of a joint (circle) when a square is covered, by the square's"
      " middle; % of the box's longer side",
      "Loss of its score",
    ),
    strict=True,
  ):
    part.suptitle(title, fontsize=8.5)
    axes = part.subplots(high, wide, squeeze=False)
    most = max(float(values.max()), 1e-9)
    for n, axis in enumerate(axes.flat):
      if n >= len(names):
        axis.remove()
        continue
      image = _over(
        axis,
        explanation,
        _on_grid(values[:, n], probe),
        _crop_extent(explanation),
        most,
      )
      _mark(axis, explanation.points[n], "o")
      axis.set_title(drawing.name(names[n]), pad=2, **_SMALL)
    bar = part.colorbar(
      image, ax=list(axes.flat[: len(names)]), shrink=0.6, pad=0.02
    )
    bar.ax.tick_params(labelsize=6)
  return figure


def _patches(explanation: Explanation, kept: Bool[np.ndarray, "l p"]) -> Any:
  """A picture for each number of patches, those that are gone black."""
  changes = (kept[1:] != kept[:-1]).any(1)
  layers = [0, *(np.flatnonzero(changes) + 1).tolist()]
  height, width = explanation.model.input_hw
  size = _TILE * len(layers) + 0.4, _TILE * height / width + 0.7
  figure = drawing.figure(*size)
  figure.suptitle("Patches that are left, from a layer on", fontsize=8)
  shown = explanation.picture.astype(np.float64) / 255
  for axis, layer in zip(
    figure.subplots(1, len(layers), squeeze=False)[0], layers, strict=True
  ):
    there = kept[layer].reshape(explanation.model.grid_hw).astype(np.uint8)
    large = cv2.resize(
      there, shown.shape[1::-1], interpolation=cv2.INTER_NEAREST
    )
    axis.imshow(
      shown * (0.12 + 0.88 * large[..., None]),
      extent=_crop_extent(explanation),
    )
    axis.set(xticks=[], yticks=[])
    count = int(there.sum())
    name = explanation.layers[layer]
    axis.set_title(f"layer {name}: {count}", pad=2, **_SMALL)
  return figure


def _on_grid(
  values: Float[np.ndarray, " p"], probe: Probe
) -> Float[np.ndarray, "rows columns"]:
  return values.reshape(len(np.unique(probe.centers[:, 1])), -1)


def _crops(explanation: Explanation, title: str) -> tuple[Any, Any]:
  """A figure of crops, keypoints by layers, with their names."""
  keypoints, layers = rows(explanation.skeleton), columns(explanation)
  height, width = explanation.model.input_hw
  tile = _TILE * height / width
  size = _TILE * len(layers) + 0.9, (tile + 0.06) * len(keypoints) + 0.6
  figure = drawing.figure(*size)
  figure.suptitle(textwrap.fill(title, round(16 * size[0])), fontsize=8)
  axes = figure.subplots(len(keypoints), len(layers), squeeze=False)
  for axis, layer in zip(axes[0], layers, strict=True):
    axis.set_title(f"layer {explanation.layers[layer]}", fontsize=8, pad=3)
  for axis, keypoint in zip(axes[:, 0], keypoints, strict=True):
    axis.set_ylabel(
      drawing.name(explanation.skeleton.keypoints[keypoint]), fontsize=8
    )
  return figure, axes


def _over(
  axis: Any,
  explanation: Explanation,
  values: Float[np.ndarray, "h w"],
  extent: tuple[float, ...],
  most: float | None = None,
) -> Any:
  """Colors over the photo in gray; what is small lets it through."""
  from matplotlib import colormaps, colors

  most = float(values.max()) if most is None else most
  axis.imshow(
    _gray(explanation),
    cmap="gray",
    vmin=0,
    vmax=1,
    extent=_crop_extent(explanation),
    interpolation="nearest",
  )
  scale = colors.Normalize(0, max(most, 1e-9), clip=True)
  shares = np.asarray(scale(values))
  image = axis.imshow(
    values,
    cmap=colormaps[_COLORS],
    norm=scale,
    alpha=0.85 * np.sqrt(shares),
    extent=extent,
    interpolation="nearest",
  )
  # Ticks away, spines not: names of rows are labels of axes.
  axis.set(xticks=[], yticks=[])
  height, width = explanation.model.input_hw
  axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
  return image


def _gray(explanation: Explanation) -> Float[np.ndarray, "h w"]:
  """The photo, dimmed, of about the pixels that a tile has."""
  height, width = explanation.model.input_hw
  wide = round(_TILE * drawing.DPI)
  small = cv2.resize(
    explanation.picture,
    (wide, round(wide * height / width)),
    interpolation=cv2.INTER_AREA,
  )
  return small.mean(-1) * (_DIM / 255)


def _crop_extent(explanation: Explanation) -> tuple[float, ...]:
  """The crop's edges, crop pixels: pixel centers are at integers."""
  height, width = explanation.model.input_hw
  return -0.5, width - 0.5, height - 0.5, -0.5


def _heatmap_extent(explanation: Explanation) -> tuple[float, ...]:
  """The edges of a heatmap on the crop (codec.py: centers, not edges)."""
  (height, width), (h, w) = (
    explanation.model.input_hw,
    explanation.model.heatmap_hw,
  )
  size = (width - 1) / (w - 1)
  middle = (height - 1) / 2
  return (
    -size / 2,
    (w - 0.5) * size,
    middle + h * size / 2,
    middle - h * size / 2,
  )


def _mark(axis: Any, place: Float[np.ndarray, " 2"], kind: str) -> None:
  for color, width in (("black", 2.2), ("white", 1.1)):
    axis.plot(
      *place,
      kind,
      color=color,
      markersize=4.5,
      markerfacecolor="none",
      markeredgewidth=width,
    )


def _corner(axis: Any, text: str) -> None:
  axis.text(
    0.97,
    0.02,
    text,
    transform=axis.transAxes,
    color="white",
    ha="right",
    va="bottom",
    fontsize=5.5,
  )
