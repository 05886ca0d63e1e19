"""The page of an explanation: one HTML file that needs nothing else.

The picture and the numbers are inside as data; a content security policy
forbids every request, and every script but the page's own. Large arrays have 8
bits a value, with a scale for each map, and are deflated: a page has 1 to 5 MB.
"""

import base64
import functools
import hashlib
import zlib
from importlib import resources
from typing import Any

import jinja2
import markupsafe
import numpy as np
from jaxtyping import Float

from tokenpose_jax import pages, visualize
from tokenpose_jax.explanation import constraints
from tokenpose_jax.explanation.person import SETTLED, Explanation, Probe
from tokenpose_jax.terminal import printable

_LEVELS = 255  # of 8 bits
_QUALITY = 90  # of the picture, a JPEG


def render(explanation: Explanation, title: str) -> str:
  """The page.

  Args:
    explanation: what it shows; parts without a probe say how to get one.
    title: of the page: the photo's name, or anything that has words.
  """
  script = resources.files(__package__).joinpath("page.js").read_text("utf-8")
  digest = hashlib.sha256(script.encode()).digest()
  return _template().render(
    title=printable(title),
    explanation=explanation,
    picture=_jpeg(explanation),
    data=_data(explanation),
    settled_percent=f"{100 * SETTLED:g}",
    script=markupsafe.Markup(script),
    script_hash=base64.b64encode(digest).decode(),
  )


def _jpeg(explanation: Explanation) -> str:
  data = visualize.encode_jpeg(explanation.picture, _QUALITY)
  return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def _data(explanation: Explanation) -> dict[str, Any]:
  """What the script works with, as JSON types."""
  model, skeleton = explanation.model, explanation.skeleton
  kinds = constraints.kinds(skeleton)
  names, weights = _views(explanation)
  found = explanation.evidence
  return dict(
    names=[printable(name) for name in skeleton.keypoints],
    colors=skeleton.colors,
    limbs=skeleton.limbs,
    kinds=kinds.tolist(),
    kindNames=constraints.KINDS,
    chance=constraints.chance(kinds).tolist(),
    layers=explanation.layers,
    views=names,
    size=model.input_hw,
    grid=model.grid_hw,
    boxSide=explanation.box_side,
    settled=explanation.settled.tolist(),
    attention=_attention(weights, model.num_keypoints),
    heatSize=model.heatmap_hw,
    heatmaps=_maps(np.reshape(found.heatmaps, (*found.scores.shape, -1))),
    points=_packed(found.points, "<f4"),
    scores=_packed(found.scores, "<f4"),
    similarity=dict(
      inner=_packed(explanation.similarity.inner, "<f4"),
      cosine=_packed(explanation.similarity.cosine, "<f4"),
    ),
    places=explanation.places and _places(explanation.places),
    joints=explanation.joints and _joints(explanation, explanation.joints),
  )


def _views(
  explanation: Explanation,
) -> tuple[list[str], Float[np.ndarray, "l v k n"]]:
  """The ways to see a layer: the mean of its heads, the rollout, each head."""
  found = explanation.evidence
  heads = np.asarray(found.attention)
  ways = {"mean": heads.mean(1)}
  if found.rollout is not None:
    ways["rollout"] = np.asarray(found.rollout)
  ways |= {str(h + 1): heads[:, h] for h in range(heads.shape[1])}
  return list(ways), np.stack(list(ways.values()), 1)


def _attention(
  weights: Float[np.ndarray, "*b n"], keypoints: int
) -> dict[str, Any]:
  """Attention to keypoints and to patches, which have scales of their own."""
  to_patches = weights[..., keypoints:]
  return dict(
    keypoints=_maps(weights[..., :keypoints]),
    patches=_maps(to_patches),
    # Rounding must neither move the peak nor add up.
    peaks=_packed(to_patches.argmax(-1), "<u2"),
    onImage=_packed(to_patches.sum(-1), "<f4"),
  )


def _places(probe: Probe) -> dict[str, Any]:
  """The squares all over the crop: of attention, that of the last layer."""
  keypoints = probe.points.shape[1]
  return dict(
    **_outcome(probe),
    centers=_packed(probe.centers, "<f4"),
    rows=len(np.unique(probe.centers[:, 1])),
    attention=_attention(np.asarray(probe.attention[-1]), keypoints),
  )


def _joints(explanation: Explanation, probe: Probe) -> dict[str, Any]:
  """The squares on the joints: by layer, what a covered joint's token does."""
  keypoints = range(probe.points.shape[1])
  before = np.asarray(explanation.evidence.attention).mean(1)
  after = np.asarray(probe.attention)[:, keypoints, keypoints]
  to_keypoints = (after - before)[..., : len(keypoints)]
  return dict(
    **_outcome(probe),
    rise=_packed(to_keypoints, "<f4"),
  )


def _outcome(probe: Probe) -> dict[str, Any]:
  return dict(
    side=probe.side,
    cover=probe.cover,
    points=_packed(probe.points, "<f4"),
    scores=_packed(probe.scores, "<f4"),
  )


def _maps(values: Float[np.ndarray, "*b n"]) -> dict[str, Any]:
  """Maps of 8 bits, each with its scale: value = low + level * step."""
  low = values.min(-1, keepdims=True)
  step = np.ptp(values, -1, keepdims=True) / _LEVELS
  levels = np.round((values - low) / np.where(step > 0, step, 1))
  return dict(
    levels=_packed(levels, "u1"),
    low=_packed(low, "<f4"),
    step=_packed(step, "<f4"),
  )


def _packed(values: Any, kind: str) -> dict[str, Any]:
  """An array as JSON: little-endian, deflated, base64."""
  array = np.ascontiguousarray(values, kind)
  data = base64.b64encode(zlib.compress(array.tobytes(), 9)).decode()
  return dict(shape=array.shape, kind=kind[-2:], data=data)


@functools.cache
def _template() -> jinja2.Template:
  environment = pages.environment("tokenpose_jax.explanation")
  return environment.get_template("page.html")
