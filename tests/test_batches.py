"""Training batches: the same on any number of processes."""

import time

import numpy as np
import pytest

from input_pipeline import augment, batches, sampling
from input_pipeline.image_crops import ImageCropReader
from input_pipeline.store import ImageStore
from tests import fixtures, small_coco
from tests.small_coco import (
  BAD,
  BATCH,
  COLORS,
  INPUT_HW,
  SIZES,
  check_equal,
  joined,
  names_of,
  train,
)
from tokenpose_jax import skeletons


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """Config, split and people: one person per image, two on large.jpg."""
  return small_coco.prepare(tmp_path_factory.mktemp("batches"))


@pytest.fixture
def reads(monkeypatch):
  return small_coco.watch_reads(monkeypatch)


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
      person = sampling.person_at(config.seed, position, len(people))
      image = people.image[person]
      crop = augment.augmented_crops(
        people.center[[person]],
        people.scale[[person]],
        people.keypoints[[person]],
        people.visible[[person]],
        input_hw=INPUT_HW,
        image_width=np.array([SIZES[split.store.names[image]][1]]),
        draws=sampling.draws_at(config.seed, np.array([position])),
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
    check_equal({k: v[place] for k, v in parts.items()}, whole)


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
    check_equal(again[step], alone[step])
  eight = [
    train((config, split, people), 2, [slot], first_step=3) for slot in range(8)
  ]
  for step, whole in enumerate(alone):
    check_equal(joined([process[step] for process in eight]), whole)


def test_first_step_is_the_same_as_skipping(prepared):
  all_of_them = train(prepared, 7)
  for first in (1, 3):
    for one, other in zip(
      train(prepared, 3, first_step=first), all_of_them[first:], strict=False
    ):
      check_equal(one, other)


def test_batches_do_not_depend_on_the_workers(prepared):
  config, split, people = prepared
  other = config.copy_and_resolve_references()
  other.data.workers = 0
  for one, two in zip(
    train(prepared, 3), train((other, split, people), 3), strict=True
  ):
    check_equal(one, two)


def test_a_slow_image_does_not_lose_its_place(prepared, monkeypatch):
  config, split, people = prepared
  config = config.copy_and_resolve_references()
  config.data.workers = 4
  wanted = train(prepared, 2)
  slow, read = (
    people.image[sampling.person_at(config.seed, 0, 8)],
    ImageStore.read,
  )

  def slow_read(store, number, *part):
    if number == slow:
      time.sleep(0.1)
    return read(store, number, *part)

  monkeypatch.setattr(ImageStore, "read", slow_read)
  for one, two in zip(train((config, split, people), 2), wanted, strict=True):
    check_equal(one, two)


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
    seen = [sampling.person_at(config.seed, 8 * epoch + n, 8) for n in range(8)]
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
    assert "its people are skipped" in message


def test_colors_follow_the_people(prepared):
  """Each crop shows its own image, whatever the file's format."""
  config, split, people = prepared
  names = names_of(split, people)
  batch = joined(train(prepared, 6))
  for slot, mask in enumerate(batch["mask"]):
    if mask:
      name = names[sampling.person_at(config.seed, slot, 8)]
      pixels = batch["image"][slot].reshape(-1, 3)
      inside = pixels[pixels.any(-1)]  # Outside the image is black.
      color = np.median(inside, axis=0)
      assert np.abs(color - COLORS[name]).max() <= 25, name


def test_leaving_early_is_clean(prepared):
  found = fixtures.train_batches(*prepared, slots=np.arange(BATCH))
  check_equal(next(found), train(prepared, 1)[0])
  found.close()
  with pytest.raises(StopIteration):
    next(found)
