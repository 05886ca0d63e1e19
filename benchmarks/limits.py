"""What the machine can do, and what a step needs of it.

    python -m benchmarks.limits

Two limits of a step: its products at the fastest rate of a matrix product, and
the bytes that it has to move at the bandwidth of the memory. The slower of both
is what no program can beat that computes the same; docs/benchmarks.md says what
is counted.
"""

import concurrent.futures
import dataclasses
import functools
import json
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tokenpose_jax import cost
from tokenpose_jax.models.config import ModelConfig

SIZES = (2048, 3072)  # of square matrices
COPIED = 256 * 2**20  # bytes a thread: larger than any cache


class Limits(NamedTuple):
  """Of a machine.

  Attributes:
    products: FLOP/s of the fastest matrix product.
    memory: bytes/s, reading and writing counted together.
  """

  products: float
  memory: float

  def or_more(self, other: "Limits") -> "Limits":
    """The larger of two measurements, of each."""
    return Limits(*map(max, self, other))


@dataclasses.dataclass(frozen=True)
class Needs:
  """Of a step.

  Attributes:
    images: in a step.
    flops: of convolutions, linear layers and products between tokens.
    bytes: to and from the memory.
  """

  images: int
  flops: int
  bytes: int

  def bound(self, limits: Limits) -> tuple[float, str]:
    """Images a second at most, and what limits them."""
    products = self.flops / limits.products
    memory = self.bytes / limits.memory
    name = "products" if products >= memory else "memory"
    return self.images / max(products, memory), name


@functools.cache
def total_cost(model: ModelConfig, batch: int) -> cost.Cost:
  """That of `tokenpose cost`, of the whole network."""
  return cost.summarize(model, batch)["total"]


def needs(model: ModelConfig, case: str, batch: int) -> Needs:
  """What a step needs, by the counters of `tokenpose cost`.

  Args:
    model: the network.
    case: "inference" or "training".
    batch: images in a step.
  """
  total = total_cost(model, batch)
  flops = 2 * (total.layers + total.attention) * batch
  weights = 4 * total.parameters
  if case == "training":
    # Backward: a product for the inputs and one for the weights, for each of
    # the forward pass. The weights are read by both passes; the gradient is
    # written and read; Adam reads and writes the weights and two moments.
    return Needs(batch, 3 * flops, 10 * weights + 2 * total.stored)
  pixels = np.prod(model.heatmap_hw) * model.num_keypoints * 4
  crops = np.prod(model.input_hw) * 3
  return Needs(batch, flops, weights + int(batch * (crops + pixels)))


def fastest(step: Callable[[], Any], seconds: float) -> float:
  """Seconds of the fastest of the calls that fit in a time; two at least."""
  taken: list[float] = []
  end = time.perf_counter() + seconds
  while len(taken) < 2 or time.perf_counter() < end:
    start = time.perf_counter()
    step()
    taken.append(time.perf_counter() - start)
  return min(taken)


def products(seconds: float = 2.0) -> float:
  """FLOP/s of float32 matrix products, all cores: NumPy's or JAX's."""
  import jax

  rng = np.random.default_rng(0)
  multiply = jax.jit(lambda a, b: a @ b)
  best = 0.0
  for size in SIZES:
    a, b = rng.standard_normal((2, size, size), dtype=np.float32)
    out = np.empty_like(a)
    placed = jax.device_put((a, b))
    multiply(*placed).block_until_ready()
    ways = (
      lambda a=a, b=b, out=out: np.matmul(a, b, out=out),
      lambda placed=placed: multiply(*placed).block_until_ready(),
    )
    taken = min(fastest(way, seconds / 2) for way in ways)
    best = max(best, 2 * size**3 / taken)
  return best


def memory(threads: int, seconds: float = 2.0) -> float:
  """Bytes/s of copies, a thread a core: as many are read as written."""
  parts = [np.ones((2, COPIED // 8)) for _ in range(threads)]

  def copy(part: np.ndarray) -> None:
    np.copyto(part[0], part[1])  # Without the interpreter's lock.

  with concurrent.futures.ThreadPoolExecutor(threads) as pool:
    taken = fastest(lambda: list(pool.map(copy, parts)), seconds)
  return 2 * COPIED * threads / taken


def cores() -> int:
  """That this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def main() -> None:
  found = Limits(products(), memory(cores()))
  print(json.dumps(found._asdict()))


if __name__ == "__main__":
  main()
