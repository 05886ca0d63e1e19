"""Where an evaluation's files go, and their writing."""

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import UInt8

from tokenpose_jax import atomic, file_kinds, visualize
from tokenpose_jax.errors import InputError, one_line
from tokenpose_jax.eval_report import page, provenance
from tokenpose_jax.eval_report.gallery import Drawing
from tokenpose_jax.eval_report.record import Broken, Record

METRICS, RESULTS, REPORT = "metrics.json", "results.json", "report.html"

_LONGEST = 60  # letters of a folder's name: file systems count 255 bytes

_ESSENTIAL = [fact.name for fact in provenance.FACTS if not fact.incidental]


def write(
  workdir: str,
  record: Record,
  results: Sequence[dict[str, Any]],
  drawings: Iterable[Drawing] = (),
  sheet: UInt8[np.ndarray, "h w 3"] | None = None,
) -> epath.Path:
  """Writes one evaluation, and the page of all of its step.

  Evaluations of a step with other settings (other boxes, another decoder) are
  kept; repeating one replaces it.

  Args:
    workdir: of the run.
    record: what metrics.json holds; its `made` decides where it goes.
    results: COCO results.
    drawings: of the best and the worst predictions.
    sheet: a picture of some people.

  Returns:
    the folder of the step.

  Raises:
    InputError: the files cannot be written, or a newer software wrote an
      evaluation of the same step.
  """
  try:
    return _write(workdir, record, results, drawings, sheet)
  except OSError as error:
    raise InputError(
      f"cannot write the evaluation to {workdir}/eval: {error}"
    ) from None


def _write(
  workdir: str,
  record: Record,
  results: Sequence[dict[str, Any]],
  drawings: Iterable[Drawing],
  sheet: UInt8[np.ndarray, "h w 3"] | None,
) -> epath.Path:
  step = epath.Path(workdir) / "eval" / str(record.made["step"])
  folder = _folder(step, record.made)
  pictures = folder / "pictures"
  pictures.mkdir(parents=True, exist_ok=True)
  # Written last: a folder with it is whole.
  (folder / METRICS).unlink(missing_ok=True)
  for old in pictures.iterdir():
    old.unlink()
  captions: dict[str, list[dict[str, Any]]] = {"best": [], "worst": []}
  for drawing in drawings:
    atomic.write(pictures / drawing.caption["file"], drawing.jpeg)
    captions[drawing.kind].append(drawing.caption)
  atomic.write(folder / RESULTS, json.dumps(results))
  if sheet is not None:
    atomic.write(folder / "people.png", visualize.encode_png(sheet))
  record = dataclasses.replace(record, pictures=captions)
  atomic.write(folder / METRICS, record.to_json())
  atomic.write(step / REPORT, _page(_read_all(step), folder.name))
  return step


def _page(evaluations: list[page.Evaluation], own: str) -> str:
  """The page of a step; of our own evaluation alone, where others break it."""
  try:
    return page.render(evaluations)
  except Exception as error:  # They may hold anything.
    logging.warning(
      "the others of this step cannot be shown: %s", one_line(error, 200)
    )
    return page.render([one for one in evaluations if one.name == own])


def _folder(step: epath.Path, made: dict[str, Any]) -> epath.Path:
  """STEP/BOXES, for averaged weights STEP/BOXES-ema.

  With -2, -3 ... if an evaluation with other settings has it.
  """
  stem = _safe(epath.Path(made["boxes"]).stem)
  if made["weights"] == "ema":
    stem += "-ema"
  number = 1
  while True:
    folder = step / (stem if number == 1 else f"{stem}-{number}")
    if not (folder / METRICS).exists():
      return folder
    # A damaged one may be of anything: it stays as it is.
    old = _read(folder)
    if old is not None and _essentials(old.made) == _essentials(made):
      return folder
    number += 1


def _safe(stem: str) -> str:
  """The name of a folder beside the report, whatever the boxes are called."""
  plain = "".join(c if c.isprintable() and c != "\\" else "_" for c in stem)
  name = plain[:_LONGEST].strip(". ") or "boxes"
  return f"boxes-{name}" if name.lower().startswith(REPORT) else name


def _essentials(made: dict[str, Any]) -> dict[str, Any]:
  plain = json.loads(json.dumps(made))
  return {name: plain.get(name) for name in _ESSENTIAL}


def _read(folder: epath.Path) -> Record | None:
  """An evaluation; None: its file is damaged, which the log says."""
  path = folder / METRICS
  try:
    file_kinds.check(path)
    text = path.read_bytes().decode(errors="replace")
    return Record.from_json(text, str(path))
  except Broken as error:
    logging.warning("%s; it is passed over", error)
  except OSError as error:
    logging.warning("%s: %s; it is passed over", path, one_line(error))
  return None


def read(workdir: str, step: int) -> list[page.Evaluation]:
  """The evaluations of a step; none where it has none.

  Args:
    workdir: of a run.
    step: that was evaluated.

  Raises:
    InputError: a newer software wrote one of them.
  """
  folder = epath.Path(workdir) / "eval" / str(step)
  return _read_all(folder) if folder.exists() else []


def _read_all(step: epath.Path) -> list[page.Evaluation]:
  """The evaluations of a step: annotated boxes first, then by name."""
  evaluations = []
  for folder in sorted(step.iterdir(), key=lambda p: (p.name != "gt", p.name)):
    record = _read(folder) if (folder / METRICS).exists() else None
    if record is not None:
      pictures = _read_pictures(folder / "pictures")
      evaluations.append(page.Evaluation(folder.name, record, pictures))
  return evaluations


def _read_pictures(folder: epath.Path) -> dict[str, bytes]:
  """The files of a folder; what cannot be read is missing on the page."""
  found = {}
  for file in folder.iterdir() if folder.exists() else ():
    with contextlib.suppress(OSError):
      file_kinds.check(file)
      found[file.name] = file.read_bytes()
  return found
