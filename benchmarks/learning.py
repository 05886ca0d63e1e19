r"""What makes a small network learn from few real people: a row a command.

    python -m benchmarks.learning --coco=DIR --train=minitrain --val=minival \
        --sports=DIR --drawn=DIR --backbone=FILE --out=runs/learning \
        --row=recipe
    python -m benchmarks.learning --out=runs/learning --table

A row is configs/small.py with one thing changed (`ROWS`), trained on as many
people as the others (--epochs of the recipe's mix); --row=long is the recipe as
it stands. COCO's people are mixed with those of a COCO folder of sports photos
(split "lspet") and with drawn ones. Run again, a row goes on. OUT gets for each
its command, log, checkpoints and evaluations; --table makes the table and the
curves of all that are there, as a picture and as numbers.
"""

import argparse
import dataclasses
import pathlib
import shlex
import subprocess
import sys

from benchmarks import learning_curves, tables
from configs import default, small

SPORTS, DRAWN = 0.5, 0  # for each of COCO's people


@dataclasses.dataclass(frozen=True)
class Row:
  """A training.

  Attributes:
    words: what is changed.
    fields: of the config.
    sports: people of sports photos for each of COCO's.
    drawn: drawn people for each of COCO's.
    whole: as long as the recipe or the fields say, not --epochs.
    start: the row from whose weights it starts.
  """

  words: str
  fields: tuple[str, ...] = ()
  sports: float = SPORTS
  drawn: float = DRAWN
  whole: bool = False
  start: str = ""


_FLIPS = (
  "augment.rotation_probability=0.0",
  "augment.scale=0.0",
  "augment.half_body_probability=0.0",
)

_OFFICIAL = tuple(
  f"augment.{name}={default.get_config().augment[name]}"
  for name in (
    "rotation_probability",
    "rotation_degrees",
    "scale",
    "half_body_probability",
  )
)

# Of a backbone that starts from random weights nothing can be frozen.
_RANDOM = ("init.backbone=", "train.frozen=0")

ROWS = {
  "long": Row("the recipe, to its end", whole=True),
  "finish": Row(
    "then with twice the sports photos and the original implementation's"
    " augmentation, colors and parts covered besides, at half the rate",
    (
      *_OFFICIAL,
      "augment.color=0.2",
      "augment.cover_probability=0.5",
      "optim.learning_rate=5e-4",
      "train.epochs=17",
    ),
    sports=1,
    whole=True,
    start="long",
  ),
  "sharpen": Row(
    "then as at first, with peaks of one pixel, at half the rate",
    ("codec.sigma=1.0", "optim.learning_rate=5e-4", "train.epochs=15"),
    whole=True,
    start="finish",
  ),
  "enlarge": Row(
    "then with crops of 192x144, in which peaks of 1.5 pixels are as narrow",
    (
      "model.input_hw=192,144",
      "optim.learning_rate=7e-4",
      "train.epochs=30",
    ),
    whole=True,
    start="sharpen",
  ),
  "recipe": Row("the recipe, short"),
  "random": Row("no ImageNet weights", _RANDOM),
  "pyramid": Row(
    "the pyramid, from random weights",
    (*_RANDOM, "model.backbone=pyramid", "model.stem_channels=32"),
  ),
  "stem": Row(
    "S's stem, from random weights",
    (*_RANDOM, "model.backbone=stem", "model.stem_channels=64"),
  ),
  "all_moves": Row("nothing frozen", ("train.frozen=0",)),
  "no_patch_head": Row("no patch head", ("model.patch_head=False",)),
  "patches_4": Row(
    "4 visual tokens, not 64",
    ("model.patch_hw=16,12",),
  ),
  "large_crops": Row(
    "crops of 192x144, and in them narrower peaks", ("model.input_hw=192,144",)
  ),
  "sines": Row("sines for positions", ("model.position=sine-full",)),
  "rate_half": Row("learning rate 5e-4", ("optim.learning_rate=5e-4",)),
  "rate_double": Row("learning rate 2e-3", ("optim.learning_rate=2e-3",)),
  "batch_32": Row("batches of 32", ("train.batch_size=32",)),
  "sharper": Row("peaks of 1 pixel", ("codec.sigma=1.0",)),
  "wider": Row("peaks of 2 pixels", ("codec.sigma=2.0",)),
  "official": Row("the original implementation's augmentation", _OFFICIAL),
  "colors": Row("colors change", ("augment.color=0.2",)),
  "covered": Row("parts are covered", ("augment.cover_probability=0.5",)),
  "flips": Row("of augmentation, flips alone", _FLIPS),
  "original_start": Row(
    "the original initial weights", ("init.scheme=original",)
  ),
  "udp": Row("pixel coordinates as in UDP", ("codec.udp=True",)),
  "two_passes": Row("two passes (SDPose)", ("model.cycles=2",)),
  "drawn": Row("drawn people for a sixth", sports=0.25, drawn=0.25),
  "sports": Row("sports photos for two thirds", sports=2),
  "coco_alone": Row("COCO's people alone", sports=0, drawn=0),
  "together": Row(
    "COCO's people alone, of augmentation flips alone",
    _FLIPS,
    sports=0,
    drawn=0,
  ),
}


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add("--out", required=True, type=pathlib.Path)
  add("--row", choices=ROWS)
  add("--coco", help="a COCO folder")
  add("--train", default="train2017", help="its split to train on")
  add("--val", default="val2017", help="its split to evaluate on")
  add("--sports", help="a COCO folder with the split lspet")
  add("--drawn", default="data/synthetic", help="drawn people, made if absent")
  add("--backbone", default="", help="ImageNet weights of its backbone")
  add("--boxes", help="a detector's, to evaluate with as well")
  add("--epochs", type=int, default=4, help="of the recipe's mix")
  add("--seed", type=int, default=0)
  add("--more", default="", help="other flags of main.py, in one argument")
  add("--table", action="store_true")
  options = parser.parse_args()
  if options.row:
    train(options)
  if options.table:
    table(options.out)


def train(options: argparse.Namespace) -> None:
  """Trains a row, and evaluates it."""
  row = ROWS[options.row]
  folder = options.out / f"{options.row}-{options.seed}"
  folder.mkdir(parents=True, exist_ok=True)
  has_start = row.start or options.backbone or "init.backbone=" in row.fields
  if not has_start:
    raise SystemExit(f"the row {options.row} needs --backbone=FILE")
  command = command_of(options, row, folder)
  (folder / "command.txt").write_text(shlex.join(command) + "\n")
  call(command, folder)
  if options.boxes:
    evaluation = [
      "--mode=evaluate",
      f"--config.eval.boxes={options.boxes}",
      "--config.eval.min_box_score=0.2",
      "--config.eval.checkpoint=latest",
    ]
    call([*command, *evaluation], folder)


def command_of(
  options: argparse.Namespace, row: Row, folder: pathlib.Path
) -> list[str]:
  """The command line of a row's training."""
  mix = []
  if row.sports:
    mix.append(f"coco:{options.sports}:lspet:{row.sports:g}")
  if row.drawn:
    mix.append(f"synthetic:{options.drawn}:train:{row.drawn:g}")
  fields = {
    "seed": options.seed,
    "data.dir": options.coco,
    "data.train_split": options.train,
    "data.eval_split": options.val,
    "init.backbone": "" if row.start else options.backbone,
    "data.mix": "".join(f"{one!r}," for one in mix) or "()",
  }
  if row.start:
    fields["init.weights"] = f"{folder.parent}/{row.start}-{options.seed}/run"
  if not row.whole:
    # As many people in all, whatever an epoch is.
    share = (1 + SPORTS + DRAWN) / (1 + row.sports + row.drawn)
    recipe = small.get_config()
    fields["train.epochs"] = round(options.epochs * share)
    fields["optim.warmup_epochs"] = recipe.optim.warmup_epochs * share
    fields["train.eval_every_epochs"] = 0
  return [
    sys.executable,
    "main.py",
    "--config=configs/small.py",
    f"--workdir={folder}/run",
    *(f"--config.{name}={value}" for name, value in fields.items()),
    *(f"--config.{field}" for field in row.fields),
    *shlex.split(options.more),
  ]


def call(command: list[str], folder: pathlib.Path) -> None:
  path = folder / "log.txt"
  with open(path, "a") as log:
    ended = subprocess.run(command, stdout=log, stderr=log)
  if ended.returncode:
    last = path.read_text().strip().rpartition("\n")[2]
    raise SystemExit(f"{path}: {last}")


def table(out: pathlib.Path) -> None:
  """Prints what is there, and makes curves.png and curves.csv."""
  runs = {
    name: learning_curves.runs_of(out, name)
    for name in ROWS
    if list(out.glob(f"{name}-*/run/eval"))
  }
  rows = []
  for name, found in runs.items():
    for run in found:
      step, figures = list(run.figures.items())[-1]
      people = step * run.batch
      cells = [
        shown(*figures[boxes]) if boxes in figures else ""
        for boxes in ("annotated", "detected")
      ]
      accuracy = run.curve[-1][2] if run.curve else float("nan")
      rows.append(
        [
          f"`{name}`",
          ROWS[name].words,
          str(run.seed),
          f"{people:,}",
          f"{accuracy:.3f}",
          *cells,
        ]
      )
  titles = ["row", "changed", "seed", "people seen", "training accuracy"]
  print(tables.markdown([*titles, "AP, annotated", "AP, detected"], rows))
  learning_curves.draw(runs, out / "curves.png")
  learning_curves.write(runs, out / "curves.csv")


def shown(value: float, *interval: float) -> str:
  """A figure, and its interval."""
  told = ", ".join(f"{end:.3f}" for end in interval)
  return f"{value:.3f}" + (f" [{told}]" if interval else "")


if __name__ == "__main__":
  main()
