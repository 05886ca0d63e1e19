"""Training and inference on a GPU, bfloat16: three attentions, and PyTorch.

    python -m benchmarks.gpu --minutes=8 --out=gpu.json
    python -m benchmarks.gpu --toy               # whether it works, on a CPU

Needs JAX, Flax, Optax, jaxtyping and PyTorch in one environment; no TensorFlow.
Rows come by importance, a few contenders compiling at once and then timed one
after the other with nothing else on the GPU; what the minutes do not reach is
left out. --out is written after every row.

XLA is the package's own attention. cuDNN and Triton replace it here: both are
attention without an array of N x N in memory. PyTorch is peers_torch.py,
compiled, under autocast, in channels_last. Model-FLOPs utilization counts the
products of the network alone (limits.py), of the data sheet's peak.
"""

import argparse
import functools
import json
import os
import sys
import time
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks import rounds, tables

NETWORKS = ("tokenpose_t", "tokenpose_s_v1", "tokenpose_b", "tokenpose_l_d24")
CASES = ("training", "inference")
BATCHES = (64, 256)
# The two that say where we are, then what could be better.
SIDES = ("PyTorch", "XLA", "cuDNN", "Triton")
TOY = "toy"
TITLES = (
  *("network", "case", "with", "images/s", "TFLOP/s"),
  *("utilization", "of the measured peak", "GB", "ready in, s"),
)
# Dense bfloat16, FLOP/s: NVIDIA's data sheets of A100, L4, H100 SXM, H200 SXM.
PEAKS = {"A100": 312e12, "L4": 121e12, "H100": 989e12, "H200": 989e12}
REPEAT = 10  # steps that are queued before the GPU is waited for
BLOCK = 32  # tokens of a tile: 273 are filled up to 288
LARGEST_ERROR = 0.03  # of bfloat16 against float32, relative
SPARE = 5.0  # seconds to the end in which nothing is started

Row = dict[str, Any]
Form = Callable[[Any, Any, Any, float], Any]
"""Attention: (b, n, heads, width) three times and the scale, to the same."""


class Key(NamedTuple):
  """What is timed."""

  network: str
  case: str
  batch: int
  side: str


def plan(
  networks: Sequence[str] = NETWORKS,
  batches: Sequence[int] = BATCHES,
  sides: Sequence[str] = SIDES,
) -> list[Key]:
  """Every row, by importance."""
  return [
    Key(network, case, batch, side)
    for batch in batches
    for case in CASES
    for network in networks
    for side in sides
  ]


def groups(
  keys: Iterable[Key], needed: Callable[[Key], float], memory: float, most: int
) -> Iterator[list[Key]]:
  """Those that get ready at the same time, in order.

  Args:
    keys: all of them.
    needed: bytes of the GPU that one takes.
    memory: bytes of the GPU.
    most: contenders at once.
  """
  group: list[Key] = []
  left = memory
  for key in keys:
    if group and (len(group) == most or needed(key) > left):
      yield group
      group, left = [], memory
    group.append(key)
    left -= needed(key)
  if group:
    yield group


def without_ml_collections() -> None:
  """Where it is not installed, its one name in a type is a plain dict.

  Networks are given as `ModelConfig` here, and no config is read.
  """
  try:
    import ml_collections  # noqa: F401
  except ModuleNotFoundError:
    module = types.ModuleType("ml_collections")
    module.ConfigDict = dict  # type: ignore[attr-defined]
    sys.modules["ml_collections"] = module


def model_of(network: str) -> Any:
  """The `ModelConfig` of a name, in bfloat16."""
  without_ml_collections()
  import dataclasses

  from tokenpose_jax.models.config import ModelConfig
  from tokenpose_jax.models.published import PUBLISHED

  if network == TOY:
    model = ModelConfig(input_hw=(64, 48), dim=48, heads=4, depth=1)
  else:
    model = PUBLISHED[network]
  return dataclasses.replace(model, dtype="bfloat16")


def shape_of(network: str) -> Any:
  """The same for PyTorch."""
  from benchmarks import peers_torch

  if network == TOY:
    return peers_torch.Shape(
      "stem", (4, 3), 4, (1,), 0, input_hw=(64, 48), dim=48
    )
  return peers_torch.SHAPES[network]


def forms(on_gpu: bool) -> dict[str, Form]:
  """Attention by name; XLA's is the package's own.

  Args:
    on_gpu: else Triton's kernel is interpreted, and cuDNN's part is XLA's.
  """
  implementation = "cudnn" if on_gpu else "xla"
  return {
    "cuDNN": functools.partial(padded_heads, implementation=implementation),
    "Triton": functools.partial(pallas_triton, interpret=not on_gpu),
  }


def padded_heads(
  q: Any, k: Any, v: Any, scale: float, *, implementation: str
) -> Any:
  """`jax.nn.dot_product_attention`, heads filled up to multiples of 8."""
  import jax
  import jax.numpy as jnp

  width = q.shape[-1]
  fill = ((0, 0),) * 3 + ((0, -width % 8),)
  q, k, v = (jnp.pad(x, fill) for x in (q, k, v))
  mixed = jax.nn.dot_product_attention(
    q, k, v, scale=scale, implementation=implementation
  )
  return mixed[..., :width]


def pallas_triton(
  q: Any, k: Any, v: Any, scale: float, *, interpret: bool
) -> Any:
  """Pallas's Triton kernel; tokens are filled up to whole tiles, apart."""
  import jax.numpy as jnp
  from jax.experimental.pallas.ops.gpu import attention

  b, n, _, width = q.shape
  tokens = (0, -n % BLOCK)
  # The kernel fills up widths by itself; its interpreter does not.
  heads = (0, -width % 16 if interpret else 0)
  q, k, v = (jnp.pad(x, ((0, 0), tokens, (0, 0), heads)) for x in (q, k, v))
  segments = jnp.broadcast_to(jnp.arange(q.shape[1]) < n, (b, q.shape[1]))
  mixed = attention.mha(
    q,
    k,
    v,
    segments.astype(jnp.int32),
    sm_scale=scale,
    block_sizes=attention.BlockSizes(*[BLOCK] * 6),
    interpret=interpret,
  )
  return mixed[:, :n, :, :width]


def use(form: Form) -> None:
  """The networks of this process have this attention from now on."""
  import jax.numpy as jnp

  from tokenpose_jax.models import attention

  def attend(qkv: Any, scale: float, name: str) -> Any:
    del name
    b, n, *_ = qkv.shape
    return form(*jnp.moveaxis(qkv, 2, 0), scale).reshape(b, n, -1)

  attention.attend = attend


def error_of(form: Form, heads: int, width: int, tokens: int) -> float:
  """The relative error of a form and of its gradients, in bfloat16.

  Args:
    form: of the attention.
    heads: as the network's.
    width: of a head.
    tokens: as the network's.
  """
  import jax
  import jax.numpy as jnp

  keys = jax.random.split(jax.random.key(0), 4)
  shape = (2, tokens, heads, width)
  *inputs, weight = (jax.random.normal(key, shape) for key in keys)
  rounded = [x.astype(jnp.bfloat16) for x in inputs]
  scale = width**-0.5

  def exact(q: Any, k: Any, v: Any) -> Any:
    logits = jnp.einsum("bqhc,bkhc->bhqk", q, k, precision="highest") * scale
    weights = jax.nn.softmax(logits)
    return jnp.einsum("bhqk,bkhc->bqhc", weights, v, precision="highest")

  def everything(function: Callable[..., Any], inputs: Sequence[Any]) -> Any:
    def total(*inputs: Any) -> tuple[Any, Any]:
      out = function(*inputs).astype(jnp.float32)
      return (out * weight).sum(), out

    found, out = jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))(
      *inputs
    )
    return [out, *(x.astype(jnp.float32) for x in found)]

  wanted = everything(exact, [x.astype(jnp.float32) for x in rounded])
  found = everything(lambda q, k, v: form(q, k, v, scale), rounded)
  return max(
    float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))
    for a, b in zip(found, wanted, strict=True)
  )


def jax_step(model: Any, case: str, batch: int, repeat: int) -> Any:
  """A step that can be taken over and over.

  Args:
    model: the network.
    case: of `CASES`; the training is loss, gradient and Adam.
    batch: images in a step.
    repeat: how often, before it is waited for.
  """
  import jax
  import jax.numpy as jnp
  import numpy as np
  import optax

  from tokenpose_jax import gradients, network

  weights = network.init(model, 0)
  rng = np.random.default_rng(0)
  crops = jax.device_put(
    rng.integers(0, 256, (batch, *model.input_hw, 3)).astype(np.uint8)
  )
  if case == "inference":
    apply = jax.jit(
      lambda weights, crops: network.apply(
        model, *weights, network.normalize(crops)
      )
    )

    def infer() -> None:
      for _ in range(repeat):
        out = apply(weights, crops)
      out.block_until_ready()

    return infer

  maps = (batch, model.num_keypoints, *model.heatmap_hw)
  part = gradients.Batch(
    crops,
    jax.device_put(rng.random(maps, np.float32)),
    jnp.ones(maps[:2]),
    jnp.ones(batch),
  )
  adam = optax.adam(1e-3)

  @functools.partial(jax.jit, donate_argnums=0)
  def update(state: Any, part: Any) -> tuple[Any, Any]:
    params, model_state, moments = state
    found = gradients.of_batch(model, params, model_state, part)
    updates, moments = adam.update(found.gradient, moments, params)
    params = optax.apply_updates(params, updates)
    return (params, found.model_state, moments), found.loss

  state = (*weights, adam.init(weights[0]))

  def train() -> None:
    nonlocal state
    for _ in range(repeat):
      state, loss = update(state, part)
    jax.block_until_ready((state, loss))

  return train


def worker(key: Key) -> None:
  """A contender, ready to be timed (rounds.py)."""
  repeat = 1 if key.network == TOY else REPEAT
  if key.side == "PyTorch":
    torch_worker(key, repeat)
    return
  model = model_of(key.network)
  import jax

  facts: dict[str, Any] = {"jax": jax.__version__}
  if key.side != "XLA":
    form = forms(jax.default_backend() == "gpu")[key.side]
    tokens = model.num_keypoints + model.grid_hw[0] * model.grid_hw[1]
    facts["error"] = error_of(
      form, model.heads, model.dim // model.heads, tokens
    )
    if not facts["error"] < LARGEST_ERROR:
      sys.exit(f"the attention is wrong by {facts['error']:.3f}")
    use(form)
  step = jax_step(model, key.case, key.batch, repeat)

  def after() -> dict[str, Any]:
    stats = jax.devices()[0].memory_stats() or {}
    return {"device_bytes": stats.get("peak_bytes_in_use", 0)}

  rounds.serve(step, key.batch * repeat, facts, after)


def torch_worker(key: Key, repeat: int) -> None:
  """PyTorch's contender."""
  import torch

  from benchmarks import peers_torch

  device = "cuda" if torch.cuda.is_available() else "cpu"
  # For what autocast leaves in float32.
  torch.set_float32_matmul_precision("high")
  step = peers_torch.create_step(
    shape_of(key.network),
    key.case,
    key.batch,
    compiled=True,
    channels_last=True,
    device=device,
    bfloat16=True,
    repeat=repeat,
  )

  def after() -> dict[str, Any]:
    on_gpu = device == "cuda"
    return {"device_bytes": torch.cuda.max_memory_allocated() if on_gpu else 0}

  facts = {"torch": torch.__version__}
  rounds.serve(step, key.batch * repeat, facts, after)


def machine() -> dict[str, Any]:
  """The GPU's name, bytes, and FLOP/s of bfloat16 products."""
  import torch

  on_gpu = torch.cuda.is_available()
  device, size = ("cuda", 8192) if on_gpu else ("cpu", 512)
  # Random: products of zeros are faster.
  a, b = torch.randn(2, size, size, device=device).to(torch.bfloat16)

  def multiply(count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
      a @ b
    if on_gpu:
      torch.cuda.synchronize()
    return (time.perf_counter() - start) / count

  multiply(3)
  peak = 2 * size**3 / min(multiply(10) for _ in range(5))
  if not on_gpu:
    return {"name": "cpu", "bytes": 2**33, "products": peak}
  properties = torch.cuda.get_device_properties(0)
  total = properties.total_memory
  return {"name": properties.name, "bytes": total, "products": peak}


def needed_bytes(key: Key) -> float:
  """What a contender may take of the GPU, roughly.

  The values that a training stores are those of `tokenpose cost`; contexts,
  workspaces and what autotuning tries come on top.
  """
  from benchmarks import limits

  stored = limits.total_cost(model_of(key.network), key.batch).stored
  return 3e9 + 2 * stored * (1 if key.case == "training" else 0.2)


def sheet_peak(name: str) -> float | None:
  """FLOP/s by the data sheet, of a GPU's name; None: not known."""
  for part, peak in PEAKS.items():
    if part in name.replace("-", " ").split():
      return peak
  return None


def completed(row: Row, gpu: Mapping[str, Any], flops: float) -> Row:
  """A row with what it reached.

  Args:
    row: of a contender that was timed.
    gpu: as returned by `machine`.
    flops: of an image.
  """
  reached = row["rate"] * flops
  row = row | {"tflops": reached / 1e12}
  row["of_measured"] = reached / gpu["products"]
  if peak := sheet_peak(gpu["name"]):
    row["utilization"] = reached / peak
  return row


def line(row: Row) -> list[str]:
  """The cells of a row, as `TITLES`."""
  start = [row["network"], f"{row['case']}, {row['batch']}", row["side"]]
  if "rate" not in row:
    return [*start, f"failed: {row['failed']}", "", "", "", "", ""]
  share = row.get("utilization")
  return [
    *start,
    f"{row['rate']:,.0f}",
    f"{row['tflops']:.1f}",
    "" if share is None else f"{share:.1%}",
    f"{row['of_measured']:.1%}",
    f"{row['device_bytes'] / 1e9:.1f}" if row["device_bytes"] else "",
    f"{row['ready_s']:.0f}",
  ]


def start(key: Key, variables: Mapping[str, str]) -> rounds.Contender:
  """Its process."""
  command = [sys.executable, "-m", "benchmarks.gpu", "--worker"]
  # Several share the GPU while they get ready.
  more = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
  return rounds.Contender([*command, json.dumps(key)], {**variables, **more})


def timed(
  group: Sequence[Key],
  variables: Mapping[str, str],
  end: float,
  row_seconds: float,
  seconds: float,
) -> Iterator[Row]:
  """The rows of a group.

  Args:
    group: of `groups`.
    variables: of the environment.
    end: of all, of `time.monotonic`.
    row_seconds: that a contender may take to get ready.
    seconds: of a round, of which there are two; the better one counts.
  """
  limit = min(end, time.monotonic() + row_seconds)
  contenders = {key: start(key, variables) for key in group}
  ready: dict[Key, Row] = {}
  try:
    for key, contender in contenders.items():
      row: Row = dict(key._asdict())
      try:
        row |= contender.ready(max(limit - time.monotonic(), 0))
        ready[key] = row
      except rounds.Failed as error:
        yield row | {"failed": str(error)}
    # All of them wait now: nothing else is on the GPU.
    for key, row in ready.items():
      try:
        left = max(end + SPARE - time.monotonic(), 0)
        answers = [contenders[key].rate(seconds, left) for _ in range(2)]
        yield row | max(answers, key=lambda answer: answer["rate"])
      except rounds.Failed as error:
        yield row | {"failed": str(error)}
  finally:
    for contender in contenders.values():
      contender.close()


def run(options: argparse.Namespace) -> list[Row]:
  """All rows that fit in the time."""
  variables = dict(os.environ)
  # This process only counts: JAX would take most of the GPU's memory for it.
  os.environ["JAX_PLATFORMS"] = "cpu"
  without_ml_collections()
  from benchmarks import limits

  end = time.monotonic() + 60 * options.minutes - SPARE
  module = (sys.executable, "-m", "benchmarks.gpu")
  gpu = rounds.run_alone([*module, "--machine"], variables)
  print(f"{gpu['name']}: {gpu['products'] / 1e12:.1f} TFLOP/s of products")
  print(tables.markdown(TITLES, []), flush=True)
  keys = plan(options.networks, options.batches, options.sides)
  left = list(keys)
  rows: list[Row] = []
  memory = 0.8 * gpu["bytes"]
  for group in groups(keys, needed_bytes, memory, options.parallel):
    if time.monotonic() > end - SPARE:
      break
    for row in timed(
      group, variables, end, options.row_seconds, options.seconds
    ):
      if "rate" in row:
        model = model_of(row["network"])
        needs = limits.needs(model, row["case"], row["batch"])
        row = completed(row, gpu, needs.flops / needs.images)
      rows.append(row)
      left.remove(Key(*(row[name] for name in Key._fields)))
      print(f"| {' | '.join(line(row))} |", flush=True)
      write(options.out, {"gpu": gpu, "rows": rows, "left_out": left})
  if left:
    print(f"\nNot reached in {options.minutes} minutes: {len(left)} rows.")
  return rows


def write(path: str, content: Any) -> None:
  """Whole or as before."""
  with open(f"{path}.partial", "w") as file:
    json.dump(content, file, indent=1)
  os.replace(f"{path}.partial", path)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  names = functools.partial(str.split, sep=",")
  add("--networks", type=names, default=list(NETWORKS))
  add("--batches", type=lambda t: [int(n) for n in t.split(",")])
  add("--sides", type=names, default=list(SIDES))
  add("--minutes", type=float, default=8.0)
  add("--row_seconds", type=float, default=150.0, help="to get ready")
  add("--seconds", type=float, default=1.0, help="of a round")
  add("--parallel", type=int, default=4, help="that get ready at once")
  add("--out", default="gpu.json", help="rows, as they come")
  add("--toy", action="store_true", help="a tiny network, on a CPU")
  add("--worker", type=json.loads, help=argparse.SUPPRESS)
  add("--machine", action="store_true", help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.worker:
    worker(Key(*options.worker))
    return
  if options.machine:
    print(json.dumps(machine()))
    return
  if options.toy:
    os.environ |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    options.networks, options.parallel, options.seconds = [TOY], 2, 0.1
  options.batches = options.batches or ([2] if options.toy else list(BATCHES))
  rows = run(options)
  if not rows or all("failed" in row for row in rows):
    sys.exit("error: nothing was measured")


if __name__ == "__main__":
  main()
