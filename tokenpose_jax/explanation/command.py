r"""Shows what keypoint tokens look at and how they agree on a pose.

    tokenpose explain photo.jpg --out explained
    tokenpose explain photo.jpg --weights runs/s_v1 --out explained \
        --box=120,40,200,380 --figures
    tokenpose explain val2017/ --weights runs/s_v1 --out study --study \
        --annotations person_keypoints_val2017.json --people 500

OUT gets a folder for each photo, with a page for each person that needs
nothing else (person1.html). With --study it gets study.json: what holds for all
the people, with intervals. Without --box, --boxes, --detector or --annotations
each photo is one person.
"""

import argparse
import contextlib
import json
import os
from collections.abc import Iterator

from etils import epath

from tokenpose_jax import atomic, compiled, progress
from tokenpose_jax.errors import InputError, one_line
from tokenpose_jax.explanation import (
  drawing,
  figures,
  occlusion,
  page,
  study_figures,
  table,
)
from tokenpose_jax.explanation.people import Annotated
from tokenpose_jax.explanation.person import Explainer, checked_box
from tokenpose_jax.explanation.study import Person, study
from tokenpose_jax.predict import boxes as boxes_lib
from tokenpose_jax.predict import folders
from tokenpose_jax.predict import saved as saved_lib
from tokenpose_jax.predict import sources as sources_lib
from tokenpose_jax.predict.sources import Source
from tokenpose_jax.terminal import printable, say
from tokenpose_jax.version import __version__

STUDY = "study.json"
FORMAT = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the arguments of `tokenpose explain`."""
  add = parser.add_argument
  add("inputs", nargs="+", metavar="PHOTO", help="photos, folders, patterns")
  add(
    "--weights",
    help="a work directory, a published folder or a file of weights; default:"
    " those that come with the package",
  )
  add("--out", required=True, help="a new or empty folder")
  saved_lib.add_arguments(parser)
  boxes_lib.add_arguments(parser)
  add(
    "--annotations",
    default="",
    metavar="FILE",
    help="COCO annotations: their boxes, and which keypoints can be seen",
  )
  add("--people", type=int, metavar="N", help="the first N; default: all")
  group = parser.add_argument_group("what is made")
  group.add_argument(
    "--study",
    action="store_true",
    help="what holds for all the people, in place of a page each",
  )
  group.add_argument(
    "--figures", action="store_true", help="pictures for a paper, too (PNG)"
  )
  group.add_argument(
    "--no-probe",
    action="store_true",
    help="cover nothing: a hundredth of the time",
  )
  group.add_argument(
    "--cover",
    choices=occlusion.COVERS,
    default="gray",
    help="what parts of the crop are covered with; default: gray",
  )


def run(arguments: argparse.Namespace) -> int:
  """Explains.

  Returns:
    1 where a photo could not be read, or a box not be used.

  Raises:
    InputError: an argument cannot be used, or the output not be written.
  """
  boxes_lib.require_one(arguments, "annotations")
  if arguments.people is not None and arguments.people < 1:
    raise InputError(f"--people={arguments.people}: expected at least 1")
  if arguments.figures:
    drawing.require()
  sources, passed = sources_lib.find(arguments.inputs)
  moving = next((s for s in sources if s.kind != "photo"), None)
  if moving:
    raise InputError(f"{moving.name} is a video; explain takes photos")
  compiled.keep()
  explainer = Explainer(
    saved_lib.read(
      saved_lib.chosen(arguments.weights),
      arguments.step,
      arguments.skeleton,
      arguments.kind,
    )
  )
  folders.make_empty(arguments.out)
  people = _People(arguments, explainer, sources)
  try:
    if arguments.study:
      _study(arguments, explainer, people)
    else:
      _pages(arguments, explainer, people)
  except KeyboardInterrupt:
    made = (
      "a study is written at its end"
      if arguments.study
      else f"what was made until now is in {arguments.out}"
    )
    say(f"stopped; {made}")
    return 130
  finally:
    if passed:
      say(f"{len(passed)} other files passed over, as {passed[0]}")
    for line in people.left_out:
      say(line)
  if people.are_whole_photos:
    say(
      "each photo was taken as one person: --box, --boxes, --detector or"
      " --annotations say where people are"
    )
  return int(bool(people.left_out))


class _People:
  """The people of the photos, one after the other.

  Attributes:
    are_whole_photos: nobody said where people are.
    left_out: a line for each photo that could not be read, and for each box
      that is none.
  """

  def __init__(
    self,
    arguments: argparse.Namespace,
    explainer: Explainer,
    sources: list[Source],
  ):
    self._sources, self._most = sources, arguments.people
    self._annotated = None
    if arguments.annotations:
      k = explainer.saved.skeleton.num_keypoints
      self._annotated = Annotated(arguments.annotations, k)
    ids = boxes_lib.ImageIds(arguments.images)
    self._boxes = self._annotated or boxes_lib.chosen(arguments, ids)
    self.are_whole_photos = isinstance(self._boxes, boxes_lib.Whole)
    self.left_out: list[str] = []
    for source in sources:  # Before hours of work, not after.
      if self._annotated:
        self._annotated.visible(source)
      elif arguments.boxes:
        ids(source)

  def __iter__(self) -> Iterator[tuple[Source, int, Person]]:
    """(photo, number of the person in it from 1, the person)."""
    count = 0
    for source in self._sources:
      try:
        photo = sources_lib.read_photo(source.path)
      except sources_lib.Broken as error:
        self.left_out.append(f"not read: {source.path}: {one_line(error)}")
        continue
      boxes = self._boxes(source, photo)[:, :4]
      seen = self._annotated.visible(source) if self._annotated else None
      for n, box in enumerate(boxes):
        if count == self._most:
          return
        try:
          checked_box(photo, box)
        except InputError as error:
          self.left_out.append(
            f"left out: {source.path}, person {n + 1}: {error}"
          )
          continue
        count += 1
        visible = None if seen is None else seen[n]
        yield source, n + 1, Person(source.name, photo, box, visible)


def _pages(
  arguments: argparse.Namespace, explainer: Explainer, people: _People
) -> None:
  """A page for each person."""
  count = 0
  for source, number, person in people:
    title = f"{source.name}, person {number}"
    with progress.bar(None, printable(title), "covers") as bar:
      explanation = explainer(
        person.photo,
        person.box,
        probe=not arguments.no_probe,
        cover=arguments.cover,
        progress=bar.update,
      )
    folder = os.path.join(arguments.out, source.name)
    path = os.path.join(folder, f"person{number}")
    made = [f"{path}.html"]
    with _writing(folder):
      os.makedirs(folder, exist_ok=True)
      atomic.write(epath.Path(made[0]), page.render(explanation, title))
      if arguments.figures:
        made += figures.write(explanation, path)
    count += 1
    for name in made:
      say(name)
  if not count:
    say("no people")


def _study(
  arguments: argparse.Namespace, explainer: Explainer, people: _People
) -> None:
  """What holds for all of them."""
  bar = progress.bar(arguments.people, "studying", "people")
  try:
    found = study(
      explainer,
      (person for _, _, person in people),
      probe=not arguments.no_probe,
      cover=arguments.cover,
      progress=bar.update,
    )
  finally:
    bar.close()
  facts = {
    "format": FORMAT,
    "software": __version__,
    "weights": arguments.weights or saved_lib.PACKAGED.name,
    "step": explainer.saved.step,
    "kind": explainer.saved.kind,
    "cover": "" if arguments.no_probe else arguments.cover,
  }
  content = json.dumps(facts | found.to_dict(), indent=1)
  made = [os.path.join(arguments.out, STUDY)]
  with _writing(arguments.out):
    atomic.write(epath.Path(made[0]), content)
    if arguments.figures:
      skeleton = explainer.saved.skeleton
      made += study_figures.write(found, skeleton, arguments.out)
  for line in [*table.lines(found), *made]:
    say(line)


@contextlib.contextmanager
def _writing(folder: str) -> Iterator[None]:
  """What cannot be written, on a full disk, is bad input."""
  try:
    yield
  except OSError as error:
    raise InputError(f"cannot write to {folder}: {one_line(error)}") from None
