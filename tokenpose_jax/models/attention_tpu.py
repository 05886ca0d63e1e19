"""Attention in one kernel for TPUs, forward and backward (Pallas).

For this family's shapes, few and narrow heads over hundreds of tokens, where
the logits (b, heads, n, n) would be most of what a step writes to memory. A
grid step takes some heads of some images (`_step`); logits stay on the chip.

Arrays are (b, heads, d, n), the tokens last: on a TPU the last axis lies on
128 lanes, and a width d of 12 to 32 would leave most of them empty. `n` is cut
into tiles of 128 lanes, or 256 where the matrix unit is that wide. The tokens
left over (17 of 273) would each fill a tile of their own: those of several
heads share one, as a product of the heads' keys stacked, (heads * d, n), with
a block diagonal of their queries.

What bounds it is the matrix unit, which makes a row of a tile in the same time
whatever the width contracted. So whatever can ride along in unused rows of that
contraction does: the subtraction of the logarithms of the sums, of the
backward pass's row sums, and the sums themselves. The compiler keeps to the
order of the program: `_pipelined` starts a tile's products before the tile
before it is done. docs/tpu.md has the cycles.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from tokenpose_jax.models import devices

_FORWARD_AHEAD = (2, 1)  # tiles between a stage and the next (`_pipelined`)
_BACKWARD_AHEAD = (1, 1)

# What fits the memory of a chip is known by trying only. v5e, v5p and v6e:
_KINDS = ("TPU v5 lite", "TPU v5e", "TPU v5", "TPU v5p", "TPU v6 lite")
_WIDE_KINDS = ("TPU v6 lite",)
_SHAPES = {  # (heads, width, tokens): those of the published networks
  (8, 24, 272),
  (8, 24, 273),
  (8, 24, 785),
  (12, 16, 272),
  (12, 16, 273),
  (12, 16, 305),
  (16, 12, 273),
}
_MEMORY = 32 * 2**20  # bytes on the chip; 16 MiB unless asked for

_Head = tuple[int, int]  # image and head in a grid step


class _Unit(NamedTuple):
  """What a generation's matrix unit is given.

  Attributes:
    lanes: of a tile.
    forward_rows: of the logits in one product: each goes to a unit of its own.
    backward_rows: likewise.
    tiles: in a grid step, enough to hide its beginning and its end; a quarter
      in float32, whose values and partial products would not fit.
  """

  lanes: int
  forward_rows: int
  backward_rows: int
  tiles: int


_NARROW = _Unit(lanes=128, forward_rows=80, backward_rows=96, tiles=72)
_WIDE = _Unit(lanes=256, forward_rows=144, backward_rows=144, tiles=36)


class _Tile(NamedTuple):
  """Lanes of tokens: of one head, or what several have left over.

  Attributes:
    heads: in the grid step.
    lanes: the tokens, of each of the heads.
  """

  heads: tuple[_Head, ...]
  lanes: slice


def supports(
  heads: int, width: int, tokens: int, dtype: DTypeLike, kind: str
) -> bool:
  """Whether the kernels were compiled for that: docs/tpu.md.

  Args:
    heads: of the attention.
    width: of a head.
    tokens: n.
    dtype: of q, k and v.
    kind: `device_kind` of the device.
  """
  known = (heads, width, tokens) in _SHAPES and kind in _KINDS
  # Float32 was compiled for some of them only.
  return known and jnp.dtype(dtype) == jnp.bfloat16


# Traced once for all blocks.
@functools.partial(jax.jit, static_argnames="interpret")
def forward(
  q: Float[Array, "b h d n"],
  k: Float[Array, "b h d n"],
  v: Float[Array, "b h d n"],
  *,
  interpret: bool = False,
) -> tuple[Float[Array, "b h d n"], Float[Array, "b h 1 n"]]:
  """Softmax attention, and what `backward` needs of it.

  Args:
    q: (b, heads, d, n) queries, multiplied by the scale; bfloat16 or float32.
    k: (b, heads, d, n) keys.
    v: (b, heads, d, n) values.
    interpret: on any device, slowly, for tests.

  Returns:
    What is mixed, (b, heads, d, n), of v's type; and the logarithms of the
    softmax's sums over the keys, (b, heads, 1, n) float32.
  """
  return _call(_forward, "attention_forward", (q, k, v), "of", interpret)


@functools.partial(jax.jit, static_argnames="interpret")
def backward(
  q: Float[Array, "b h d n"],
  k: Float[Array, "b h d n"],
  v: Float[Array, "b h d n"],
  o: Float[Array, "b h d n"],
  lse: Float[Array, "b h 1 n"],
  do: Float[Array, "b h d n"],
  *,
  interpret: bool = False,
) -> tuple[
  Float[Array, "b h d n"], Float[Array, "b h d n"], Float[Array, "b h d n"]
]:
  """Gradients of q, k and v.

  Args:
    q: (b, heads, d, n) as given to `forward`.
    k: (b, heads, d, n) as given to `forward`.
    v: (b, heads, d, n) as given to `forward`.
    o: (b, heads, d, n) from `forward`.
    lse: (b, heads, 1, n) from `forward`.
    do: (b, heads, d, n) gradient of o.
    interpret: on any device, slowly, for tests.

  Returns:
    dq, dk and dv, of q's type.
  """
  inputs = (q, k, v, o, lse, do)
  return _call(_backward, "attention_backward", inputs, "ooo", interpret)


def _call(
  kernel: Callable[..., None],
  name: str,
  inputs: Sequence[Array],
  outputs: str,
  interpret: bool,
) -> Any:
  """Runs a kernel; outputs: "o" like q, "f" float32 for each query."""
  b, heads, d, n = inputs[0].shape
  unit = _unit()
  images, group = _step(inputs[0].shape, inputs[0].dtype, unit)

  def spec(rows: int) -> pl.BlockSpec:
    return pl.BlockSpec((images, group, rows, n), lambda i, j: (i, j, 0, 0))

  kinds = {"o": (d, inputs[0].dtype), "f": (1, jnp.float32)}
  made = [kinds[output] for output in outputs]
  grid = (b // images, heads // group)
  return pl.pallas_call(
    functools.partial(kernel, unit=unit),
    name=name,
    grid=grid,
    # Into the compiled program, for benchmarks/tpu_compile.py.
    metadata={"steps": str(math.prod(grid))},
    in_specs=[spec(x.shape[2]) for x in inputs],
    out_specs=[spec(rows) for rows, _ in made],
    out_shape=[
      jax.ShapeDtypeStruct((b, heads, rows, n), dtype) for rows, dtype in made
    ],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel", "parallel"),
      vmem_limit_bytes=_MEMORY,
    ),
    interpret=interpret,
  )(*inputs)


def _unit() -> _Unit:
  """That of the devices the program is traced for."""
  return _WIDE if devices.kind() in _WIDE_KINDS else _NARROW


def _step(
  shape: tuple[int, ...], dtype: DTypeLike, unit: _Unit
) -> tuple[int, int]:
  """How many images and heads a grid step takes."""
  b, heads, d, n = shape
  sizes = [(1, size) for size in range(1, heads + 1) if not heads % size]
  sizes += [(size, heads) for size in range(2, b + 1) if not b % size]
  most = unit.tiles // (4 if dtype == jnp.float32 else 1)
  fitting = [s for s in sizes if len(_tiles(*s, d, n, unit.lanes)) <= most]
  return max(fitting, default=(1, 1))


def _tiles(images: int, group: int, d: int, n: int, lanes: int) -> list[_Tile]:
  """The tiles of so many heads of so many images."""
  whole, rest = divmod(n, lanes)
  share = 1
  everything = [(i, h) for i in range(images) for h in range(group)]
  if rest:
    # A contraction has as many rows as a tile has lanes.
    most = min(lanes // rest, lanes // _padded(d + 3))
    share = max(1, min(most, len(everything)))
    # As even as can be.
    share = -(-len(everything) // -(-len(everything) // share))
  tiles = []
  for first in range(0, len(everything), share):
    heads = tuple(everything[first : first + share])
    for head in heads:
      tiles += [
        _Tile((head,), slice(i * lanes, (i + 1) * lanes)) for i in range(whole)
      ]
    if rest:
      tiles.append(_Tile(heads, slice(n - rest, n)))
  return tiles


def _padded(rows: int) -> int:
  """Rows of a block that others can be stacked on: 16 in bfloat16."""
  return -(-rows // 16) * 16


def _forward(
  q_ref: Any,
  k_ref: Any,
  v_ref: Any,
  o_ref: Any,
  l_ref: Any,
  *,
  unit: _Unit,
) -> None:
  """Logits are (keys, queries): maxima run over registers, not in them."""
  images, group, d, n = q_ref.shape
  rows, out_rows = _padded(d), _padded(d)
  dtype = q_ref.dtype
  # Where v has rows to spare, ones there make the sums in the product.
  ones = d < out_rows

  @functools.cache
  def keys(heads: tuple[_Head, ...]) -> Array:
    return _stacked([k_ref[h] for h in heads], rows).T

  @functools.cache
  def values(heads: tuple[_Head, ...]) -> Array:
    more = [jnp.ones((1, n), dtype)] if ones else []
    return _stacked([_rows([v_ref[h], *more]) for h in heads], out_rows)

  def logits(tile: _Tile) -> list[Array]:
    q = _diagonal(
      [q_ref[*h, :, tile.lanes] for h in tile.heads], rows, unit.lanes
    )
    k = keys(tile.heads)
    return [_dot(k[s], q, 1, 0) for s in _chunks(n, unit.forward_rows)]

  def softmax(parts: list[Array]) -> tuple[Array, Array, Array | None]:
    peaks = [x.max(0, keepdims=True) for x in parts]
    peak = functools.reduce(jnp.maximum, peaks)
    weights = [jnp.exp(x - peak) for x in parts]
    total = None
    if not ones:
      sums = [x.sum(0, keepdims=True) for x in weights]
      total = functools.reduce(jnp.add, sums)
    return peak, _rows(weights).astype(dtype), total

  def mix(tile: _Tile, parts: tuple[Array, Array, Array | None]) -> None:
    peak, weights, total = parts
    o = _dot(values(tile.heads), weights, 1, 0)
    o = _of_diagonal(o, tile, out_rows)
    if total is None:
      total = o[d : d + 1]
    _write(o_ref, tile, o[:d] / total)
    _write(l_ref, tile, peak + jnp.log(total))

  tiles = _tiles(images, group, d, n, unit.lanes)
  _pipelined(tiles, _FORWARD_AHEAD, logits, softmax, mix)


def _backward(
  q_ref: Any,
  k_ref: Any,
  v_ref: Any,
  o_ref: Any,
  l_ref: Any,
  do_ref: Any,
  dq_ref: Any,
  dk_ref: Any,
  dv_ref: Any,
  *,
  unit: _Unit,
) -> None:
  """Logits are (queries, keys): only one product needs them transposed."""
  images, group, d, n = q_ref.shape
  dtype = q_ref.dtype
  # What is subtracted in a product: three bfloat16 make a float32.
  more = 3 if dtype == jnp.bfloat16 else 1
  rows, out_rows = _padded(d + more), _padded(d)

  @functools.cache
  def queries(head: _Head) -> Array:
    return _rows([q_ref[head], *_pieces(-l_ref[head], dtype)])

  @functools.cache
  def gradients(head: _Head) -> Array:
    do, o = (ref[head].astype(jnp.float32) for ref in (do_ref, o_ref))
    delta = (do * o).sum(0, keepdims=True)
    return _rows([do_ref[head], *_pieces(-delta, dtype)])

  @functools.cache
  def transposed(
    heads: tuple[_Head, ...], of: Callable[[_Head], Array]
  ) -> Array:
    return _stacked([of(h) for h in heads], rows).T

  def stacked(tile: _Tile, ref: Any) -> Array:
    return _stacked([ref[h] for h in tile.heads], out_rows)

  def columns(tile: _Tile, ref: Any) -> Array:
    parts = [ref[*h, :, tile.lanes] for h in tile.heads]
    ones = jnp.ones((more, parts[0].shape[1]), dtype)
    return _diagonal([_rows([x, ones]) for x in parts], rows, unit.lanes)

  def products(tile: _Tile) -> list[tuple[Array, Array]]:
    k, v = columns(tile, k_ref), columns(tile, v_ref)
    q = transposed(tile.heads, queries)
    do = transposed(tile.heads, gradients)
    return [
      (_dot(q[s], k, 1, 0), _dot(do[s], v, 1, 0))
      for s in _chunks(n, unit.backward_rows)
    ]

  def softmax(parts: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    weights = [jnp.exp(x) for x, _ in parts]
    ds = [p * x for p, (_, x) in zip(weights, parts, strict=True)]
    return _rows(weights).astype(dtype), _rows(ds).astype(dtype)

  dq: dict[_Head, Array] = {}

  def gather(tile: _Tile, parts: tuple[Array, Array]) -> None:
    weights, ds = parts
    dv = _dot(stacked(tile, do_ref), weights, 1, 0)
    dk = _dot(stacked(tile, q_ref), ds, 1, 0)
    _write(dv_ref, tile, _of_diagonal(dv, tile, out_rows)[:d])
    _write(dk_ref, tile, _of_diagonal(dk, tile, out_rows)[:d])
    k = _diagonal(
      [k_ref[*h, :, tile.lanes] for h in tile.heads], out_rows, unit.lanes
    )
    part = _dot(k, ds, 1, 1)
    for i, head in enumerate(tile.heads):
      own = part[i * out_rows : i * out_rows + d]
      dq[head] = dq[head] + own if head in dq else own
      if tile.lanes.stop == n:
        dq_ref[head] = dq[head].astype(dtype)

  tiles = _tiles(images, group, d, n, unit.lanes)
  _pipelined(tiles, _BACKWARD_AHEAD, products, softmax, gather)


def _pipelined(
  tiles: list[_Tile],
  ahead: tuple[int, int],
  first: Callable[[_Tile], Any],
  second: Callable[[Any], Any],
  third: Callable[[_Tile, Any], None],
) -> None:
  """Runs three stages of every tile, later tiles' first ones in between.

  Args:
    tiles: all of a grid step.
    ahead: by how many tiles the first stage is ahead of the second, and that
      of the third.
    first: makes what the second takes.
    second: makes what the third takes.
    third: writes it.
  """
  begun, done = {}, {}
  for i in range(len(tiles) + sum(ahead)):
    if i < len(tiles):
      begun[i] = first(tiles[i])
    if (j := i - ahead[0]) in begun:
      done[j] = second(begun.pop(j))
    if (j := i - sum(ahead)) in done:
      third(tiles[j], done.pop(j))


def _dot(a: Array, b: Array, of_a: int, of_b: int) -> Array:
  """Contracts one axis of each; float32."""
  exact = a.dtype == jnp.float32
  return jax.lax.dot_general(
    a,
    b,
    (((of_a,), (of_b,)), ((), ())),
    precision=jax.lax.Precision.HIGHEST if exact else None,
    preferred_element_type=jnp.float32,
  )


def _pieces(x: Array, dtype: DTypeLike) -> list[Array]:
  """Arrays of that type with the sum x, which is float32."""
  pieces = []
  for _ in range(3 if dtype == jnp.bfloat16 else 1):
    pieces.append(x.astype(dtype))
    x = x - pieces[-1].astype(jnp.float32)
  return pieces


def _chunks(n: int, rows: int) -> list[slice]:
  """Of the logits, a product each."""
  return [slice(i, min(i + rows, n)) for i in range(0, n, rows)]


def _rows(parts: Sequence[Array]) -> Array:
  """One below the other."""
  return jnp.concatenate(parts, axis=0)


def _stacked(parts: Sequence[Array], rows: int) -> Array:
  """One below the other, each on so many rows."""
  zeros = rows - parts[0].shape[0]
  if zeros:
    parts = [jnp.pad(x, ((0, zeros), (0, 0))) for x in parts]
  return _rows(parts)


def _own(i: int, rest: int, shape: tuple[int, ...]) -> Array:
  """Which lanes of a shared tile are those of its head i, in that shape."""
  lane = jax.lax.broadcasted_iota(jnp.int32, shape, 1)
  return (lane >= i * rest) & (lane < (i + 1) * rest)


def _diagonal(parts: Sequence[Array], rows: int, lanes: int) -> Array:
  """Blocks on the diagonal, each of so many rows; (rows, n) of one alone."""
  if len(parts) == 1:
    return _stacked(parts, rows)
  dtype, (height, rest) = parts[0].dtype, parts[0].shape
  # Lanes are moved in float32 only.
  wide = [x.astype(jnp.float32) for x in parts]
  empty = lanes - rest * len(parts)
  if empty:
    wide.append(jnp.zeros((height, empty), jnp.float32))
  line = _stacked([jnp.concatenate(wide, axis=1)], rows)
  blocks = [
    jnp.where(_own(i, rest, line.shape), line, 0) for i in range(len(parts))
  ]
  return _rows([x.astype(dtype) for x in blocks])


def _of_diagonal(x: Array, tile: _Tile, rows: int) -> Array:
  """The blocks on the diagonal, side by side: what `_diagonal` began with."""
  if len(tile.heads) == 1:
    return x
  rest = tile.lanes.stop - tile.lanes.start
  blocks = [x[i * rows : (i + 1) * rows] for i in range(len(tile.heads))]
  own = [
    jnp.where(_own(i, rest, block.shape), block, 0)
    for i, block in enumerate(blocks)
  ]
  return functools.reduce(jnp.add, own)


def _write(ref: Any, tile: _Tile, x: Array) -> None:
  """Writes every head's lanes."""
  rest = x.shape[1]
  if len(tile.heads) > 1:
    rest = tile.lanes.stop - tile.lanes.start
  for i, head in enumerate(tile.heads):
    own = x[:, i * rest : (i + 1) * rest]
    ref[*head, :, tile.lanes] = own.astype(ref.dtype)
