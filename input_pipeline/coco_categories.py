"""The categories of a COCO file: which one is meant, and its keypoints."""

from collections.abc import Iterable, Mapping
from typing import Any

from tokenpose_jax.coco_skeletons import from_category
from tokenpose_jax.errors import InputError
from tokenpose_jax.metrics.coco_plain import CATEGORY, key
from tokenpose_jax.skeletons import Skeleton


def choose(
  content: dict[str, Any], wanted: str, path: str
) -> tuple[dict[str, Any], str]:
  """The annotations of one category alone.

  Args:
    content: COCO's dict, whose outer structure is valid.
    wanted: `data.category`, a name or an id; "": all, which must have the
      same keypoints.
    path: of the file, for the error.

  Returns:
    the content, and a note on who is left out, "" for nobody.

  Raises:
    InputError: there is no such category, or nobody knows which is meant.
  """
  categories = _categories(content)
  if not wanted:
    _require_one_set(content, path)
    return content, ""
  meant = [c for c in categories if c.get("name") == wanted]
  meant = meant or [c for c in categories if key(c.get("id")) == key(wanted)]
  if not meant:
    raise InputError(
      f"{path}: data.category: no category {wanted!r}; choose one of"
      f" {_listed(categories)}"
    )
  chosen = key(meant[0].get("id"))
  people = content["annotations"]
  kept = [e for e in people if _category_of(e) == chosen]
  others = len(people) - len(kept)
  return (
    {
      **content,
      "categories": [c for c in categories if key(c.get("id")) == chosen],
      "annotations": kept,
    },
    f"{others} of {len(people)} annotations are of other categories than"
    f" {wanted}: they are left out"
    if others
    else "",
  )


def skeleton_of(content: Mapping[str, Any], path: str) -> Skeleton:
  """The skeleton that the categories define.

  Args:
    content: as `choose` returns it.
    path: of the file, for the error.

  Raises:
    InputError: there is none, or several that differ.
  """
  sets = _keypoint_sets(_categories(content))
  used = {_category_of(entry) for entry in content["annotations"]}
  if used:
    sets = _used_sets(sets, used)
  if len(sets) != 1:
    raise InputError(
      f"{path}: {len(sets)} different keypoint sets in its categories, one is"
      " needed; "
      + (
        f"choose one with data.category: {_listed(s[0] for s in sets)}"
        if sets
        else "give a skeleton file with --config.data.skeleton=FILE.json"
      )
    )
  try:
    return from_category(sets[0][0])
  except InputError as error:
    raise InputError(f"{path}: categories: {error}") from None


def _require_one_set(content: Mapping[str, Any], path: str) -> None:
  """People of different keypoints cannot be told apart by a network."""
  used = {_category_of(e) for e in content["annotations"] if e.get("keypoints")}
  sets = _used_sets(_keypoint_sets(_categories(content)), used)
  if len(sets) > 1:
    raise InputError(
      f"{path}: its annotations have {len(sets)} different keypoint sets;"
      f" choose one with data.category: {_listed(s[0] for s in sets)}"
    )


def _used_sets(
  sets: list[list[Mapping[str, Any]]], used: set[Any]
) -> list[list[Mapping[str, Any]]]:
  return [s for s in sets if used & {key(c["id"]) for c in s}]


def _keypoint_sets(
  categories: Iterable[Mapping[str, Any]],
) -> list[list[Mapping[str, Any]]]:
  """The categories with keypoints, those of the same names together."""
  sets: dict[str, list[Mapping[str, Any]]] = {}
  for category in categories:
    if category.get("keypoints") and key(category.get("id")) is not None:
      sets.setdefault(str(category["keypoints"]), []).append(category)
  return [*sets.values()]


def _categories(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
  given = content.get("categories")
  return [
    category
    for category in (given if isinstance(given, list) else ())
    if isinstance(category, dict)
  ]


def _category_of(entry: Mapping[str, Any]) -> Any:
  return key(entry.get("category_id", CATEGORY))


def _listed(categories: Iterable[Mapping[str, Any]]) -> str:
  """ "person (17 keypoints), hand (21 keypoints)"."""
  names = []
  for category in categories:
    points = category.get("keypoints")
    count = len(points) if isinstance(points, list) else 0
    name = category.get("name", category.get("id"))
    names.append(f"{name} ({count} keypoints)")
  return ", ".join(names) or "(none)"
