"""What prepared person crops cost: pixels that change, and disk.

    python -m benchmarks.data_fidelity --folder=DIR --split=NAME

Training crops from prepared crops against the same crops from the images, for
several values of `data.crop_density`; next to them, as a measure, what another
JPEG decoder would change (the faster DCT that TensorFlow takes by default).
"""

import argparse
import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("NO_GCE_CHECK", "true")

import numpy as np
from absl import logging

from benchmarks import drawn
from configs import default
from input_pipeline import batches, datasets
from input_pipeline.image_crops import ImageCropReader
from tokenpose_jax import crops, skeletons

DENSITIES = (1.0, 1.25, 1.5, 2.0, 1e9)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--folder", help="a COCO folder; else images are drawn")
  parser.add_argument("--split", default="val2017")
  parser.add_argument("--people", type=int, default=400)
  options = parser.parse_args()
  logging.set_verbosity(logging.ERROR)  # of TFDS
  with tempfile.TemporaryDirectory() as scratch:
    config = default.get_config()
    config.data.dir = options.folder or drawn.write(f"{scratch}/drawn")
    config.data.prepared_dir = f"{scratch}/prepared"
    config.data.person_crops = True
    split_name = options.split if options.folder else drawn.SPLIT
    report(config, split_name, options.people)


def report(config, split_name: str, count: int) -> None:
  config.data.train_split = split_name
  skeleton = skeletons.get(config.data.skeleton)
  split = datasets.prepare(config.data, split_name, skeleton)
  people = datasets.people(split, config)
  count = min(count, len(people))
  people = people.select(np.arange(len(people)) < count)
  chosen, made = batches.training_crops(config, split, people, np.arange(count))
  hw = tuple(config.model.input_hw)
  originals = ImageCropReader(split.store, people.image)
  wanted, good = originals.read(chosen, made.affine, hw)
  print(f"{good.sum()} augmented crops of {split_name}; gray levels of 255\n")
  print(f"{'':28s}{'mean':>7s}{'> 8':>7s}{'PSNR dB':>9s}{'MB/person':>11s}")
  for density in DENSITIES:
    config.data.crop_density = density
    reader = batches.train_reader(config, split, people)
    found, _ = reader.read(chosen, made.affine, hw)
    stored = reader.stored_bytes / len(people) / 1e6
    name = f"density {density:g}" if density < 1e9 else "density without limit"
    show(name, found, wanted, f"{stored:.2f}")
  show("(TensorFlow's default DCT)", _fast(split, people, chosen, made), wanted)


def show(name: str, found: np.ndarray, wanted: np.ndarray, size: str = ""):
  difference = np.abs(found.astype(np.float32) - wanted)
  psnr = 10 * np.log10(255**2 / max((difference**2).mean(), 1e-9))
  print(
    f"{name:28s}{difference.mean():7.2f}{(difference > 8).mean():7.1%}"
    f"{psnr:9.1f}{size:>11s}"
  )


def _fast(split, people, chosen, made) -> np.ndarray:
  """The crops of images that are decoded with the faster DCT."""
  import tensorflow as tf

  hw = default.get_config().model.input_hw
  out = np.zeros((len(chosen), *hw, 3), np.uint8)
  for i, number in enumerate(people.image[chosen]):
    encoded = split.store.read(int(number))
    image = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_FAST")
    crops.warp(image.numpy(), (0, 0), made.affine[i], out[i])
  return out


if __name__ == "__main__":
  main()
