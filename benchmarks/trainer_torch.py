"""The PyTorch side of `benchmarks.train_torch`: an ordinary training.

    .venv/torch/bin/python -m benchmarks.trainer_torch FOLDER

Reads FOLDER/run.json and FOLDER/people.npz, trains the peer network
(peers_torch.py) with the usual loader (usual_loader.py) in a DataLoader, and
writes the heatmaps of the evaluation's boxes to FOLDER/found.npz. Imports
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
  of_sines = [] if run["shape"]["learned"] else ["position_table"]
  assert missing == of_sines, missing
  assert not unknown, unknown
  model.mean.zero_()  # The loader has normalized the crops.
  model.std.fill_(1)
  still = model.backbone.trunk.first(run["frozen"]) if run["frozen"] else []
  for part in still:
    part.requires_grad_(False)
  average = None
  if run["ema"]:
    average = torch.optim.swa_utils.AveragedModel(
      model, avg_fn=averaged(run["ema"]), use_buffers=True
    )
  model = model.to(memory_format=torch.channels_last)
  kernels = {
    id(part.weight)
    for part in model.modules()
    if isinstance(part, torch.nn.Linear | torch.nn.Conv2d)
  }
  decayed, others = [], []
  for parameter in filter(lambda one: one.requires_grad, model.parameters()):
    (decayed if id(parameter) in kernels else others).append(parameter)
  optimizer = torch.optim.AdamW(
    [
      {"params": decayed, "weight_decay": run["weight_decay"]},
      {"params": others, "weight_decay": 0.0},
    ],
    lr=run["learning_rate"],
    betas=(run["b1"], run["b2"]),
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
  for part in still:
    part.eval()
  began = since = time.monotonic()
  for step, batch in enumerate(loader, 1):
    images = batch["image"].contiguous(memory_format=torch.channels_last)
    weights = batch["weight"][:, :, None, None]
    made = forward(images)
    found, patches = made if isinstance(made, tuple) else (made, [])
    loss = sum(
      share * (weights * (maps - batch["target"])).square().mean() / 2
      for share, maps in [
        (1, found),
        *((run["patch_loss"], p) for p in patches),
      ]
    )
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


def averaged(decay):
  """A moving average that soon forgets the first weights."""

  def step(average, now, count):
    if not average.is_floating_point():
      return now
    d = min(decay, (1 + float(count)) / (10 + float(count)))
    return average * d + now * (1 - d)

  return step


@torch.inference_mode()
def found(model, boxes, settings, batch):
  """(N, K, h, w) heatmaps, averaged with those of the mirrored crops."""
  model.eval()
  mirror = torch.from_numpy(settings.flip_permutation)
  parts = []
  for crops in DataLoader(Crops(boxes, settings), batch):
    turned = model(crops.flip(-1)).flip(-1)[:, mirror]
    parts.append((model(crops) + turned) / 2)
  return torch.cat(parts).numpy()


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
  heatmaps = found(model, boxes, settings, run["eval_batch_size"])
  np.savez(folder / "found.npz", heatmaps=heatmaps, seconds=seconds)


if __name__ == "__main__":
  main()
