"""Work directories with checkpoints, and ways to damage them."""

import json
import pathlib
import shutil

import jax

from tests import fixtures, tiny
from tokenpose_jax import checkpoint, saving, skeletons


def make(tmp_path, settings=None, metrics=None):
  """A work directory with a checkpoint per entry of `metrics`."""
  settings = settings or tiny.config()
  state, _, _ = tiny.training(settings, jax.devices()[:1])
  meta = checkpoint.describe(
    settings, skeletons.COCO_17.to_dict(), {"annotations_sha256": "abc"}
  )
  saved = saving.Saver(str(tmp_path), keep=2)
  for value in metrics or [None]:
    state = state.replace(step=state.step + 1)
    saved.save(state, meta)
    if value:
      saved.add_metrics(int(state.step), {"AP": value}, "AP")
  saved.close()
  return state, meta


def files(folder: pathlib.Path) -> dict[str, bytes]:
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in folder.rglob("*")
    if path.is_file()
  }


def checksums(workdir: pathlib.Path, step: int) -> dict[str, str]:
  """Those of a saved state's arrays."""
  path = workdir / f"checkpoints/{step}/meta/metadata"
  return json.loads(path.read_text())["checksums"]


def _largest(step: pathlib.Path) -> pathlib.Path:
  """The largest file of arrays."""
  return max((step / "state").rglob("d/*"), key=lambda p: p.stat().st_size)


def _truncate(step: pathlib.Path):
  largest = _largest(step)
  largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


def _flip_bits(step: pathlib.Path):
  """Flips one bit, which Orbax itself does not notice."""
  largest = _largest(step)
  raw = bytearray(largest.read_bytes())
  raw[len(raw) // 2] ^= 1
  largest.write_bytes(bytes(raw))


def _zero(step: pathlib.Path):
  """As after a power cut: the files are there, their content is not."""
  for path in step.rglob("*"):
    if path.is_file():
      path.write_bytes(bytes(path.stat().st_size))


def _empty(step: pathlib.Path):
  shutil.rmtree(step)
  step.mkdir()


def _without(field: str):
  def damage(step: pathlib.Path):
    file = step / "meta" / "metadata"
    meta = json.loads(file.read_text())
    del meta[field]
    file.write_text(json.dumps(meta))

  return damage


DAMAGES = {
  "truncated": _truncate,
  "bit": _flip_bits,
  "zeros": _zero,
  "empty": _empty,
  "no state": lambda step: shutil.rmtree(step / "state"),
  "no metadata": lambda step: (step / "state" / "_METADATA").unlink(),
  "deep meta": lambda step: (step / "meta" / "metadata").write_text(
    fixtures.DEEP
  ),
  "bad meta": lambda step: (step / "meta" / "metadata").write_text("{"),
  "a list for meta": lambda step: (step / "meta" / "metadata").write_text("[]"),
  "no meta": lambda step: shutil.rmtree(step / "meta"),
  "no config": _without("config"),
  "no skeleton": _without("skeleton"),
  "no data": _without("data"),
  "no checksums": _without("checksums"),
}
