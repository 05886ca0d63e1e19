"""Writes synthetic people as an ordinary COCO keypoint folder.

The folder is what `people_lib.draw_image` draws, in the layout of the
official one, so that the COCO reader needs to know nothing about it.
"""

import json
import os

import cv2
import numpy as np
import tensorflow as tf
from absl import logging

from input_pipeline import files
from input_pipeline.synthetic import people as people_lib
from tokenpose_jax import json_files, skeletons
from tokenpose_jax.errors import InputError

MARKER = "synthetic.json"
_TRAIN, _TEST, _DETECTIONS = 0, 1, 2  # the split numbers, one stream each
_FIRST_ID = {"train": 1, "test": 500_000_001}
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 90)


def write_coco_folder(
  folder: str,
  *,
  seed: int = 0,
  train_people: int = 2400,
  test_people: int = 240,
) -> None:
  """Draws people and writes them as a COCO folder.

  Writes `train/*.jpg`, `test/*.jpg`,
  `annotations/person_keypoints_{train,test}.json` and
  `person_detection_results/detections_test.json`. Images are drawn in order
  until a split holds at least the asked number of people. Returns at once
  where the folder is complete already for the same arguments; an interrupted
  or an older folder of this function is written again.

  Args:
    folder: a directory, local or gs://; made if missing.
    seed: the same seed gives the same bytes.
    train_people: at least 1.
    test_people: at least 1.

  Raises:
    InputError: a number is out of range, the folder holds files that this
      function did not write, or it cannot be written.
  """
  if train_people < 1 or test_people < 1:
    raise InputError(
      f"train_people {train_people}, test_people {test_people}: expected at"
      " least 1 of each"
    )
  wanted = {
    "seed": seed,
    "train_people": train_people,
    "test_people": test_people,
    "generator_version": people_lib.GENERATOR_VERSION,
  }
  try:
    _write_folder(folder, wanted)
  except (OSError, tf.errors.OpError) as error:
    raise files.unwritable("data.dir", folder, error) from None


def _write_folder(folder: str, wanted: dict[str, int]) -> None:
  """Draws a folder that is not complete yet.

  Args:
    folder: to be written.
    wanted: the marker, which says what is drawn.
  """
  tf.io.gfile.makedirs(folder)
  marker = _read_marker(folder)
  if marker == {**wanted, "complete": True}:
    logging.info("synthetic people: %s is complete", folder)
    return
  _write_json(folder, MARKER, {**wanted, "complete": False})
  for name in ("train", "test", "annotations", "person_detection_results"):
    path = os.path.join(folder, name)
    # Images of an earlier run must not stay among the new ones.
    if marker is not None and tf.io.gfile.exists(path):
      tf.io.gfile.rmtree(path)
    tf.io.gfile.makedirs(path)
  seed = wanted["seed"]
  _write_split(folder, "train", seed, _TRAIN, wanted["train_people"])
  test = _write_split(folder, "test", seed, _TEST, wanted["test_people"])
  _write_json(
    folder,
    "person_detection_results/detections_test.json",
    _detections(seed, test),
  )
  _write_json(folder, MARKER, {**wanted, "complete": True})


def _read_marker(folder: str) -> dict | None:
  """The marker of this function; None where the folder is empty or missing."""
  path = os.path.join(folder, MARKER)
  if tf.io.gfile.exists(path):
    with tf.io.gfile.GFile(path) as file:
      text = file.read()
    try:
      marker = json_files.parse(text, path)
    except InputError:
      return {}  # writing it was interrupted
    if isinstance(marker, dict) and "generator_version" in marker:
      return marker
  elif not (tf.io.gfile.exists(folder) and tf.io.gfile.listdir(folder)):
    return None
  raise InputError(
    f"{folder} is not empty and holds no {MARKER} of synthetic people, so it"
    " is not theirs to overwrite: name another folder, or empty this one"
  )


def _write_json(folder: str, name: str, content) -> None:
  with tf.io.gfile.GFile(os.path.join(folder, name), "w") as file:
    file.write(json.dumps(content, separators=(",", ":")))


def _write_split(
  folder: str, name: str, seed: int, split: int, people: int
) -> dict:
  """Writes images and annotations of a split; returns the annotation file."""
  images: list[dict] = []
  annotations: list[dict] = []
  while len(annotations) < people:
    number = len(images)
    pixels, drawn = people_lib.draw_image(seed, split, number)
    _, jpeg = cv2.imencode(".jpg", pixels[..., ::-1], _JPEG)
    image_id = _FIRST_ID[name] + number
    file_name = f"{image_id:012d}.jpg"
    path = os.path.join(folder, name, file_name)
    with tf.io.gfile.GFile(path, "wb") as file:
      file.write(jpeg.tobytes())
    height, width = pixels.shape[:2]
    images.append(
      {"id": image_id, "file_name": file_name, "width": width, "height": height}
    )
    for person in drawn:
      annotation_id = _FIRST_ID[name] + len(annotations)
      annotations.append(_annotation(annotation_id, image_id, person))
  logging.info(
    "synthetic people: %d people in %d images -> %s",
    len(annotations),
    len(images),
    os.path.join(folder, name),
  )
  content = {
    "info": {
      "description": f"tokenpose_jax synthetic people, {name}, seed {seed}",
      "version": str(people_lib.GENERATOR_VERSION),
    },
    "licenses": [],
    "images": images,
    "annotations": annotations,
    "categories": [_category()],
  }
  _write_json(folder, f"annotations/person_keypoints_{name}.json", content)
  return content


def _annotation(annotation_id: int, image_id: int, person: dict) -> dict:
  keypoints = []
  for x, y, v in person["keypoints"].tolist():
    keypoints += [x, y, int(v)]
  return {
    "id": annotation_id,
    "image_id": image_id,
    "category_id": 1,
    "bbox": person["bbox"].tolist(),
    "area": person["area"],
    "iscrowd": 0,
    "num_keypoints": int((person["keypoints"][:, 2] > 0).sum()),
    "keypoints": keypoints,
    "head_box": person["head_box"].tolist(),
  }


def _category() -> dict:
  skeleton = skeletons.COCO_17
  return {
    "supercategory": "person",
    "id": 1,
    "name": "person",
    "keypoints": list(skeleton.keypoints),
    "skeleton": [[a + 1, b + 1] for a, b in skeleton.limbs],
  }


def _detections(seed: int, split: dict) -> list[dict]:
  """Boxes as a person detector would give them, in COCO results format.

  Mostly the true boxes, shifted and scaled a little; now and then one twice,
  one missed, or one where nobody is. Scores tell them apart as well as a
  detector's do.
  """
  key = np.array([seed, _DETECTIONS << 32], np.uint64)
  rng = np.random.Generator(np.random.Philox(key=key))
  people: dict[int, list] = {image["id"]: [] for image in split["images"]}
  for annotation in split["annotations"]:
    people[annotation["image_id"]].append(annotation["bbox"])
  found = []

  def add(image, box, score):
    """Clips a box (x, y, w, h) to the image, as detectors do."""
    size = np.array([image["width"], image["height"]])
    low = np.clip(box[:2], 0, size - 2)
    high = np.clip(np.add(box[:2], box[2:]), low + 1, size)
    found.append(
      {
        "image_id": image["id"],
        "category_id": 1,
        "bbox": np.concatenate([low, high - low]).round(2).tolist(),
        "score": round(float(np.clip(score, 0.001, 0.999)), 4),
      }
    )

  for image in split["images"]:
    for box in people[image["id"]]:
      if rng.random() > 0.02:
        add(image, _jitter(rng, box, 0.025), 1 - 0.25 * rng.beta(1.2, 5))
      if rng.random() < 0.15:
        add(image, _jitter(rng, box, 0.09), rng.uniform(0.1, 0.6))
    for _ in range(rng.poisson(0.5)):
      low = rng.uniform(0, 0.7, 2) * (image["width"], image["height"])
      size = rng.uniform((20, 40), (100, 200))
      add(image, [*low, *size], rng.beta(1.2, 6))
  return found


def _jitter(rng, box, spread: float) -> np.ndarray:
  """(4,) box x, y, w, h with each edge moved by about `spread` of its size."""
  low, size = np.array(box[:2]), np.array(box[2:])
  edges = rng.normal(0, spread, (2, 2)) * size
  return np.concatenate([low + edges[0], size + edges[1] - edges[0]])
