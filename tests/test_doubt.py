"""How far keypoints are to be trusted: the heads of `model.doubt`."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import tokenpose_jax as tp
from input_pipeline import batches, coco_people, mpii
from input_pipeline.people import Annotations, People
from tests import eval_run, exporting, fixtures, small_coco, small_mpii, tiny
from tokenpose_jax import codec as codec_lib
from tokenpose_jax import (
  convert,
  exported,
  gradients,
  inference,
  losses,
  network,
  train_state,
  transfer,
)
from tokenpose_jax.convert.detect import detect
from tokenpose_jax.errors import InputError
from tokenpose_jax.eval_report import page
from tokenpose_jax.eval_report.record import Record
from tokenpose_jax.export import command
from tokenpose_jax.metrics import error_kinds, oks
from tokenpose_jax.models import doubt as doubt_lib
from tokenpose_jax.models.doubt import Doubt
from tokenpose_jax.predict import command as predict_command
from tokenpose_jax.skeletons import COCO_17, MPII_16

PLAIN = dataclasses.replace(tiny.model(), heads=8, attention_scale="width")
WITH = dataclasses.replace(PLAIN, doubt=True)
PHOTO = fixtures.rng(3).integers(0, 256, (120, 200, 3)).astype(np.uint8)
BOXES = [[20.0, 30, 60, 80], [100, 20, 40, 90]]


def _weights(model=WITH, seed=0):
  params, state = tp.init(model, seed, "fan_in")
  if model.doubt:
    rng = np.random.default_rng(seed)
    params["doubt"]["bias"] = jnp.array(rng.normal(size=4), jnp.float32)
  return params, state


def _crops(count=3):
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (count, *WITH.input_hw, 3), np.uint8)


def test_heads_change_nothing_else():
  plain, also = tp.init(PLAIN, 0), tp.init(WITH, 0)
  own = also[0].pop("doubt")
  assert jax.tree.map(np.shape, own) == {"bias": (4,), "kernel": (33, 4)}
  jax.tree.map(np.testing.assert_array_equal, plain, also)
  images = network.normalize(_crops())
  params, state = _weights()
  without = {name: part for name, part in params.items() if name != "doubt"}
  apply = jax.jit(tp.apply, static_argnums=0)
  np.testing.assert_array_equal(
    apply(PLAIN, without, state, images), apply(WITH, params, state, images)
  )


@pytest.mark.parametrize("microbatches", [1, 2])
def test_training_of_the_rest_is_the_same(microbatches):
  """Also where gradients are clipped one by one, as Adam scales them."""
  steps = {}
  for doubt in (False, True):
    settings = tiny.config(
      model__doubt=doubt, train__microbatches=microbatches, train__batch_size=4
    )
    state, step, _ = tiny.training(settings, jax.devices()[:1])
    for seed in range(2):
      state, metrics = step(state, tiny.batch(settings, seed))
    steps[doubt] = state, metrics
  (plain, old), (also, new) = steps[False], steps[True]
  params = dict(also.params)
  before = tp.init(settings.model, settings.seed)[0]["doubt"]
  moved = jax.tree.map(
    lambda a, b: np.abs(a - b).max(), params["doubt"], before
  )
  assert min(jax.tree.leaves(moved)) > 1e-4
  del params["doubt"]
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7),
    plain.params,
    params,
  )
  assert "doubt" not in old.scalars
  np.testing.assert_allclose(
    old.scalars["loss"], new.scalars["loss"], rtol=1e-6
  )
  assert new.scalars["doubt"] > 0


def _truth(rng, shape):
  return gradients.Truth(
    rng.uniform(0, 12, (*shape, 2)).astype(np.float32),
    (rng.random(shape) < 0.7).astype(np.float32),
    (rng.random(shape) < 0.3).astype(np.float32),
    rng.uniform(1, 8, shape).astype(np.float32),
  )


def _of_loss(logits, truth, distance, mask):
  """Of `losses.doubt`, keypoint by keypoint."""
  total = 0.0
  for person in np.flatnonzero(mask):
    for k in range(logits.shape[1]):
      chance = 1 / (1 + np.exp(-logits[person, k, :3].astype(float)))
      said = logits[person, k, 3].astype(float)
      present = truth.present[person, k] > 0
      one = -np.log(chance[0] if present else 1 - chance[0])
      if present:
        seen = truth.hidden[person, k] == 0
        alike = 0.5 ** (distance[person, k] / truth.reach[person, k]) ** 2
        one -= np.log(chance[1] if seen else 1 - chance[1])
        one -= alike * np.log(chance[2]) + (1 - alike) * np.log(1 - chance[2])
        one += distance[person, k] / np.exp(said) + said
      total += one / logits.shape[1]
  return total / mask.sum()


def test_the_loss_is_what_it_says():
  rng = np.random.default_rng(0)
  mask = np.array([1, 0, 1], np.float32)
  truth = _truth(rng, (3, 5))
  distance = rng.uniform(0, 9, (3, 5)).astype(np.float32)
  logits = rng.normal(size=(3, 5, 4)).astype(np.float32)
  found = losses.doubt(
    logits, truth.present, truth.hidden, distance, truth.reach, mask
  )
  wanted = _of_loss(logits, truth, distance, mask)
  assert float(found) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("microbatches", [1, 2])
def test_the_loss_of_a_batch(microbatches):
  """Distances are from where heatmaps have their maxima, to a quarter pixel."""
  rng = np.random.default_rng(1)
  params, state = _weights()
  crops = _crops(4)
  mask = np.array([1, 1, 0, 1], np.float32)
  shape = (4, WITH.num_keypoints)
  truth = _truth(rng, shape)
  targets = rng.random((*shape, *WITH.heatmap_hw), np.float32)
  batch = gradients.Batch(crops, targets, np.ones(shape), mask, truth)
  half = gradients.LossWeights(doubt=0.5)
  found = tiny.of_batch(
    WITH, params, state, batch, microbatches, loss_weights=half
  )
  points, _ = codec_lib.decode(found.heatmaps, "quarter")
  distance = np.linalg.norm(np.asarray(points) - truth.points, axis=-1)
  if microbatches == 1:
    made, _ = tiny.train_passes(WITH, params, state, network.normalize(crops))
    wanted = _of_loss(np.asarray(made[0].doubt), truth, distance, mask)
    assert float(found.doubt) == pytest.approx(wanted, rel=1e-4)
  # Nothing of it reaches what is not a head of doubt.
  zero = tiny.of_batch(WITH, params, state, batch, microbatches)
  one, other = dict(found.gradient), dict(zero.gradient)
  assert np.abs(one.pop("doubt")["bias"]).min() > 0
  assert np.abs(other.pop("doubt")["bias"]).max() == 0
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-8),
    one,
    other,
  )
  without = batch._replace(truth=None)
  with pytest.raises(ValueError, match="needs Batch"):
    gradients.of_batch(WITH, params, state, without)


def test_the_loss_is_least_where_all_is_true():
  """Frequencies, and the mean of the errors."""
  rng = np.random.default_rng(2)
  truth = _truth(rng, (400, 1))
  distance = rng.exponential(6, (400, 1)).astype(np.float32)
  present = truth.present > 0

  def logit(share):
    return np.log(share / (1 - share))

  best = [
    logit(present.mean()),
    logit((truth.hidden[present] == 0).mean()),
    logit((0.5 ** (distance / truth.reach) ** 2)[present].mean()),
    np.log(distance[present].mean()),
  ]

  def of(values):
    logits = jnp.broadcast_to(values, (400, 1, 4))
    return losses.doubt(
      logits, truth.present, truth.hidden, distance, truth.reach
    )

  gradient = jax.grad(of)(jnp.array(best, jnp.float32))
  np.testing.assert_allclose(gradient, 0, atol=1e-5)


def test_what_the_heads_say():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(2, 17, 4)).astype(np.float32)
  said = doubt_lib.of_logits(logits, 4.0)
  chance = 1 / (1 + np.exp(-logits))
  for n, name in enumerate(("presence", "visibility", "similarity")):
    np.testing.assert_allclose(getattr(said, name), chance[..., n], rtol=1e-5)
  np.testing.assert_allclose(said.error, 4 * np.exp(logits[..., 3]), rtol=1e-5)
  np.testing.assert_allclose(said.scores, said.presence * said.similarity)
  assert np.isfinite(doubt_lib.of_logits(logits * 1e6).error).all()
  assert tuple(said._asdict()) == exported.DOUBT


def test_flip_test_and_image_pixels():
  codec = tp.Codec(WITH.input_hw, WITH.heatmap_hw)
  mirror = tuple(COCO_17.flip_permutation.tolist())
  params, state = _weights()
  crops = _crops()
  affine = np.zeros((3, 2, 3), np.float32)
  affine[:, 0, 1], affine[:, 1, 0] = 2.5, -2.5  # turned, 2.5 times as large
  run = jax.jit(inference.keypoints, static_argnums=0)
  plain, flipped = (
    run(inference.Settings(WITH, codec, m), params, state, crops, affine)
    for m in ((), mirror)
  )
  turned = run(
    inference.Settings(WITH, codec),
    *(params, state),
    np.ascontiguousarray(crops[:, :, ::-1]),
    affine,
  )
  for name in exported.DOUBT:
    one, other, both = (
      np.asarray(getattr(found.doubt, name))
      for found in (plain, turned, flipped)
    )
    mean = (one + other[:, list(mirror)]) / 2
    np.testing.assert_allclose(both, mean, rtol=1e-4)
  last = network.last_pass(WITH, params, state, network.normalize(crops))
  wanted = np.exp(np.asarray(last.doubt)[..., 3]) * 2.5 * 47 / 11
  np.testing.assert_allclose(plain.doubt.error, wanted, rtol=1e-4)
  np.testing.assert_allclose(plain.scores, plain.doubt.scores)
  assert np.abs(plain.scores - plain.peaks).max() > 0.01
  without = {name: part for name, part in params.items() if name != "doubt"}
  old = run(inference.Settings(PLAIN, codec), without, state, crops, affine)
  assert old.doubt is None
  np.testing.assert_array_equal(old.scores, plain.peaks)


def test_truth_of_a_batch(tmp_path):
  """Hidden ones and reach go with their keypoints, mirrored or not."""
  config, split, people = small_coco.prepare(tmp_path)
  rng = np.random.default_rng(0)
  hidden = (rng.random(people.visible.shape) < 0.5).astype(np.float32)
  people = dataclasses.replace(people, hidden=hidden)
  reach = coco_people.reach(people, COCO_17)
  assert (reach > 0).all()
  mirrors = 0
  for step, batch in enumerate(small_coco.train((config, split, people), 6)):
    for slot in range(small_coco.BATCH):
      position = np.array([step * small_coco.BATCH + slot])
      (person,), crops = batches.training_crops(config, split, people, position)
      turned = np.linalg.det(crops.affine[0, :, :2])
      order = COCO_17.flip_permutation if turned < 0 else np.arange(17)
      mirrors += turned < 0
      np.testing.assert_array_equal(
        batch["hidden"][slot], hidden[person, order]
      )
      np.testing.assert_allclose(
        batch["reach"][slot],
        reach[person, order] * np.sqrt(np.abs(turned)),
        rtol=1e-6,
      )
  assert 0 < mirrors < 24


def test_labels_of_a_file():
  """0: not labeled, 1: hidden, 2: visible; the area is the annotated one."""
  labels = np.arange(17) % 3
  points = np.column_stack([np.full((17, 2), 30.0), labels])
  person = fixtures.person(
    7, (10, 10, 50, 60), id=1, keypoints=points.ravel().tolist(), area=1234.0
  )
  content = {
    "images": [{"id": 7, "width": 100, "height": 100}],
    "categories": [{"id": 1, "name": "person"}],
    "annotations": [{**person, "num_keypoints": 11, "iscrowd": 0}],
  }
  people = coco_people.annotated_people(
    Annotations("a.json", "", content), (64, 48), 1.25
  )
  np.testing.assert_array_equal(people.visible[0], labels > 0)
  np.testing.assert_array_equal(people.hidden[0], labels == 1)
  assert people.person_area.tolist() == [1234.0]


def test_present_is_labeled_and_in_the_crop():
  codec = tp.Codec((64, 48), (16, 12))
  points = np.array([[[0, 0], [47, 63], [47.6, 5], [5, -0.6], [-0.4, 63.4]]])
  np.testing.assert_array_equal(codec.inside(points)[0], [1, 1, 0, 0, 1])
  assert codec.pixel == pytest.approx(47 / 11)


def test_mpii_needs_heads(tmp_path):
  """HRNet's files have none; without the heads of doubt nobody asks."""
  small_mpii.write_json(tmp_path, [small_mpii.person(n) for n in range(3)])
  small_mpii.write_images(tmp_path)
  fields = {
    "data__name": "mpii",
    "data__dir": str(tmp_path),
    "data__train_split": "valid",
    "data__prepared_dir": str(tmp_path / "prepared"),
    "data__skeleton": "mpii_16",
  }
  slots = np.arange(2)
  batches.train_data(tiny.config(**fields), MPII_16, slots)
  with pytest.raises(InputError, match="needs the sizes of heads, and 3 of 3"):
    batches.train_data(tiny.config(**fields, model__doubt=True), MPII_16, slots)


def test_right_is_similarity_of_a_half():
  people = People(
    *(np.zeros(1, int),) * 3,
    *(np.zeros((1, 2)),) * 2,
    np.zeros((1, 17, 2)),
    *(np.zeros((1, 17), np.float32),) * 2,
    np.array([900.0]),
    np.ones(1),
    np.full((1, 4), np.nan),
  )
  reach = coco_people.reach(people, COCO_17)[0]
  similarity = oks.oks(
    np.stack([reach, 0 * reach], -1)[:1],
    np.zeros((1, 2)),
    900.0,
    900.0,
    COCO_17.sigmas[:1],
    np.ones(1, bool),
  )
  assert float(similarity) == pytest.approx(0.5)
  heads = dataclasses.replace(people, head_box=np.array([[0.0, 0, 60, 80]]))
  np.testing.assert_allclose(mpii.reach(heads, MPII_16), 0.5 * 0.6 * 100)
  assert np.isnan(mpii.reach(people, MPII_16)).all()


class _Told(eval_run.Case):
  """As its base; besides, what is said of each keypoint."""

  def __init__(self):
    super().__init__()
    rng = np.random.default_rng(5)
    shape = self.scores.shape
    self.told = Doubt(*rng.random((3, *shape)), rng.uniform(1, 9, shape))
    annotations = self.annotations["annotations"]
    for number, entry in enumerate(annotations):
      points = np.array(entry["keypoints"]).reshape(-1, 3)
      points[number % 4 :: 5, 2] = 0
      points[number % 3 :: 7, 2] = np.minimum(points[number % 3 :: 7, 2], 1)
      entry["keypoints"] = points.ravel().tolist()
      entry["num_keypoints"] = int((points[:, 2] > 0).sum())
    self.labels = np.array(
      [np.array(e["keypoints"]).reshape(-1, 3)[:, 2] for e in annotations]
    )

  def step(self, params, model_state, batch):
    out = super().step(params, model_state, batch)
    told = Doubt(*(values[out["index"]] for values in self.told))
    return {**out, "scores": told.scores, "doubt": told}


def test_report_of_doubt(tmp_path):
  case = _Told()
  case.run(tmp_path, model__doubt=True)
  folder = tmp_path / "eval" / "70"
  results = eval_run.read(folder / "gt" / "results.json")
  said = results[0]["doubt"]
  row = int(np.argmin(np.abs(case.told.error - np.array(said["error"])).sum(1)))
  for name in exported.DOUBT:
    np.testing.assert_allclose(
      said[name], getattr(case.told, name)[row], atol=1e-4
    )
  scores = np.array(results[0]["keypoints"]).reshape(-1, 3)[:, 2]
  np.testing.assert_allclose(scores, case.told.scores[row], atol=1e-4)
  # Of people it is that of the maxima.
  assert results[0]["score"] == pytest.approx(case.scores[row].mean())
  metrics = eval_run.read(folder / "gt" / "metrics.json")
  assert metrics["people"]["found"] == len(results) == 8
  found = np.arange(8)  # The last one could not be read.
  labels = case.labels[found]
  labeled = labels > 0
  distance = np.linalg.norm(case.found - case.truth, axis=-1)[found]
  area = np.array([e["area"] for e in case.annotations["annotations"]])[found]
  sigmas = np.array(COCO_17.sigmas)
  alike = np.exp(-(distance**2) / (2 * (2 * sigmas) ** 2 * area[:, None]))
  doubt = metrics["doubt"]
  told = Doubt(*(values[found] for values in case.told))
  maxima = case.scores[found][labeled].astype(np.float32)
  for name, scores, truth in (
    ("maximum", maxima, alike[labeled]),
    ("similarity", told.similarity[labeled], alike[labeled]),
    ("presence", told.presence.ravel(), labeled.ravel()),
    ("score", told.scores.ravel(), (labeled * alike).ravel()),
    ("visibility", told.visibility[labeled], labels[labeled] == 2),
  ):
    wanted = error_kinds.calibration(scores, truth)["error"]
    assert doubt[name]["error"] == pytest.approx(wanted, abs=1e-6), name
  before = error_kinds.calibration(maxima, alike[labeled] >= 0.5)
  assert metrics["calibration"]["error"] == pytest.approx(before["error"])
  assert doubt["presence"]["auroc"] == pytest.approx(
    error_kinds.auroc(told.presence[labeled], told.presence[~labeled])
  )
  assert doubt["error"]["found"] == pytest.approx(distance[labeled].mean())
  assert doubt["error"]["expected"] == pytest.approx(
    told.error[labeled].mean(), rel=1e-5
  )
  text = (folder / "report.html").read_text()
  for words in (">presence</text>", "AUROC 0.", "Error expected"):
    assert words in text
  # MPII says nothing of what is visible.
  text = (folder / "gt" / "metrics.json").read_text()
  record = Record.from_json(text, "metrics.json")
  record.doubt.pop("visibility")
  other = page.render([page.Evaluation("gt", record, {})])
  assert ">presence</text>" in other
  assert ">visibility</text>" not in other
  eval_run.Case().run(tmp_path / "without")
  other = tmp_path / "without" / "eval" / "70"
  assert eval_run.read(other / "gt" / "metrics.json")["doubt"] == {}
  assert "presence" not in (other / "report.html").read_text()


def test_auroc_is_the_share_of_pairs_in_order():
  rng = np.random.default_rng(0)
  positive, negative = rng.integers(0, 9, 40) / 9, rng.integers(0, 7, 30) / 9
  pairs = positive[:, None] - negative
  wanted = ((pairs > 0) + (pairs == 0) / 2).mean()
  assert error_kinds.auroc(positive, negative) == pytest.approx(wanted)
  assert error_kinds.auroc(positive, negative[:0]) == -1
  assert error_kinds.auroc(np.array([2.0]), np.array([1.0])) == 1


def test_starting_from_a_network_without_and_with():
  plain, also = _weights(PLAIN, 1), _weights(WITH, 2)
  params, _ = transfer.transfer_weights(plain, COCO_17, also, COCO_17)
  np.testing.assert_array_equal(
    params["doubt"]["bias"], also[0]["doubt"]["bias"]
  )
  np.testing.assert_array_equal(
    params["keypoint_tokens"], plain[0]["keypoint_tokens"]
  )
  params, _ = transfer.transfer_weights(also, COCO_17, plain, COCO_17)
  assert "doubt" not in params


@pytest.mark.parametrize("doubt", [False, True])
def test_starting_from_a_file(tmp_path, doubt):
  model = WITH if doubt else PLAIN
  weights = _weights(model, 1)
  path = tmp_path / "w.safetensors"
  convert.write_state_dict(str(path), tp.export_torch(model, *weights))
  settings = tiny.config(
    model__doubt=True,
    model__heads=8,
    model__attention_scale="width",
    init__weights=str(path),
  )
  fresh = train_state.create(settings.model, optax.adam(1e-3), 7)
  state = transfer.warm_start(settings, COCO_17, fresh)
  wanted = (weights[0] if doubt else fresh.params)["doubt"]
  jax.tree.map(np.testing.assert_array_equal, state.params["doubt"], wanted)
  np.testing.assert_array_equal(
    state.params["keypoint_tokens"], weights[0]["keypoint_tokens"]
  )


def test_files_keep_the_heads():
  weights = _weights()
  state_dict = tp.export_torch(WITH, *weights)
  assert state_dict["features.doubt.weight"].shape == (4, 33)
  assert detect(state_dict).model.doubt
  again = tp.import_torch(WITH, state_dict)
  jax.tree.map(np.testing.assert_array_equal, again, tuple(weights))
  del state_dict["features.doubt.bias"]
  with pytest.raises(InputError, match=r"features\.doubt\.bias"):
    tp.import_torch(WITH, state_dict)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
  fields = exporting.SQUARE | {"attention_scale": "width", "doubt": True}
  return exporting.weights_file(
    tmp_path_factory.mktemp("weights") / "tiny.safetensors", fields
  )


def test_exports_say_it_too(file, tmp_path):
  folder = tmp_path / "out"
  exporting.command(
    *(command, file, folder, f"--format={','.join(exported.FILES)}"),
    "--flip-test",
  )
  meta = exported.read_meta(str(folder))
  assert list(meta["outputs"]) == [*exported.OUTPUTS, *exported.DOUBT]
  assert "`error`: the expected distance" in (folder / "README.md").read_text()
  wanted = tp.load(file)(PHOTO, BOXES)
  assert wanted.doubt.error.shape == (2, 17)
  for name in exported.FILES:
    found = tp.load(str(folder), format=name)(PHOTO, BOXES)
    for field in exported.DOUBT:
      np.testing.assert_allclose(
        getattr(found.doubt, field), getattr(wanted.doubt, field), rtol=1e-3
      )
    np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-3)


def test_predictions_say_it(file):
  poses = tp.load(file)(PHOTO, [*BOXES, [500.0, 500, 10, 10]])
  np.testing.assert_allclose(poses.scores[:2], poses.doubt.scores[:2])
  assert np.isnan(poses.doubt.error[2]).all()
  assert (poses.scores[2] == 0).all()
  some = poses.select(np.array([1]))
  np.testing.assert_array_equal(some.doubt.error, poses.doubt.error[1:2])
  alone = tp.load(file, flip_test=False)(PHOTO, BOXES)
  assert np.abs(alone.doubt.presence - poses.doubt.presence[:2]).max() > 1e-4


def test_people_files_have_it(file, tmp_path):
  photo = tmp_path / "a.png"
  photo.write_bytes(fixtures.encode(PHOTO, ".png"))
  out = tmp_path / "out"
  exporting.command(
    predict_command,
    photo,
    f"--weights={file}",
    f"--out={out}",
    "--write=json",
  )
  (written,) = out.rglob("*.json")
  (person,) = json.loads(written.read_text())["people"]
  nose = person["keypoints"]["nose"]
  assert list(nose) == ["x", "y", "score", *exported.DOUBT]
  assert nose["score"] == pytest.approx(
    nose["presence"] * nose["similarity"], abs=2e-3
  )


def test_report_of_mpii():
  """Nobody says what is visible there; unreadable images say nothing."""
  rng = np.random.default_rng(0)
  truth = {
    "keypoints": rng.uniform(0, 100, (3, 16, 2)),
    "visible": np.ones((3, 16)),
    "head_boxes": np.tile([0.0, 0, 60, 80], (3, 1)),
  }
  found = truth["keypoints"] + [3.0, 4.0]
  found[1] = -1e6
  valid = np.array([True, False, True])
  errors = error_kinds.mpii_errors(found, truth, MPII_16, valid)
  told = Doubt(*rng.random((4, 3, 16)))
  tables = error_kinds.details(errors, {}, 0, told.presence, told)
  assert "visibility" not in tables["doubt"]
  assert tables["doubt"]["error"]["found"] == pytest.approx(5)
  counts = [row["count"] for row in tables["calibration"]["bins"]]
  assert sum(counts) == 32
  assert tables["errors"]["all"]["miss"] == 16
  np.testing.assert_allclose(errors.similarity, 0.5 ** (5 / 30) ** 2)
