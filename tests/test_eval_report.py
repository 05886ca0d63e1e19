"""The report of an evaluation: files, page, best and worst, how it was made."""

import dataclasses
import html.parser
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
from tests import coco_sets, fixtures, tiny
from tests.eval_run import IMAGES, Case, H, W, read
from tokenpose_jax import (
  InputError,
  checkpoint,
  eval_report,
  evaluate,
  inference,
  saving,
  sharding,
  skeletons,
)
from tokenpose_jax.eval_report import provenance
from tokenpose_jax.metrics import coco, mpii
from tokenpose_jax.metrics.mpii_pckh import MpiiPckh
from tokenpose_jax.train_state import TrainState


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  """A work directory with one evaluation; its figures and contact sheet."""
  path = tmp_path_factory.mktemp("run")
  return path, *Case().run(path)


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
    coco_sets.official_box_ap(case.annotations, boxes), abs=1e-9
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


@pytest.mark.parametrize(
  "content",
  ["", "{", "[]", "{}", "\0" * 9, '{"made": 1}', fixtures.DEEP],
  ids=lambda text: text[:9],
)
def test_a_damaged_one_is_named_and_stays(tmp_path, content, caplog):
  Case().run(tmp_path)
  broken = tmp_path / "eval/70/gt/metrics.json"
  broken.write_text(content)
  Case().run(tmp_path)
  assert broken.read_text() == content
  assert (tmp_path / "eval/70/gt-2/metrics.json").exists()
  assert (tmp_path / "eval/70/report.html").exists()
  assert "gt/metrics.json is damaged" in caplog.text
  assert not list(tmp_path.rglob("*.partial"))


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


def test_one_that_cannot_be_shown_is_left_out(tmp_path, caplog):
  """Others may have written anything that looks like an evaluation."""
  Case().run(tmp_path)
  file = tmp_path / "eval/70/gt/metrics.json"
  content = read(file)
  entries = (content, content["made"], content["people"], content["figures"])

  def shown(changed):
    file.write_text(json.dumps(changed))
    eval_report.read(str(tmp_path), 70)

  for entry in entries:
    assert fixtures.fuzz(content, entry, shown)["right"]
  del content["made"]["config"]
  file.write_text(json.dumps(content))
  Case(boxes="mine.json").run(tmp_path)
  assert "the others of this step cannot be shown" in caplog.text
  text = (tmp_path / "eval/70/report.html").read_text()
  assert "mine" in text


TRICK = "</script><script>alert(1)</script>\"'\u202e\x1b[2J"


def test_names_on_the_page_are_text(tmp_path):
  names = (*skeletons.COCO_17.keypoints[:-1], TRICK)
  odd = dataclasses.replace(skeletons.COCO_17, keypoints=names)
  Case(odd, boxes=f"{TRICK}.json").run(tmp_path)
  (path,) = tmp_path.rglob("report.html")
  text = path.read_text()
  page = Page()
  page.feed(text)
  assert not page.tags & {"script"}
  assert not {"\u202e", "\x1b"} & {*text}
  assert "&lt;/script&gt;" in text


@pytest.mark.parametrize(
  ("boxes", "folder"),
  [
    ("gt", "gt"),
    ("dir/val2017 (0.5).json", "val2017 (0.5)"),
    ("框.json", "框"),
    ("..", "boxes"),
    (".", "boxes"),
    ("", "boxes"),
    ("x/...json", "boxes"),
    ("report.html.json", "boxes-report.html"),
    ("Report.html.partial", "boxes-Report.html"),
    ("a\x1b[2J\u202eb\n.json", "a_[2J_b_"),
    ("a\\..\\b.json", "a_.._b"),
    ("ü" * 250 + ".json", "ü" * 60),
  ],
  ids=ascii,
)
def test_boxes_of_any_name_have_a_folder_beside_the_report(
  tmp_path, boxes, folder
):
  case = Case(boxes=boxes)
  case.run(tmp_path)
  step = tmp_path / "eval" / "70"
  assert {path.name for path in step.iterdir()} == {folder, "report.html"}
  assert (step / folder / "metrics.json").exists()
  assert {path.name for path in tmp_path.iterdir()} == {"eval"}
  case.run(tmp_path)  # replaced, not beside itself
  assert len([*step.iterdir()]) == 2


def test_a_place_that_cannot_be_written(tmp_path):
  (tmp_path / "eval").write_text("a file")
  with pytest.raises(InputError, match="cannot write the evaluation") as error:
    Case().run(tmp_path)
  assert "\n" not in str(error.value)


def test_figures_by_category(tmp_path):
  case = Case()
  case.annotations["categories"].append({"id": 7, "name": "child <b>"})
  entries = case.annotations["annotations"]
  for entry in entries[::2]:
    entry["category_id"] = 7
  case.data.boxes.category_id[::2] = 7
  case.run(tmp_path)
  made = read(tmp_path / "eval" / "70" / "gt" / "metrics.json")
  rows = {row["name"]: row for row in made["categories"]}
  assert rows["person"]["people"] == 4
  assert rows["child <b>"]["people"] == 5
  # COCO's AP is the mean over categories.
  mean = np.mean([row["AP"] for row in rows.values()])
  assert made["figures"]["AP"] == pytest.approx(mean)
  assert rows["person"]["AP"] != rows["child <b>"]["AP"]
  (page,) = tmp_path.rglob("report.html")
  assert "child &lt;b&gt;</td><td>5</td>" in page.read_text()


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


def test_a_checkpoint_with_other_heatmap_coordinates_is_refused(tmp_path):
  meta = checkpoint.describe(tiny.config(), skeletons.COCO_17.to_dict(), {})
  saved = saving.Saver(str(tmp_path))
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


def test_averaged_weights_have_a_folder_of_their_own(tmp_path):
  case = Case()
  case.run(tmp_path)
  case.run(tmp_path, kind="ema")
  folder = tmp_path / "eval" / "70"
  kinds = {
    path.parent.name: read(path)["made"]["weights"]
    for path in folder.glob("*/metrics.json")
  }
  assert kinds == {"gt": "raw", "gt-ema": "ema"}
  page = (folder / "report.html").read_text()
  assert "gt-ema" in page


def test_an_unknown_decoder_is_named_before_anything_runs():
  with pytest.raises(InputError, match=r"eval\.decoder is 'sharp'"):
    tiny.config(eval__decoder="sharp")
  settings = inference.Settings.of(tiny.config(), skeletons.COCO_17)
  with pytest.raises(InputError, match=r"eval\.decoder is 'sharp'"):
    dataclasses.replace(settings, decoder="sharp")
