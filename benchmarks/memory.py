"""Memory of a training on a set of COCO's size, minute by minute.

    python -m benchmarks.memory
    python -m benchmarks.memory --minutes=30

118,000 images and 150,000 people, a fiftieth of them in a second split that is
evaluated after each epoch. Annotations are as long as COCO's, with outlines of
as many points; the images are links to a few small ones, so that no disk is
filled. A real `main.py` trains a tiny network on crops of 256x192, the people
of a batch of 128 at a time: what is measured is the data's side and what grows.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping

import cv2
import numpy as np

from benchmarks import environment, tables

SPLITS = {"train": (118_000, 150_000), "val": (2_360, 3_000)}
FILES = 20  # that the images are links to
OUTLINE = 60  # numbers of a person's outline, COCO's mean

FLAGS = {
  "data.name": "coco",
  "data.train_split": "train",
  "data.eval_split": "val",
  "model.depth": 1,
  "model.dim": 32,
  "model.heads": 2,
  "model.patch_hw": "(64,48)",
  "train.eval_every_epochs": 1,
  "train.log_every": 50,
  "checkpoint.every_steps": 200,
}


def write(folder: str) -> None:
  """Writes a COCO folder of both splits."""
  os.makedirs(f"{folder}/annotations")
  rng = np.random.default_rng(0)
  for name, (images, people) in SPLITS.items():
    os.makedirs(f"{folder}/{name}")
    for number in range(images):
      path = f"{folder}/{name}/{number:012d}.jpg"
      first = f"{folder}/{name}/{number % FILES:012d}.jpg"
      if path == first:
        coarse = rng.integers(0, 255, (6, 8, 3), np.uint8)
        cv2.imwrite(path, cv2.resize(coarse, (640, 480)))
      else:
        os.link(first, path)
    content = {
      "images": [
        {
          "id": number,
          "file_name": f"{number:012d}.jpg",
          "height": 480,
          "width": 640,
          "date_captured": "2013-11-14 16:28:13",
        }
        for number in range(images)
      ],
      "annotations": [
        person(rng, number, number % images) for number in range(people)
      ],
      "categories": [{"id": 1, "name": "person"}],
    }
    with open(f"{folder}/annotations/person_keypoints_{name}.json", "w") as f:
      json.dump(content, f)


def person(rng: np.random.Generator, number: int, image: int) -> dict:
  size = rng.uniform(40, 240, 2)
  corner = rng.uniform(0, np.array([640, 480]) - size)
  points = np.full((17, 3), 2.0)
  points[:, :2] = corner + rng.random((17, 2)) * size
  outline = corner + rng.random((OUTLINE // 2, 2)) * size
  return {
    "id": number,
    "image_id": image,
    "category_id": 1,
    "iscrowd": 0,
    "bbox": [*corner.round(2).tolist(), *size.round(2).tolist()],
    "area": float(size.prod().round(2)) / 2,
    "num_keypoints": 17,
    "keypoints": points.round().astype(int).ravel().tolist(),
    "segmentation": [outline.round(2).ravel().tolist()],
  }


def measure(folder: str, minutes: int) -> Iterator[tuple[str, float]]:
  """Megabytes (resident) of a training, at each minute, and the peak."""
  flags: Mapping[str, object] = FLAGS | {
    "data.dir": f"{folder}/coco",
    "data.prepared_dir": f"{folder}/prepared",
  }
  with open(f"{folder}/log", "w+") as log:
    child = subprocess.Popen(
      [
        *(sys.executable, "main.py", "--config=configs/tokenpose_t.py"),
        f"--workdir={folder}/run",
        *(f"--config.{name}={value}" for name, value in flags.items()),
      ],
      env=environment.plain(),
      stderr=log,
    )
    minute, peak = 0, 0.0
    while minute < minutes:
      time.sleep(60)
      if child.poll() is not None:
        break
      minute += 1
      now, peak = resident(child.pid)
      yield f"minute {minute}", now
    child.terminate()
    if child.wait() != 128 + signal.SIGTERM:
      log.seek(0)
      sys.exit(f"error: the training failed:\n{log.read()}")
  yield "the most at any time", peak


def resident(process: int) -> tuple[float, float]:
  """Megabytes of a process now, and the most so far."""
  with open(f"/proc/{process}/status") as file:
    lines = dict(line.split(":", 1) for line in file)
  now, most = (int(lines[n].split()[0]) / 1024 for n in ("VmRSS", "VmHWM"))
  return now, most


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--minutes", type=int, default=5)
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    write(f"{folder}/coco")
    print(tables.markdown(("resident memory", "MB"), []), flush=True)
    for name, megabytes in measure(folder, options.minutes):
      print(f"| {name} | {megabytes:.0f} |", flush=True)


if __name__ == "__main__":
  main()
