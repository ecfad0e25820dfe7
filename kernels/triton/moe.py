"""Mixture of experts on a GPU: router, alignment, two grouped matrix products, combination. See
``kernels.reference.moe`` for what is computed.

A pair is (token, choice), numbered token * top_k + choice. Alignment sorts the pairs by expert and pads each expert's
to whole tiles of rows, on the device, so nothing waits for the host and all launches can be captured: grids are upper
bounds, and programs past the last tile leave at once. No atomics: results are the same in every run.
"""

# A kernel's arguments have no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from typing import NamedTuple

import torch
import triton
import triton.language as tl


class Config(NamedTuple):
    """Tile sizes of the two grouped products; they share the rows of a tile."""

    rows: int
    gate_up_columns: int
    """Of the result: twice as many columns of the product."""
    down_columns: int
    depth: int
    warps: int
    stages: int


# By most pairs per expert (average): few rows are bound by reading the weights, many by the tensor cores.
CONFIGS = (
    (0.5, Config(16, 32, 32, 128, 4, 4)),
    (16.0, Config(16, 64, 64, 64, 4, 4)),
    (64.0, Config(64, 64, 128, 64, 4, 4)),
    (float("inf"), Config(128, 128, 128, 64, 8, 3)),
)
PAIR_BLOCK = 2048
COMBINE_BLOCK = 1024
TILES_TOGETHER = 4


class Alignment(NamedTuple):
    """Pairs by expert, in tiles."""

    pairs: torch.Tensor
    """[most tiles * rows] int32: pair in each row of each tile; the number of pairs where a row is padding."""
    tile_expert: torch.Tensor
    """[most tiles] int32."""
    tiles: torch.Tensor
    """[1] int32: how many tiles there are; what lies past them is not written."""


def route(logits: torch.Tensor, top_k: int, renormalise: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """See ``kernels.reference.moe.route``."""
    tokens, experts = logits.shape
    weights = torch.empty(tokens, top_k, dtype=torch.float32, device=logits.device)
    ids = torch.empty(tokens, top_k, dtype=torch.int32, device=logits.device)
    if tokens:
        _route[(tokens,)](
            logits, weights, ids, experts, logits.stride(0),
            TOP_K=top_k, RENORMALISE=renormalise, EXPERTS=triton.next_power_of_2(experts), num_warps=1,
        )  # fmt: skip
    return weights, ids


def align(experts: torch.Tensor, count: int, rows: int) -> Alignment:
    """Sort the pairs by expert.

    experts  [tokens, top_k] int32, ids below ``count``
    rows     rows of a tile, a power of two
    """
    pairs = experts.numel()
    most = min(pairs, count) + pairs // rows
    device = experts.device
    alignment = Alignment(
        torch.empty(most * rows, dtype=torch.int32, device=device),
        torch.empty(most, dtype=torch.int32, device=device),
        torch.empty(1, dtype=torch.int32, device=device),
    )
    _align[(count,)](
        experts, *alignment, pairs,
        ROWS=rows, EXPERTS=triton.next_power_of_2(count), BLOCK=PAIR_BLOCK, num_warps=8,
    )  # fmt: skip
    return alignment


def config(pairs: int, experts: int) -> Config:
    """Tile sizes for so many pairs."""
    return next(entry for most, entry in CONFIGS if pairs <= most * experts)


def moe(
    x: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor, weights: torch.Tensor, experts: torch.Tensor
) -> torch.Tensor:
    """See ``kernels.reference.moe.moe``. Products are summed in float32; the activation and each expert's output are
    rounded to the dtype of ``x``. All tensors contiguous."""
    tokens, hidden = x.shape
    out = torch.empty_like(x)
    if tokens == 0:
        return out
    count, _, width = down.shape
    top_k = experts.shape[1]
    pairs = tokens * top_k
    tile = config(pairs, count)
    aligned = align(experts, count, tile.rows)
    activation = torch.empty(pairs, width, dtype=x.dtype, device=x.device)
    parts = torch.empty(pairs, hidden, dtype=x.dtype, device=x.device)
    # With float32 the tensor cores would round the inputs to 11 bits.
    precision = "ieee" if x.dtype == torch.float32 else "tf32"
    most = len(aligned.tile_expert)
    for source, weight, target, columns, depth, block, share, gated in (
        (x, gate_up, activation, width, hidden, tile.gate_up_columns, top_k, True),
        (activation, down, parts, hidden, width, tile.down_columns, 1, False),
    ):
        _grouped_product[(most * triton.cdiv(columns, block),)](
            source, weight, target, *aligned, pairs, columns, depth,
            ROWS_SHARED=share, GATED=gated, EVEN_DEPTH=depth % tile.depth == 0,
            PRECISION=precision, BLOCK_M=tile.rows, BLOCK_N=block, BLOCK_K=tile.depth, TILES_TOGETHER=TILES_TOGETHER,
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
    _combine[(tokens, triton.cdiv(hidden, COMBINE_BLOCK))](
        parts, weights, out, hidden, TOP_K=top_k, BLOCK=COMBINE_BLOCK, num_warps=4
    )
    return out


@triton.jit
def _route(
    Logits, Weights, Ids, experts, stride, TOP_K: tl.constexpr, RENORMALISE: tl.constexpr, EXPERTS: tl.constexpr
):
    token = tl.program_id(0).to(tl.int64)
    expert = tl.arange(0, EXPERTS)
    x = tl.load(Logits + token * stride + expert, mask=expert < experts, other=float("-inf")).to(tl.float32)
    # All results are quotients of these: of a chosen one and the sum, over all experts or over the chosen.
    mass = tl.exp(x - tl.max(x, 0))
    total = tl.sum(mass, 0)
    left = tl.where(expert < experts, mass, -1.0)
    if RENORMALISE:
        total = 0.0
        for _ in tl.static_range(TOP_K):
            largest = tl.max(left, 0)
            chosen = tl.min(tl.where(left == largest, expert, EXPERTS), 0)
            left = tl.where(expert == chosen, -1.0, left)
            total += largest
        left = tl.where(expert < experts, mass, -1.0)
    for choice in tl.static_range(TOP_K):
        largest = tl.max(left, 0)
        chosen = tl.min(tl.where(left == largest, expert, EXPERTS), 0)
        left = tl.where(expert == chosen, -1.0, left)
        tl.store(Weights + token * TOP_K + choice, largest / total)
        # None is chosen only if the logits are NaN; the id must be one nevertheless.
        tl.store(Ids + token * TOP_K + choice, tl.minimum(chosen, experts - 1))


@triton.jit(do_not_specialize=["pairs"])
def _align(
    Experts, Pairs, TileExpert, Tiles, pairs, ROWS: tl.constexpr, EXPERTS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """One program per expert. Each counts all experts' pairs, which is cheaper than a launch more."""
    expert = tl.program_id(0)
    counts = tl.zeros([EXPERTS], tl.int32)
    for start in range(0, pairs, BLOCK):
        pair = start + tl.arange(0, BLOCK)
        counts += tl.histogram(tl.load(Experts + pair, mask=pair < pairs, other=0), EXPERTS, mask=pair < pairs)
    tiles = (counts + ROWS - 1) // ROWS
    index = tl.arange(0, EXPERTS)
    first = tl.sum(tl.where(index < expert, tiles, 0), 0)
    last = first + tl.sum(tl.where(index == expert, tiles, 0), 0)
    if expert == 0:
        tl.store(Tiles, tl.sum(tiles, 0))
    for tile in range(first, last):
        tl.store(TileExpert + tile, expert)
    if last > first:
        place = first * ROWS
        for start in range(0, pairs, BLOCK):
            pair = start + tl.arange(0, BLOCK)
            mine = (tl.load(Experts + pair, mask=pair < pairs, other=-1) == expert).to(tl.int32)
            tl.store(Pairs + place + tl.cumsum(mine, 0) - 1, pair, mask=mine != 0)
            place += tl.sum(mine, 0)
        rest = place + tl.arange(0, ROWS)
        tl.store(Pairs + rest, pairs, mask=rest < last * ROWS)


@triton.jit(do_not_specialize=["pairs"])
def _grouped_product(
    X, Weight, Out, Pairs, TileExpert, Tiles, pairs, columns, depth,
    ROWS_SHARED: tl.constexpr, GATED: tl.constexpr, EVEN_DEPTH: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, TILES_TOGETHER: tl.constexpr,
):  # fmt: skip
    """Out[pair] = X[pair // ROWS_SHARED] @ Weight[expert].T, or with GATED silu(gate) * up of the two halves."""
    tiles = tl.load(Tiles)
    blocks = tl.cdiv(columns, BLOCK_N)
    program = tl.program_id(0)
    if program >= tiles * blocks:
        return
    # A few tiles go over all columns together, so that an expert's weights and the rows stay in the L2 cache.
    band = program // (TILES_TOGETHER * blocks)
    band_tiles = tl.minimum(tiles - band * TILES_TOGETHER, TILES_TOGETHER)
    within = program - band * TILES_TOGETHER * blocks
    tile = band * TILES_TOGETHER + within % band_tiles
    column = (within // band_tiles) * BLOCK_N + tl.arange(0, BLOCK_N)

    pair = tl.load(Pairs + tile * BLOCK_M + tl.arange(0, BLOCK_M))
    expert = tl.load(TileExpert + tile).to(tl.int64)
    real = pair < pairs
    step = tl.arange(0, BLOCK_K)
    rows = X + (pair // ROWS_SHARED).to(tl.int64)[:, None] * depth + step[None, :]
    # Columns past the last are read from the start: no mask, and they are not stored.
    part = column % columns
    half = columns.to(tl.int64) * depth
    weights = Weight + expert * half * (2 if GATED else 1) + part.to(tl.int64)[:, None] * depth + step[None, :]
    gate = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    up = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(0, depth, BLOCK_K):
        if EVEN_DEPTH:
            x = tl.load(rows + start, mask=real[:, None], other=0.0)
            w = tl.load(weights + start)
        else:
            inside = (start + step < depth)[None, :]
            x = tl.load(rows + start, mask=real[:, None] & inside, other=0.0)
            w = tl.load(weights + start, mask=inside, other=0.0)
        gate = tl.dot(x, tl.trans(w), gate, input_precision=PRECISION)
        if GATED:
            if EVEN_DEPTH:
                w = tl.load(weights + half + start)
            else:
                w = tl.load(weights + half + start, mask=inside, other=0.0)
            up = tl.dot(x, tl.trans(w), up, input_precision=PRECISION)
    if GATED:
        gate = gate * tl.sigmoid(gate) * up
    target = Out + pair.to(tl.int64)[:, None] * columns + column[None, :]
    tl.store(target, gate.to(Out.dtype.element_ty), mask=real[:, None] & (column < columns)[None, :])


@triton.jit
def _combine(Parts, Weights, Out, hidden, TOP_K: tl.constexpr, BLOCK: tl.constexpr):
    """Sum of a token's parts, in the order of its choices."""
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    valid = column < hidden
    total = tl.zeros([BLOCK], tl.float32)
    for choice in tl.static_range(TOP_K):
        part = tl.load(Parts + (token * TOP_K + choice) * hidden + column, mask=valid, other=0.0).to(tl.float32)
        total += part * tl.load(Weights + token * TOP_K + choice)
    tl.store(Out + token * hidden + column, total.to(Out.dtype.element_ty), mask=valid)
