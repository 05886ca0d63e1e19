"""How good the boxes of a person detector are."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import hotcoco


def box_ap(
  annotations: Mapping[str, Any],
  boxes: Sequence[Mapping[str, Any]],
  image_ids: Iterable[Hashable] | None = None,
) -> float:
  """AP of person boxes (COCO's, 0.50 to 0.95): how good a detector was.

  Args:
    annotations: COCO's dict.
    boxes: results with bbox and score, all of people.
    image_ids: measure on these images alone; None: all.

  Returns:
    0 to 1; -1 without annotated boxes.
  """
  ids = [image["id"] for image in annotations["images"]]
  chosen = set(ids if image_ids is None else image_ids)
  place = {one: n for n, one in enumerate(sorted(chosen), start=1)}
  people = [
    {
      "id": number,
      "image_id": place[one["image_id"]],
      "category_id": 1,
      "bbox": [float(x) for x in one["bbox"]],
      "area": float(one["area"]),
      "iscrowd": int(one.get("iscrowd") or 0),
    }
    for number, one in enumerate(annotations["annotations"], start=1)
    if one["image_id"] in chosen
  ]
  found = [
    {
      "image_id": place[one["image_id"]],
      "category_id": 1,
      "bbox": [float(x) for x in one["bbox"]],
      "score": float(one["score"]),
    }
    for one in boxes
    if one["image_id"] in chosen
  ]
  truth = hotcoco.COCO(
    {
      "images": [{"id": n} for n in place.values()],
      "categories": [{"id": 1, "name": "person"}],
      "annotations": people,
    }
  )
  evaluation = hotcoco.COCOeval(truth, truth.load_res(found), "bbox")
  evaluation.evaluate()
  evaluation.accumulate()
  tables = evaluation.eval
  assert tables is not None
  # All thresholds, all recalls, all areas, 100 boxes an image.
  cells = tables["precision"][:, :, 0, 0, -1]
  cells = cells[cells > -1]
  return float(cells.mean()) if cells.size else -1.0
