"""A COCO folder of 640x480 images for speed: texture, boxes, no meaning."""

import json
import os

import cv2
import numpy as np

SPLIT = "drawn"
IMAGES = 200


def write(folder: str) -> str:
  """Writes the folder; JPEGs of quality 90 and about 120 kB, one or two people.

  Their boxes are as large as COCO's often are: a crop reads a fifth to a third
  of the image.
  """
  rng = np.random.Generator(np.random.PCG64(0))
  os.makedirs(f"{folder}/annotations")
  os.makedirs(f"{folder}/{SPLIT}")
  images, people = [], []
  for number in range(1, IMAGES + 1):
    name = f"{number:06d}.jpg"
    cv2.imwrite(
      f"{folder}/{SPLIT}/{name}", texture(rng), (cv2.IMWRITE_JPEG_QUALITY, 90)
    )
    images.append(
      {"id": number, "file_name": name, "height": 480, "width": 640}
    )
    people += [person(rng, number, len(people) + n) for n in range(1, 3)]
  content = {"images": images, "annotations": people, "categories": []}
  with open(f"{folder}/annotations/person_keypoints_{SPLIT}.json", "w") as file:
    json.dump(content, file)
  return folder


def texture(rng: np.random.Generator) -> np.ndarray:
  """(480, 640, 3) uint8: noise of several sizes, as photos have."""
  image = np.full((480, 640, 3), 128.0)
  for cell, height in ((160, 50), (40, 30), (10, 18), (3, 12), (1, 10)):
    noise = rng.standard_normal((480 // cell + 2, 640 // cell + 2, 3)) * height
    image += cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC)
  return np.clip(image, 0, 255).astype(np.uint8)


def person(rng: np.random.Generator, image: int, number: int) -> dict:
  height = rng.uniform(90, 370)
  width = height * rng.uniform(0.35, 0.8)
  x, y = rng.uniform(0, 640 - width), rng.uniform(0, 480 - height)
  points = np.full((17, 3), 2.0)
  points[:, :2] = (x, y) + rng.random((17, 2)) * (width, height)
  return {
    "id": number,
    "image_id": image,
    "category_id": 1,
    "iscrowd": 0,
    "bbox": [x, y, width, height],
    "area": width * height / 2,
    "num_keypoints": 17,
    "keypoints": points.round(1).ravel().tolist(),
  }
