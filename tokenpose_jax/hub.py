"""Publishes networks: one folder that others load, here or on Hugging Face.

    tokenpose publish runs/s_v1 s_v1_coco --license=apache-2.0
    tokenpose publish runs/s_v1 s_v1_coco --push=USER/tokenpose_s_v1

The folder holds config.json, model.safetensors (the original implementation's
names), skeleton.json and README.md, a model card with the figures of every
evaluation of that step. `tp.from_pretrained("s_v1_coco")` or
`tp.from_pretrained("USER/tokenpose_s_v1")` loads it. Hugging Face needs
huggingface_hub (the extra `hub`) and its login (hf auth login).
"""

import argparse
from typing import Any

import yaml
from etils import epath

from tokenpose_jax import eval_report
from tokenpose_jax.errors import InputError, one_line
from tokenpose_jax.predict import load as load_lib
from tokenpose_jax.predict import saved as saved_lib
from tokenpose_jax.predict.estimator import Estimator
from tokenpose_jax.predict.saved import Saved
from tokenpose_jax.terminal import say

CARD = "README.md"
_PAPER = "https://arxiv.org/abs/2104.03516"


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the arguments of `tokenpose publish`."""
  parser.add_argument(
    "source", help="a work directory, or a file of TokenPose weights"
  )
  parser.add_argument("folder", help="a new folder")
  saved_lib.add_arguments(parser)
  parser.add_argument(
    "--license", default="", help="of the weights, as apache-2.0, for the card"
  )
  parser.add_argument(
    "--about",
    metavar="FILE",
    help="Markdown for the card: data and their licenses, limits",
  )
  parser.add_argument(
    "--push", metavar="REPO", help="also upload to Hugging Face: USER/NAME"
  )
  parser.add_argument(
    "--private", action="store_true", help="a new repository is private"
  )


def run(arguments: argparse.Namespace) -> None:
  """Writes the folder, and uploads it where asked.

  Raises:
    InputError: the source cannot be read, the folder is there, or the upload
      failed.
  """
  save_pretrained(
    arguments.source,
    arguments.folder,
    step=arguments.step,
    skeleton=arguments.skeleton,
    weights=arguments.kind,
    license=arguments.license,
    about=_about(arguments.about) if arguments.about else "",
  )
  say(f"written to {arguments.folder}; read its {CARD}")
  if arguments.push:
    say(push(arguments.folder, arguments.push, private=arguments.private))


def _about(path: str) -> str:
  """The words for a card."""
  try:
    return epath.Path(path).read_text()
  except (OSError, UnicodeError) as error:
    raise InputError(f"--about={path}: {one_line(error)}") from None


def save_pretrained(
  source: str,
  folder: str,
  *,
  step: str = "best",
  skeleton: str = "",
  weights: str = "",
  license: str = "",
  about: str = "",
) -> None:
  """Writes a folder that `from_pretrained` and `load` read.

  Args:
    source: a work directory, or a file of TokenPose weights.
    folder: a new one.
    step: of a work directory: "best", "latest" or a number.
    skeleton: of a file: a name or a JSON file; "": by the number of keypoints.
    weights: of a work directory: "raw" or "ema"; "": as in `load`.
    license: of the weights, for the card; "": none is stated.
    about: Markdown for the card: what should be known besides.

  Raises:
    InputError: the source cannot be read, or the folder not written.
  """
  target = epath.Path(folder)
  if target.exists():
    raise InputError(f"{folder} is already there; name a new folder")
  saved = saved_lib.read(source, step, skeleton, weights)
  evaluations = []
  if saved.step is not None:
    evaluations = [
      one
      for one in eval_report.read(source, saved.step)
      if one.metrics.made.get("weights", "raw") == saved.kind
    ]
  try:
    target.mkdir(parents=True)
    saved_lib.write(saved, target)
    card = model_card(saved, target.name, evaluations, license, about)
    (target / CARD).write_text(card)
  except OSError as error:
    raise InputError(f"cannot write to {folder}: {one_line(error)}") from None


def from_pretrained(
  name: str, *, revision: str | None = None, **options: Any
) -> Estimator:
  """A published network, ready for use.

  Args:
    name: a folder of `save_pretrained`, or a repository USER/NAME of Hugging
      Face, which is downloaded once.
    revision: of the repository: a branch, tag or commit.
    options: of `Estimator`; by default those of the training's evaluation.

  Raises:
    InputError: there is none, or it cannot be downloaded.
  """
  if epath.Path(name).exists():
    return load_lib.load(name, **options)
  hub = _huggingface_hub(f"there is no folder {name}, and ")
  try:
    folder = hub.snapshot_download(
      name, revision=revision, allow_patterns=["*.json", "*.safetensors"]
    )
  except Exception as error:  # Network, names, rights: of many kinds.
    raise InputError(
      f"there is no folder {name}, and Hugging Face says of that repository:"
      f" {one_line(error, 300)}"
    ) from None
  return load_lib.load(folder, **options)


def push(folder: str, repo: str, *, private: bool = False) -> str:
  """Uploads a folder of `save_pretrained` to Hugging Face.

  Args:
    folder: of `save_pretrained`.
    repo: USER/NAME; made where it is not there.
    private: a new repository is private.

  Returns:
    the address of the upload.

  Raises:
    InputError: the folder is not one, or the upload failed.
  """
  saved_lib.read(folder)  # Nothing is published that cannot be loaded.
  hub = _huggingface_hub("")
  try:
    hub.create_repo(repo, private=private, exist_ok=True)
    return str(
      hub.upload_folder(
        repo_id=repo, folder_path=folder, commit_message="Upload TokenPose"
      )
    )
  except Exception as error:  # Network, names, rights: of many kinds.
    raise InputError(
      f"cannot upload {folder} to {repo}: {one_line(error, 300)}; hf auth login"
      " says who you are to Hugging Face"
    ) from None


def _huggingface_hub(before: str) -> Any:
  try:
    import huggingface_hub
  except ImportError:
    raise InputError(
      f"{before}huggingface_hub is not installed: pip install huggingface_hub"
    ) from None
  return huggingface_hub


def model_card(
  saved: Saved,
  name: str,
  evaluations: list[eval_report.Evaluation],
  license: str,
  about: str = "",
) -> str:
  """The text of a model card: what it is, how to use it, what it reaches.

  Args:
    saved: the network.
    name: of the folder.
    evaluations: of these weights.
    license: of the weights; "": none is stated.
    about: Markdown, before the figures.
  """
  header: dict[str, Any] = {
    "library_name": "tokenpose_jax",
    "pipeline_tag": "keypoint-detection",
    "tags": ["pose-estimation", "tokenpose", "jax"],
  }
  if license:
    header["license"] = license
  if evaluations:
    header["model-index"] = [
      {"name": name, "results": [_result(e) for e in evaluations]}
    ]
  height, width = saved.model.input_hw
  skeleton = saved.skeleton
  lines = [
    "---",
    yaml.safe_dump(header, sort_keys=False, allow_unicode=True).strip(),
    "---",
    "",
    f"# {name}",
    "",
    f"[TokenPose]({_PAPER}) (keypoint tokens for human pose estimation) of"
    " tokenpose_jax: one crop of a person in, the keypoints and their scores"
    " out.",
    "",
    "```python",
    "import cv2",
    "import tokenpose_jax as tp",
    "",
    f'estimator = tp.from_pretrained("{name}")  # the folder, or USER/NAME',
    'photo = cv2.imread("photo.jpg")[..., ::-1]',
    "poses = estimator(photo, boxes=[[40, 30, 120, 300]])  # x, y, w, h",
    "print(poses.keypoints, poses.scores)",
    "```",
    "",
    f"- crops: {width} x {height} pixels (width x height), RGB",
    f"- network: {saved.model.backbone} backbone, {saved.model.dim} channels,"
    f" {saved.model.depth} blocks, {saved.model.stacks} stack(s)",
    f"- {skeleton.num_keypoints} keypoints ({skeleton.name}):"
    f" {one_line(', '.join(skeleton.keypoints))}",
    f"- license of the weights: {license or 'not stated'}",
    "",
    *([about.strip(), ""] if about.strip() else []),
    "## Evaluation",
    "",
    *(_table(evaluations) or ["Not evaluated."]),
    "",
    *(_details(evaluations) if evaluations else []),
  ]
  return "\n".join(lines)


def _result(evaluation: eval_report.Evaluation) -> dict[str, Any]:
  return {
    "task": {"type": "keypoint-detection"},
    "dataset": {"type": "keypoints", "name": _data(evaluation)},
    "metrics": [
      {"type": figure, "value": round(value, 4), "name": figure}
      for figure, value in _defined(evaluation).items()
    ],
  }


def _table(evaluations: list[eval_report.Evaluation]) -> list[str]:
  """Rows of a table; none where nothing was evaluated."""
  rows: list[str] = []
  for evaluation in evaluations:
    defined = _defined(evaluation)
    if not rows:
      rows = [
        f"| data | boxes | {' | '.join(defined)} |",
        "| --- " * (2 + len(defined)) + "|",
      ]
    figures = " | ".join(f"{v:.3f}" for v in defined.values())
    boxes = epath.Path(evaluation.metrics.made["boxes"]).name
    rows.append(f"| {_data(evaluation)} | {boxes} | {figures} |")
  return rows


def _details(evaluations: list[eval_report.Evaluation]) -> list[str]:
  """Intervals, by keypoint, and calibration: with annotated boxes, if any."""
  evaluation = min(evaluations, key=lambda e: e.metrics.made["boxes"] != "gt")
  record = evaluation.metrics
  boxes = epath.Path(record.made["boxes"]).name
  intervals = [
    f"{name} {low:.3f} to {high:.3f}"
    for name, (low, high) in record.intervals.items()
    if name in _defined(evaluation)
  ]
  lines = [f"The rest is of {_data(evaluation)}, boxes: {boxes}.", ""]
  if intervals:
    lines += [
      f"95 % intervals, bootstrap over images: {', '.join(intervals)}.",
      "",
    ]
  columns = [
    name
    for name, value in (record.keypoints or [{}])[0].items()
    if isinstance(value, float)
  ]
  if columns:
    lines += [
      f"| keypoint | labeled | {' | '.join(columns)} |",
      "| --- " * (2 + len(columns)) + "|",
    ]
    lines += [
      f"| {one_line(row['name'])} | {row['labelled']} | "
      + " | ".join(_shown(row[column]) for column in columns)
      + " |"
      for row in record.keypoints
    ]
    lines.append("")
  if record.calibration.get("error", -1) >= 0:
    lines += [
      "Expected calibration error of the heatmaps' maxima as scores (chance of"
      f" a similarity above 0.5): {record.calibration['error']:.3f}.",
      "",
    ]
  said = record.doubt.get("score", {})
  if said.get("error", -1) >= 0:
    lines += [
      "Scores are expected similarities; their expected calibration error:"
      f" {said['error']:.3f}.",
      "",
    ]
  return lines


def _shown(value: float) -> str:
  """A figure; below 0 it is not defined."""
  return f"{value:.3f}" if value >= 0 else ""


def _defined(evaluation: eval_report.Evaluation) -> dict[str, float]:
  """The figures; those below 0 are not defined."""
  return {n: v for n, v in evaluation.metrics.figures.items() if v >= 0}


def _data(evaluation: eval_report.Evaluation) -> str:
  """The data set and its split, without its folder, which is nobody else's."""
  words = evaluation.metrics.made["data"].split(" ")
  return one_line(f"{words[0]} {words[-1]}")
