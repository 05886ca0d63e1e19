"""Whether `model.doubt` knows what it says, also of joints that are cut off.

    python -m benchmarks.doubt --workdir=runs/demo

A work directory's best checkpoint on the people of its evaluation, once in the
crops of an evaluation and once in crops that are augmented as in training, a
half body as often as not: there labeled joints lie beyond the borders. One
pass, no flip test. Expected calibration errors (ECE) are over ten bins;
"heatmaps" are maxima taken for probabilities. AUROC of presence: of labeled
joints inside against labeled joints outside, and against joints without a
label. Intervals: the middle 95 % of bootstrap replicates over people.
"""

import argparse
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from input_pipeline import batches, datasets
from tokenpose_jax import checkpoint, inference
from tokenpose_jax.codec import Codec
from tokenpose_jax.config import codec_of
from tokenpose_jax.metrics.error_kinds import auroc, calibration
from tokenpose_jax.models.config import ModelConfig

REPLICATES = 500


class Seen(NamedTuple):
  """What was said of N people, and the truth; (N, K) each."""

  presence: np.ndarray
  visibility: np.ndarray
  similarity: np.ndarray
  error: np.ndarray
  peaks: np.ndarray
  labeled: np.ndarray
  inside: np.ndarray
  hidden: np.ndarray
  alike: np.ndarray
  distance: np.ndarray


def seen(config: ConfigDict, weights: tuple, *, augmented: bool) -> Seen:
  """The people of the evaluation's split in crops of one kind."""
  config = config.copy_and_resolve_references()
  config.unlock()
  config.data.train_split, config.data.mix = config.data.eval_split, ()
  config.data.person_crops = False
  skeleton = datasets.skeleton_of(config.data, config.data.eval_split)
  if augmented:
    config.augment = {
      **config.augment,
      "scale": 0.35,
      "rotation_probability": 0.6,
      "rotation_degrees": 45.0,
      "half_body_probability": 0.5,
    }
  else:
    for name in ("scale", "rotation_probability", "half_body_probability"):
      config.augment[name] = 0.0
    config.augment.flip_probability = -1.0
  size = config.train.batch_size
  data = batches.train_data(config, skeleton, np.arange(size))
  codec = codec_of(config)
  settings = inference.Settings(
    ModelConfig.of(config.model), codec, decoder=config.eval.decoder
  )
  find = jax.jit(functools.partial(found, settings))
  stream, rows = data.batches(0), []
  for first in range(0, data.people, size):
    batch = next(stream)
    batch["mask"][data.people - first :] = 0  # The next epoch's.
    rows.append(
      told(codec, batch, jax.device_get(find(*weights, batch["image"])))
    )
  return Seen(*map(np.concatenate, zip(*rows, strict=True)))


def found(settings: inference.Settings, params, state, crops):
  """(doubt, points in crop pixels, heatmap maxima)."""
  made = inference.find(settings, params, state, crops)
  return made.doubt, *settings.codec.decode(made.heatmaps, settings.decoder)


def told(codec: Codec, batch, made) -> Seen:
  doubt, points, peaks = made
  distance = np.linalg.norm(points - batch["keypoints"], axis=-1)
  made = Seen(
    *doubt,
    peaks,
    batch["visible"] > 0,
    np.asarray(codec.inside(batch["keypoints"])) > 0,
    batch["hidden"] > 0,
    0.5 ** (distance / batch["reach"]) ** 2,
    distance,
  )
  return Seen(*(part[batch["mask"] > 0] for part in made))


def ece(scores: np.ndarray, truth: np.ndarray) -> float:
  return calibration(scores, truth)["error"]


def within(of: str) -> Callable[[Seen], float]:
  """ECE of similarity, of labeled joints inside the crop."""

  def measure(s: Seen) -> float:
    here = s.labeled & s.inside
    return ece(getattr(s, of)[here], s.alike[here])

  return measure


MEASURES: dict[str, Callable[[Seen], float]] = {
  "ECE of similarity, heatmaps": within("peaks"),
  "ECE of similarity, doubt": within("similarity"),
  "ECE of presence": lambda s: ece(
    s.presence.ravel(), (s.labeled & s.inside).ravel()
  ),
  "ECE of visibility": lambda s: ece(
    s.visibility[s.labeled & s.inside], ~s.hidden[s.labeled & s.inside]
  ),
  "AUROC of presence, labeled joints outside": lambda s: auroc(
    s.presence[s.labeled & s.inside], s.presence[s.labeled & ~s.inside]
  ),
  "the same by heatmaps": lambda s: auroc(
    s.peaks[s.labeled & s.inside], s.peaks[s.labeled & ~s.inside]
  ),
  "AUROC of presence, joints without a label": lambda s: auroc(
    s.presence[s.labeled & s.inside], s.presence[~s.labeled]
  ),
  "AUROC of visibility": lambda s: auroc(
    s.visibility[s.labeled & s.inside & ~s.hidden],
    s.visibility[s.labeled & s.inside & s.hidden],
  ),
  "AUROC of similarity above 0.5, heatmaps": lambda s: auroc(
    s.peaks[s.labeled & s.inside & (s.alike >= 0.5)],
    s.peaks[s.labeled & s.inside & (s.alike < 0.5)],
  ),
  "the same by doubt": lambda s: auroc(
    s.similarity[s.labeled & s.inside & (s.alike >= 0.5)],
    s.similarity[s.labeled & s.inside & (s.alike < 0.5)],
  ),
  "expected error, crop pixels": lambda s: s.error[s.labeled & s.inside].mean(),
  "found error, crop pixels": lambda s: s.distance[s.labeled & s.inside].mean(),
}


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--workdir", required=True, help="a training's")
  options = parser.parse_args()
  saved = checkpoint.Checkpoints(options.workdir)
  step = saved.choose("best")
  meta = saved.read_meta(step)
  if not meta["config"]["model"].get("doubt"):
    parser.error(f"{options.workdir} was trained without model.doubt")
  config = ConfigDict(meta["config"])
  weights = saved.restore_weights(step, meta, config.eval.weights)
  print(f"| {options.workdir}, step {step} | as evaluated | augmented |")
  print("| --- | --- | --- |")
  both = [seen(config, weights, augmented=a) for a in (False, True)]
  here = [(s.labeled & s.inside).sum() for s in both]
  outside = [(s.labeled & ~s.inside).sum() for s in both]
  print(f"| labeled joints inside | {here[0]:,} | {here[1]:,} |")
  print(f"| labeled joints outside | {outside[0]:,} | {outside[1]:,} |")
  for name, measure in MEASURES.items():
    cells = [interval(measure, s) for s in both]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def interval(measure: Callable[[Seen], float], people: Seen) -> str:
  """A figure with its interval."""
  value = measure(people)
  if not value >= 0:
    return "none"
  rng = np.random.default_rng(0)
  count = len(people.labeled)
  values = []
  for _ in range(REPLICATES):
    chosen = rng.integers(0, count, count)
    again = measure(Seen(*(part[chosen] for part in people)))
    if again >= 0:
      values.append(again)
  low, high = np.quantile(values, (0.025, 0.975))
  return f"{value:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
  main()
