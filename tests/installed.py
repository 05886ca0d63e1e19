"""What must work where the wheel alone is installed (`make wheel`).

python -I tests/installed.py PATH_OF_THE_COMMAND_TOKENPOSE
"""

import importlib.util
import pathlib
import subprocess
import sys

import cv2
import numpy as np

import tokenpose_jax as tp
from tokenpose_jax import convert
from tokenpose_jax.predict import saved

CHECKOUT = pathlib.Path(__file__).resolve().parents[1]


def run(*arguments: str) -> str:
  """The output of the installed command."""
  return subprocess.run(
    [sys.argv[1], *arguments], check=True, capture_output=True, text=True
  ).stdout


def main() -> None:
  for absent in ("tensorflow", "configs", "input_pipeline", "tests"):
    assert importlib.util.find_spec(absent) is None, absent
  model = tp.ModelConfig(
    input_hw=(64, 48), stem_channels=8, dim=32, depth=1, heads=2, head_dim=32
  )
  params, model_state = tp.init(model, seed=0)
  images = np.zeros((2, 64, 48, 3), np.float32)
  heatmaps = tp.apply(model, params, model_state, images)
  assert heatmaps.shape == (2, 17, 16, 12)
  assert len(tp.published) == 9
  person = {
    "id": 1,
    "image_id": 1,
    "category_id": 1,
    "iscrowd": 0,
    "area": 400.0,
    "bbox": [0, 0, 20, 20],
    "num_keypoints": 17,
    "keypoints": [5.0, 6.0, 2] * 17,
  }
  truth = {
    "images": [{"id": 1}],
    "categories": [{"id": 1, "name": "person"}],
    "annotations": [person],
  }
  figures = tp.metrics.coco.evaluate(truth, [{**person, "score": 1.0}])
  assert abs(figures["AP"] - 1) < 1e-9, figures
  assert tp.__version__ in run("--version")
  assert "6,620,736" in run("cost", "tokenpose_s_v1")
  weights = tp.export_torch(model, params, model_state)
  convert.write_state_dict("weights.safetensors", weights)
  assert "model.dim = 32" in run("convert", "inspect", "weights.safetensors")
  run("convert", "import", "weights.safetensors", "run", "--heads=2")
  run("convert", "export", "run", "again.safetensors")
  again = convert.read_state_dict("again.safetensors")
  assert all(np.array_equal(again[name], weights[name]) for name in weights)
  photo = np.zeros((90, 60, 3), np.uint8)
  poses = tp.load("run")(photo, [[5, 5, 40, 80], [5, 5, 0, 0]])
  assert poses.keypoints.shape == (2, 17, 2)
  assert np.isnan(poses.keypoints[1]).all()
  assert len(poses.to_coco("a.jpg")) == 1
  run("publish", "run", "published")
  again = tp.from_pretrained("published")(photo, [[5, 5, 40, 80]])
  assert np.array_equal(again.keypoints, poses.keypoints[:1])
  cv2.imwrite("photo.png", photo)
  run("predict", "photo.png", "--out=found", "--weights=run")
  # The wheel has the weights that the checkout has, if any.
  own = CHECKOUT / saved.PACKAGED.relative_to(
    pathlib.Path(tp.__file__).parents[1]
  )
  assert saved.PACKAGED.is_dir() == own.is_dir(), saved.PACKAGED
  if own.is_dir():
    for file in own.iterdir():
      assert (saved.PACKAGED / file.name).read_bytes() == file.read_bytes()
    said = run("predict", "photo.png", "--out=found_by_ours")
    assert "weights: small, which come with the package" in said
    assert "1 photos and frames, 1 people" in said
  print(f"the installed wheel works; with weights: {own.is_dir()}")


if __name__ == "__main__":
  main()
