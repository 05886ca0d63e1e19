"""Folders that others load, and their way over Hugging Face."""

import json
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

import tokenpose_jax as tp
from tests import (
  command_line,
  eval_run,
  exporting,
  fixtures,
  hub_server,
  tiny,
)
from tokenpose_jax import checkpoint, hub, saving
from tokenpose_jax.errors import InputError
from tokenpose_jax.predict import saved as saved_lib

PHOTO = fixtures.rng(0).integers(0, 256, (120, 200, 3)).astype(np.uint8)
BOXES = [[20.0, 30, 60, 80]]
FILES = ["README.md", "config.json", "model.safetensors", "skeleton.json"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A work directory whose checkpoint was evaluated."""
  path = tmp_path_factory.mktemp("run")
  settings = tiny.config(eval__flip=False, eval__decoder="quarter")
  state, _, _ = tiny.training(settings, jax.devices()[:1])
  saved = saving.Saver(str(path))
  skeleton = tp.skeletons.COCO_17.to_dict()
  saved.save(
    state.replace(step=jnp.asarray(70, jnp.int32)),
    checkpoint.describe(settings, skeleton, {}),
  )
  saved.close()
  eval_run.Case().run(path)
  return path


@pytest.fixture(scope="module")
def published(run):
  folder = run.parent / f"{run.name}-published"
  hub.save_pretrained(str(run), str(folder), license="apache-2.0")
  return folder


def test_a_folder_predicts_what_its_run_predicts(run, published):
  assert sorted(p.name for p in published.iterdir()) == FILES
  one = tp.load(str(run))(PHOTO, BOXES)
  for loaded in (tp.load, tp.from_pretrained):
    other = loaded(str(published))(PHOTO, BOXES)
    np.testing.assert_array_equal(one.keypoints, other.keypoints)
    np.testing.assert_array_equal(one.scores, other.scores)
  again = tp.load(str(published), flip_test=True)(PHOTO, BOXES)
  assert np.abs(again.scores - one.scores).max() > 1e-6
  use = json.loads((published / "config.json").read_text())["use"]
  assert (use["decoder"], use["flip_test"], use["padding"]) == (
    "quarter",
    False,
    1.25,
  )


def test_a_card_has_the_figures_of_the_evaluation(run, published):
  metrics = eval_run.read(run / "eval" / "70" / "gt" / "metrics.json")
  text = (published / "README.md").read_text()
  header = yaml.safe_load(text.split("---\n")[1])
  assert header["license"] == "apache-2.0"
  ((result,),) = [i["results"] for i in header["model-index"]]
  figures = {m["type"]: m["value"] for m in result["metrics"]}
  assert figures["AP"] == pytest.approx(metrics["figures"]["AP"], abs=1e-4)
  assert f"{metrics['figures']['AP']:.3f}" in text
  # Neither of them names a folder of this machine.
  assert result["dataset"]["name"] == "coco val2017"
  assert str(run) not in text


def test_a_card_says_what_should_be_known(run, tmp_path):
  """Words of one's own, intervals, each keypoint, calibration."""
  about, folder = tmp_path / "about.md", tmp_path / "out"
  about.write_text("## Data\n\nTrained on noise.\n")
  exporting.command(
    *(hub, str(run), str(folder), "--license=apache-2.0", f"--about={about}")
  )
  text = (folder / "README.md").read_text()
  metrics = eval_run.read(run / "eval" / "70" / "gt" / "metrics.json")
  assert text.index("Trained on noise.") < text.index("## Evaluation")
  low, high = metrics["intervals"]["AP"]
  assert f"AP {low:.3f} to {high:.3f}" in text
  for row in metrics["keypoints"]:
    cells = f"| {row['name']} | {row['labelled']} | {row['similarity']:.3f} |"
    assert cells in text
  assert f"above 0.5): {metrics['calibration']['error']:.3f}." in text


def test_words_that_cannot_be_read(run, tmp_path):
  with pytest.raises(InputError, match=r"--about=.*about\.md: "):
    exporting.command(
      hub, str(run), str(tmp_path / "out"), f"--about={tmp_path / 'about.md'}"
    )
  assert not (tmp_path / "out").exists()


def test_a_card_has_the_figures_of_its_own_weights(run, tmp_path):
  """Those of the raw weights are not the average's."""
  copied = tmp_path / "run"
  shutil.copytree(run / "eval", copied / "eval")
  settings = tiny.config(eval__flip=False)
  state, _, _ = tiny.training(settings, jax.devices()[:1])
  saved = saving.Saver(str(copied))
  average = jax.tree.map(jnp.copy, (state.params, state.model_state))
  saved.save(
    state.replace(step=jnp.asarray(70, jnp.int32), ema=average),
    checkpoint.describe(settings, tp.skeletons.COCO_17.to_dict(), {}),
  )
  saved.close()
  for kind, says in (
    ("raw", "| coco val2017 | gt |"),
    ("ema", "Not evaluated"),
  ):
    folder = tmp_path / kind
    hub.save_pretrained(str(copied), str(folder), weights=kind)
    assert says in (folder / "README.md").read_text()


def test_a_network_without_an_evaluation(tmp_path):
  model = tiny.model()
  weights = tp.init(model, seed=0)
  codec = tp.Codec(model.input_hw, model.heatmap_hw)
  saved = saved_lib.Saved(model, weights, codec, tp.skeletons.COCO_17, {})
  card = hub.model_card(saved, "net", [], "")
  assert "Not evaluated." in card
  assert "license of the weights: not stated" in card
  assert "license" not in yaml.safe_load(card.split("---\n")[1])


def test_any_content_of_config_json(published):
  path = published / "config.json"
  kept = path.read_text()
  content = json.loads(kept)

  def check(changed):
    path.write_text(json.dumps(changed))
    saved_lib.read(str(published))

  try:
    for entry in (content, content["codec"], content["use"]):
      count = fixtures.fuzz(content, entry, check)
      assert count["refused"]
    with pytest.raises(tp.InputError, match="format 2, written by"):
      check({**content, "format": 2})
    with pytest.raises(tp.InputError, match="larger than any of its kind"):
      check({**content, "model": {**content["model"], "depth": 10**9}})
    path.write_text(fixtures.DEEP)
    with pytest.raises(tp.InputError, match=r"config\.json is not usable JSON"):
      saved_lib.read(str(published))
  finally:
    path.write_text(kept)


def test_what_is_there_is_not_overwritten(run, published):
  before = {p: p.read_bytes() for p in published.iterdir()}
  with pytest.raises(tp.InputError, match="is already there"):
    hub.save_pretrained(str(run), str(published))
  assert before == {p: p.read_bytes() for p in published.iterdir()}


def in_a_process(code: str, address: str, home) -> subprocess.CompletedProcess:
  # huggingface_hub reads its environment when it is imported.
  environment = {
    "HF_ENDPOINT": address,
    "HF_HOME": str(home),
    "HF_TOKEN": "hf_none",
    "HF_HUB_DISABLE_TELEMETRY": "1",
  }
  return subprocess.run(
    [sys.executable, "-c", code],
    cwd=fixtures.ROOT,
    env=command_line.environment(**environment),
    capture_output=True,
    text=True,
    timeout=120,
    check=False,
  )


def test_up_to_hugging_face_and_down_again(tmp_path, published):
  with hub_server.running() as (address, repos):
    code = f"""if True:
      import numpy as np
      import tokenpose_jax as tp
      from tokenpose_jax import hub
      print(hub.push({str(published)!r}, "me/net"))
      photo = np.full((90, 60, 3), 99, np.uint8)
      names = {str(published)!r}, "me/net"
      poses = [tp.from_pretrained(name)(photo) for name in names]
      assert np.array_equal(poses[0].keypoints, poses[1].keypoints)
      try:
        tp.from_pretrained("me/other")
      except tp.InputError as error:
        print("refused:", error)
      """
    done = in_a_process(code, address, tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(repos["me/net"]) == FILES
    for name, content in repos["me/net"].items():
      assert content == (published / name).read_bytes()
  says = done.stdout.splitlines()
  assert says[0].startswith("http")
  assert says[1].startswith("refused: there is no folder me/other, and Hugging")
