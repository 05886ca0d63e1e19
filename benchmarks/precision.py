"""How far bfloat16 compute moves keypoints, on the same weights.

    python -m benchmarks.precision                       # the parity fixtures
    python -m benchmarks.precision --workdir=runs/demo   # trained weights

For every network: keypoints whose maximal pixel moves, and by how much the
decoded (DARK) keypoints differ, in heatmap pixels.
"""

import argparse
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from input_pipeline import batches, datasets
from input_pipeline.image_crops import ImageCropReader
from tests import fixtures
from tokenpose_jax import checkpoint, codec, convert, network


def compare(fields: dict[str, Any], weights: Any, images: Any) -> dict:
  """Decoded keypoints of both compute types."""
  found = {}
  for dtype in ("float32", "bfloat16"):
    model = {**fields, "dtype": dtype}

    @jax.jit
    def run(weights, images, model=model):
      heatmaps = network.apply(model, *weights, images)
      return heatmaps, codec.maxima(heatmaps)[0], *codec.decode(heatmaps)

    found[dtype] = jax.device_get(run(weights, images))
  (h32, i32, p32, s32), (h16, i16, p16, _) = found.values()
  steps = np.abs(i32 - i16).max(-1)
  distance = np.linalg.norm(p32 - p16, axis=-1)
  return {
    "keypoints": steps.size,
    "maximum moves": int((steps > 0).sum()),
    "  by more than one pixel": int((steps > 1).sum()),
    "heatmap difference, rms / standard deviation": float(
      np.sqrt(np.mean((h32 - h16) ** 2)) / h32.std()
    ),
    "decoded: mean difference": float(distance.mean()),
    "decoded: 99 % within": float(np.quantile(distance, 0.99)),
    "decoded: largest": float(distance.max()),
    "decoded: largest of scores above 0.2": float(
      distance[s32 > 0.2].max(initial=0)
    ),
  }


def trained(workdir: str) -> dict:
  """`compare` on the best checkpoint and the people of its evaluation."""
  saved = checkpoint.Checkpoints(workdir)
  step = saved.choose("best")
  meta = saved.read_meta(step)
  config = ConfigDict(meta["config"])
  name = config.data.eval_split
  skeleton = datasets.skeleton_of(config.data, name)
  split = datasets.prepare(config.data, name, skeleton)
  people = datasets.people(split, config)
  reader = ImageCropReader(split.store, people.image)
  slots = np.arange(config.eval.batch_size)
  passed = batches.eval_batches(config, people, reader, slots=slots)
  crops = [batch["image"][batch["mask"] > 0] for batch in passed]
  images = network.normalize(jax.numpy.asarray(np.concatenate(crops)))
  weights = saved.restore_weights(step, meta)
  return compare(meta["config"]["model"], weights, images)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--workdir", help="a training's work directory")
  workdir = parser.parse_args().workdir
  rows = {}
  if workdir:
    rows[workdir] = trained(workdir)
  else:
    for stem in fixtures.model_stems():
      fixture, arrays = fixtures.load(stem)
      fields = fixtures.model_fields(fixture["config"])
      state = fixtures.state_dict(fixture, arrays["pos_embedding"])
      rows[stem] = compare(
        fields,
        convert.import_torch(fields, state),
        fixtures.images(*fields["input_hw"]),
      )
  for name, row in rows.items():
    print(name)
    for title, value in row.items():
      print(f"  {title:<40} {value:.4g}")


if __name__ == "__main__":
  main()
