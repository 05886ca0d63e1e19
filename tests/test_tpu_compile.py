"""The table of compiled TPU programs, without the compiler."""

import argparse
import importlib.util
import json

import pytest

from benchmarks import tpu_compile
from tokenpose_jax import InputError
from tokenpose_jax.models.published import PUBLISHED

# Lines as libtpu writes them, shortened.
HLO = """
HloModule jit_train_step, entry_computation_layout={...}

%wrapped (p: f32[4]) -> f32[32] {
  %p = f32[4]{0} parameter(0)
  ROOT %all-gather.1 = f32[32]{0:T(256)} all-gather(%p), channel_id=4
}

ENTRY %main (a: f32[8,128]) -> f32[8,128] {
  %a = f32[8,128]{1,0:T(8,128)S(1)} parameter(0)
  %all-reduce.3 = (f32[8,128]{1,0:T(8,128)}, bf16[256]{0:T(256)(128)(2,1)}, \
/*index=5*/f32[]{:T(128)}, /*index=10*/pred[3]{0}) all-reduce(%a, %b, %c, %d), \
channel_id=1, replica_groups=[1,8]<=[8]
  %all-reduce-start.2 = f32[64]{0} all-reduce-start(%d), channel_id=2
  %all-reduce-done.2 = f32[64]{0} all-reduce-done(%all-reduce-start.2)
  %start = (f32[4]{0}, f32[32]{0}) async-start(%e), calls=%wrapped
  %fusion = f32[64]{0} fusion(%all-reduce-done.2), kind=kLoop, calls=%f, \
metadata={op_name="jit(train_step)/all-reduce(x)"}
  %permute = (u8[16]{0}, u8[16]{0}, u32[], u32[]) collective-permute-start(%g)
  %send.1 = (f32[8]{0:T(128)}, u32[], token[]) send(%h, %after), channel_id=9
  %send-done.1 = token[] send-done(%send.1), channel_id=9
  ROOT %done = u8[16]{0} collective-permute-done(%permute)
}
"""

# The metadata's braces stand on lines of their own.
KERNELS = """
  %forward.2 = (bf16[2,4]{1,0}, f32[2]{0}) custom-call(%a, %b), \
custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
  "steps":"32"
}}, metadata={op_name="jit(f)/forward/pallas_call"}
  %forward.13 = (bf16[2,4]{1,0}, f32[2]{0}) custom-call(%c, %d), \
custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
  "steps":"8"
}}, metadata={op_name="jit(f)/forward/pallas_call"}
  %custom-call.9 = bf16[4]{0} custom-call(%e), custom_call_target="Concat"
  ROOT %backward = bf16[2,4]{1,0} custom-call(%f), \
custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
  "steps":"32"
}}
"""
SCHEDULE = """
== CAPACITY:
MXU, XLU, VALU, VPOP, EUP, VLOAD, VLOAD:FILL, VSTORE, VSTORE:SPILL, SALU
    4     3     4     2     1     3     3     1     1     2
== UTILIZATION:
0 0 1 0 0 0 0 0 0 0
0 0 0 0 0 0 0 0 0 0
4 0 0 0 0 3 0 0 0 0
"""


def row(**changes) -> dict:
  return {
    "config": "tokenpose_t",
    "topology": "v5e:2x4",
    "people_a_chip": 16,
    "remat": "none",
    "quick": False,
    "set": "",
    "seconds": 101.4,
    "fits": True,
    "memory": {"arguments": 2**28, "temporaries": 2**31, "code": 2**20},
    "cycles_an_image": 3432100,
    "collectives": {"all-reduce": {"count": 3, "bytes": 23_400_000}},
  } | changes


def options(**given) -> argparse.Namespace:
  unset = dict.fromkeys(("configs", "topologies", "batch_per_chip", "out"))
  unset |= {"remat": "none", "quick": False, "set": ""}
  return argparse.Namespace(**unset | given)


def test_collectives_are_counted_once_with_the_bytes_of_their_outcome():
  assert tpu_compile.collectives(HLO) == {
    "all-gather": {"count": 1, "bytes": 32 * 4},
    "all-reduce": {"count": 2, "bytes": 4096 + 512 + 4 + 3 + 256},
    "collective-permute": {"count": 1, "bytes": 16},
    "send": {"count": 1, "bytes": 8 * 4 + 4},
  }
  assert tpu_compile.collectives("ROOT %a = f32[2]{0} add(%b, %c)") == {}


def test_kernels_are_counted_by_the_steps_of_their_calls():
  assert tpu_compile.kernel_steps(KERNELS) == {"forward": 40, "backward": 32}
  assert tpu_compile.kernel_steps(HLO) == {}


def test_a_kernel_step_is_as_long_as_its_schedule(tmp_path):
  """With its empty bundles; others' files are not its own."""
  name = "{}-00-pre-delay_hlo-static-per-bundle-utilization.txt"
  (tmp_path / name.format("17-forward.2")).write_text(SCHEDULE)
  (tmp_path / name.format("17-my_forward.2")).write_text(SCHEDULE + "0 0\n")
  (tmp_path / name.format("17-forward_more")).write_text(SCHEDULE + "0 0\n")
  (tmp_path / "17-forward.2-01-final_hlo-utilization.txt").write_text("0 0\n")
  assert tpu_compile.schedule_length(tmp_path, "forward") == 3
  with pytest.raises(FileNotFoundError, match="of the kernel backward"):
    tpu_compile.schedule_length(tmp_path, "backward")


def test_a_table_says_what_fits_what_does_not_and_what_failed():
  text = tpu_compile.table(
    [
      row(),
      row(memory={}, fits=False, needs_gib=21.5, error="RESOURCE_EXHAUSTED"),
      row(memory={}, fits=False, error="exit code -9, killed"),
    ]
  )
  head, rule, fitting, large, failed = text.splitlines()
  assert len({part.count("|") for part in (head, rule, fitting)}) == 1
  assert fitting == (
    "| `tokenpose_t` | v5e:2x4 | 16 | 101 | 0.25 + 2.00 + 0.00 = 2.25 | 16"
    " | yes | 3,432,100 | 3 all-reduce (23.4 MB) |"
  )
  assert "| 21.50 | 16 | no |" in large
  assert "`tokenpose_t`, remat blocks, quick |" in tpu_compile.line(
    row(remat="blocks", quick=True)
  )
  assert "`tokenpose_t`, keep=0.7 |" in tpu_compile.line(row(set="keep=0.7"))
  assert "failed: exit code -9, killed" in failed


@pytest.mark.parametrize(
  ("name", "wanted"),
  [
    ("v5e:2x4", ("v5e", "v5e:2x4", 1, 8)),
    ("v5p:2x2x2", ("v5p", "v5p:2x2x2", 1, 8)),
    ("2*v5e:2x4", ("v5e", "v5e:2x4", 2, 16)),
  ],
)
def test_topologies_have_names(name, wanted):
  assert tpu_compile.parse(name) == wanted


@pytest.mark.parametrize("name", ["v5e", "v9z:2x4", "2x4", "v5e:8"])
def test_a_wrong_topology_is_named(name):
  with pytest.raises(InputError, match="--topologies"):
    tpu_compile.plan(options(topologies=[name]))


def test_everything_is_planned_with_the_batches_of_the_recipes():
  rows = tpu_compile.plan(options())
  assert {name for name, *_ in rows} == set(PUBLISHED)
  assert len(rows) == len(set(rows)) == 3 * 9 + 2
  assert ("tokenpose_t", "v5e:2x4", 16, "none", False, "") in rows
  assert ("tokenpose_s_v2", "v5p:2x2x1", 12, "none", False, "") in rows
  assert ("tokenpose_l_d24_384x288", "2*v5e:2x4", 4, "none", False, "") in rows
  # 64 people on 256 chips.
  assert ("tokenpose_l_d24_384x288", "v5e:16x16", 8, "none", False, "") in rows
  (only,) = tpu_compile.plan(
    options(
      configs=["tokenpose_b"],
      topologies=["v6e:2x4"],
      batch_per_chip=64,
      remat="blocks",
      quick=True,
      set="keep=0.5",
    )
  )
  assert only == ("tokenpose_b", "v6e:2x4", 64, "blocks", True, "keep=0.5")


def test_a_killed_run_goes_on(tmp_path, monkeypatch, capsys):
  compiled = []

  def measure(key):
    name, topology, people, remat, quick, changes = key
    compiled.append(name)
    return row(
      config=name,
      topology=topology,
      people_a_chip=people,
      remat=remat,
      quick=quick,
      set=changes,
    )

  monkeypatch.setattr(tpu_compile, "measure", measure)
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
  out = tmp_path / "rows.json"
  names = ["tokenpose_t", "tokenpose_s_v1", "tokenpose_b"]
  failed = row(config="tokenpose_s_v1", error="exit code -9, killed")
  out.write_text(json.dumps([row(), failed]))
  asked = options(configs=names, topologies=["v5e:2x4"], out=out)
  tpu_compile.run(asked)
  assert compiled == names[1:]
  assert [saved["config"] for saved in json.loads(out.read_text())] == names
  shown = capsys.readouterr().out
  tpu_compile.run(asked)
  assert compiled == names[1:]
  assert capsys.readouterr().out == shown
  # A quick row never stands for a full one.
  tpu_compile.run(options(**vars(asked) | {"quick": True}))
  assert compiled == [*names[1:], *names]


def test_a_missing_compiler_is_one_line(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(InputError, match=r"pip install -r requirements-tpu\.txt"):
    tpu_compile.run(options(configs=["tokenpose_t"]))
