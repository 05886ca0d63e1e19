"""What a COCO annotation file must hold before anything is made of it.

One list of rules: a training's start raises the first broken one, the doctor
collects all. To add a rule: a `Rule`, and a check in `PERSON_RULES`.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from input_pipeline import box_forms
from tokenpose_jax.errors import InputError
from tokenpose_jax.metrics.coco_plain import key
from tokenpose_jax.skeletons import Skeleton

LARGEST_CATEGORY = 2**53  # an integer that every reader of JSON keeps


class Rule(NamedTuple):
  """A rule, as the doctor speaks of those who break it.

  Attributes:
    title: what is wrong, in the plural.
    advice: what to do.
  """

  title: str
  advice: str


class Violation(NamedTuple):
  """A broken rule at one place.

  Attributes:
    rule: that is broken.
    place: "the annotation 7".
    detail: the rest of the sentence.
    annotation: COCO's dict, where it is one person's.
  """

  rule: Rule
  place: str
  detail: str
  annotation: Mapping[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class _Person:
  """An annotation, its numbers parsed once.

  Attributes:
    entry: COCO's dict.
    keypoints: (n,) finite numbers; None where they are not.
    box: likewise.
  """

  entry: Mapping[str, Any]
  keypoints: Float[np.ndarray, " n"] | None
  box: Float[np.ndarray, " m"] | None


IMAGE_ID = Rule("image ids repeat", "give each its own id")
ANNOTATION_ID = Rule("annotation ids repeat", "give each its own id")
NO_IMAGE = Rule(
  "annotations of an image that is not listed", "list it or drop them"
)
CATEGORY = Rule("category ids that are not integers", "number the categories")
COUNT = Rule(
  "keypoint count does not match the skeleton",
  "choose another skeleton, or repair the annotations",
)
KEYPOINTS = Rule(
  "keypoints that are not finite numbers", "repair the annotations"
)
VISIBILITY = Rule(
  "visibility is not 0, 1 or 2", "0: not labeled, 1: hidden, 2: visible"
)
CROWD = Rule("'iscrowd' is not 0 or 1", "repair the annotations")
ODD_BOXES = Rule(
  "boxes are not x, y, w, h in pixels", "convert the annotations to COCO's form"
)
BOX = Rule("boxes that are not four finite numbers", "repair the annotations")


def _image(person: _Person, ids: set[Any], skeleton: Skeleton) -> str:
  image = person.entry.get("image_id")
  try:
    listed = image in ids
  except TypeError:  # a list, say
    listed = False
  return "" if listed else f"is of image {image}, which is not listed"


def _category(person: _Person, ids: set[Any], skeleton: Skeleton) -> str:
  category = person.entry.get("category_id", 1)
  if type(category) is int and 0 <= category <= LARGEST_CATEGORY:
    return ""
  return f"has the category id {category!r:.40}, which is not an integer"


def _count(person: _Person, ids: set[Any], skeleton: Skeleton) -> str:
  values = person.entry.get("keypoints")
  count, k = (
    len(values) if isinstance(values, list) else 0,
    skeleton.num_keypoints,
  )
  if count == 3 * k:
    return ""
  if count == 2 * k:
    return (
      f"has {count} keypoint numbers: x and y alone. COCO has a visibility"
      f" after each, {3 * k} in all: 0 (not labeled), 1 (hidden) or 2 (visible)"
    )
  return (
    f"has {count} keypoint numbers, expected {3 * k}: 3 for each of the {k} of"
    f" skeleton {skeleton.name}; choose another with --config.data.skeleton"
  )


def _keypoints(person: _Person, ids: set[Any], skeleton: Skeleton) -> str:
  wrong = person.keypoints is None and "keypoints" in person.entry
  return "has keypoints that are not finite numbers" if wrong else ""


def _visibility(person: _Person, ids: set[Any], skeleton: Skeleton) -> str:
  if person.keypoints is None:
    return ""
  visible = person.keypoints[2::3]
  odd = visible[(visible != 0) & (visible != 1) & (visible != 2)]
  if not len(odd):
    return ""
  return (
    f"has a visibility of {odd[0]:g}; COCO's are 0 (not labeled), 1 (hidden)"
    " and 2 (visible)"
  )


def _box(person: _Person, ids: set[Any], skeleton: Skeleton) -> str:
  if person.box is not None and len(person.box) == 4:
    return ""
  return "has no 'bbox' of four finite numbers"


def _crowd(person: _Person, ids: set[Any], skeleton: Skeleton) -> str:
  crowd = person.entry.get("iscrowd", 0)
  if crowd in (0, 1):
    return ""
  return f"has iscrowd {crowd!r:.40}, expected 0 or 1"


# Each check answers what is wrong with a person, "" if nothing is.
PERSON_RULES: tuple[
  tuple[Rule, Callable[[_Person, set[Any], Skeleton], str]], ...
] = (
  (COUNT, _count),
  (KEYPOINTS, _keypoints),
  (VISIBILITY, _visibility),
  (BOX, _box),
  (NO_IMAGE, _image),
  (CATEGORY, _category),
  (CROWD, _crowd),
)


def violations(
  content: Mapping[str, Any], skeleton: Skeleton
) -> Iterator[Violation]:
  """The broken rules of an annotation file, the worst first.

  Args:
    content: COCO's dict, whose outer structure is valid (`check_outline`).
    skeleton: that its keypoints must have.
  """
  images, people = content["images"], content["annotations"]
  for rule, kind, entries in (
    (IMAGE_ID, "image", images),
    (ANNOTATION_ID, "annotation", people),
  ):
    counts = Counter(str(e["id"]) for e in entries if e.get("id") is not None)
    for name, count in counts.items():
      if count > 1:
        yield Violation(
          rule, f"the {kind} {name}", f"comes {count} times: {rule.title}"
        )
  parsed = [
    _Person(
      entry, _numbers(entry.get("keypoints", ())), _numbers(entry.get("bbox"))
    )
    for entry in people
  ]
  if odd := _odd_boxes(parsed, images, skeleton.num_keypoints):
    yield Violation(ODD_BOXES, "the file:", odd)
  ids = {image["id"] for image in images}
  for person in parsed:
    for rule, check_person in PERSON_RULES:
      if detail := check_person(person, ids, skeleton):
        yield Violation(
          rule, f"the annotation {person.entry.get('id')}", detail, person.entry
        )


def check_people(
  content: Mapping[str, Any], path: str, skeleton: Skeleton
) -> None:
  """Checks that people can be read from a file's content.

  Args:
    content: plain (`coco_plain.plain`).
    path: of the file, for the error.
    skeleton: that its keypoints must have.

  Raises:
    InputError: the first broken rule.
  """
  for broken in violations(content, skeleton):
    raise InputError(f"{path}: {broken.place} {broken.detail}")


def check_outline(content: Any, path: str) -> None:
  """Checks that there are lists of images, with their fields, and annotations.

  Args:
    content: parsed JSON.
    path: of the file, for the error.

  Raises:
    InputError: something is missing.
  """
  if not isinstance(content, dict):
    raise InputError(f"{path} is not a COCO annotation file: not a JSON object")
  for field in ("images", "annotations"):
    if not isinstance(content.get(field), list):
      raise InputError(
        f"{path} is not a COCO annotation file: no {field!r} list"
      )
  for field in ("images", "annotations"):
    for number, entry in enumerate(content[field]):
      if not isinstance(entry, dict):
        raise InputError(f"{path}: {field}[{number}] is not a JSON object")
  people = content["annotations"]
  if people and not any(entry.get("keypoints") for entry in people):
    raise InputError(
      f"{path}: no annotation has 'keypoints'; a person_keypoints file is"
      " needed, not instances or captions"
    )
  for image in content["images"]:
    for field in ("id", "file_name"):
      if field not in image:
        raise InputError(
          f"{path}: the image {image.get('id')} has no {field!r}"
        )
    if key(image["id"]) is None:
      raise InputError(
        f"{path}: an image has the id {image['id']!r:.40}, expected a number"
        " or text"
      )
    name = image["file_name"]
    if isinstance(name, bool) or not isinstance(name, str | int):
      raise InputError(
        f"{path}: the image {image['id']} has the file name"
        f" {name!r:.40}, expected text"
      )


def _odd_boxes(
  people: Sequence[_Person], images: Sequence[Mapping[str, Any]], k: int
) -> str:
  """`box_forms.odd` of those whose numbers can be judged."""
  boxes, points, ids = [], [], []
  for person in people:
    box, keypoints = person.box, person.keypoints
    if box is None or keypoints is None:
      continue
    if len(box) == 4 and len(keypoints) == 3 * k:
      boxes.append(box)
      points.append(keypoints.reshape(-1, 3))
      ids.append(key(person.entry.get("image_id")))
  if not boxes:
    return ""
  return box_forms.odd(
    np.array(boxes), box_forms.sizes_of(ids, images), np.array(points)
  )


def _numbers(values: Any) -> Float[np.ndarray, " n"] | None:
  """Finite numbers as an array; None where they are not."""
  try:
    numbers = np.asarray(values, np.float64)
  except (OverflowError, TypeError, ValueError):
    return None
  return numbers if numbers.ndim == 1 and np.isfinite(numbers).all() else None
