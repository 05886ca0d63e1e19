"""The cost table against the original's own count."""

import dataclasses

import pytest

from tests import fixtures
from tokenpose_jax import cost
from tokenpose_jax.models.published import PUBLISHED


@pytest.mark.parametrize("stem", fixtures.model_stems() or ["model_T"])
def test_multiply_adds_of_the_original(stem):
  fixture, _ = fixtures.load(stem)
  costs = cost.summarize(fixtures.model_fields(fixture["config"]), 2)
  gmacs = fixture["gmacs"]
  assert costs["total"].parameters == fixture["counts"]["trainable"]
  assert costs["total"].layers / 1e9 == pytest.approx(
    gmacs["conv"] + gmacs["linear"], rel=1e-9
  )
  assert costs["total"].attention / 1e9 == pytest.approx(
    gmacs["attn"], rel=1e-9
  )


def test_stored_activations_grow_with_the_batch_and_shrink_with_bf16():
  model = PUBLISHED["tokenpose_s_v1"]
  of_two, of_four = (cost.summarize(model, n)["total"] for n in (2, 4))
  assert of_four.stored == 2 * of_two.stored > 0
  half = dataclasses.replace(model, dtype="bfloat16")
  assert cost.summarize(half, 2)["total"].stored < of_two.stored
  table = cost.format_table({"total": of_two}, 2)
  assert "6,620,736" in table
