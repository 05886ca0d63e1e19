"""`tokenpose predict` beside the bare network, and over a long video.

    python -m benchmarks.predict WEIGHTS PHOTOS [--photos=500] [--minutes=0]

Photos: two given boxes each. People a second of the network alone (batches of
32, flip test, decoding) and of the whole command, once with results alone and
once with drawings. Video: people a second and memory, minute by minute, of a
drawn video that is repeated.
"""

import argparse
import itertools
import resource
import tempfile
import time

import numpy as np

import tokenpose_jax as tp
from input_pipeline.synthetic import video
from tokenpose_jax import cli
from tokenpose_jax.predict import run as run_lib
from tokenpose_jax.predict import sources as sources_lib
from tokenpose_jax.predict.boxes import Given, ImageIds
from tokenpose_jax.predict.run import Following, Run
from tokenpose_jax.predict.writers import writers

BOXES = Given(["40,30,120,280", "200,20,130,300"])


def bare(estimator: tp.Estimator, people: int) -> float:
  """People a second of one photo's crops, over and over."""
  photo = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
  boxes = np.tile([[40.0, 30, 120, 280]], (32, 1))
  estimator(photo, boxes)
  start = time.monotonic()
  for _ in range(people // 32):
    estimator(photo, boxes)
  return people // 32 * 32 / (time.monotonic() - start)


def whole(estimator: tp.Estimator, sources: list, kinds: list[str]) -> float:
  """People a second of the command, after its imports."""
  with tempfile.TemporaryDirectory() as out:
    made = writers(kinds, out, estimator.skeleton)
    run = Run(estimator, BOXES, ImageIds(), made, Following(), lambda _: None)
    start = time.monotonic()
    count = run(sources)
    seconds = time.monotonic() - start
    for writer in made:
      writer.close()
  return count.people / seconds


class Repeated:
  """A drawn video, repeated for some minutes."""

  rate, length = 25.0, 0

  def __init__(self, frames: list, frames_in_all: int):
    self._frames, self._all = frames, frames_in_all

  def __call__(self, path: str) -> "Repeated":
    return self

  def __iter__(self):
    endless = itertools.islice(itertools.cycle(self._frames), self._all)
    for n, image in enumerate(endless):
      yield sources_lib.Frame(image, n, n / self.rate)

  def close(self) -> None:
    pass


def long(estimator: tp.Estimator, minutes: int) -> None:
  """Speed and memory of each minute of a video."""
  drawn = [frame.image for frame in video.draw_frames(count=250)]
  minute = round(60 * Repeated.rate)
  run_lib.Video = Repeated(drawn, minutes * minute)  # type: ignore[misc, assignment]
  done, last = [0], [time.monotonic()]
  print("| minute | people/s | memory, MB |\n| --- | --- | --- |")

  def progress(count: int) -> None:
    done[0] += count
    if done[0] % minute == 0:
      now = time.monotonic()
      peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
      speed = 2 * minute / (now - last[0])
      print(f"| {done[0] // minute} | {speed:.0f} | {peak:.0f} |", flush=True)
      last[0] = now

  with tempfile.TemporaryDirectory() as out:
    made = writers(["coco", "drawn"], out, estimator.skeleton)
    source = sources_lib.Source("drawn.mp4", "drawn.mp4", "video")
    run = Run(
      estimator, BOXES, ImageIds(), made, Following(smooth=1.0), progress
    )
    run([source])
    for writer in made:
      writer.close()


def main() -> None:
  cli.quiet_tensorflow()
  parser = argparse.ArgumentParser()
  parser.add_argument("weights")
  parser.add_argument("folder")
  parser.add_argument("--photos", type=int, default=500)
  parser.add_argument("--minutes", type=int, default=0)
  arguments = parser.parse_args()
  estimator = tp.load(arguments.weights)
  if arguments.photos:
    sources = sources_lib.find([arguments.folder])[0][: arguments.photos]
    alone = bare(estimator, max(64, len(sources)))
    print(f"the network alone: {alone:.1f} people/s")
    for kinds in (["coco"], ["coco", "drawn"]):
      speed = whole(estimator, sources, kinds)
      print(f"{', '.join(kinds)}: {speed:.1f} people/s, {speed / alone:.0%}")
    print(f"the network alone, again: {bare(estimator, 64):.1f} people/s")
  if arguments.minutes:
    long(estimator, arguments.minutes)


if __name__ == "__main__":
  main()
