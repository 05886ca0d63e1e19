"""Checks a COCO-format or MPII folder before a training is spent on it.

    python -m input_pipeline.doctor /data/coco --splits train2017 val2017
    python -m input_pipeline.doctor /data/mpii --name=mpii
    python -m input_pipeline.doctor DIR --skeleton=my.json --out=worst.png

Prints a table of what is wrong and what to do, and writes a contact sheet of
the worst. Exit code 1 if something stops training or teaches it
something wrong.
"""

import argparse
import dataclasses
import io
import sys

import tensorflow as tf

from input_pipeline import datasets, files, outside
from input_pipeline.doctor import people, pictures
from input_pipeline.doctor.findings import (
  ERROR,
  Finding,
  Kind,
  has_errors,
  table,
)
from tokenpose_jax import cli, skeletons
from tokenpose_jax.errors import InputError, one_line
from tokenpose_jax.terminal import say

FILE = Kind(ERROR, "the annotations cannot be used", "see the line above")
SKELETON = Kind(
  ERROR,
  "the skeleton cannot be used",
  "correct the file (docs/own_skeleton.md)",
)
NO_SIGMAS = Kind(
  "warning",
  "the skeleton has no sigmas",
  f"AP would take {skeletons.DEFAULT_SIGMA} for every keypoint",
)


def examine(
  folder: str,
  name: str,
  splits: list[str],
  skeleton_name: str,
  category: str = "",
  allow_outside: bool = False,
) -> tuple[list[Finding], bytes | None, list[str]]:
  """Examines a folder.

  Args:
    folder: of the data.
    name: of the data set.
    splits: to examine; none: all of the folder.
    skeleton_name: "": the annotations' own.
    category: `data.category`; "": all.
    allow_outside: `data.allow_outside`.

  Returns:
    the findings; a contact sheet (PNG); lines on what is there, those of a
    training's start.

  Raises:
    InputError: the folder cannot be used.
  """
  dataset = datasets.get(name)
  splits = splits or dataset.splits(folder)
  if not splits:
    raise InputError(f"{folder} has no annotations/person_keypoints_SPLIT.json")
  try:
    skeleton = (
      skeletons.get(skeleton_name)
      if skeleton_name
      else dataset.skeleton_of(folder, splits[0], category)
    )
  except InputError as error:
    return [Finding(SKELETON, "", str(error))], None, []
  findings = people.check_names(skeleton)
  if skeleton.sigmas is None and dataset.USES_SIGMAS:
    findings.append(Finding(NO_SIGMAS, "", skeleton.name))
  facts = [datasets.describe(name, skeleton, skeleton_name or "annotations")]
  by_split, folder_of = {}, {}
  for split in splits:
    try:
      content, notes = dataset.read_unchecked(folder, split, skeleton, category)
    except InputError as error:
      findings.append(Finding(FILE, split, str(error)))
      continue
    images = dataset.image_folder(folder, split)
    folder_of[split] = images
    findings += [Finding(people.ASSUMED, split, note) for note in notes]
    # First, because images may say what sizes the annotations lack.
    names = [image["file_name"] for image in content["images"]]
    forbidden = set(
      () if allow_outside else outside.names_outside(folder, images, names)
    )
    picture_faults, by_split[split] = pictures.check(
      images, content["images"], split, forbidden
    )
    people_faults, census = people.check(content, skeleton, split)
    findings += [
      # The contact sheet shows nothing of those either.
      dataclasses.replace(one, image=None) if one.image in forbidden else one
      for one in people_faults + picture_faults
    ]
    facts.append(f"{split}: {census}")
  findings += pictures.check_shared(by_split)
  sheet = pictures.contact_sheet(findings, folder_of, skeleton)
  return findings, sheet, facts


def main(argv: list[str] | None = None) -> int:
  """Prints what is wrong with a folder; returns the exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("folder")
  parser.add_argument("--name", choices=datasets.DATASETS, default="coco")
  parser.add_argument("--splits", nargs="+", help="default: all of the folder")
  parser.add_argument(
    "--skeleton",
    default="",
    help="a name or a JSON file; default: the annotations' own category",
  )
  parser.add_argument(
    "--category",
    default="",
    help="of a file of several: a name or an id (data.category)",
  )
  parser.add_argument(
    "--allow-outside",
    action="store_true",
    help="images may lie outside of the folder (data.allow_outside)",
  )
  parser.add_argument("--out", default="doctor.png", help="the contact sheet")
  options = parser.parse_args(argv)
  tf.config.set_visible_devices([], "GPU")
  if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="backslashreplace")  # names may be anything
  return cli.exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
  findings, sheet, facts = examine(
    options.folder,
    options.name,
    options.splits or [],
    options.skeleton,
    options.category,
    options.allow_outside,
  )
  for fact in facts:
    say(one_line(fact))
  for line in (table(findings) or "no problems found").split("\n"):
    say(line)
  if sheet:
    files.write(options.out, sheet)
    say(f"contact sheet: {options.out}")
  return int(has_errors(findings))


if __name__ == "__main__":
  sys.exit(main())
