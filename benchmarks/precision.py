"""How far bfloat16 compute moves keypoints, on the same weights.

    python -m benchmarks.precision                    # the parity fixtures
    python -m benchmarks.precision --workdir=runs/demo --images=FILE.npz

For every network: keypoints whose integer maximum moves, and by how much the
decoded (DARK) keypoints differ, in heatmap pixels, among those that stay.
"""

import argparse
from typing import Any

import jax
import numpy as np

from tests import fixtures
from tokenpose_jax import checkpoint, codec, convert, models, train_state


def compare(fields: dict[str, Any], weights: Any, images: Any) -> dict:
  """Decoded keypoints of both compute types."""
  found = {}
  for dtype in ("float32", "bfloat16"):
    model = {**fields, "dtype": dtype}

    @jax.jit
    def run(weights, images, model=model):
      heatmaps = train_state.apply(model, *weights, images)
      return heatmaps, codec.maxima(heatmaps)[0], *codec.decode(heatmaps)

    found[dtype] = jax.device_get(run(weights, images))
  (h32, i32, p32, s32), (h16, i16, p16, _) = found.values()
  moved = (i32 != i16).any(-1)
  distance = np.linalg.norm(p32 - p16, axis=-1)
  stayed = distance[~moved]
  return {
    "keypoints": moved.size,
    "moved": int(moved.sum()),
    "moved, score > 0.2": int((moved & (s32 > 0.2)).sum()),
    "rms of heatmap difference / deviation": float(
      np.sqrt(np.mean((h32 - h16) ** 2)) / h32.std()
    ),
    "sub-pixel mean": float(stayed.mean()),
    "sub-pixel 99 %": float(np.quantile(stayed, 0.99)),
    "sub-pixel max": float(stayed.max()),
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--workdir", help="a training's work directory")
  parser.add_argument("--images", help=".npz with `image`, (N, H, W, 3) uint8")
  arguments = parser.parse_args()
  rows = {}
  if arguments.workdir:
    saved = checkpoint.Checkpoints(arguments.workdir, read_only=True)
    step = saved.choose("best")
    meta = saved.read_meta(step)
    crops = np.load(arguments.images)["image"]
    rows[arguments.workdir] = compare(
      meta["config"]["model"],
      saved.restore_weights(step, meta),
      models.normalize(jax.numpy.asarray(crops)),
    )
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
