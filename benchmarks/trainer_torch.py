"""The PyTorch side of `benchmarks.train_torch`: an ordinary training.

    .venv/torch/bin/python -m benchmarks.trainer_torch FOLDER

Reads FOLDER/run.json and FOLDER/people.npz, trains the peer network
(peers_torch.py) with the usual loader (usual_loader.py) in a DataLoader, and
writes what it finds of the evaluation's boxes to FOLDER/found.npz. Imports
PyTorch, OpenCV and NumPy alone.
"""

import json
import math
import pathlib
import sys
import time

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks import peers_torch, usual_loader


class People(Dataset):
  """The people of an epoch, drawn anew each time."""

  def __init__(self, people, settings, seed):
    self._people, self._settings, self._seed = people, settings, seed
    self.epoch = 0
    cv2.setNumThreads(1)

  def __len__(self):
    return len(self._people["path"])

  def __getitem__(self, item):
    # The sampler sends (place in the run, person).
    place, person = divmod(int(item), len(self))
    rng = np.random.default_rng([self._seed, place])
    people = self._people
    return usual_loader.load(
      str(people["path"][person]),
      people["center"][person],
      people["scale"][person],
      people["keypoints"][person],
      people["visible"][person],
      rng=rng,
      settings=self._settings,
    )


class Crops(Dataset):
  """The boxes of an evaluation."""

  def __init__(self, boxes, settings):
    self._boxes, self._settings = boxes, settings

  def __len__(self):
    return len(self._boxes["path"])

  def __getitem__(self, item):
    height, width = self._settings.input_hw
    image = cv2.imread(
      str(self._boxes["path"][item]),
      cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION,
    )
    affine = usual_loader.affine_of(
      self._boxes["center"][item],
      self._boxes["scale"][item],
      0.0,
      (width, height),
    )
    crop = cv2.warpAffine(image, affine, (width, height))
    return usual_loader.normalized(cv2.cvtColor(crop, cv2.COLOR_BGR2RGB))


def order(run, people, rng):
  """(place, person) of the whole run as one number each.

  In each epoch every set gives its share, its people in a new order.
  """
  count, batch = len(people["path"]), run["batch_size"]
  total = run["steps"] * batch
  sets = [
    np.flatnonzero(people["set"] == n) for n in range(len(run["weights"]))
  ]
  shares = np.array(run["weights"]) / sum(run["weights"])
  chosen = rng.choice(len(sets), total, p=shares)
  persons = np.zeros(total, np.int64)
  for n, members in enumerate(sets):
    here = np.flatnonzero(chosen == n)
    rounds = -(-len(here) // len(members))
    row = np.concatenate(
      [rng.permutation(members) for _ in range(rounds)] or [[]]
    )
    persons[here] = row[: len(here)]
  return (np.arange(total) * count + persons).tolist()


def train(run, people, settings, folder):
  """Trains; the network with the weights that are evaluated."""
  torch.manual_seed(run["seed"])
  model = peers_torch.build(peers_torch.Shape(**run["shape"]))
  start = dict(np.load(folder / "start.npz"))
  missing, unknown = model.load_state_dict(
    {name: torch.from_numpy(value) for name, value in start.items()},
    strict=False,
  )
  assert (missing, unknown) == (["position_table"], [])
  model.mean.zero_()  # The loader has normalized the crops.
  model.std.fill_(1)
  average = None
  if run["ema"]:
    average = torch.optim.swa_utils.AveragedModel(
      model,
      multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(run["ema"]),
      use_buffers=True,
    )
  model = model.to(memory_format=torch.channels_last)
  optimizer = torch.optim.AdamW(
    model.parameters(),
    lr=run["learning_rate"],
    betas=(run["b1"], run["b2"]),
    weight_decay=run["weight_decay"],
    fused=True,
  )

  def rate(step):
    warm = run["warmup_steps"]
    if step < warm:
      return step / warm
    return 0.5 * (
      1 + math.cos(math.pi * (step - warm) / max(run["steps"] - warm, 1))
    )

  schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
  data = People(people, settings, run["seed"])
  loader = DataLoader(
    data,
    run["batch_size"],
    sampler=order(run, people, np.random.default_rng(run["seed"])),
    num_workers=run["workers"],
    drop_last=True,
  )
  forward = torch.compile(model) if run["compile"] else model
  model.train()
  began = since = time.monotonic()
  for step, batch in enumerate(loader, 1):
    images = batch["image"].contiguous(memory_format=torch.channels_last)
    weights = batch["weight"][:, :, None, None]
    loss = (weights * (forward(images) - batch["target"])).square().mean() / 2
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    if average is not None:
      average.update_parameters(model)
    if step % run["log_every"] == 0 or step == run["steps"]:
      now = time.monotonic()
      speed = run["batch_size"] * run["log_every"] / (now - since)
      print(
        f"step {step}/{run['steps']}  loss {loss.item():.3e}"
        f"  {speed:.1f} images/s",
        flush=True,
      )
      since = now
  seconds = time.monotonic() - began
  return (model if average is None else average.module), seconds


@torch.inference_mode()
def found(model, boxes, settings, batch):
  """(N, K, 2) heatmap pixels to a quarter, and (N, K) maxima, with flips."""
  model.eval()
  mirror = torch.from_numpy(settings.flip_permutation)
  parts = []
  for crops in DataLoader(Crops(boxes, settings), batch):
    maps = model(crops)
    turned = model(crops.flip(-1)).flip(-1)[:, mirror]
    parts.append((maps + turned) / 2)
  maps = torch.cat(parts).numpy()
  n, k, h, w = maps.shape
  flat = maps.reshape(n, k, -1)
  place, scores = flat.argmax(-1), flat.max(-1)
  y, x = place // w, place % w
  people, joints = np.ogrid[:n, :k]

  def toward(low, high):
    return np.sign(high - low) * 0.25

  inner_x, inner_y = np.clip(x, 1, w - 2), np.clip(y, 1, h - 2)
  dx = toward(
    maps[people, joints, y, inner_x - 1], maps[people, joints, y, inner_x + 1]
  )
  dy = toward(
    maps[people, joints, inner_y - 1, x], maps[people, joints, inner_y + 1, x]
  )
  points = np.stack([x + dx * (x == inner_x), y + dy * (y == inner_y)], -1)
  return points.astype(np.float32), scores


def in_image(points, boxes, settings):
  """Heatmap pixels to pixels of the images."""
  out = np.empty_like(points)
  for n, (center, scale) in enumerate(
    zip(boxes["center"], boxes["scale"], strict=True)
  ):
    to_map = usual_loader.affine_of(
      center, scale, 0.0, settings.heatmap_hw[::-1]
    )
    back = cv2.invertAffineTransform(to_map)
    out[n] = points[n] @ back[:, :2].T + back[:, 2]
  return out


def main() -> None:
  folder = pathlib.Path(sys.argv[1])
  run = json.loads((folder / "run.json").read_text())
  arrays = dict(np.load(folder / "people.npz"))
  people, boxes = (
    {
      name.partition("/")[2]: values
      for name, values in arrays.items()
      if name.startswith(kind)
    }
    for kind in ("train/", "eval/")
  )
  settings = usual_loader.Settings(
    **{
      **run["settings"],
      "flip_permutation": np.array(run["settings"]["flip_permutation"]),
    }
  )
  model, seconds = train(run, people, settings, folder)
  points, scores = found(model, boxes, settings, run["eval_batch_size"])
  np.savez(
    folder / "found.npz",
    keypoints=in_image(points, boxes, settings),
    scores=scores,
    seconds=seconds,
  )


if __name__ == "__main__":
  main()
