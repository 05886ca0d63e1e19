"""People of a drawn video: kept ids, tremble, and error, against simple ways.

    python -m benchmarks.video
    python -m benchmarks.video --weights=runs/demo --seed=1

Draws people who walk across each other's paths, writes an MP4 of it and runs
`tokenpose_jax.predict.run.Run` on that. Boxes are the true ones with noise, in
any order; people of whom little is seen, and a few others, are not found.
Keypoints are those of the network, or, without weights, the true ones with
noise, more of it where a joint is hidden. All ways see the same boxes and the
same keypoints before smoothing.

Identity switches: how often a person has another id than when last seen.
Jitter: the mean length of the second difference in time. Error: the mean
distance from the truth. Both are over joints in the picture that are not turned
away, in percent of the square root of the true box's area.
"""

import argparse
import dataclasses
import os
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

import tokenpose_jax as tp
from input_pipeline.synthetic import video
from tokenpose_jax.predict import boxes as boxes_lib
from tokenpose_jax.predict import run as run_lib
from tokenpose_jax.predict import smooth as smooth_lib
from tokenpose_jax.predict import sources
from tokenpose_jax.predict.estimator import Poses
from tokenpose_jax.skeletons import COCO_17

RATE = 25
LEAST_SEEN = 0.25  # share of the silhouette, for the detector
MISSED = 0.03  # of the people whom it could find
BOX_NOISE = 0.03  # standard deviation, of the box's sides
NOISE, OUTLIERS = 0.015, 0.01  # of the keypoints; of the box size, a share
MEMORY = 25  # frames that the baseline remembers, as `tracks.Tracker`
CUTOFFS = (0.5, 1.0, 2.0)  # Hz


class Frame(NamedTuple):
  """What is known of a frame; n of the people are found by the detector.

  Attributes:
    people: (n,) their true ids; boxes: (n, 5) x, y, w, h, score, as found.
    truth: (n, 17, 2) joints; shown: (n, 17) those that count; sure: (n, 17)
      those that nothing hides.
    sizes: (n,) square roots of the true boxes' areas.
    seconds: since the start.
  """

  people: np.ndarray
  boxes: np.ndarray
  truth: np.ndarray
  shown: np.ndarray
  sure: np.ndarray
  sizes: np.ndarray
  seconds: float


def draw(path: str, seed: int, count: int) -> list[Frame]:
  """Writes the video; returns what is known of its frames."""
  import av

  frames = []
  with av.open(path, "w") as container:
    stream = container.add_stream("libx264", rate=Fraction(RATE))
    stream.height, stream.width = video.SIZE
    stream.pix_fmt = "yuv420p"
    drawn = video.draw_frames(seed=seed, count=count, rate=RATE)
    for number, (image, people) in enumerate(drawn):
      picture = av.VideoFrame.from_ndarray(image, format="rgb24")
      container.mux(stream.encode(picture))
      rng = np.random.default_rng((seed, 100, number))
      frames.append(detect(rng, people, number / RATE))
    container.mux(stream.encode())
  return frames


def detect(
  rng: np.random.Generator, people: list[dict], seconds: float
) -> Frame:
  """The people whom a detector finds, in any order."""
  found = [
    person
    for person in people
    if person["area"] >= LEAST_SEEN * person["silhouette"]
    and rng.random() >= MISSED
  ]
  found = [found[n] for n in rng.permutation(len(found))]
  n = len(found)
  boxes = np.array([person["bbox"] for person in found]).reshape(n, 4)
  keypoints = np.array([person["keypoints"] for person in found])
  keypoints = keypoints.reshape(n, 17, 3)
  noise = rng.normal(0, BOX_NOISE, (n, 4)) * np.tile(boxes[:, 2:], 2)
  return Frame(
    np.array([person["id"] for person in found], int),
    np.column_stack([boxes + noise, rng.uniform(0.5, 1.0, n)]),
    np.array([person["joints"] for person in found]).reshape(n, 17, 2),
    keypoints[..., 2] > 0,
    keypoints[..., 2] == 2,
    np.sqrt(boxes[:, 2:].prod(1)),
    seconds,
  )


class NoisyTruth:
  """In place of an estimator: the truth with noise, frame by frame."""

  skeleton = COCO_17

  def __init__(self, frames: Sequence[Frame], seed: int):
    self._frames = iter(frames)
    self._rng = np.random.default_rng((seed, 101))

  def __call__(self, photos: list, boxes: list) -> list[Poses]:
    return [
      self._poses(next(self._frames), boxes_of_frame)
      for boxes_of_frame in boxes
    ]

  def _poses(self, frame: Frame, boxes: np.ndarray) -> Poses:
    shape = frame.shown.shape
    far = self._rng.random(shape) < OUTLIERS
    sure = frame.sure & ~far
    spread = np.where(frame.sure, NOISE, 3 * NOISE) * np.where(far, 10, 1)
    spread = spread * frame.sizes[:, None]
    noise = self._rng.normal(0, 1, (*shape, 2)) * spread[..., None]
    scores = np.where(sure, 0.8, np.where(frame.shown, 0.3, 0.1))
    return Poses(
      (frame.truth + noise).astype(np.float32),
      scores.astype(np.float32),
      scores.mean(1),
      boxes,
      COCO_17,
    )


class Replay:
  """In place of an estimator: what was found before, frame by frame."""

  skeleton = COCO_17

  def __init__(self, poses: Sequence[Poses]):
    self._poses = iter(poses)

  def __call__(self, photos: list, boxes: list) -> list[Poses]:
    return [next(self._poses) for _ in photos]


class Kept:
  """A writer that keeps poses and ids."""

  def __init__(self):
    self.poses: list[Poses] = []
    self.ids: list[np.ndarray] = []

  def add(self, item) -> None:
    self.poses.append(item.poses)
    self.ids.append(item.ids)

  def close(self) -> None:
    pass


def run(path: str, frames: Sequence[Frame], estimator, **following) -> Kept:
  """One run over the video."""
  kept, found = Kept(), iter(frames)
  count = run_lib.Run(
    estimator,
    boxes_lib.Detected(lambda _: next(found).boxes, 0.0),
    boxes_lib.ImageIds(),
    [kept],
    run_lib.Following(**following),
    lambda _: None,
  )(sources.find([path])[0])
  if count.frames != len(frames) or count.broken:
    raise SystemExit(f"{count.frames} frames of {len(frames)}: {count.broken}")
  return kept


def nearest_centers(frames: Sequence[Frame]) -> list[np.ndarray]:
  """The usual simple way: the id of the box whose center is nearest.

  The nearest pairs first, not farther apart than half of the box's height; a
  box that is gone is remembered for `MEMORY` frames.
  """
  last: dict[int, tuple[np.ndarray, int]] = {}
  following, out = 0, []
  for number, frame in enumerate(frames):
    last = {i: v for i, v in last.items() if number - v[1] <= MEMORY}
    centers = frame.boxes[:, :2] + frame.boxes[:, 2:4] / 2
    pairs = sorted(
      (float(np.hypot(*(center - where))), n, i)
      for n, center in enumerate(centers)
      for i, (where, _) in last.items()
    )
    ids = np.full(len(centers), -1)
    for distance, n, i in pairs:
      if ids[n] < 0 and i not in ids and distance < frame.boxes[n, 3] / 2:
        ids[n] = i
    for n in np.flatnonzero(ids < 0):
      ids[n], following = following, following + 1
    last |= {
      i: (center, number)
      for i, center in zip(ids.tolist(), centers, strict=True)
    }
    out.append(ids)
  return out


def smoothed(
  frames: Sequence[Frame],
  poses: Sequence[Poses],
  ids: Sequence[np.ndarray],
  cutoff: float,
) -> list[Poses]:
  """Poses through the One-Euro filter, with any ids."""
  smoother = smooth_lib.Smoother(min_cutoff=cutoff)
  return [
    dataclasses.replace(
      of, keypoints=smoother(who, of.keypoints, of.scores, frame.seconds)
    )
    for frame, of, who in zip(frames, poses, ids, strict=True)
  ]


def switches(
  frames: Sequence[Frame], ids: Sequence[np.ndarray]
) -> tuple[int, int]:
  """Identity switches, and how many ids were given."""
  last: dict[int, int] = {}
  count = 0
  for frame, given in zip(frames, ids, strict=True):
    now = dict(zip(frame.people.tolist(), given.tolist(), strict=True))
    count += sum(last.get(person, i) != i for person, i in now.items())
    last |= now
  return count, len(set(np.concatenate(ids).tolist()))


def jitter_and_error(
  frames: Sequence[Frame], keypoints: Sequence[np.ndarray]
) -> tuple[float, float]:
  """Percent of the box size."""
  people = 1 + max(int(f.people.max(initial=0)) for f in frames)
  points = np.full((len(frames), people, 17, 2), np.nan)
  off = np.full((len(frames), people, 17), np.nan)
  sizes = np.full((len(frames), people, 1), np.nan)
  for n, (frame, found) in enumerate(zip(frames, keypoints, strict=True)):
    shown = np.where(frame.shown[..., None], found, np.nan)
    points[n, frame.people] = shown
    off[n, frame.people] = np.linalg.norm(shown - frame.truth, axis=-1)
    sizes[n, frame.people, 0] = frame.sizes
  second = np.linalg.norm(np.diff(points, 2, axis=0), axis=-1) / sizes[1:-1]
  return 100 * float(np.nanmean(second)), 100 * float(np.nanmean(off / sizes))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--weights", default="", help="as `tokenpose predict`")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--seconds", type=float, default=30.0)
  arguments = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "drawn.mp4")
    frames = draw(path, arguments.seed, round(arguments.seconds * RATE))
    seen = np.concatenate([frame.people for frame in frames])
    print(
      f"{len(frames)} frames, {len(set(seen.tolist()))} people, {len(seen)}"
      f" boxes; {arguments.weights or 'noisy truth'}, seed {arguments.seed}"
    )
    estimator = (
      tp.load(arguments.weights)
      if arguments.weights
      else NoisyTruth(frames, arguments.seed)
    )
    start = time.perf_counter()
    raw = run(path, frames, estimator, track=False)
    rate = len(frames) / (time.perf_counter() - start)
    print(f"{rate:.1f} frames/s, from the file to keypoints")
    report(path, frames, raw.poses)


def report(path: str, frames: Sequence[Frame], poses: Sequence[Poses]) -> None:
  """Prints the table of all ways."""
  still = jitter_and_error(frames, [frame.truth for frame in frames])[0]
  print(f"{'ids, smoothing':<32}{'switches':>9}{'ids':>5}{'jitter':>8}  error")
  row("truth", None, (still, 0.0))
  points = [of.keypoints for of in poses]
  row("none, none", None, jitter_and_error(frames, points))
  simple = nearest_centers(frames)
  for cutoff in (0.0, *CUTOFFS):
    name = f"{cutoff:g} Hz" if cutoff else "none"
    tracked = run(path, frames, Replay(poses), smooth=cutoff)
    found = smoothed(frames, poses, simple, cutoff) if cutoff else poses
    for who, ids, people in (
      ("nearest center", simple, found),
      ("tracked", tracked.ids, tracked.poses),
    ):
      points = [of.keypoints for of in people]
      row(
        f"{who}, {name}",
        switches(frames, ids),
        jitter_and_error(frames, points),
      )


def row(
  name: str, ids: tuple[int, int] | None, values: tuple[float, float]
) -> None:
  count, given = ids or ("", "")
  jitter, error = values
  print(f"{name:<32}{count:>9}{given:>5}{jitter:>7.2f}%{error:>6.2f}%")


if __name__ == "__main__":
  main()
