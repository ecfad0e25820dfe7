"""Partial attention results of one token, put together: ``out = sum_i 2^(lse_i - lse) o_i`` (Flash-Decoding; the same
as the merge of attention states of cascade inference, Ye et al. 2024)."""

# A kernel's arguments have no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from kernels.triton import early

_LOWEST = tl.constexpr(-1.0e30)
HEADS_PER_PROGRAM = 4


@triton.jit
def merge_kernel(
    partial,
    partial_lse,
    out,
    tokens,
    begins,
    slots,
    n_tokens,
    out_token,
    out_head,
    heads,
    DIM: tl.constexpr,
    LANES: tl.constexpr,
    HEADS: tl.constexpr,
    STAGES: tl.constexpr,
    EARLY: tl.constexpr,
):
    """One token and ``HEADS`` heads per program; grid (tokens, ceil(heads / HEADS)), larger grids are allowed.

    partial [slots, heads, DIM] fp32, each normalised; partial_lse [slots, heads] fp32, base 2, -inf for an empty one
    out     [tokens, heads, DIM] by strides: rows ``tokens`` are written
    begins  [n_tokens + 1] int32: token ``i`` has slots[begins[i] : begins[i + 1]], merged in this order
    """
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()
    index = tl.program_id(0)
    live = index < tl.load(n_tokens)
    first = tl.load(begins + index, mask=live, other=0)
    until = tl.load(begins + index + 1, mask=live, other=0)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    dims = tl.arange(0, LANES)
    there = head < heads
    inside = there[:, None] & (dims < DIM)[None, :]
    top = tl.full([HEADS], _LOWEST, tl.float32)
    total = tl.zeros([HEADS], tl.float32)
    acc = tl.zeros([HEADS, LANES], tl.float32)
    # The next slot is loaded one iteration ahead, so that the loads that hang on it can be prefetched.
    slot = tl.load(slots + first, mask=live, other=0)
    for place in tl.range(first, until, num_stages=STAGES):
        row = slot.to(tl.int64) * heads + head
        slot = tl.load(slots + tl.minimum(place + 1, until - 1))
        lse = tl.load(partial_lse + row, mask=there, other=float("-inf"))
        value = tl.load(partial + row[:, None] * DIM + dims[None, :], mask=inside, other=0.0)
        higher = tl.maximum(top, lse)
        shrink = tl.math.exp2(top - higher)
        weight = tl.math.exp2(lse - higher)
        acc = acc * shrink[:, None] + value * weight[:, None]
        total = total * shrink + weight
        top = higher
    result = acc / tl.where(total == 0.0, 1.0, total)[:, None]
    token = tl.load(tokens + index, mask=live, other=0).to(tl.int64)
    at = out + token * out_token + head[:, None] * out_head + dims[None, :]
    tl.store(at, result.to(out.dtype.element_ty), mask=inside & live)


def merge(
    partial: torch.Tensor,
    partial_lse: torch.Tensor,
    out: torch.Tensor,
    tokens: torch.Tensor,
    begins: torch.Tensor,
    slots: torch.Tensor,
    n_tokens: torch.Tensor,
    most_tokens: int,
) -> None:
    """Write the merged rows into ``out`` [tokens, heads, head_dim]; other rows are left alone.

    tokens, begins, slots, n_tokens  int32 on the device, as in ``merge_kernel``
    most_tokens                      programs to start: at least the value in ``n_tokens``
    """
    heads, dim = out.shape[1:]
    if most_tokens == 0:
        return
    merge_kernel[(most_tokens, -(-heads // HEADS_PER_PROGRAM))](
        partial,
        partial_lse,
        out,
        tokens,
        begins,
        slots,
        n_tokens,
        out.stride(0),
        out.stride(1),
        heads,
        DIM=dim,
        LANES=triton.next_power_of_2(dim),
        HEADS=HEADS_PER_PROGRAM,
        STAGES=3,
        num_warps=4,
        **early.options(early.may(out)),
    )
