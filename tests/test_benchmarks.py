"""What benchmarks count, plan and write, without their timings."""

import argparse
import json
import os
import subprocess
import sys

import pytest

from benchmarks import (
  __main__ as page,
)
from benchmarks import (
  environment,
  gpu,
  limits,
  rounds,
  speed,
  tables,
)
from tests import fixtures
from tokenpose_jax.models.config import ModelConfig

TINY = ModelConfig(
  backbone="none", input_hw=(64, 48), patch_hw=(16, 12), dim=24, heads=2
)

# A contender that works on four images in a twentieth of a second.
CONTENDER = """
import time
from benchmarks import rounds
print("a library says hello")
rounds.serve(lambda: time.sleep(0.05), 4, {"name": "tiny"}, lambda: {"more": 1})
"""


def contender(code: str = CONTENDER) -> rounds.Contender:
  return rounds.Contender([sys.executable, "-c", code], os.environ)


def test_contenders_answer_rounds():
  tiny = contender()
  facts = tiny.ready()
  assert facts["name"] == "tiny"
  assert 0.1 <= facts["ready_s"] < 60
  first, second = tiny.rate(0.2), tiny.rate(0)
  tiny.close()
  assert first["steps"] > second["steps"] == 1
  assert 0 < first["rate"] <= 80
  assert first["peak_mb"] > 1
  assert first["more"] == 1


def test_a_contender_that_ends_says_why():
  dead = contender("import sys; sys.exit('no such chip')")
  with pytest.raises(rounds.Failed, match="exit code 1: no such chip"):
    dead.ready()
  dead.close()
  slow = contender("import time; time.sleep(60)")
  with pytest.raises(rounds.Failed, match="no answer in 0 s"):
    slow.ready(0.1)
  slow.close()
  answer = rounds.alone([sys.executable, "-c", "1 / 0"], os.environ, 1)
  assert "division by zero" in answer["error"]


def test_needs_of_a_step():
  inference = limits.needs(TINY, "inference", 4)
  training = limits.needs(TINY, "training", 4)
  assert training.flops == 3 * inference.flops
  # 12 blocks of 33 tokens: q, k, v, out and an MLP of three times the width;
  # two products between tokens. Then patches, and the head of two layers.
  block = 33 * 24 * 24 * (4 + 2 * 3) + 2 * 33 * 33 * 24
  patches = 16 * 16 * 12 * 3 * 24
  head = 17 * (24 * 384 + 384 * 16 * 12)
  assert inference.flops == 2 * 4 * (12 * block + patches + head)
  more = limits.needs(TINY, "inference", 5)
  assert more.bytes - inference.bytes == 64 * 48 * 3 + 17 * 16 * 12 * 4
  assert training.bytes > 2 * inference.bytes


def test_the_slower_limit_counts():
  step = limits.Needs(images=10, flops=1000, bytes=100)
  assert step.bound(limits.Limits(500, 1000)) == (5, "products")
  assert step.bound(limits.Limits(500, 25)) == (2.5, "memory")
  assert limits.Limits(1, 4).or_more(limits.Limits(2, 3)) == (2, 4)


def test_limits_are_measured():
  assert limits.products(0.01) > 1e8
  assert limits.memory(1, 0.01) > 1e8
  calls = []
  limits.fastest(lambda: calls.append(1), 0)
  assert len(calls) == 2


def test_tables():
  assert tables.markdown(("a", "b"), [["1", "2"]]) == (
    "| a | b |\n| --- | --- |\n| 1 | 2 |"
  )
  with pytest.raises(ValueError, match="other columns"):
    tables.markdown(("a", "b"), [["1"]])


def test_a_part_of_a_page_is_replaced():
  before = "x\n<!-- a -->\nold\n<!-- end of a -->\ny\n<!-- b -->\n"
  after = tables.replace(before, "a", r"new \1" + "\n\n")
  assert after == before.replace("old", r"new \1")
  with pytest.raises(ValueError, match="0 parts 'c'"):
    tables.replace(before, "c", "")


def test_the_page_has_all_parts():
  text = page.PAGE.read_text()
  for name in page.SECTIONS:
    assert tables.replace(text, name, "new") != text


def test_a_program_that_fails_or_is_missing_leaves_a_line(monkeypatch):
  sections = {
    "none": page.Section(),
    "decoding": page.Section(needs=("no/such/run",)),
    "speed": page.Section(("--networks=tokenpose_x",)),
  }
  monkeypatch.setattr(page, "SECTIONS", sections)
  assert page.run("none") == (
    "Not run: there is no `benchmarks.none`.",
    True,
  )
  text, well = page.run("decoding")
  assert "no/such/run is missing" in text
  assert well
  text, well = page.run("speed", ("--no_such_option",))
  assert text.endswith("Failed: exit code 2.")
  assert not well


def test_printed_tables_of_both_kinds():
  assert page.as_markdown("\n| a |\n| --- |\n") == "| a |\n| --- |"
  assert page.as_markdown("a  1  \n") == "```text\na  1\n```"
  line = page.described("abc1234", 90, 0.25)
  assert "load 0.2" in line or "load 0.3" in line
  assert ", abc1234; " in line
  assert "Python 3." in line
  assert line.endswith("1.5 minutes.")


def test_environments(monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", "--xla_of_this_shell")
  monkeypatch.setenv("HOME", "/home/somebody")
  assert "XLA_FLAGS" not in environment.plain()
  assert environment.plain()["HOME"] == "/home/somebody"
  assert "MALLOC_TOP_PAD_" not in environment.torch({"allocator": False})
  assert "MALLOC_TOP_PAD_" in environment.torch({"allocator": True})


def test_everything_is_timed():
  keys = speed.plan(speed.NETWORKS, tuple(speed.CASES))
  assert len(keys) == len(set(keys)) == 4 * 3
  assert keys[0] == ("tokenpose_t", "training", 16)
  assert speed.plan(["tokenpose_b"], ["inference"], [2]) == [
    ("tokenpose_b", "inference", 2)
  ]


def test_rows_of_speed():
  row = {
    **speed.Key("tokenpose_t", "inference", 16)._asdict(),
    "rates": {"XLA": 10.0, "ONNX, 1 thread": 5.0, "ONNX": 12.0},
    "failed": {"PyTorch": "none of PyTorch's variants runs"},
  }
  machine = limits.Limits(320e9, 20e9)
  alone = speed.completed(row, machine)
  assert speed.line(alone)[2:6] == ["", "10.0", "12.0 (5.0)", ""]
  # 1.600 GMAC: `tokenpose cost tokenpose_t`.
  assert alone["gflops_an_image"] == pytest.approx(3.2, rel=0.01)
  assert alone["limited_by"] == "products"
  assert alone["share"] == pytest.approx(0.12, rel=0.01)
  row["rates"] |= {"PyTorch": 6.0}
  row["variant"] = "eager, allocator"
  cells = speed.line(speed.completed(row, machine))
  assert cells[2] == "6.0 (eager, allocator)"
  assert cells[5:] == ["2.00", "100.0, products", "12%"]
  text = speed.report([alone], machine, "a note")
  assert "320 GFLOP/s, memory 20.0 GB/s" in text
  assert "\n\na note\n\nFailed: tokenpose_t, inference, 16, PyTorch: " in text


def test_a_network_is_timed_without_pytorch(tmp_path, monkeypatch):
  """Contenders that fail leave the others their round."""
  key = speed.Key("tokenpose_t", "inference", 1)

  def command(key, runtime, folder):
    code = CONTENDER if runtime == "XLA" else "raise SystemExit('no runtime')"
    return [sys.executable, "-c", code]

  monkeypatch.setattr(speed, "command", command)
  row = speed.measure(key, str(tmp_path), "", count=2, seconds=0.01)
  assert list(row["rates"]) == ["XLA"]
  assert set(row["failed"]) == {"ONNX", "ONNX, 1 thread"}
  assert row["peak_mb"]["XLA"] > 1


def test_rows_of_a_gpu_by_importance():
  keys = gpu.plan()
  assert len(keys) == len(set(keys)) == 4 * 2 * 2 * 4
  first = [("tokenpose_t", "training", 64, side) for side in gpu.SIDES]
  assert keys[:4] == first
  assert {key.batch for key in keys[:32]} == {64}


def test_contenders_on_a_gpu_fit_in_its_memory():
  keys = gpu.plan()[:8]
  sizes = dict(zip(keys, (4, 4, 4, 9, 3, 3, 3, 1), strict=True))
  found = [len(g) for g in gpu.groups(keys, sizes.get, memory=8, most=3)]
  # Nine fit in nothing, and are tried alone.
  assert found == [2, 1, 1, 2, 2]
  assert gpu.needed_bytes(keys[0]) > 4e9
  assert gpu.needed_bytes(gpu.plan()[16]) < gpu.needed_bytes(keys[0])


def test_utilization():
  assert gpu.sheet_peak("NVIDIA H100 80GB HBM3") == 989e12
  assert gpu.sheet_peak("NVIDIA L40S") is None
  row = {**gpu.plan()[0]._asdict(), "rate": 1e4, "ready_s": 31.4}
  row["device_bytes"] = 12.34e9
  known = {"name": "NVIDIA H100", "products": 800e12}
  cells = gpu.line(gpu.completed(row, known, 9.89e9))
  assert cells[2:] == [
    "PyTorch",
    "10,000",
    "98.9",
    "10.0%",
    "12.4%",
    "12.3",
    "31",
  ]
  other = {"name": "another", "products": 800e12}
  assert gpu.line(gpu.completed(row, other, 9.89e9))[5] == ""
  failed = gpu.line({**gpu.plan()[0]._asdict(), "failed": "no memory"})
  assert failed[3] == "failed: no memory"
  assert len(failed) == len(gpu.TITLES)


@pytest.mark.parametrize("side", ["cuDNN", "Triton"])
def test_attentions_are_exact(side):
  form = gpu.forms(on_gpu=False)[side]
  assert gpu.error_of(form, heads=2, width=12, tokens=40) < gpu.LARGEST_ERROR
  wrong = gpu.error_of(
    lambda q, k, v, scale: form(q, k, v, 1.2 * scale), 2, 12, 40
  )
  assert wrong > gpu.LARGEST_ERROR


def test_a_gpu_needs_little_besides_jax(tmp_path):
  """A training step, in a process that lacks what bare machines lack."""
  code = """
import sys
for name in ("tensorflow", "ml_collections", "hotcoco", "cv2", "clu", "scipy",
             "orbax", "tensorflow_datasets", "onnxruntime", "torch"):
  sys.modules[name] = None
from benchmarks import gpu
model = gpu.model_of(gpu.TOY)
gpu.use(gpu.forms(on_gpu=False)["cuDNN"])
gpu.jax_step(model, "training", 2, 2)()
print(gpu.needed_bytes(gpu.Key(gpu.TOY, "training", 2, "XLA")) > 3e9)
"""
  done = subprocess.run(
    [sys.executable, "-c", code],
    cwd=fixtures.ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout == "True\n"


def test_rows_of_a_gpu_are_written_as_they_come(tmp_path, monkeypatch, capsys):
  out = tmp_path / "gpu.json"
  seen = []

  def timed(group, *rest):
    for key in group:
      seen.append(json.loads(out.read_text()) if out.exists() else None)
      row = {**key._asdict(), "rate": 5.0, "device_bytes": 0, "ready_s": 1.0}
      yield row if key.side == "XLA" else {**key._asdict(), "failed": "no"}

  facts = {"name": "cpu", "bytes": 2**33, "products": 1e12}
  monkeypatch.setattr(gpu.rounds, "run_alone", lambda *_: facts)
  monkeypatch.setattr(gpu, "timed", timed)
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")
  options = argparse.Namespace(
    networks=[gpu.TOY],
    batches=[2],
    sides=["XLA", "Triton"],
    minutes=1,
    out=str(out),
    parallel=2,
    row_seconds=1,
    seconds=1,
  )
  rows = gpu.run(options)
  assert len(rows) == 4
  assert [s and len(s["rows"]) for s in seen] == [None, 1, 2, 3]
  assert len(seen[1]["left_out"]) == 3
  assert json.loads(out.read_text())["left_out"] == []
  options.minutes = 0
  assert gpu.run(options) == []
  assert "Not reached in 0 minutes: 4 rows" in capsys.readouterr().out
