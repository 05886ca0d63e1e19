"""How many people a core reads a second, and what stands in the way.

    python -m benchmarks.data                        # drawn 640x480 images
    python -m benchmarks.data --folder=DIR --split=NAME   # a COCO folder's

One core (the process pins itself to one before anything else starts), CPU time
by the process's own clock, so that neighbors on the machine matter little.
"""

import argparse
import glob
import os
import sys
import tempfile
import threading
import time

# Before thread pools are made.
if hasattr(os, "sched_setaffinity"):
  os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("NO_GCE_CHECK", "true")

import cv2
import numpy as np
from absl import logging

from benchmarks import drawn, usual_loader
from configs import default
from input_pipeline import batches, coco, datasets, decode
from input_pipeline.image_crops import ImageCropReader
from tokenpose_jax import crops, geometry, skeletons
from tokenpose_jax.config import codec_of

BATCH = 128
PAIRS = 7
USUAL_BATCH = (
  32  # as in the original implementation, and cheaper to put together than 128
)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--folder", help="a COCO folder; else images are drawn")
  parser.add_argument("--split", default="val2017")
  parser.add_argument(
    "--batches", type=int, default=4, help="of 128, each time"
  )
  parser.add_argument("--rounds", type=int, default=3, help="the best counts")
  options = parser.parse_args()
  cv2.setNumThreads(1)
  logging.set_verbosity(logging.ERROR)  # of TFDS
  with tempfile.TemporaryDirectory() as scratch:
    config = default.get_config()
    config.data.dir = options.folder or drawn.write(f"{scratch}/drawn")
    config.data.train_split = options.split if options.folder else drawn.SPLIT
    config.data.prepared_dir = f"{scratch}/prepared"
    config.train.batch_size = BATCH
    config.data.workers = 1
    report(config, options.batches, options.rounds)


def report(config, count: int, rounds: int) -> None:
  skeleton = skeletons.get(config.data.skeleton)
  split = datasets.prepare(config.data, config.data.train_split, skeleton)
  people = datasets.people(split, config)
  sizes = np.sort(split.store.sizes[people.image], axis=1)
  people = people.select((sizes == (480, 640)).all(1))
  if not len(people):
    sys.exit("error: this split has nobody in a 640x480 image")
  plan = Plan(config, split, people, count * BATCH)
  ways = {
    "usual: read, decode, warp, normalize, heatmaps": plan.usual,
    "originals, through tf.data": plan.originals,
    "prepared crops, through tf.data": plan.prepared,
    "floor: read": plan.read,
    "floor: read + decode the whole image (OpenCV)": plan.decode_whole,
    "floor: read + decode the window": plan.decode_windows,
    "floor: read + entropy-decode down to it": plan.decode_entropy,
    "floor: warp": plan.warp,
    "floor: order, augmentation, maps (Python)": plan.plan,
  }
  print(f"{len(people)} people; {plan.describe()}; one core\n")
  print(
    f"{'':50s}{'CPU ms':>8s}{'images/s':>10s}{'x usual':>9s}{'kB sent':>9s}"
  )
  # Rounds of all ways in turn, so that a disturbance does not hit one alone.
  best = dict.fromkeys(ways, float("inf"))
  for _ in range(rounds):
    for name, way in ways.items():
      best[name] = min(best[name], way() / plan.count)
  usual = best[next(iter(ways))]
  for name, seconds in best.items():
    sent = plan.sent.get(name.split(",")[0].split(":")[0], "")
    print(
      f"{name:50s}{seconds * 1e3:8.3f}{1 / seconds:10.0f}"
      f"{usual / seconds:9.2f}{sent:>9}"
    )
  ratios = [plan.pair() for _ in range(PAIRS)]
  print(
    f"\noriginals against the usual in {PAIRS} pairs: {min(ratios):.2f} to"
    f" {max(ratios):.2f} x, median {np.median(ratios):.2f}"
  )


class Plan:
  """The same people for every way; each way returns its CPU seconds."""

  def __init__(self, config, split, people, count):
    self.config, self.split, self.people = config, split, people
    self.count = count
    self.slots = np.arange(BATCH)
    self.chosen, made = batches.training_crops(
      config, split, people, np.arange(count)
    )
    self.image = people.image[self.chosen]
    self.affine = made.affine
    self.input_hw = tuple(config.model.input_hw)
    self.windows = geometry.source_window(
      self.affine, self.input_hw, split.store.sizes[self.image]
    )
    folder = coco.image_folder(config.data.dir, config.data.train_split)
    self.paths = [
      os.path.join(folder, split.store.names[i]) for i in self.image
    ]
    self.sent: dict[str, str] = {}
    codec = codec_of(config)
    self.usual_settings = usual_loader.Settings(
      codec.input_hw,
      codec.heatmap_hw,
      codec.sigma,
      config.augment.to_dict(),
      split.skeleton.upper_body,
      split.skeleton.flip_permutation,
    )
    self.original_crops = ImageCropReader(split.store, people.image)
    stored = config.copy_and_resolve_references()
    stored.data.person_crops = True
    self.person_crops = batches.train_reader(stored, split, people)

  def describe(self) -> str:
    sizes = self.split.store.sizes[self.image].prod(1)
    share = (self.windows[:, 2] * self.windows[:, 3] / sizes).mean()
    kilobytes = np.mean([os.path.getsize(path) for path in self.paths]) / 1e3
    return f"{kilobytes:.0f} kB an image, of which a crop reads {share:.0%}"

  def pair(self) -> float:
    """How many times the usual loader's time is that of the originals.

    In turns of a batch, because a neighbor on the same core may halve the speed
    of either for seconds.
    """
    usual = ours = 0.0
    stream = self._stream(self.original_crops)
    for _ in range(3):
      next(stream)
    rested()
    for first in range(0, self.count, BATCH):
      usual += self._usual(range(first, first + BATCH, USUAL_BATCH))
      start = rested()
      next(stream)
      ours += rested() - start  # One batch more has been read ahead.
    stream.close()
    return usual / ours

  def usual(self) -> float:
    return self._usual(range(0, self.count, USUAL_BATCH))

  def _usual(self, starts: range) -> float:
    rng = np.random.default_rng(0)
    start = time.process_time()
    for first in starts:
      examples = [
        usual_loader.load(
          self.paths[i],
          self.people.center[self.chosen[i]],
          self.people.scale[self.chosen[i]],
          self.people.keypoints[self.chosen[i]],
          self.people.visible[self.chosen[i]],
          rng=rng,
          settings=self.usual_settings,
        )
        for i in range(first, first + USUAL_BATCH)
      ]
      batch = {k: np.stack([e[k] for e in examples]) for k in examples[0]}
    seconds = time.process_time() - start
    self.sent["usual"] = kilobytes(batch, USUAL_BATCH)
    return seconds

  def originals(self) -> float:
    return self._batches("originals", self.original_crops)

  def _stream(self, reader):
    one = batches.TrainSet(self.config, self.split, self.people, reader)
    return batches.train_batches([one], slots=self.slots)

  def prepared(self) -> float:
    return self._batches("prepared crops", self.person_crops)

  def _batches(self, name, reader) -> float:
    stream = self._stream(reader)
    for _ in range(3):  # started, and prefetching as fast as it is emptied
      next(stream)
    start = time.process_time()
    for _ in range(self.count // BATCH):
      batch = next(stream)
    seconds = time.process_time() - start
    stream.close()
    self.sent[name] = kilobytes(batch, BATCH)
    return seconds

  def read(self) -> float:
    start = time.process_time()
    for number in self.image:
      self.split.store.read(int(number))
    return time.process_time() - start

  def decode_whole(self) -> float:
    start = time.process_time()
    for path in self.paths:
      cv2.imread(path)
    return time.process_time() - start

  def decode_windows(self) -> float:
    return self._decode(self.windows)

  def _decode(self, windows: np.ndarray) -> float:
    start = time.process_time()
    for first in range(0, self.count, 16):
      part = slice(first, first + 16)
      encoded = [self.split.store.read(int(n)) for n in self.image[part]]
      decode.decode_windows(encoded, windows[part])
    return time.process_time() - start

  def decode_entropy(self) -> float:
    """A JPEG's bits can only be read from its top: 8x8 pixels at the end of
    the window take all of the bits before them, and no other work."""
    windows = self.windows.copy()
    windows[:, 0] += np.maximum(windows[:, 2] - 8, 0)
    windows[:, 2:] = np.minimum(windows[:, 2:], 8)
    return self._decode(windows)

  def plan(self) -> float:
    start = time.process_time()
    for first in range(0, self.count, batches.CHUNK):
      positions = np.arange(first, first + batches.CHUNK)
      chosen, made = batches.training_crops(
        self.config, self.split, self.people, positions
      )
      sizes = self.split.store.sizes[self.people.image[chosen]]
      geometry.source_window(made.affine, self.input_hw, sizes)
    return time.process_time() - start

  def warp(self) -> float:
    encoded = [self.split.store.read(int(n)) for n in self.image[:64]]
    decoded = decode.decode_windows(encoded, self.windows[:64])
    out = np.empty((*self.input_hw, 3), np.uint8)
    start = time.process_time()
    for i in range(self.count):
      crops.warp(*decoded[i % 64], self.affine[i % 64], out)
    return time.process_time() - start


def rested() -> float:
  """The process's CPU time, once the threads that read ahead have ended."""
  quiet = 0
  while quiet < 5:
    time.sleep(0.02)
    quiet = 0 if others_run() else quiet + 1
  return time.process_time()


def others_run() -> bool:
  """Whether a thread works, or would if it were given a core (Linux)."""
  mine = str(threading.get_native_id())
  for path in glob.glob("/proc/self/task/*/stat"):
    with open(path) as file:
      state = file.read().rpartition(")")[2].split()[0]
    if state in "RD" and path.split("/")[4] != mine:
      return True
  return False


def kilobytes(batch, people: int) -> str:
  return f"{sum(v.nbytes for v in batch.values()) / people / 1e3:.0f}"


if __name__ == "__main__":
  main()
