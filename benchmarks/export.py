"""How exact, how large and how fast exports are, beside the network itself.

    python -m benchmarks.export                          # four published ones
    python -m benchmarks.export runs/demo data/synthetic test

With a work directory, a COCO folder and a split: also the AP through every
format, from annotated boxes, as `tokenpose predict --weights DIR` runs them.
"""

import contextlib
import io
import json
import os
import pathlib
import sys
import tempfile
import time

import cv2
import jax
import numpy as np

import tokenpose_jax as tp
from tokenpose_jax import cli, convert, exported
from tokenpose_jax.export import command

PUBLISHED = (
  *("tokenpose_t", "tokenpose_s_v1", "tokenpose_b", "tokenpose_l_d24"),
)


def with_statistics(model, seed=0):
  """Weights whose batch norms do something."""
  rng = np.random.default_rng(seed)

  def changed(path, leaf):
    name = jax.tree_util.keystr(path)
    if "norm" in name and ("mean" in name or "var" in name):
      return (leaf + rng.uniform(0, 0.5, leaf.shape)).astype(np.float32)
    return leaf

  tree = tp.init(model, seed=seed, scheme="fan_in")
  return jax.tree_util.tree_map_with_path(changed, tree)


def export(source: str, folder: str, names: list[str]) -> float:
  """Seconds that it took."""
  import argparse

  parser = argparse.ArgumentParser()
  command.add_arguments(parser)
  start = time.monotonic()
  with contextlib.redirect_stdout(io.StringIO()):
    command.run(
      parser.parse_args([source, folder, f"--format={','.join(names)}"])
    )
  return time.monotonic() - start


def size_of(path: pathlib.Path) -> float:
  """Megabytes of a file or a folder."""
  files = (
    [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
  )
  return sum(p.stat().st_size for p in files) / 1e6


def rows_of(title: str, source: str, folder: str, names: list[str]) -> None:
  """A row for each format."""
  seconds = export(source, folder, names)
  parity = json.loads((pathlib.Path(folder) / exported.PARITY).read_text())
  for name, difference in parity.items():
    size = size_of(pathlib.Path(folder) / exported.FILES[name])
    print(
      f"| {title} | {name} | {difference['heatmaps']:.1e} |"
      f" {difference['pixels']:.4f} | {difference['milliseconds']:.1f} |"
      f" {size:.1f} |"
    )
  print(f"(exported in {seconds:.0f} s)", file=sys.stderr)


def published(folder: str) -> None:
  """The published networks, with random weights."""
  for name in PUBLISHED:
    model = tp.published[name]
    file = os.path.join(folder, f"{name}.safetensors")
    convert.write_state_dict(
      file, tp.export_torch(model, *with_statistics(model))
    )
    rows_of(
      name,
      file,
      os.path.join(folder, name),
      ["onnx", "stablehlo", "litert"],
    )


def trained(workdir: str, data: str, split: str, folder: str) -> None:
  """A trained network in every format, and what each one reaches."""
  out = os.path.join(folder, "all")
  rows_of("trained", workdir, out, list(exported.FILES))
  path = f"{data}/annotations/person_keypoints_{split}.json"
  with open(path) as file:
    content = json.load(file)
  people: dict[int, list] = {}
  for entry in content["annotations"]:
    people.setdefault(entry["image_id"], []).append(entry["bbox"])
  images = [i for i in content["images"] if i["id"] in people]
  pictures = [
    np.ascontiguousarray(
      cv2.imread(f"{data}/{split}/{i['file_name']}")[..., ::-1]
    )
    for i in images
  ]
  boxes = [people[i["id"]] for i in images]
  own = None
  print("\n| format | AP | AR | largest difference of a sure keypoint, px |")
  print("| --- | --- | --- | --- |")
  for name in ("checkpoint", *exported.FILES):
    if name == "checkpoint":
      estimator = tp.load(workdir)
    else:
      estimator = tp.load(out, format=name)
    found = estimator(pictures, boxes)
    results = [
      result
      for image, poses in zip(images, found, strict=True)
      for result in poses.to_coco(image["id"])
    ]
    figures = tp.metrics.coco.evaluate(content, results)
    points = np.concatenate([p.keypoints for p in found])
    sure = np.concatenate([p.scores for p in found]) > exported.SURE
    own = points if own is None else own
    away = np.abs(points - own).max(-1)[sure].max()
    print(
      f"| {name} | {figures['AP']:.4f} | {figures['AR']:.4f} | {away:.4f} |"
    )


def main() -> None:
  cli.quiet_tensorflow()
  print("| network | format | heatmaps | pixels | ms a crop | MB |")
  print("| --- | --- | --- | --- | --- | --- |")
  with tempfile.TemporaryDirectory() as folder:
    if len(sys.argv) == 4:
      trained(*sys.argv[1:], folder)
    else:
      published(folder)


if __name__ == "__main__":
  main()
