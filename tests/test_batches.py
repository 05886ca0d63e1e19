"""From a config to batches: the same on any number of processes."""

import itertools
import json
import shutil
import threading
import time

import numpy as np
import pytest

from configs import default
from input_pipeline import augment, batches, datasets, order
from input_pipeline.image_crops import ImageCropReader
from input_pipeline.store import ImageStore
from tests import fixtures
from tokenpose_jax import geometry, skeletons
from tokenpose_jax.errors import InputError

INPUT_HW = (32, 24)
BATCH = 4
COLORS = {
  "color.jpg": (200, 100, 50),
  "grey.jpg": (120, 120, 120),
  "png.jpg": (30, 200, 90),
  "large.jpg": (60, 80, 220),
  "truncated.jpg": (90, 90, 90),
  "text.jpg": (0, 0, 0),
  "plain.jpg": (240, 240, 30),
}
SIZES = {name: (60 + n, 80 - n) for n, name in enumerate(COLORS)}
SIZES["large.jpg"] = (900, 1200)
BAD = ("truncated.jpg", "text.jpg")


def image_bytes():
  images = {}
  for name, color in COLORS.items():
    image = fixtures.smooth_image(*SIZES[name], color)
    images[name] = fixtures.encode(
      image[..., 0] if name == "grey.jpg" else image
    )
  png = fixtures.smooth_image(*SIZES["png.jpg"], COLORS["png.jpg"])
  images["png.jpg"] = fixtures.encode(png, ".png")
  noise = fixtures.rng(0).integers(0, 256, (*SIZES["truncated.jpg"], 3))
  noise = fixtures.encode(noise.astype(np.uint8))
  images["truncated.jpg"] = noise[: len(noise) // 10]
  images["text.jpg"] = b"this is no image"
  return images


def config_for(path):
  config = default.get_config()
  config.model.input_hw = INPUT_HW
  config.data.dir = str(path / "data")
  config.data.prepared_dir = str(path / "prepared")
  config.data.train_split = config.data.eval_split = "train"
  config.data.workers = 2
  config.train.batch_size = config.eval.batch_size = BATCH
  return config


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """Config, split and people: one person per image, two on large.jpg."""
  path = tmp_path_factory.mktemp("batches")
  annotations = []
  for number, name in enumerate(COLORS):
    height, width = SIZES[name]
    box = (width * 0.25, height * 0.25, width * 0.5, height * 0.5)
    annotations.append(fixtures.person(100 - number, box))
  annotations.insert(1, fixtures.person(97, (1100, 800, 90, 95)))
  fixtures.coco_folder(path / "data", image_bytes(), SIZES, annotations)
  config = config_for(path)
  split = fixtures.prepare(config, "train")
  people = datasets.people(split, config)
  assert len(people) == 8
  return config, split, people


def names_of(split, people):
  return [split.store.names[number] for number in people.image]


def train(prepared, count, slots=None, **options):
  """The first batches of a run."""
  slots = np.arange(BATCH) if slots is None else np.asarray(slots)
  found = fixtures.train_batches(*prepared, slots=slots, **options)
  return list(itertools.islice(found, count))


def evaluate(prepared, slots=None, batch_size=BATCH):
  config, split, people = prepared
  config = config.copy_and_resolve_references()
  config.eval.batch_size = batch_size
  slots = np.arange(batch_size) if slots is None else np.asarray(slots)
  return list(fixtures.eval_batches(config, split, people, slots=slots))


def assert_equal(one, other):
  assert one.keys() == other.keys()
  for key in one:
    assert one[key].dtype == other[key].dtype
    np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def joined(parts):
  return {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}


@pytest.fixture
def reads(monkeypatch):
  """Every position that is asked for, and every image that is read."""
  positions, images, lock = [], [], threading.Lock()
  person_at, read = order.person_at, ImageStore.read

  def watched_person_at(seed, position, people):
    with lock:
      positions.append(position)
    return person_at(seed, position, people)

  def watched_read(store, number, *part):
    with lock:
      images.append(number)
    return read(store, number, *part)

  monkeypatch.setattr(order, "person_at", watched_person_at)
  monkeypatch.setattr(ImageStore, "read", watched_read)
  return positions, images


# Training.


@pytest.mark.parametrize("first", [0, 10_000])
def test_train_batch_is_what_the_steps_give(prepared, first):
  """position -> person and draws -> crop, composed here by hand."""
  config, split, people = prepared
  reader = ImageCropReader(split.store, people.image)
  found = train(prepared, 3, first_step=first)
  for step, batch in enumerate(found, first):
    assert batch["image"].shape == (BATCH, *INPUT_HW, 3)
    assert batch["image"].dtype == np.uint8
    assert batch["keypoints"].shape == (BATCH, 17, 2)
    assert batch["visible"].shape == (BATCH, 17)
    assert batch["mask"].shape == (BATCH,)
    for key in ("keypoints", "visible", "mask"):
      assert batch[key].dtype == np.float32
    for slot in range(BATCH):
      position = step * BATCH + slot
      person = order.person_at(config.seed, position, len(people))
      image = people.image[person]
      crop = augment.augmented_crops(
        people.center[[person]],
        people.scale[[person]],
        people.keypoints[[person]],
        people.visible[[person]],
        input_hw=INPUT_HW,
        image_width=np.array([SIZES[split.store.names[image]][1]]),
        draws=order.draws_at(config.seed, np.array([position])),
        settings=config.augment,
        skeleton=skeletons.COCO_17,
      )
      pixels, good = reader.read(np.array([person]), crop.affine, INPUT_HW)
      np.testing.assert_array_equal(batch["image"][[slot]], pixels)
      np.testing.assert_array_equal(batch["keypoints"][[slot]], crop.keypoints)
      np.testing.assert_array_equal(batch["visible"][[slot]], crop.visible)
      assert batch["mask"][slot] == good


@pytest.mark.parametrize(
  "slots",
  [([0, 1], [2, 3]), ([0, 2], [1, 3]), ([3], [0, 1, 2]), ([0], [1], [2], [3])],
)
def test_processes_share_the_single_process_batch(prepared, slots):
  alone = train(prepared, 3)
  processes = [train(prepared, 3, part) for part in slots]
  place = np.argsort(np.concatenate(slots))
  for step, whole in enumerate(alone):
    parts = joined([process[step] for process in processes])
    assert_equal({k: v[place] for k, v in parts.items()}, whole)


@pytest.mark.parametrize("chunk", [1, 3, 5, 16])
def test_eight_processes_and_any_chunk_give_the_same_batch(
  prepared, monkeypatch, chunk
):
  """A process of one slot each, against one process of all, to the bit."""
  config, split, people = prepared
  config = config.copy_and_resolve_references()
  config.train.batch_size = 8
  alone = train((config, split, people), 2, np.arange(8), first_step=3)
  monkeypatch.setattr(batches, "CHUNK", chunk)
  for step in range(2):
    again = train((config, split, people), 2, np.arange(8), first_step=3)
    assert_equal(again[step], alone[step])
  eight = [
    train((config, split, people), 2, [slot], first_step=3) for slot in range(8)
  ]
  for step, whole in enumerate(alone):
    assert_equal(joined([process[step] for process in eight]), whole)


def test_first_step_is_the_same_as_skipping(prepared):
  all_of_them = train(prepared, 7)
  for first in (1, 3):
    for one, other in zip(
      train(prepared, 3, first_step=first), all_of_them[first:], strict=False
    ):
      assert_equal(one, other)


def test_batches_do_not_depend_on_the_workers(prepared):
  config, split, people = prepared
  other = config.copy_and_resolve_references()
  other.data.workers = 0
  for one, two in zip(
    train(prepared, 3), train((other, split, people), 3), strict=True
  ):
    assert_equal(one, two)


def test_a_slow_image_does_not_lose_its_place(prepared, monkeypatch):
  config, split, people = prepared
  config = config.copy_and_resolve_references()
  config.data.workers = 4
  wanted = train(prepared, 2)
  slow, read = people.image[order.person_at(config.seed, 0, 8)], ImageStore.read

  def slow_read(store, number, *part):
    if number == slow:
      time.sleep(0.1)
    return read(store, number, *part)

  monkeypatch.setattr(ImageStore, "read", slow_read)
  for one, two in zip(train((config, split, people), 2), wanted, strict=True):
    assert_equal(one, two)


def test_seed_and_step_matter(prepared):
  config, split, people = prepared
  other = config.copy_and_resolve_references()
  other.seed = 1
  base = train(prepared, 2)
  (seeded,) = train((other, split, people), 1)
  for batch in (base[1], seeded):
    assert not np.array_equal(batch["keypoints"], base[0]["keypoints"])


def test_a_late_step_reads_nothing_before_it(prepared, reads):
  first = 10_000
  (late,) = train(prepared, 1, first_step=first)
  positions, images = reads
  assert min(positions) == first * BATCH
  assert max(positions) < (first + 100) * BATCH
  assert BATCH <= len(images) <= len(positions) < 100 * BATCH
  assert late["image"].shape == (BATCH, *INPUT_HW, 3)


def test_an_epoch_has_everybody_and_bad_images_keep_their_slots(prepared):
  config, split, people = prepared
  names = names_of(split, people)
  for epoch in range(2):
    batch = joined(train(prepared, 2, first_step=2 * epoch))
    seen = [order.person_at(config.seed, 8 * epoch + n, 8) for n in range(8)]
    assert sorted(seen) == list(range(8))
    for slot, person in enumerate(seen):
      bad = names[person] in BAD
      assert batch["mask"][slot] == (0 if bad else 1), names[person]
      assert batch["image"][slot].any() != bad


def test_a_bad_image_is_named_once(prepared, caplog):
  config, _, people = prepared
  # Opened again, it has named none yet.
  fresh = config, fixtures.prepare(config, "train"), people
  train(fresh, 10)  # five epochs
  train(fresh, 2)  # and another pass
  messages = [record.getMessage() for record in caplog.records]
  messages = [m for m in messages if m.startswith("cannot read the image")]
  assert len(messages) == 2
  for name in BAD:
    (message,) = (m for m in messages if name in m)
    assert "\n" not in message
    assert prepared[1].store.path in message


def test_colors_follow_the_people(prepared):
  """Each crop shows its own image, whatever the file's format."""
  config, split, people = prepared
  names = names_of(split, people)
  batch = joined(train(prepared, 6))
  for slot, mask in enumerate(batch["mask"]):
    if mask:
      name = names[order.person_at(config.seed, slot, 8)]
      pixels = batch["image"][slot].reshape(-1, 3)
      inside = pixels[pixels.any(-1)]  # Outside the image is black.
      color = np.median(inside, axis=0)
      assert np.abs(color - COLORS[name]).max() <= 25, name


def test_leaving_early_is_clean(prepared):
  found = fixtures.train_batches(*prepared, slots=np.arange(BATCH))
  assert_equal(next(found), train(prepared, 1)[0])
  found.close()
  with pytest.raises(StopIteration):
    next(found)


# Evaluation.


@pytest.mark.parametrize("batch_size", [1, 3, 4, 8, 50])
def test_eval_covers_each_person_once(prepared, batch_size):
  _, split, people = prepared
  found = evaluate(prepared, batch_size=batch_size)
  assert len(found) == -(-8 // batch_size)
  assert all(len(batch["mask"]) == batch_size for batch in found)
  batch = joined(found)
  readable = [
    n for n, name in enumerate(names_of(split, people)) if name not in BAD
  ]
  np.testing.assert_array_equal(batch["index"][batch["mask"] == 1], readable)
  np.testing.assert_array_equal(batch["index"][:8], np.arange(8))
  assert not batch["mask"][8:].any()
  assert not batch["image"][8:].any()
  assert batch["index"].max() == 7  # Padding, too, is a place in `people`.


def test_eval_batch_is_the_plain_crop(prepared):
  _, split, people = prepared
  reader = ImageCropReader(split.store, people.image)
  batch = joined(evaluate(prepared))
  assert batch["image"].dtype == np.uint8
  assert batch["crop_to_image"].dtype == batch["mask"].dtype == np.float32
  assert batch["index"].dtype == np.int32
  for n in range(8):
    affine = geometry.crop_affine(
      people.center[[n]], people.scale[[n]], 0.0, INPUT_HW
    )
    pixels, good = reader.read(np.array([n]), affine, INPUT_HW)
    np.testing.assert_array_equal(batch["image"][[n]], pixels)
    assert batch["mask"][n] == good
    points = geometry.transform(affine[0], people.keypoints[n])
    back = geometry.transform(batch["crop_to_image"][n], points)
    np.testing.assert_allclose(back, people.keypoints[n], atol=1e-2)


def test_eval_shows_each_format(prepared):
  _, split, people = prepared
  batch = joined(evaluate(prepared))
  for n, name in enumerate(names_of(split, people)):
    middle = batch["image"][n, 12:20, 9:15].reshape(-1, 3).mean(0)
    if name not in BAD:
      # The second person of large.jpg stands where it is lighter.
      assert np.abs(middle - COLORS[name]).max() <= 20, name


def test_eval_processes_share_the_batch(prepared):
  alone = evaluate(prepared, batch_size=3)
  one = evaluate(prepared, [0, 1], batch_size=3)
  two = evaluate(prepared, [2], batch_size=3)
  assert len(alone) == len(one) == len(two) == 3
  for whole, *parts in zip(alone, one, two, strict=True):
    assert_equal(joined(parts), whole)


def test_eval_reads_each_image_once_a_person(prepared, reads):
  evaluate(prepared, batch_size=3)
  _, images = reads
  assert sorted(images) in (
    sorted(prepared[2].image),
    sorted([*prepared[2].image, prepared[2].image[0]]),  # to learn the shapes
  )


def test_eval_of_detector_boxes(prepared, tmp_path):
  config, split, _ = prepared
  config = config.copy_and_resolve_references()
  path = tmp_path / "boxes.json"
  box = {"category_id": 1, "bbox": [9, 9, 50, 40]}
  boxes = [
    {"image_id": 98, "score": 0.9, **box},
    {"image_id": 100, "score": 0.1, **box},
  ]
  path.write_text(json.dumps(boxes))
  people = datasets.people(split, config, boxes=str(path))
  assert len(people) == 2
  config.eval.min_box_score = 0.5
  people = datasets.people(split, config, boxes=str(path))
  assert names_of(split, people) == ["png.jpg"]
  (batch,) = evaluate((config, split, people))
  np.testing.assert_array_equal(batch["mask"], [1, 0, 0, 0])
  middle = batch["image"][0, 12:20, 9:15].reshape(-1, 3).mean(0)
  assert np.abs(middle - COLORS["png.jpg"]).max() <= 20


# Preparation.


def test_prepare_follows_the_config(prepared, tmp_path):
  config, split, _ = prepared
  assert split.store.path.startswith(config.data.prepared_dir)
  assert split.store.names == list(COLORS)
  assert [i["id"] for i in split.annotations.content["images"]] == list(
    range(100, 93, -1)
  )
  config = config.copy_and_resolve_references()
  config.data.name = "voc"
  with pytest.raises(InputError, match="'voc'; allowed: coco, mpii, syn"):
    fixtures.prepare(config, "train")
  config.data.name = "coco"
  config.data.dir = str(tmp_path / "nowhere")
  with pytest.raises(InputError, match="nowhere does not exist"):
    fixtures.prepare(config, "train")


def test_synthetic_people_are_prepared_and_read(tmp_path):
  config = config_for(tmp_path)
  config.data.name = "synthetic"
  config.data.train_split, config.data.eval_split = "train", "test"
  config.data.synthetic_train_people = 3
  config.data.synthetic_test_people = 2
  train_split = fixtures.prepare(config, "train")
  people = datasets.people(train_split, config)
  assert len(people) >= 3
  (batch,) = train((config, train_split, people), 1)
  assert batch["mask"].all()
  assert batch["image"].std() > 5

  test_split = fixtures.prepare(config, "test")
  people = datasets.people(test_split, config)
  assert len(people) >= 2
  batch = joined(evaluate((config, test_split, people)))
  assert batch["mask"].sum() == len(people)
  boxes = f"{config.data.dir}/person_detection_results/detections_test.json"
  assert len(datasets.people(test_split, config, boxes=boxes))

  # A second run draws and prepares nothing.
  shutil.rmtree(f"{config.data.dir}/train")
  again = fixtures.prepare(config, "train")
  assert again.annotations == train_split.annotations
  assert again.store.read(0) == train_split.store.read(0)
