"""The report of an evaluation: files, page, best and worst, how it was made."""

import contextlib
import dataclasses
import html.parser
import io
import json
import re
import subprocess

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline import coco as coco_folder
from input_pipeline.people import Annotations
from tests import fixtures, tiny
from tokenpose_jax import (
  InputError,
  checkpoint,
  eval_report,
  evaluate,
  inference,
  sharding,
  skeletons,
)
from tokenpose_jax.data import EvalData
from tokenpose_jax.eval_report import provenance
from tokenpose_jax.metrics import boxes as boxes_lib
from tokenpose_jax.metrics import coco, mpii
from tokenpose_jax.metrics.benchmark import Boxes
from tokenpose_jax.metrics.coco_keypoints import CocoKeypoints
from tokenpose_jax.metrics.mpii_pckh import MpiiPckh
from tokenpose_jax.train_state import TrainState

H, W = tiny.FLAGS["model.input_hw"]
IMAGES = 4


class Case:
  """People in four images, and a network that finds them with some error.

  Crops are the images themselves, twice as large in the image's pixels.
  """

  def __init__(
    self, skeleton=skeletons.COCO_17, noise=2.0, boxes="gt", facts=None
  ):
    rng = np.random.default_rng(0)
    k = skeleton.num_keypoints
    self.skeleton = skeleton
    number = 2 * IMAGES + 1
    self.image_id = np.repeat(np.arange(10, 10 + IMAGES), 2)[:number]
    self.image_id = np.append(self.image_id, 10)
    self.corner = rng.uniform(0, 300, (number, 2))
    self.truth = self.corner[:, None] + rng.uniform(0, 2, (number, k, 2)) * [
      W,
      H,
    ]
    off = noise * np.arange(number)[:, None, None]
    self.found = self.truth + off * rng.normal(size=(number, k, 2))
    self.scores = rng.uniform(0.3, 1, (number, k))
    self.annotations = {
      "images": [{"id": 10 + i} for i in range(IMAGES)],
      "categories": [{"id": 1, "name": "person"}],
      "annotations": [
        fixtures.person(
          int(self.image_id[i]),
          (*self.corner[i], 2 * W, 2 * H),
          id=i + 1,
          keypoints=np.column_stack([self.truth[i], np.full(k, 2)])
          .ravel()
          .tolist(),
        )
        for i in range(number)
      ],
    }
    self.data = EvalData(
      batches=self.batches,
      boxes=Boxes(
        image_id=self.image_id,
        category_id=np.ones(number, np.int64),
        score=np.ones(number),
        area=np.full(number, 4.0 * W * H),
      ),
      benchmark=CocoKeypoints(self.annotations, skeleton),
      source=boxes,
      source_facts=facts or {},
    )

  def batches(self):
    number, size = len(self.image_id), 4
    for start in range(0, number, size):
      slots = np.arange(start, start + size)
      index = np.minimum(slots, number - 1)
      affine = np.zeros((size, 2, 3), np.float32)
      affine[:, 0, 0] = affine[:, 1, 1] = 2
      affine[:, :, 2] = self.corner[index]
      images = np.zeros((size, H, W, 3), np.uint8)
      images[:] = (20 * index[:, None, None, None]).astype(np.uint8)
      # The last one cannot be read.
      mask = (slots < number - 1).astype(np.float32)
      yield {
        "image": images,
        "crop_to_image": affine,
        "index": index.astype(np.int32),
        "mask": mask,
      }

  def step(self, params, model_state, batch):
    del params, model_state
    index = np.asarray(batch["index"])
    found = self.found[index]
    return {
      "image": found,
      "crop": (found - self.corner[index][:, None]) / 2,
      "scores": self.scores[index],
      "index": index,
      "mask": np.asarray(batch["mask"]),
    }

  def run(self, workdir, **changes):
    settings = tiny.config(
      eval__bootstrap=20, eval__best_and_worst=3, eval__pictures=4, **changes
    )
    return evaluate.evaluate(
      self.step,
      ({"w": np.arange(3.0)}, {}),
      self.data,
      sharding.create_mesh(jax.devices()[:1]),
      config=settings,
      skeleton=self.skeleton,
      workdir=str(workdir),
      step=70,
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  """A work directory with one evaluation; its figures and contact sheet."""
  path = tmp_path_factory.mktemp("run")
  return path, *Case().run(path)


def read(path):
  return json.loads(path.read_text())


def test_the_files_of_an_evaluation(written):
  work, figures, sheet = written
  folder = work / "eval/70/gt"
  metrics, results = (
    read(folder / "metrics.json"),
    read(folder / "results.json"),
  )
  case = Case()
  assert metrics["figures"] == figures
  assert coco.evaluate(case.annotations, results) == figures
  assert 0 < figures["AP"] < 1
  assert len(results) == 8
  low, high = metrics["intervals"]["AP"]
  assert low <= figures["AP"] <= high
  assert [row["name"] for row in metrics["keypoints"]] == list(
    skeletons.COCO_17.keypoints
  )
  assert metrics["people"]["labelled"] == 9
  total = sum(metrics["errors"]["all"].values())
  assert total == 17 * metrics["people"]["found"]
  assert len(metrics["calibration"]["bins"]) == 10
  picture = cv2.imread(str(folder / "people.png"))
  assert picture.shape == sheet.shape
  assert (folder / "pictures/best_00.jpg").stat().st_size > 500


def test_best_and_worst_are_in_order(written):
  metrics = read(written[0] / "eval/70/gt/metrics.json")
  best, worst = metrics["pictures"]["best"], metrics["pictures"]["worst"]
  # The error grows with the index; box 8 could not be read.
  assert [one["box"] for one in best] == [0, 1, 2]
  assert best[0]["quality"] == 1
  bad = [(1 - one["quality"]) * one["score"] for one in worst]
  assert bad == sorted(bad, reverse=True)
  assert {one["box"] for one in worst} <= {4, 5, 6, 7}


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


def test_how_it_was_made(written):
  made = read(written[0] / "eval/70/gt/metrics.json")["made"]
  assert (made["step"], made["people"], made["people_skipped"]) == (70, 9, 1)
  assert made["decoder"] == "dark"
  assert made["blur"] == 11
  assert made["flip"] is True
  assert made["config"]["model"]["dim"] == 32
  assert re.fullmatch("[0-9a-f]{8}", made["weights_crc32"])
  assert "jax " in made["versions"]
  assert made["date"].endswith("+00:00")


def test_git_revision():
  try:
    wanted = subprocess.run(
      ["git", "rev-parse", "HEAD"],
      cwd=fixtures.ROOT,
      capture_output=True,
      text=True,
      check=True,
    ).stdout.strip()
  except (OSError, subprocess.CalledProcessError):
    wanted = ""
  assert provenance.git_revision().split(" ")[0] == wanted


def test_annotated_and_detected_boxes_lie_side_by_side(tmp_path):
  case = Case()
  case.run(tmp_path)
  first = (tmp_path / "eval/70/gt/metrics.json").read_text()
  boxes = [
    {
      "image_id": int(i),
      "category_id": 1,
      "bbox": [*c.tolist(), 2 * W, 2 * H],
      "score": 0.9,
    }
    for i, c in zip(case.image_id, case.corner + 3, strict=True)
  ]
  file = tmp_path / "some <b>boxes.json"
  file.write_text(json.dumps(boxes))
  facts = detection_facts(file, case)
  figures, _ = Case(noise=4, boxes=str(file), facts=facts).run(tmp_path)
  assert (tmp_path / "eval/70/gt/metrics.json").read_text() == first
  other = read(tmp_path / "eval/70/some <b>boxes/metrics.json")
  assert other["figures"] == figures
  assert len(other["made"]["boxes_sha256"]) == 64
  assert other["made"]["boxes_person_AP"] == pytest.approx(
    box_ap_of_pycocotools(case.annotations, boxes), abs=1e-9
  )
  page = (tmp_path / "eval/70/report.html").read_text()
  assert "some <b>" not in page
  assert page.count("<td>some &lt;b&gt;boxes</td>") == 1
  for value in (json.loads(first)["figures"]["AP"], figures["AP"]):
    assert f"<td>{100 * value:.1f}<small>" in page


def test_made_again_replaces_and_made_otherwise_stays(tmp_path):
  Case().run(tmp_path)
  Case().run(tmp_path)
  folders = sorted(p.name for p in (tmp_path / "eval/70").iterdir())
  assert folders == ["gt", "report.html"]
  Case().run(tmp_path, eval__decoder="argmax")
  Case().run(tmp_path, eval__decoder="argmax")
  folders = sorted(p.name for p in (tmp_path / "eval/70").iterdir())
  assert folders == ["gt", "gt-2", "report.html"]
  assert read(tmp_path / "eval/70/gt/metrics.json")["made"]["blur"] == 11
  assert read(tmp_path / "eval/70/gt-2/metrics.json")["made"]["blur"] == 0
  page = (tmp_path / "eval/70/report.html").read_text()
  marked = re.findall(r'<tr class="differs"><td>([^<]*)', page)
  assert {"decoder", "blur kernel"} <= set(marked)


class Page(html.parser.HTMLParser):
  """Collects what could make a browser ask for something."""

  def __init__(self):
    super().__init__()
    self.links, self.tags, self.styles = [], set(), []
    self.policy = ""

  def handle_starttag(self, tag, attrs):
    self.tags.add(tag)
    values = dict(attrs)
    self.links += [
      value
      for name, value in attrs
      if name in {"src", "href", "srcset", "data", "action", "poster"}
      or name.startswith("xlink")
      or name.startswith("on")
    ]
    self.styles.append(values.get("style") or "")
    if values.get("http-equiv") == "Content-Security-Policy":
      self.policy = values["content"]

  def handle_data(self, data):
    if self.lasttag == "style":
      self.styles.append(data)


def test_no_request_leaves_the_page(written):
  text = (written[0] / "eval/70/report.html").read_text()
  page = Page()
  page.feed(text)
  assert page.links
  assert all(link.startswith(("data:", "#")) for link in page.links)
  assert not page.tags & {"script", "iframe", "object", "embed", "base"}
  assert not any("url(" in s or "@import" in s for s in page.styles)
  assert page.policy.startswith("default-src 'none'; img-src data:;")
  assert "http://" not in text
  assert "https://" not in text
  pictures = re.findall('src="data:image/jpeg;base64,([^"]+)"', text)
  assert len(pictures) == 6
  assert all(len(one) > 500 for one in pictures)


def test_mpii_is_measured_by_pckh(tmp_path):
  case = Case(skeletons.MPII_16, noise=6)
  number = len(case.image_id)
  truth = {
    "keypoints": case.truth,
    "visible": np.ones((number, 16)),
    "head_boxes": np.tile([0.0, 0, 30, 40], (number, 1)),
  }
  truth["visible"][1, 3] = 0
  case.data = dataclasses.replace(
    case.data, benchmark=MpiiPckh(truth, skeletons.MPII_16, IMAGES)
  )
  changes = {"data__skeleton": "mpii_16"}
  figures, _ = case.run(tmp_path, **changes)
  folder = tmp_path / "eval/70/gt"
  metrics, results = (
    read(folder / "metrics.json"),
    read(folder / "results.json"),
  )
  assert tuple(figures) == mpii.FIGURES
  found = case.found.copy()
  found[8] = 1e5  # could not be read: all wrong
  assert figures == pytest.approx(mpii.pckh(found, truth))
  assert len(results) == number
  assert metrics["intervals"]["Mean"][0] < figures["Mean"]
  assert metrics["people"]["labelled"] == number
  page = (tmp_path / "eval/70/report.html").read_text()
  assert f"<td>{figures['Mean']:.2f}<small>" in page
  assert "PCKh@0.5" in page
  assert metrics["pictures"]["worst"]


def detection_facts(file, case):
  annotations = Annotations("annotations.json", "", case.annotations)
  return coco_folder.detection_facts(str(file), annotations, None)


def box_ap_of_pycocotools(truth, boxes):
  with contextlib.redirect_stdout(io.StringIO()):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    ground_truth = COCO()
    ground_truth.dataset = json.loads(json.dumps(truth))
    ground_truth.createIndex()
    detections = ground_truth.loadRes(json.loads(json.dumps(boxes)))
    judge = COCOeval(ground_truth, detections, "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
  return judge.stats[0]


def test_person_boxes_of_the_papers_detector():
  """The part for minival of the boxes with 56.4 AP on all of val2017."""
  folder = fixtures.require(fixtures.DATA / "coco")
  truth = read(folder / "annotations/person_keypoints_minival.json")
  boxes = read(folder / "person_detection_results/detections_minival.json")
  boxes = [box for box in boxes if box["category_id"] == 1]
  assert boxes_lib.box_ap(truth, boxes) == pytest.approx(0.584, abs=5e-4)
  some = {image["id"] for image in truth["images"][:100]}
  found = boxes_lib.box_ap(truth, boxes, some)
  truth["images"] = truth["images"][:100]
  truth["annotations"], boxes = (
    [one for one in entries if one["image_id"] in some]
    for entries in (truth["annotations"], boxes)
  )
  assert found == pytest.approx(box_ap_of_pycocotools(truth, boxes), abs=1e-9)
  assert 0.5 < found < 0.65


def test_a_checkpoint_with_other_heatmap_coordinates_is_refused(tmp_path):
  meta = checkpoint.describe(tiny.config(), skeletons.COCO_17.to_dict(), {})
  saved = checkpoint.Checkpoints(str(tmp_path))
  saved.save(
    TrainState(
      step=jnp.int32(1),
      params={"w": jnp.ones(2)},
      model_state={"m": jnp.ones(2)},
      opt_state={"o": jnp.ones(2)},
    ),
    meta,
  )
  saved.close()
  with pytest.raises(InputError, match="udp: False -> True"):
    evaluate.evaluate_checkpoint(
      tiny.config(codec__udp=True),
      skeletons.COCO_17,
      str(tmp_path),
      mesh=sharding.create_mesh(jax.devices()[:1]),
      data=Case().data,
    )


def test_an_unknown_decoder_is_named_before_anything_runs():
  with pytest.raises(InputError, match=r"eval\.decoder is 'sharp'"):
    tiny.config(eval__decoder="sharp")
  settings = inference.Settings.of(tiny.config(), skeletons.COCO_17)
  with pytest.raises(InputError, match=r"eval\.decoder is 'sharp'"):
    dataclasses.replace(settings, decoder="sharp")
