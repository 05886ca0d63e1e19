"""Where the tests find reference fixtures, and the rules that make weights."""

import collections
import contextlib
import functools
import json
import os
import pathlib
import resource
import zlib

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict

from input_pipeline import batches, datasets
from input_pipeline.image_crops import ImageCropReader
from tokenpose_jax.errors import InputError

ROOT = pathlib.Path(__file__).resolve().parent.parent
# The full set, or where that is not available the part that the repository
# holds: T, S-v1 and L-D24 (tests/parity/README.md).
_ALL, STORED = ROOT.parent / "shared" / "parity", ROOT / "tests" / "parity"
PARITY = pathlib.Path(
  os.environ.get("TOKENPOSE_FIXTURES", _ALL if _ALL.exists() else STORED)
)
DATA = ROOT.parent / "shared" / "data"


def require(path: pathlib.Path) -> pathlib.Path:
  """The path, or a loud skip where it is missing."""
  if not path.exists():
    pytest.skip(f"reference data not found: {path}")
  return path


def load(stem: str) -> tuple[dict, dict[str, np.ndarray]]:
  """A fixture's JSON and its arrays."""
  path = require(PARITY / f"{stem}.json")
  with np.load(path.with_suffix(".npz")) as arrays:
    return json.loads(path.read_text()), dict(arrays)


def rng(seed: int) -> np.random.Generator:
  return np.random.Generator(np.random.PCG64(seed=seed))


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """tests/parity/README.md, weight rule: every weight follows from its name."""
  n = rng(zlib.crc32(name.encode())).standard_normal(shape)
  if name.endswith("running_mean"):
    n = 0.1 * n
  elif name.endswith("running_var"):
    n = np.exp(0.2 * n)
  elif name.endswith("keypoint_token"):
    n = 0.02 * n
  elif len(shape) >= 2:
    n = n / np.sqrt(np.prod(shape[1:]))
    if name.endswith("to_qkv.weight"):
      n = 2 * n
  elif name.endswith("weight"):
    n = 1 + 0.1 * n
  else:
    n = 0.02 * n
  return n.astype(np.float32)


def state_dict(fixture: dict, pos_embedding: np.ndarray) -> dict:
  """The weights of a model fixture under the original's names."""
  state = {}
  for entry in fixture["state_dict"]:
    name, shape = entry["name"], tuple(entry["shape"])
    if name.endswith("num_batches_tracked"):
      # Counters have no rule; these tell layers apart.
      state[name] = np.array(zlib.crc32(name.encode()) % 10**6, np.int64)
    elif name.endswith("pos_embedding"):
      state[name] = np.broadcast_to(pos_embedding, shape)
    else:
      state[name] = weight(name, shape)
  return state


def images(height: int, width: int, batch: int = 2, seed: int = 12345):
  """tests/parity/README.md, input rule: the input, (B, H, W, 3) float32."""
  g = rng(seed)
  coarse = g.standard_normal((batch, 3, height // 32, width // 32))
  fine = g.standard_normal((batch, 3, height, width))
  coarse = coarse.repeat(32, axis=2).repeat(32, axis=3)
  return (coarse + 0.5 * fine).astype(np.float32).transpose(0, 2, 3, 1)


def model_fields(config: dict) -> dict:
  """`config.model` of a model fixture's `config`."""

  def hw(wh):
    return (wh[1], wh[0])

  backbone = {"none": "none", "stem+layer1": "stem"}.get(config["backbone"])
  if backbone is None:
    backbone = "hrnet_" + config["backbone"].split("-")[1].split()[0].lower()
  rule = config["attention_scale_rule"]
  return dict(
    input_hw=hw(config["image_size_wh"]),
    heatmap_hw=hw(config["heatmap_size_wh"]),
    num_keypoints=config["num_joints"],
    backbone=backbone,
    stem_channels=64,
    patch_hw=hw(config["patch_size_wh"]),
    dim=config["dim"],
    depth=config["depth_per_stack"],
    stacks=config["stacks"],
    heads=config["heads"],
    attention_scale="head" if "//heads" in rule else "width",
    mlp_ratio=config["mlp_ratio"],
    position=config["pos_embedding"],
    head_dim=384 if len(config["head"]) == 4 else 0,
    dtype="float32",
  )


def model_stems() -> list[str]:
  """Every model fixture of the directory, without its ending."""
  return sorted(path.stem for path in PARITY.glob("model_*.json"))


@functools.cache
def expected() -> dict:
  """What the original made of the images and annotations (reference 4)."""
  return json.loads(require(PARITY / "data" / "expected.json").read_text())


@functools.cache
def case_names() -> tuple[str, ...]:
  """The people of `expected`; one stand-in, to skip loudly, without it."""
  path = PARITY / "data" / "expected.json"
  if not path.exists():
    return ("missing",)
  return tuple(case["name"] for case in expected()["cases"])


def case(name: str) -> dict:
  """The person of that name, with the settings of its dataset."""
  (found,) = (c for c in expected()["cases"] if c["name"] == name)
  settings = expected()[f"{found['dataset']}_settings"]
  return {**found, "settings": settings}


def smooth_image(height: int, width: int, color: tuple[int, int, int]):
  """(height, width, 3) uint8 RGB: a gentle gradient around a colour."""
  y, x = np.mgrid[:height, :width]
  wave = 20 * (x / width - 0.5) + 20 * (y / height - 0.5)
  return np.clip(np.array(color) + wave[..., None], 0, 255).astype(np.uint8)


def encode(image: np.ndarray, suffix: str = ".jpg") -> bytes:
  """An RGB or grey image in the format of that file ending."""
  image = image[..., ::-1] if image.ndim == 3 else image
  return cv2.imencode(suffix, image)[1].tobytes()


def person(image_id: int, box: tuple[float, ...], **fields) -> dict:
  """A COCO annotation: 17 labelled keypoints on the box's diagonal."""
  x, y, w, h = box
  along = np.linspace(0.1, 0.9, 17)
  points = np.stack([x + along * w, y + along * h, np.full(17, 2)], 1)
  annotation = {
    "image_id": image_id,
    "bbox": list(box),
    "area": w * h,
    "iscrowd": 0,
    "category_id": 1,
    "num_keypoints": 17,
    "keypoints": points.round(2).ravel().tolist(),
  }
  return {**annotation, **fields}


def coco_folder(
  path: pathlib.Path,
  images: dict[str, bytes],
  sizes: dict[str, tuple[int, int]],
  annotations: list[dict] | None = None,
  split: str = "train",
) -> dict:
  """Writes a COCO keypoint folder.

  Args:
    path: of the folder.
    images: the files' bytes; the n-th image's id is 100 - n.
    sizes: (height, width) by file name.
    annotations: of people; by default one box in the middle of each image.

  Returns:
    the content of the annotation file.
  """
  ids = {name: 100 - number for number, name in enumerate(images)}
  if annotations is None:
    annotations = []
    for name, (height, width) in sizes.items():
      box = (width * 0.25, height * 0.25, width * 0.5, height * 0.5)
      annotations.append(person(ids[name], box))
  content = {
    "images": [
      {
        "id": number,
        "file_name": name,
        "height": sizes[name][0],
        "width": sizes[name][1],
      }
      for name, number in ids.items()
    ],
    "annotations": [
      {"id": number, **annotation}
      for number, annotation in enumerate(annotations, 1)
    ],
    "categories": [{"id": 1, "name": "person"}],
  }
  (path / "annotations").mkdir(parents=True, exist_ok=True)
  (path / split).mkdir(exist_ok=True)
  for name, encoded in images.items():
    (path / split / name).write_bytes(encoded)
  file = path / "annotations" / f"person_keypoints_{split}.json"
  file.write_text(json.dumps(content))
  return content


def check_refused(call, *parts):
  """`call` raises an InputError of one line that holds all the parts."""
  with pytest.raises(InputError) as error:
    call()
  message = str(error.value)
  assert "\n" not in message
  for part in parts:
    assert str(part) in message


@contextlib.contextmanager
def small_files(most: int):
  """No file can be made larger, as on a disk that is full."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


# JSON that no reader of Python can follow to its end.
DEEP = "[" * 200_000


# What other people's files may hold in the place of anything.
ODD = (
  *(None, "x", [], [1], {}, {"a": 1}, True, float("nan"), float("inf")),
  *(-1, 10**400, 1e308, 0),
)


def fuzz(content, entry, check) -> collections.Counter[str]:
  """`check(content)` for every odd value of every field of an entry of it.

  Returns:
    how many were "right" (`check` returned) or "refused" (InputError, one
    line); nothing else is expected.
  """
  count = collections.Counter()
  for field, kept in list(entry.items()):
    for value in (*ODD, "missing"):
      if value == "missing":
        del entry[field]
      else:
        entry[field] = value
      try:
        check(content)
        count["right"] += 1
      except InputError as error:
        lines = str(error).count("\n") + 1
        count["refused" if lines == 1 else f"refused in {lines} lines"] += 1
      entry[field] = kept
  assert {*count} <= {"right", "refused"}
  return count


def data_of(folder, category="") -> ConfigDict:
  """`config.data` of a folder, as far as annotations are read from it."""
  return ConfigDict({"dir": str(folder), "category": category})


def prepare(config: ConfigDict, split: str) -> datasets.Split:
  """Opens a split as a run does."""
  skeleton = datasets.skeleton_of(config.data, split)
  return datasets.prepare(config.data, split, skeleton)


def train_batches(config, split, people, reader=None, **options):
  """A run's training batches, read as the config says."""
  reader = reader or batches.train_reader(config, split, people)
  one = batches.TrainSet(config, split, people, reader)
  return batches.train_batches([one], **options)


def eval_batches(config, split, people, **options):
  """One pass over people."""
  reader = ImageCropReader(split.store, people.image)
  return batches.eval_batches(config, people, reader, **options)


def train_stems() -> list[str]:
  """Every training fixture of the directory, without its ending."""
  return sorted(path.stem for path in PARITY.glob("train_*.json"))


def eval_cases(stem: str) -> tuple[str, ...]:
  """The cases of a file of eval/; one stand-in, to skip loudly, without it."""
  path = PARITY / "eval" / f"{stem}.json"
  return tuple(json.loads(path.read_text())) if path.exists() else ("missing",)


def eval_case(stem: str, name: str) -> tuple[dict, dict[str, np.ndarray]]:
  """One case's facts, and its arrays by their short names."""
  facts, arrays = load(f"eval/{stem}")
  prefix = f"{name}/"
  return facts[name], {
    key.removeprefix(prefix): value
    for key, value in arrays.items()
    if key.startswith(prefix)
  }


def backbone_of(path: pathlib.Path) -> str:
  """The backbone of a model fixture's JSON file."""
  fields = model_fields(json.loads(path.read_text())["config"])
  return fields["backbone"]
