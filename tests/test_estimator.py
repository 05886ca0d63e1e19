"""Photos and boxes in, keypoints out, from whatever was saved."""

import json
import sys

import jax
import numpy as np
import pytest

import tokenpose_jax as tp
from tests import fixtures, tiny
from tokenpose_jax import checkpoint, convert, crops, inference, saving
from tokenpose_jax.predict.load import finder
from tokenpose_jax.skeletons import COCO_17

PHOTOS = [
  fixtures.rng(n).integers(0, 256, (120 + 20 * n, 200, 3)).astype(np.uint8)
  for n in range(3)
]
BOXES = [
  np.array([[20.0, 30, 60, 80], [100, 20, 40, 90]]),
  np.zeros((0, 4)),
  np.array([[5.0, 5, 150, 120]]),
]


@pytest.fixture(scope="module")
def network():
  """A tiny network: its fields and weights."""
  model = tiny.model()
  return model, tp.init(model, seed=0, scheme="fan_in")


@pytest.fixture(scope="module")
def estimator(network):
  model, weights = network
  codec = tp.Codec(model.input_hw, model.heatmap_hw)
  return tp.Estimator(finder(model, weights, codec), codec, COCO_17)


def evaluated(network, photo, boxes):
  """As an evaluation predicts: one function, no padding."""
  model, weights = network
  settings = inference.Settings(
    model,
    tp.Codec(model.input_hw, model.heatmap_hw),
    tuple(COCO_17.flip_permutation.tolist()),
  )
  people, to_photo = crops.crop_people(photo, boxes, model.input_hw)
  run = jax.jit(inference.keypoints, static_argnums=0)
  return run(settings, *weights, people, to_photo)


def check_same(poses, wanted):
  np.testing.assert_allclose(
    poses.keypoints, wanted.image, rtol=1e-4, atol=0.02
  )
  np.testing.assert_allclose(poses.scores, wanted.scores, rtol=1e-4)


def test_a_photo_is_predicted_as_an_evaluation_predicts(network, estimator):
  poses = estimator(PHOTOS[0], BOXES[0])
  check_same(poses, evaluated(network, PHOTOS[0], BOXES[0]))
  assert (len(poses), poses.skeleton) == (2, COCO_17)
  above = np.where(poses.scores > 0.2, poses.scores, np.nan)
  for mean, row in zip(poses.person_scores, above, strict=True):
    known = row[np.isfinite(row)]
    assert mean == pytest.approx(known.mean() if known.size else 0)


def test_lists_are_predicted_like_each_alone(estimator):
  together = estimator(PHOTOS, BOXES)
  for poses, photo, boxes in zip(together, PHOTOS, BOXES, strict=True):
    alone = estimator(photo, boxes)
    # Of noise, DARK may find a maximum thousands of pixels away.
    np.testing.assert_allclose(
      poses.keypoints, alone.keypoints, rtol=1e-4, atol=0.02
    )
    np.testing.assert_array_equal(poses.boxes, boxes)


def test_without_boxes_a_photo_is_one_person(network, estimator):
  (poses,) = estimator(PHOTOS[2:])
  whole = np.array([[0.0, 0, 200, 160]])
  check_same(poses, evaluated(network, PHOTOS[2], whole))


def test_boxes_that_show_nobody(estimator, caplog):
  boxes = [[20, 30, 60, 80], [20, 30, 0, 80], [900, 0, 9, 9], [-50, 0, 9, 9]]
  poses = estimator(PHOTOS[0], boxes)
  assert np.isfinite(poses.keypoints[0]).all()
  assert np.isnan(poses.keypoints[1:]).all()
  assert not poses.scores[1:].any()
  assert not poses.person_scores[1:].any()
  assert "3 boxes without area" in caplog.text
  assert len(poses.to_coco(7)) == 1
  drawn = poses.draw(PHOTOS[0], min_score=-1)
  assert drawn.shape == PHOTOS[0].shape
  assert (drawn != PHOTOS[0]).any()
  np.testing.assert_array_equal(poses.draw(PHOTOS[0], 1e9), PHOTOS[0])


def test_nothing_is_compiled_twice():
  """Any number of people is one of a few sizes."""
  sizes = []

  def function(people):
    sizes.append(len(people))
    return np.ones((len(people), 17, 16, 12), np.float32)

  made = tp.Estimator(
    function, tp.Codec((64, 48), (16, 12)), COCO_17, flip_test=False
  )
  for count in (1, 3, 8, 9, 40):
    assert len(made(PHOTOS[0], BOXES[0][:1].repeat(count, 0))) == count
  assert sizes == [1, 8, 8, 32, 32, 8]


def test_supervision_has_the_same_people(estimator):
  poses = estimator(PHOTOS[0], [*BOXES[0].tolist(), [20, 30, 0, 80]])
  found = poses.to_supervision()
  np.testing.assert_array_equal(found.xy, poses.keypoints[:2])
  np.testing.assert_array_equal(found.keypoint_confidence, poses.scores[:2])
  np.testing.assert_allclose(
    found.detection_confidence, poses.person_scores[:2], rtol=1e-6
  )


def test_without_supervision(estimator, monkeypatch):
  monkeypatch.setitem(sys.modules, "supervision", None)
  with pytest.raises(tp.InputError, match="pip install supervision"):
    estimator(PHOTOS[0]).to_supervision()


def test_results_are_coco(estimator):
  poses = estimator(PHOTOS[0], BOXES[0])
  results = json.loads(json.dumps(poses.to_coco(5)))
  people = [
    fixtures.person(5, box, keypoints=result["keypoints"], id=n)
    for n, (box, result) in enumerate(zip(BOXES[0], results, strict=True))
  ]
  for person in people:
    person["bbox"] = person["bbox"][:]
    person["keypoints"] = np.where(
      np.arange(51) % 3 == 2, 2, person["keypoints"]
    ).tolist()
  truth = {"images": [{"id": 5}], "annotations": people}
  assert tp.metrics.coco.evaluate(truth, results)["AP"] == pytest.approx(1)


@pytest.mark.parametrize(
  ("photo", "boxes", "says"),
  [
    (PHOTOS[0].astype(np.float32), None, "photo 0: .* of float32"),
    (PHOTOS[0][..., :1], None, r"photo 0: .*\(120, 200, 1\)"),
    (PHOTOS[0][:0], None, r"photo 0: .*\(0, 200, 3\)"),
    ([PHOTOS[0][..., 0]], None, r"photo 0: .*\(120, 200\)"),
    (["a.jpg"], None, "photo 0: .* got str"),
    (PHOTOS, BOXES[:2], "3 photos, but boxes of 2"),
    (PHOTOS[0], [1, 2, 3, 4], r"boxes of photo 0: .*\(4,\)"),
    (PHOTOS[0], [[1, 2, 3]], r"boxes of photo 0: .*\(1, 3\)"),
    (PHOTOS[0], [[1, 2, np.nan, 4]], "boxes of photo 0: expected finite"),
    (PHOTOS[0], [["x", 2, 3, 4]], "boxes of photo 0"),
  ],
)
def test_bad_input_is_one_line(estimator, photo, boxes, says):
  with pytest.raises(tp.InputError, match=says) as error:
    estimator(photo, boxes)
  assert "\n" not in str(error.value)


def test_a_work_directory_knows_how_it_is_used(tmp_path, network):
  settings = tiny.config(eval__flip=False, eval__decoder="argmax")
  state, _, _ = tiny.training(settings, jax.devices()[:1])
  saved = saving.Saver(str(tmp_path))
  meta = checkpoint.describe(settings, COCO_17.to_dict(), {})
  # Trained with a kernel, used where there is none.
  meta["config"]["model"]["attention"] = "fused"
  saved.save(state, meta)
  saved.close()
  loaded = tp.load(str(tmp_path))
  model, _ = network
  codec = tp.Codec(model.input_hw, model.heatmap_hw)
  made = tp.Estimator(
    finder(model, (state.params, state.model_state), codec),
    codec,
    COCO_17,
    flip_test=False,
    decoder="argmax",
  )
  one, other = (e(PHOTOS[0], BOXES[0]) for e in (loaded, made))
  np.testing.assert_allclose(
    one.keypoints, other.keypoints, rtol=1e-4, atol=0.02
  )
  flipped = tp.load(str(tmp_path), flip_test=True)(PHOTOS[0], BOXES[0])
  assert np.abs(flipped.scores - one.scores).max() > 1e-6


def test_either_weights_of_a_work_directory(tmp_path, network):
  settings = tiny.config(eval__flip=False, eval__weights="ema")
  state, _, _ = tiny.training(settings, jax.devices()[:1])
  model, other = network
  saved = saving.Saver(str(tmp_path))
  meta = checkpoint.describe(settings, COCO_17.to_dict(), {})
  saved.save(state.replace(ema=other), meta)
  saved.close()
  found = {
    kind: tp.load(str(tmp_path), weights=kind)(PHOTOS[0], BOXES[0]).scores
    for kind in ("", "raw", "ema")
  }
  raw = (state.params, state.model_state)
  codec = tp.Codec(model.input_hw, model.heatmap_hw)
  for kind, weights in (("raw", raw), ("ema", other)):
    one = tp.Estimator(
      finder(model, weights, codec), codec, COCO_17, flip_test=False
    )
    wanted = one(PHOTOS[0], BOXES[0]).scores
    np.testing.assert_allclose(found[kind], wanted, rtol=1e-4)
  np.testing.assert_array_equal(found[""], found["ema"])
  assert np.abs(found["raw"] - found["ema"]).max() > 1e-3


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_a_file_of_weights(tmp_path, ending):
  # What a file does not say is as published: attention heads, their scale.
  fields = tiny.model().to_dict() | {"heads": 8, "attention_scale": "width"}
  model = tp.ModelConfig.of(fields)
  weights = tp.init(model, seed=0, scheme="fan_in")
  path = str(tmp_path / f"weights{ending}")
  convert.write_state_dict(path, tp.export_torch(model, *weights))
  found = tp.load(path)(PHOTOS[0], BOXES[0])
  check_same(found, evaluated((model, weights), PHOTOS[0], BOXES[0]))


def test_what_cannot_be_loaded_is_one_line(tmp_path):
  (tmp_path / "empty").mkdir()
  (tmp_path / "x.pth").write_text("text")
  for name, says in (
    ("nowhere", "does not exist"),
    ("empty", "holds no checkpoint|does not exist"),
    ("x.pth", "not a complete file of PyTorch"),
  ):
    with pytest.raises(tp.InputError, match=says) as error:
      tp.load(str(tmp_path / name))
    assert "\n" not in str(error.value)
