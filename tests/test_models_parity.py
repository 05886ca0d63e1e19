"""The networks against the original implementation's numbers (reference 2)."""

import re

import jax
import numpy as np
import pytest

from tests import fixtures
from tokenpose_jax import convert, network

# tests/parity/README.md, tolerances: largest and rms difference of a heatmap
# value.
TOLERANCE = {
  "none": (3e-5, 5e-6),
  "stem": (3e-5, 5e-6),
  "hrnet_w32": (1e-4, 2e-5),
  "hrnet_w48": (1e-4, 2e-5),
}


def _ours(tap: str, captured: dict) -> np.ndarray:
  """The captured value that a fixture's tap names, in the fixture's layout."""
  if tap == "heatmaps":
    return captured[tap]
  if match := re.fullmatch(r"attnprob\.(\d+\.\d+)\.img0\.query0", tap):
    return captured[f"attention.{match[1]}"][0, :, 0]
  value = captured[tap]
  return value.transpose(0, 3, 1, 2) if value.ndim == 4 else value


@pytest.mark.parametrize("stem", fixtures.model_stems() or ["model_T"])
def test_heatmaps_and_taps(stem):
  fixture, arrays = fixtures.load(stem)
  fields = fixtures.model_fields(fixture["config"])
  state = fixtures.state_dict(fixture, arrays["pos_embedding"])
  for entry in fixture["state_dict"]:
    if entry["kind"] != "bn_counter":
      first = state[entry["name"]].ravel()[: len(entry["first"])]
      np.testing.assert_allclose(first, entry["first"], rtol=1e-6)
  params, model_state = convert.import_torch(fields, state)
  count = network.count_parameters(params)
  assert count == fixture["counts"]["trainable"]

  @jax.jit
  def forward(params, model_state, images):
    return network.apply(fields, params, model_state, images, capture=True)

  images = fixtures.images(*fields["input_hw"])
  np.testing.assert_allclose(
    images.transpose(0, 3, 1, 2).ravel()[:4], fixture["input"]["first"]
  )
  heatmaps, captured = jax.device_get(forward(params, model_state, images))
  captured["heatmaps"] = heatmaps
  largest, rms = TOLERANCE[fields["backbone"]]
  difference = np.abs(heatmaps - arrays["heatmaps"])
  assert difference.max() <= largest
  assert np.sqrt(np.mean(difference**2)) <= rms
  for tap, facts in fixture["taps"].items():
    ours = _ours(tap, captured)
    assert list(ours.shape) == facts["shape"], tap
    part = ours[_index(facts["slice"])]
    limit = max(10 * facts["f32_vs_f64_max"], 1e-6)
    assert np.abs(part - arrays[_key(tap, arrays)]).max() <= limit, tap
    np.testing.assert_allclose(
      np.linalg.norm(ours.astype(np.float64)), facts["l2"], rtol=1e-4
    )


def _index(text: str) -> tuple[slice, ...]:
  """The index that a fixture writes as "[:, ::13, ::16]", or "full"."""
  if text == "full":
    return ()
  return tuple(
    slice(*(int(bound) if bound else None for bound in part.split(":")))
    for part in text.removeprefix("[").removesuffix("]").split(", ")
  )


def _key(tap: str, arrays: dict) -> str:
  return tap if tap in arrays else f"tap/{tap}"


@pytest.mark.parametrize("stem", fixtures.model_stems() or ["model_T"])
def test_export_is_the_inverse_of_import(stem):
  fixture, arrays = fixtures.load(stem)
  fields = fixtures.model_fields(fixture["config"])
  state = fixtures.state_dict(fixture, arrays["pos_embedding"])
  again = convert.export_torch(fields, *convert.import_torch(fields, state))
  assert set(again) == set(state)
  for name, value in state.items():
    assert again[name].shape == value.shape, name
    assert again[name].dtype == value.dtype, name
    assert again[name].tobytes() == value.tobytes(), name
