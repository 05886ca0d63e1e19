"""Predictions measured as every evaluation is."""

from typing import Any

from tokenpose_jax.data import EvalData
from tokenpose_jax.metrics.benchmark import Predictions
from tokenpose_jax.terminal import say


def told(
  data: EvalData, predictions: Predictions, replicates: int
) -> dict[str, dict[str, Any]]:
  """Figures and intervals of predictions, which it prints.

  Args:
    data: what they are of.
    predictions: of its boxes.
    replicates: of the bootstrap.
  """
  measured = data.benchmark.measure(predictions)
  details = data.benchmark.details(measured, predictions, replicates)
  intervals = details["intervals"]
  print(data.benchmark.format_table(measured.metrics))
  headline = data.benchmark.headline
  if headline in intervals:
    low, high = intervals[headline]
    say(f"{headline}, 95 %: {low:.4f} to {high:.4f}")
  return {"figures": measured.metrics, "intervals": intervals}
