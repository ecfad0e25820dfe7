"""Matrix products of a few rows on a GPU, as decode steps have them: bound by reading the weight, which passes through
shared memory once, in a pipeline deep enough for the memory's latency. Products of many rows are cuBLAS's business.

The weight's tile is the left factor (its outputs are the tensor core's rows) and the rows of x the right one, so that
few rows of x waste little of it. With a gate, a program computes the same outputs of both halves and leaves
``silu(gate) * up``. Where there are too few outputs to keep the chip busy the depth is cut into parts, which the norm
that follows sums up as it reads them. The first of each program's weights are fetched into the L2 cache while the
kernel before still runs (``kernels.triton.early``).
"""

# A kernel's arguments have no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait
from triton.tools.tensor_descriptor import TensorDescriptor

from kernels.triton import early

MOST_ROWS = 64
WARPS = 4
PREFETCH = 512  # of each of a program's outputs; fewer where there are many programs, of the L2 cache's size
GATED_PREFETCH = 128
MOST_WIDTH = 65536  # more outputs (a vocabulary) keep cuBLAS busy too
PROGRAMS = 256  # that keep the chip busy: two on each SM
LEAST_DEPTH = 512  # of a part


class Config(NamedTuple):
    """Outputs and depth of a program's tile, stages of the pipeline, parts that the depth is cut into."""

    outputs: int
    depth: int
    stages: int
    parts: int = 1


def config(rows: int, width: int, depth: int, gated: bool, parts: bool) -> Config | None:
    """Tiles for so many rows, ``width`` outputs (of each half, with a gate) of ``depth``; None where cuBLAS is better
    (measured on an H200, docs/log.md). ``parts``: whether the result may come in parts."""
    if not 0 < rows <= MOST_ROWS or depth % 128 or width > MOST_WIDTH:
        return None
    few = rows <= 16
    if gated:
        return Config(64, 128, 4) if few else Config(128, 64, 4)
    if not few and (not parts or depth < 8192):
        return None
    cut = 1
    while (
        parts and 2 * cut * triton.cdiv(width, 64) <= PROGRAMS // (1 if few else 2) and depth >= 2 * cut * LEAST_DEPTH
    ):
        cut *= 2
    return Config(64, 128, 4, cut)


def few_rows(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, gated: bool, tile: Config
) -> torch.Tensor:
    """As ``kernels.linear.linear`` with ``parts``.

    x       [rows, depth] in 16 bits, at most ``MOST_ROWS`` rows
    weight  [outputs, depth] in the same dtype, contiguous; depth a multiple of the tile's
    bias    [outputs] or None; not with a gate

    Returns [rows, width] in the dtype of x; of more than one part [parts, rows, width] float32, to be summed.
    """
    rows, depth = x.shape
    if gated and bias is not None:
        raise ValueError("few_rows: no bias with a gate")
    if depth % tile.depth:
        raise ValueError(f"few_rows: a depth of {depth} is no multiple of {tile.depth}")
    width = weight.shape[0] // (2 if gated else 1)
    parts = tile.parts
    shape, dtype = ((rows, width), x.dtype) if parts == 1 else ((parts, rows, width), torch.float32)
    out = torch.empty(shape, dtype=dtype, device=x.device)
    boxes = TensorDescriptor(weight, list(weight.shape), [depth, 1], [tile.outputs, tile.depth])
    part_depth = triton.cdiv(depth, parts * tile.depth) * tile.depth
    _few_rows[(triton.cdiv(width, tile.outputs), parts)](
        boxes, weight, x, bias, out, rows, width, depth, part_depth, x.stride(0),
        GATED=gated, HAS_BIAS=bias is not None, ROWS=max(16, triton.next_power_of_2(rows)), OUTPUTS=tile.outputs,
        DEPTH=tile.depth, STAGES=tile.stages, PREFETCH=GATED_PREFETCH if gated else PREFETCH,
        num_warps=WARPS, **early.options(early.may(x)),
    )  # fmt: skip
    return out


@triton.jit
def _fetch(Weight, output, most, depth, begin, bytes_each):
    """Ask for the beginnings of some outputs' weights in the L2 cache; nothing waits for them."""
    at = Weight + tl.minimum(output, most - 1).to(tl.int64) * depth + begin
    tl.inline_asm_elementwise(
        "cp.async.bulk.prefetch.L2.global [$1], $2; mov.u32 $0, 0;",
        "=r,l,r",
        [at.to(tl.int64), tl.zeros_like(output) + bytes_each],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


@triton.jit(do_not_specialize=["rows"])
def _few_rows(
    Boxes, Weight, X, Bias, Out, rows, width, depth, part_depth, x_stride,
    GATED: tl.constexpr, HAS_BIAS: tl.constexpr, ROWS: tl.constexpr, OUTPUTS: tl.constexpr, DEPTH: tl.constexpr,
    STAGES: tl.constexpr, PREFETCH: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Out[part, row, output] = X[row] . Weight[output] over the part's depth; grid (ceil(width / OUTPUTS), parts).

    Boxes  Weight, a descriptor of [width (twice with GATED), depth] with boxes [OUTPUTS, DEPTH]
    """
    first = tl.program_id(0) * OUTPUTS
    begin = tl.program_id(1) * part_depth
    end = tl.minimum(begin + part_depth, depth)
    output = first + tl.arange(0, OUTPUTS)
    if EARLY:
        gdc_launch_dependents()
        fetched = tl.maximum(tl.minimum(end - begin, PREFETCH), 8) * 2
        _fetch(Weight, output, width, depth, begin, fetched)
        if GATED:
            _fetch(Weight + width.to(tl.int64) * depth, output, width, depth, begin, fetched)
        gdc_wait()
    row = tl.arange(0, ROWS)
    step = tl.arange(0, DEPTH)
    there = (row < rows)[None, :]
    x_at = X + row[None, :] * x_stride + step[:, None]
    gate = tl.zeros([OUTPUTS, ROWS], tl.float32)
    up = tl.zeros([OUTPUTS, ROWS], tl.float32)
    for start in tl.range(begin, end, DEPTH, num_stages=STAGES):
        w = Boxes.load([first, start])
        x = tl.load(x_at + start, mask=there, other=0.0)
        gate = tl.dot(w, x, gate)
        if GATED:
            w = Boxes.load([first + width, start])
            up = tl.dot(w, x, up)
    if GATED:
        gate = gate * tl.sigmoid(gate) * up
    if HAS_BIAS:
        bias = tl.load(Bias + output, mask=output < width, other=0.0).to(tl.float32)
        gate += tl.where(begin == 0, bias, 0.0)[:, None]
    at = Out + (tl.program_id(1) * rows + row).to(tl.int64)[None, :] * width + output[:, None]
    tl.store(at, gate.to(Out.dtype.element_ty), mask=there & (output < width)[:, None])
