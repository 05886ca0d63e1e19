"""The command line: whole runs, kills, and one clear line for bad input."""

import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from ml_collections import ConfigDict

from input_pipeline import runs
from tests import checkpoints, fixtures, tiny
from tests.command_line import call, demo, drawn, environment, start
from tokenpose_jax import cli


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
  """A small COCO folder of drawn people."""
  return drawn(tmp_path_factory.mktemp("data"))


def check_one_line(done: subprocess.CompletedProcess, *parts: str) -> None:
  """Exit code 1, and a single line on standard error that names all parts."""
  lines = [line for line in done.stderr.splitlines() if line.strip()]
  assert done.returncode == 1, done.stderr
  assert len(lines) == 1, done.stderr
  assert lines[0].startswith("error: ")
  for part in parts:
    assert part in lines[0]


def _break(folder: pathlib.Path, kind: str) -> None:
  annotations = folder / "annotations"
  path = annotations / "person_keypoints_train.json"
  if kind == "missing":
    shutil.rmtree(folder)
  elif kind == "empty":
    shutil.rmtree(folder)
    folder.mkdir()
  elif kind == "no split":
    path.unlink()
  elif kind == "no annotations":
    shutil.rmtree(annotations)
  elif kind == "not json":
    path.write_text("images: [")
  elif kind == "no keypoints":
    content = json.loads(path.read_text())
    for entry in content["annotations"]:
      del entry["keypoints"]
    path.write_text(json.dumps(content))
  elif kind == "no images":
    shutil.rmtree(folder / "train")
  elif kind == "outside":
    content = json.loads(path.read_text())
    content["images"][3]["file_name"] = "../../\x1b[2J/secret.jpg"
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
  ("kind", "parts"),
  [
    ("missing", ("does not exist", "--config.data.dir")),
    ("empty", ("empty", "annotations/person_keypoints_SPLIT.json")),
    ("no split", ("train.json does not exist", "splits test", "train_split")),
    ("no annotations", ("train.json does not exist",)),
    ("not json", ("train.json is not JSON",)),
    ("no keypoints", ("no annotation has 'keypoints'", "person_keypoints")),
    ("no images", ("train does not exist",)),
    ("outside", (r"\x1b[2J/secret.jpg", "--config.data.allow_outside=True")),
  ],
)
def test_bad_data_is_one_line(folder, tmp_path, capsys, kind, parts):
  broken = tmp_path / "broken"
  shutil.copytree(folder, broken)
  _break(broken, kind)
  config = tiny.config(
    data__name="coco",
    data__dir=str(broken),
    data__train_split="train",
    data__eval_split="test",
    data__prepared_dir=str(tmp_path / "prepared"),
  )
  workdir = str(tmp_path / "run")
  code = cli.exit_code(lambda: runs.train(ConfigDict(config), workdir))
  said = capsys.readouterr().err
  check_one_line(subprocess.CompletedProcess("", code, stderr=said), *parts)


def test_the_command_says_no_more(folder, tmp_path):
  """Than this line, in which no character rules a terminal."""
  broken = tmp_path / "broken"
  shutil.copytree(folder, broken)
  _break(broken, "outside")
  done = call(*demo(broken, tmp_path / "run"))
  check_one_line(done, r"\x1b[2J/secret.jpg", "allow_outside=True")


@pytest.mark.parametrize(
  ("arguments", "parts"),
  [
    ((), ("--config is missing", "python main.py --config=")),
    (("--config=configs/demo.py",), ("--workdir is missing",)),
    (
      ("--config=configs/nope.py", "--workdir=x"),
      ("--config: configs/nope.py does not exist",),
    ),
    (
      ("--config=configs/demo.py", "--workdir=x", "config.train.steps=6"),
      ("'config.train.steps=6' is no flag", "--config.FIELD"),
    ),
    (("--config=configs/demo.py", "--workdir=x", "--mode=fly"), ("mode",)),
    (
      ("--config=configs/demo.py", "--workdir=x", "--config.optim.lr=1"),
      ("optim.lr",),
    ),
    (
      ("--config=configs/demo.py", "--workdir=x", "--config.modell.dim=1"),
      ("no field 'modell', did you mean 'model'?",),
    ),
    (
      (
        "--config=configs/demo.py",
        "--workdir=x",
        "--config.model.patch_hw=(5, 3)",
      ),
      ("model.patch_hw", "must divide"),
    ),
    (
      ("--config=configs/demo.py", "--workdir=x", "--config.train.epochs=ten"),
      ("train.epochs",),
    ),
  ],
)
def test_bad_flags_are_one_line(arguments, parts):
  check_one_line(call(*arguments), *parts)


def test_help():
  done = call("--help")
  assert done.returncode == 0, done.stderr
  assert "python main.py --config=" in done.stdout
  assert "--workdir" in done.stdout


def test_a_run_from_data_to_figures(folder, tmp_path):
  """Trains, evaluates, and names a broken image once."""
  data = tmp_path / "coco"
  shutil.copytree(folder, data)
  broken = sorted((data / "train").iterdir())[0]
  broken.write_bytes(broken.read_bytes()[:900])
  work = tmp_path / "run"
  done = call(
    *demo(data, work, "--config.train.steps=12", "--config.train.log_every=4")
  )
  assert done.returncode == 0, done.stderr
  assert done.stderr.count(broken.name) == 1
  assert " unreadable" in done.stderr
  assert "Traceback" not in done.stderr
  metrics = json.loads((work / "eval/12/gt/metrics.json").read_text())
  made = metrics["made"]
  assert made["people"] >= 12
  assert made["boxes"] == "gt"
  results = json.loads((work / "eval/12/gt/results.json").read_text())
  assert len(results) <= made["people"]
  assert (work / "eval/12/gt/people.png").stat().st_size > 1000
  assert list(work.glob("events.out.tfevents*"))
  _check_with_pycocotools(data, results, metrics["figures"])

  boxes = data / "person_detection_results/detections_test.json"
  done = call(
    *demo(data, work, "--mode=evaluate", f"--config.eval.boxes={boxes}")
  )
  assert done.returncode == 0, done.stderr
  assert (work / "eval/12/detections_test/results.json").exists()
  page = (work / "eval/12/report.html").read_text()
  assert "<td>gt</td>" in page
  assert "<td>detections_test</td>" in page
  assert "boxes: " in done.stderr


def _check_with_pycocotools(data, results, figures):
  from pycocotools.coco import COCO
  from pycocotools.cocoeval import COCOeval

  truth = COCO(str(data / "annotations/person_keypoints_test.json"))
  judge = COCOeval(truth, truth.loadRes(results), "keypoints")
  judge.evaluate()
  judge.accumulate()
  judge.summarize()
  np.testing.assert_allclose(list(figures.values()), judge.stats, atol=1e-9)


def _when_saving(work: pathlib.Path, step: int, process, number) -> str:
  """Sends a signal as soon as that step is on its way; what was said."""
  deadline = time.monotonic() + 200
  while not list(work.glob(f"checkpoints/{step}*")):
    assert process.poll() is None, "ended before it was told to"
    assert time.monotonic() < deadline
    time.sleep(0.005)
  process.send_signal(number)
  return process.communicate(timeout=60)[1]


def test_a_stopped_and_killed_run_ends_with_the_same_weights(folder, tmp_path):
  more = ("--config.train.steps=40", "--config.checkpoint.every_steps=5")
  whole, broken = tmp_path / "whole", tmp_path / "broken"
  assert call(*demo(folder, whole, *more)).returncode == 0
  process = start(*demo(folder, broken, *more))
  said = _when_saving(broken, 5, process, signal.SIGTERM).splitlines()
  assert process.returncode == 143, said
  assert said[-1].startswith("stopped by SIGTERM at step ")
  assert said[-1].endswith(", which is saved; the same command goes on")
  assert not [line for line in said[:-1] if not line.startswith(("I", "W"))]
  process = start(*demo(folder, broken, *more))
  said = _when_saving(broken, 30, process, signal.SIGKILL)
  assert "resuming from step" in said
  assert not (broken / "eval").exists()
  done = call(*demo(folder, broken, *more))
  assert done.returncode == 0, done.stderr
  assert "resuming from step" in done.stderr
  assert checkpoints.checksums(broken, 40) == checkpoints.checksums(whole, 40)


def test_tensorflow_is_imported_in_one_place_only():
  import_lines = ("import tensorflow", "from tensorflow")
  found = {
    path.relative_to(fixtures.ROOT).as_posix()
    for path in fixtures.ROOT.glob("**/*.py")
    if not any(part.startswith(".") for part in path.parts)
    and any(
      line.strip().startswith(import_lines)
      for line in path.read_text().splitlines()
    )
  }
  rooms = ("input_pipeline/", "tests/", "benchmarks/")
  others = {path for path in found if not path.startswith(rooms)}
  assert others == {"tokenpose_jax/exported.py"}  # To run a SavedModel.


def test_the_package_works_without_tensorflow():
  """Also through others: no module of TensorFlow may be loaded."""
  program = (
    "import sys; sys.modules['tensorflow'] = None;"
    "import tokenpose_jax as tp, tokenpose_jax.train, tokenpose_jax.evaluate;"
    "from configs import tokenpose_t; from flax import nnx;"
    "tp.create_model(tokenpose_t.get_config().model, rngs=nnx.Rngs(0))"
  )
  done = subprocess.run(
    [sys.executable, "-c", program],
    cwd=fixtures.ROOT,
    env=environment(),
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
