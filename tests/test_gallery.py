"""eval_report/gallery.py: the best and the worst people, in pictures."""

import numpy as np
import pytest

from tests.eval_run import Case
from tokenpose_jax import eval_report


def test_truth_and_found_are_drawn_where_they_are():
  case = Case(noise=0)
  gallery = eval_report.Gallery(
    case.data.benchmark, case.data.boxes, size=20, sample=0
  )
  for batch in case.batches():
    out = case.step(None, None, batch)
    for slot in np.flatnonzero(batch["mask"]):
      gallery.add(
        int(batch["index"][slot]),
        batch["image"][slot],
        batch["crop_to_image"][slot],
        keypoints=out["image"][slot],
        crop_keypoints=out["crop"][slot],
        scores=out["scores"][slot],
      )
  pictures = gallery.best()
  assert len(pictures) == 8
  for picture in pictures:
    np.testing.assert_allclose(picture.predicted, picture.truth, atol=1e-3)
    assert picture.quality == pytest.approx(1)
    assert picture.crop[0, 0, 0] == 20 * picture.index
