"""``kernels.sample`` on a GPU without sorting: the same tokens as the reference, bit by bit.

A row is cut into chunks; five launches, none of which depends on values of the arguments, so they can be captured:

    largest_of_chunks  (row, chunk)  largest logit of each chunk, and of each group of 128 tokens
    measure            (row, chunk)  rows without top_k and top_p: draw. Others, unless top_k is small: histogram of how
                                     far each token is below the largest, in eighths, and the total weight
    bracket            (row)         where the cut must be: for a small top_k, not below the k-th largest of the groups'
                                     largest, so that few groups are left to be looked at; else in the bins that the
                                     bounds of the weight in each bin of the histogram leave
    collect            (row, chunk)  tokens above the bracket are kept for sure: draw among them; those inside of it
                                     are listed
    finish             (row)         the exact cut, by a search among the listed; draw among those kept; best of all

Weights are integers and a draw is a maximum over (score, token id), so nothing depends on the order of chunks or of
atomics. With many tokens in the bracket (of a flat distribution), ``finish`` reads the list again in each step of the
search, and if there is no room to list them, the whole row: slow, but exact.
"""

from typing import NamedTuple

import torch
import triton

from kernels.reference.sample import LogitBias, Penalties
from kernels.triton.penalties import adjusted
from kernels.triton.sample_bracket import BINS, bracket, largest_of_chunks, measure
from kernels.triton.sample_cut import collect, finish

BLOCK = 4096
FEW = 512  # so many listed tokens are searched with many limits at once
REGISTERS = 4096  # so many are held in registers
CAPACITY = 16384  # so many can be listed
GROUP = 128
COLLECT_WARPS = 8  # with 16 one program fills an SM, and most of them leave at once
WARPS = 16


class Drawn(NamedTuple):
    """Tokens [rows] int64, and what a later kernel needs to know about the rows' distributions."""

    token: torch.Tensor
    largest: torch.Tensor
    """[rows] float32, the largest logit."""
    cut: torch.Tensor
    """[rows] int32: bits of the largest ``-scaled`` that is kept."""
    total: torch.Tensor
    """[rows] int64: the weight of all kept tokens (greedy rows: nothing meaningful)."""


def sample(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    seed: torch.Tensor,
    position: torch.Tensor,
    *,
    min_p: torch.Tensor | None = None,
    penalties: Penalties | None = None,
    logit_bias: LogitBias | None = None,
    bitmask: torch.Tensor | None = None,
) -> torch.Tensor:
    """See ``kernels.sample.sample``; ``logits`` may be of any floating dtype, its last dimension contiguous."""
    logits = adjusted(logits, penalties, logit_bias)
    return draw(logits, temperature, top_k, top_p, seed, position, min_p, bitmask, with_totals=False).token


def draw(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    seed: torch.Tensor,
    position: torch.Tensor,
    min_p: torch.Tensor | None,
    bitmask: torch.Tensor | None,
    with_totals: bool,
) -> Drawn:
    """``sample`` without bias and penalties, and the rows' distributions; ``total`` is filled if ``with_totals``."""
    rows, vocab = logits.shape
    device = logits.device
    chunks = triton.cdiv(vocab, BLOCK)

    def empty(*shape: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    drawn = Drawn(
        empty(rows, dtype=torch.int64),
        empty(rows, dtype=torch.float32),
        empty(rows, dtype=torch.int32),
        empty(rows, dtype=torch.int64),
    )
    if rows == 0:
        return drawn
    best = empty(rows, 2, chunks, dtype=torch.float32)  # [row, (largest logit, largest score), chunk]
    best_token = empty(rows, 2, chunks, dtype=torch.int32)
    count = chunks * (BLOCK // GROUP)
    groups = empty(rows, count, dtype=torch.float32)
    chosen = empty(rows, count, dtype=torch.int32)  # groups that are left to be looked at
    histogram = empty(rows, BINS.value, dtype=torch.int32)
    weights = empty(rows, 2, dtype=torch.int64)  # all, above the bracket
    # Magnitudes where the bracket begins and ends, tokens before it, tokens listed, whether top_k cuts anything off,
    # groups chosen
    found = empty(rows, 8, dtype=torch.int32)
    listed = empty(rows, CAPACITY, dtype=torch.int32)
    row = (logits, bitmask, temperature, top_k, top_p, min_p, seed, position)
    sizes = (vocab, logits.stride(0), bitmask.stride(0) if bitmask is not None else 0, chunks)
    mask = {"HAS_MASK": bitmask is not None}
    flags = {**mask, "HAS_MIN_P": min_p is not None, "CHUNKS": triton.next_power_of_2(chunks)}
    # The bits of noise and weights are those of separate products and sums.
    options = {"num_warps": WARPS, "enable_fp_fusion": False}
    grid = (rows, chunks)
    largest_of_chunks[grid](
        logits, bitmask, best, best_token, groups, histogram, weights, found, *sizes,
        BLOCK=BLOCK, GROUP=GROUP, **mask, **options,
    )  # fmt: skip
    measure[grid](
        *row, best, best_token, histogram, weights, *sizes,
        WITH_TOTALS=with_totals, BLOCK=BLOCK, GROUP=GROUP, **flags, **options,
    )  # fmt: skip
    bracket[(rows,)](
        temperature, top_k, top_p, best, groups, chosen, histogram, weights, found, vocab, chunks, count,
        CHUNKS=flags["CHUNKS"], GROUPS=triton.next_power_of_2(count), GROUP=GROUP,
        PIVOTS=_pivots(triton.next_power_of_2(count)), **options,
    )  # fmt: skip
    collect[grid](
        *row, best, best_token, chosen, weights, found, listed, CAPACITY, *sizes, count,
        BLOCK=BLOCK, GROUP=GROUP, **flags, **{**options, "num_warps": COLLECT_WARPS},
    )  # fmt: skip
    finish[(rows,)](
        *row, best, best_token, weights, found, listed, CAPACITY, *drawn, *sizes,
        FEW=FEW, FEW_PIVOTS=_pivots(FEW), BLOCK=REGISTERS, PIVOTS=_pivots(REGISTERS), **flags, **options,
    )  # fmt: skip
    return drawn


def _pivots(numbers: int) -> int:
    """Limits that a step of a search tries at once: numbers times limits are what 16 warps hold in registers."""
    return max(2, min(16, 8192 // numbers))
