"""``kernels.sample`` on a GPU without sorting: the same tokens as the reference, bit by bit.

A row is cut into chunks; five launches, none of which depends on values of the arguments, so they can be captured:

    largest    (row, chunk)  largest logit of each chunk, and of each group of 128 tokens
    measure    (row, chunk)  rows without top_k and top_p: draw. Others, unless top_k is small: histogram of how far
                             each token is below the largest, in eighths, and the total weight
    bracket    (row)         where the cut must be: for a small top_k, not below the k-th largest of the groups'
                             largest; else in the bins that the bounds of the weight in each bin of the histogram leave
    collect    (row, chunk)  tokens above the bracket are kept for sure: draw among them; those inside are listed
    finish     (row)         the exact cut, by bisection among the listed; draw among those kept; best of all draws

Weights are integers and a draw is a maximum over (score, token id), so nothing depends on the order of chunks or of
atomics. With many tokens in the bracket (of a flat distribution), ``finish`` reads the list again in each step of the
bisection, and if there is no room to list them, the whole row: slow, but exact.
"""

# A kernel's arguments have no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from kernels.reference import sample as reference
from kernels.reference.sample import LogitBias, Penalties
from kernels.triton.noise import gumbel, log, stream_key, weight

BLOCK = 4096
REGISTERS = 4096  # so many listed tokens are held in registers
CAPACITY = 16384  # so many can be listed
GROUP = tl.constexpr(128)
# A histogram takes a population count for each token and 32 bins, of which an SM does 16 a cycle: 256 bins cost as much
# as everything else that is done with a token.
BINS = tl.constexpr(256)
BINS_PER_UNIT = tl.constexpr(8.0)
# Tokens from the last bin on, 31.875 below the largest, have no weight and cannot win a draw, whose noise is between
# -2.9 and 22.2: a cut among them need not be found, all before them are kept.
WEIGHTLESS = tl.constexpr(0x41FF0000)  # magnitude of -31.875
NOT_A_TOKEN = tl.constexpr(0x7FFFFFFF)
EVERYTHING = tl.constexpr(0x7F800000)  # bits of infinity: a cut that keeps all
LEAST_TEMPERATURE = tl.constexpr(reference.LEAST_TEMPERATURE)
LEAST_MIN_P = tl.constexpr(reference.LEAST_MIN_P)
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


def adjusted(logits: torch.Tensor, penalties: Penalties | None, logit_bias: LogitBias | None) -> torch.Tensor:
    """Logits with bias and penalties, a new float32 tensor; the argument itself where there are none."""
    if penalties is None and logit_bias is None:
        return logits
    rows, vocab = logits.shape
    out = torch.empty(rows, vocab, dtype=torch.float32, device=logits.device)
    if rows == 0:
        return out
    history, slot, repetition, presence, frequency = penalties if penalties is not None else (None,) * 5
    shared = (out, logits, history, slot, repetition, presence, frequency, vocab, logits.stride(0))
    options = {"HAS_PENALTIES": penalties is not None, "enable_fp_fusion": False}
    _adjust[(rows, triton.cdiv(vocab, BLOCK))](*shared, BLOCK=BLOCK, num_warps=WARPS, **options)
    if logit_bias is not None and logit_bias.tokens.shape[1]:
        n = logit_bias.tokens.shape[1]
        tokens, values = logit_bias.tokens.contiguous(), logit_bias.values.contiguous()
        _bias[(rows,)](*shared, tokens, values, n, BLOCK=triton.next_power_of_2(n), num_warps=1, **options)
    return out


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
    groups = empty(rows, chunks * (BLOCK // GROUP.value), dtype=torch.float32)
    histogram = empty(rows, BINS.value, dtype=torch.int32)
    weights = empty(rows, 2, dtype=torch.int64)  # all, above the bracket
    # Magnitudes where the bracket begins and ends, tokens before it, tokens listed, whether top_k cuts anything off
    bracket = empty(rows, 8, dtype=torch.int32)
    listed = empty(rows, CAPACITY, dtype=torch.int32)
    row = (logits, bitmask, temperature, top_k, top_p, min_p, seed, position)
    scratch = (best, best_token, groups, histogram, weights, bracket)
    sizes = (vocab, logits.stride(0), bitmask.stride(0) if bitmask is not None else 0, chunks)
    flags = {
        "HAS_MASK": bitmask is not None,
        "HAS_MIN_P": min_p is not None,
        "CHUNKS": triton.next_power_of_2(chunks),
        "num_warps": WARPS,
        # The bits of noise and weights are those of separate products and sums.
        "enable_fp_fusion": False,
    }
    grid = (rows, chunks)
    _largest[grid](
        *row[:2], *scratch, *sizes, HAS_MASK=flags["HAS_MASK"], BLOCK=BLOCK, num_warps=WARPS, enable_fp_fusion=False
    )
    _measure[grid](*row, *scratch, *sizes, WITH_TOTALS=with_totals, BLOCK=BLOCK, **flags)
    count = groups.shape[1]
    _bracket[(rows,)](
        *row[2:5], *scratch, vocab, chunks, count,
        CHUNKS=flags["CHUNKS"], GROUPS=triton.next_power_of_2(count), num_warps=WARPS, enable_fp_fusion=False,
    )  # fmt: skip
    _collect[grid](*row, *scratch, listed, CAPACITY, *sizes, BLOCK=BLOCK, **flags)
    _finish[(rows,)](*row, *scratch, listed, CAPACITY, *drawn, *sizes, BLOCK=REGISTERS, **flags)
    return drawn


def count_tokens(history: torch.Tensor, slot: torch.Tensor, tokens: torch.Tensor) -> None:
    """See ``kernels.sample.count_tokens``. For up to a few thousand tokens: each is compared with all."""
    n = len(tokens)
    if n:
        _count_tokens[(n,)](
            history, slot, tokens, n, history.shape[1], BLOCK=max(triton.next_power_of_2(n), 32), num_warps=1
        )


@triton.jit(do_not_specialize=["n"])
def _count_tokens(History, Slot, Tokens, n, vocab, BLOCK: tl.constexpr):
    """There are no atomics on 16 bits: the first of equal entries adds for all of them."""
    entry = tl.program_id(0)
    slot = tl.load(Slot + entry)
    token = tl.load(Tokens + entry)
    other = tl.arange(0, BLOCK)
    same = (tl.load(Slot + other, mask=other < n, other=-1) == slot) & (
        tl.load(Tokens + other, mask=other < n, other=-1) == token
    )
    first = tl.min(tl.where(same, other, BLOCK), 0)
    if (token >= 0) & (first == entry):
        place = History + slot * vocab + token
        added = 2 * tl.sum(same.to(tl.int32), 0)
        tl.store(place, (tl.load(place).to(tl.int32) + added).to(tl.int16))


@triton.jit
def _penalised(x, Repetition, Presence, Frequency, row, seen):
    repetition = tl.load(Repetition + row)
    generated = seen >> 1
    x = tl.where(seen > 0, tl.where(x > 0, tl.div_rn(x, repetition), x * repetition), x)
    x = x - tl.load(Frequency + row) * generated.to(tl.float32)
    return x - tl.where(generated > 0, tl.load(Presence + row), 0.0)


@triton.jit
def _adjust(
    Out, Logits, History, Slot, Repetition, Presence, Frequency, vocab, stride,
    HAS_PENALTIES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Copy of the logits with penalties."""
    row = tl.program_id(0).to(tl.int64)
    token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    valid = token < vocab
    x = tl.load(Logits + row * stride + token, mask=valid).to(tl.float32)
    if HAS_PENALTIES:
        seen = tl.load(History + tl.load(Slot + row) * vocab + token, mask=valid, other=0).to(tl.int32)
        x = _penalised(x, Repetition, Presence, Frequency, row, seen)
    tl.store(Out + row * vocab + token, x, mask=valid)


@triton.jit(do_not_specialize=["n"])
def _bias(
    Out, Logits, History, Slot, Repetition, Presence, Frequency, vocab, stride, Tokens, Values, n,
    HAS_PENALTIES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Once more for the tokens with a bias, which goes before the penalties."""
    row = tl.program_id(0).to(tl.int64)
    entry = tl.arange(0, BLOCK)
    token = tl.load(Tokens + row * n + entry, mask=entry < n, other=-1)
    valid = token >= 0
    x = tl.load(Logits + row * stride + token, mask=valid).to(tl.float32)
    x = x + tl.load(Values + row * n + entry, mask=valid)
    if HAS_PENALTIES:
        seen = tl.load(History + tl.load(Slot + row) * vocab + token, mask=valid, other=0).to(tl.int32)
        x = _penalised(x, Repetition, Presence, Frequency, row, seen)
    tl.store(Out + row * vocab + token, x, mask=valid)


@triton.jit
def _allowed_logits(Logits, Bitmask, token, valid, HAS_MASK: tl.constexpr):
    """Logits of one row at ``token``; -inf where not valid or masked. Pointers are at the row."""
    x = tl.load(Logits + token, mask=valid, other=float("-inf")).to(tl.float32)
    if HAS_MASK:
        word = tl.load(Bitmask + (token >> 5), mask=valid, other=0)
        x = tl.where(((word >> (token & 31)) & 1) != 0, x, float("-inf"))
    return x


@triton.jit
def scaled_logits(
    Logits, Bitmask, MinP, row, token, valid, largest, inverse, HAS_MASK: tl.constexpr, HAS_MIN_P: tl.constexpr
):
    """``(logit - largest) * inverse``, -inf where masked or below min_p. Logits and Bitmask point at the row."""
    x = _allowed_logits(Logits, Bitmask, token, valid, HAS_MASK)
    s = (x - largest) * inverse
    if HAS_MIN_P:
        min_p = tl.load(MinP + row)
        least = tl.where(min_p > 0, log(tl.maximum(min_p, LEAST_MIN_P)), float("-inf"))
        s = tl.where(s < least, float("-inf"), s)
    return s


@triton.jit
def inverse_temperature(temperature):
    """The factor of ``scaled_logits``."""
    return tl.div_rn(1.0, tl.maximum(temperature, LEAST_TEMPERATURE))


@triton.jit
def best_of(score, token):
    """The largest score and its token, the smallest of equals."""
    largest = tl.max(score, 0)
    return largest, tl.min(tl.where(score == largest, token, NOT_A_TOKEN), 0)


@triton.jit
def magnitude(s):
    """Bits of ``-s`` for ``s <= 0``, which order as the numbers do."""
    return s.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def _bin(s):
    # A product with a power of two and a conversion: exact, so bins have exact edges.
    return tl.minimum(-s * BINS_PER_UNIT, BINS - 1.0).to(tl.int32)


@triton.jit
def _few(top_k, vocab):
    """Whether top_k is so small that the groups' largest bracket it well."""
    return top_k <= vocab // (2 * GROUP)


@triton.jit
def _row_largest(Best, row, chunks, CHUNKS: tl.constexpr):
    chunk = tl.arange(0, CHUNKS)
    return tl.max(tl.load(Best + row * 2 * chunks + chunk, mask=chunk < chunks, other=float("-inf")), 0)


@triton.jit
def _largest(
    Logits, Bitmask, Best, BestToken, Groups, Histogram, Weights, Bracket, vocab, stride, mask_stride, chunks,
    HAS_MASK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    token = chunk * BLOCK + tl.arange(0, BLOCK)
    x = _allowed_logits(Logits + row * stride, Bitmask + row * mask_stride if HAS_MASK else Bitmask, token,
                        token < vocab, HAS_MASK)  # fmt: skip
    groups = tl.max(tl.reshape(x, [BLOCK // GROUP, GROUP]), 1)
    place = chunk * (BLOCK // GROUP) + tl.arange(0, BLOCK // GROUP)
    tl.store(Groups + row * chunks * (BLOCK // GROUP) + place, groups)
    largest, first = best_of(x, token)
    tl.store(Best + row * 2 * chunks + chunk, largest)
    tl.store(BestToken + row * 2 * chunks + chunk, first)
    if chunk == 0:
        tl.store(Histogram + row * BINS + tl.arange(0, BINS), tl.zeros([BINS], tl.int32))
        tl.store(Weights + row * 2 + tl.arange(0, 2), tl.zeros([2], tl.int64))
        tl.store(Bracket + row * 8 + tl.arange(0, 8), tl.zeros([8], tl.int32))


@triton.jit
def _measure(
    Logits, Bitmask, Temperature, TopK, TopP, MinP, Seed, Position, Best, BestToken, Groups, Histogram, Weights,
    Bracket, vocab, stride, mask_stride, chunks, HAS_MASK: tl.constexpr, HAS_MIN_P: tl.constexpr,
    WITH_TOTALS: tl.constexpr, CHUNKS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    temperature = tl.load(Temperature + row)
    if temperature > 0:
        inverse = inverse_temperature(temperature)
        token = chunk * BLOCK + tl.arange(0, BLOCK)
        valid = token < vocab
        largest = _row_largest(Best, row, chunks, CHUNKS)
        s = scaled_logits(
            Logits + row * stride, Bitmask + row * mask_stride if HAS_MASK else Bitmask, MinP, row, token, valid,
            largest, inverse, HAS_MASK, HAS_MIN_P,
        )  # fmt: skip
        top_k = tl.load(TopK + row)
        by_p = tl.load(TopP + row) < 1
        by_k = (top_k > 0) & (top_k < vocab)
        if by_k & _few(top_k, vocab):
            # The bracket comes from the groups. Totals come from what is listed.
            pass
        elif by_p | by_k:
            counts = tl.histogram(_bin(s), BINS, mask=valid)
            tl.atomic_add(Histogram + row * BINS + tl.arange(0, BINS), counts, mask=counts > 0)
            if by_p | WITH_TOTALS:
                tl.atomic_add(Weights + row * 2, tl.sum(tl.where(valid, weight(s), 0), 0))
        else:
            if WITH_TOTALS:
                tl.atomic_add(Weights + row * 2, tl.sum(tl.where(valid, weight(s), 0), 0))
            key = stream_key(tl.load(Seed + row), tl.load(Position + row))
            score, winner = best_of(s + gumbel(key, token), token)
            tl.store(Best + (row * 2 + 1) * chunks + chunk, score)
            tl.store(BestToken + (row * 2 + 1) * chunks + chunk, winner)


@triton.jit
def _bracket(
    Temperature, TopK, TopP, Best, BestToken, Groups, Histogram, Weights, Bracket, vocab, chunks, groups,
    CHUNKS: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    temperature = tl.load(Temperature + row)
    top_k = tl.load(TopK + row)
    top_p = tl.load(TopP + row)
    by_k = (top_k > 0) & (top_k < vocab)
    begin = tl.full([], 0, tl.int32)
    end = tl.full([], WEIGHTLESS, tl.int32)
    before = tl.full([], 0, tl.int32)
    if (temperature > 0) & by_k & _few(top_k, vocab):
        # At least k tokens are as large as the k-th largest of the groups' largest. A bound is enough, so bisection
        # stops at a relative precision of 2**-12.
        group = tl.arange(0, GROUPS)
        x = tl.load(Groups + row * groups + group, mask=group < groups, other=float("-inf"))
        m = magnitude((x - _row_largest(Best, row, chunks, CHUNKS)) * inverse_temperature(temperature))
        low = tl.full([], -1, tl.int32)
        while end - low > 2048:
            middle = low + (end - low) // 2
            if tl.sum((m < middle).to(tl.int32), 0) >= top_k:
                end = middle
            else:
                low = middle
    elif (temperature > 0) & (by_k | (top_p < 1)):
        bins = tl.arange(0, BINS)
        count = tl.load(Histogram + row * BINS + bins)
        last_k = tl.sum((tl.cumsum(count, 0) < top_k).to(tl.int32), 0)  # holds the k-th
        by_k = by_k & (last_k < BINS - 1)
        first = tl.where(by_k, last_k, BINS - 1)
        last = tl.where(by_k, last_k, BINS - 2)
        if top_p < 1:
            # The weight up to the end of each bin, from above and from below: by the edges of the bins up to it or, as
            # the total is known, of those after it. The error is 1/8 of the smaller part, which near p = 1 is small.
            # Room for rounding: of the exponential, of the sums, and 2**-40 for each token.
            total = tl.load(Weights + row * 2).to(tl.float32) * 9.094947017729282e-13  # 2**-40
            high_edge = count * tl.exp(bins / -BINS_PER_UNIT) * 1.00003
            low_edge = count * tl.maximum(tl.exp((bins + 1) / -BINS_PER_UNIT) * 0.99997 - 1.0e-12, 0.0)
            low_edge = tl.where(bins < BINS - 1, low_edge, 0.0)
            high, low = tl.cumsum(high_edge, 0), tl.cumsum(low_edge, 0)
            most = tl.minimum(high, total - (tl.sum(low_edge, 0) - low)) + total * 4.0e-6
            least = tl.maximum(low, total - (tl.sum(high_edge, 0) - high)) - total * 4.0e-6
            if by_k:
                # p of the weight that top_k keeps, which is known exactly only later.
                kept_least = tl.sum(tl.where(bins == last_k - 1, least, 0.0), 0)
                first = tl.minimum(tl.sum((most < top_p * kept_least).to(tl.int32), 0), last_k)
            else:
                first = tl.minimum(tl.sum((most < top_p * total).to(tl.int32), 0), BINS - 2)
                last = tl.minimum(tl.sum((least < top_p * total).to(tl.int32), 0), BINS - 2)
        # Quotients with a power of two: the edges are exact, as ``_bin`` is.
        begin = magnitude(first.to(tl.float32) / -BINS_PER_UNIT)
        end = magnitude((last + 1).to(tl.float32) / -BINS_PER_UNIT)
        before = tl.sum(tl.where(bins < first, count, 0), 0)
    tl.store(Bracket + row * 8, begin)
    tl.store(Bracket + row * 8 + 1, end)
    tl.store(Bracket + row * 8 + 2, before)
    tl.store(Bracket + row * 8 + 4, by_k.to(tl.int32))


@triton.jit
def _collect(
    Logits, Bitmask, Temperature, TopK, TopP, MinP, Seed, Position, Best, BestToken, Groups, Histogram, Weights,
    Bracket, Listed, capacity, vocab, stride, mask_stride, chunks, HAS_MASK: tl.constexpr, HAS_MIN_P: tl.constexpr,
    CHUNKS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    temperature = tl.load(Temperature + row)
    top_k = tl.load(TopK + row)
    by_k = (top_k > 0) & (top_k < vocab)
    if (temperature > 0) & (by_k | (tl.load(TopP + row) < 1)):
        begin = tl.load(Bracket + row * 8)
        end = tl.load(Bracket + row * 8 + 1)
        inverse = inverse_temperature(temperature)
        token = chunk * BLOCK + tl.arange(0, BLOCK)
        valid = token < vocab
        largest = _row_largest(Best, row, chunks, CHUNKS)
        s = scaled_logits(
            Logits + row * stride, Bitmask + row * mask_stride if HAS_MASK else Bitmask, MinP, row, token, valid,
            largest, inverse, HAS_MASK, HAS_MIN_P,
        )  # fmt: skip
        place = magnitude(s)
        sure = valid & (place < begin)
        maybe = valid & (place >= begin) & (place < end)
        score, winner = float("-inf"), NOT_A_TOKEN
        if tl.max(sure.to(tl.int32), 0) > 0:
            tl.atomic_add(Weights + row * 2 + 1, tl.sum(tl.where(sure, weight(s), 0), 0))
            key = stream_key(tl.load(Seed + row), tl.load(Position + row))
            score, winner = best_of(tl.where(sure, s + gumbel(key, token), float("-inf")), token)
        tl.store(Best + (row * 2 + 1) * chunks + chunk, score)
        tl.store(BestToken + (row * 2 + 1) * chunks + chunk, winner)
        mark = maybe.to(tl.int32)
        found = tl.sum(mark, 0)
        if found > 0:
            slot = tl.atomic_add(Bracket + row * 8 + 3, found) + tl.cumsum(mark, 0) - 1
            tl.store(Listed + row * capacity + slot, token, mask=maybe & (slot < capacity))


@triton.jit
def _above(s, w, inside, limit, BY_WEIGHT: tl.constexpr):
    """Number or weight of the tokens whose magnitude is below ``limit``."""
    above = inside & (magnitude(s) < limit)
    return tl.sum(tl.where(above, w, 0), 0) if BY_WEIGHT else tl.sum(above.to(tl.int32), 0)


@triton.jit
def _entries(Listed, start, count, by_list, BLOCK: tl.constexpr):
    """The next tokens of the list, or of the row, and which of them there are."""
    entry = start + tl.arange(0, BLOCK)
    valid = entry < count
    return tl.where(by_list, tl.load(Listed + entry, mask=valid & by_list, other=0), entry), valid


@triton.jit
def _above_in_memory(
    Logits, Bitmask, MinP, Listed, row, largest, inverse, begin, limit, count, by_list,
    HAS_MASK: tl.constexpr, HAS_MIN_P: tl.constexpr, BY_WEIGHT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """As ``_above`` over ``count`` tokens of the list or of the row, from magnitude ``begin`` on."""
    total = tl.zeros([BLOCK], tl.int64)
    for start in range(0, count, BLOCK):
        token, valid = _entries(Listed, start, count, by_list, BLOCK)
        s = scaled_logits(Logits, Bitmask, MinP, row, token, valid, largest, inverse, HAS_MASK, HAS_MIN_P)
        above = valid & (magnitude(s) >= begin) & (magnitude(s) < limit)
        total += tl.where(above, weight(s), 0) if BY_WEIGHT else above.to(tl.int64)
    return tl.sum(total, 0)


@triton.jit
def _finish(
    Logits, Bitmask, Temperature, TopK, TopP, MinP, Seed, Position, Best, BestToken, Groups, Histogram, Weights,
    Bracket, Listed, capacity, Token, Largest, Cut, Total, vocab, stride, mask_stride, chunks,
    HAS_MASK: tl.constexpr, HAS_MIN_P: tl.constexpr, CHUNKS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    temperature = tl.load(Temperature + row)
    top_k = tl.load(TopK + row)
    top_p = tl.load(TopP + row)
    by_k = (top_k > 0) & (top_k < vocab)
    largest = _row_largest(Best, row, chunks, CHUNKS)
    greedy = temperature <= 0
    chunk = tl.arange(0, CHUNKS)
    # Greedy rows take the best logit, others the best score so far.
    place = (row * 2 + tl.where(greedy, 0, 1)) * chunks + chunk
    score, winner = best_of(
        tl.load(Best + place, mask=chunk < chunks, other=float("-inf")),
        tl.load(BestToken + place, mask=chunk < chunks, other=NOT_A_TOKEN),
    )
    cut = tl.full([], EVERYTHING, tl.int32)
    total = tl.load(Weights + row * 2)
    if (temperature > 0) & (by_k | (top_p < 1)):
        inverse = inverse_temperature(temperature)
        Row = Logits + row * stride
        Allowed = Bitmask + row * mask_stride if HAS_MASK else Bitmask
        key = stream_key(tl.load(Seed + row), tl.load(Position + row))
        # The cut is the largest magnitude in [begin, end) with less than the goal above it.
        begin = tl.load(Bracket + row * 8)
        end = tl.load(Bracket + row * 8 + 1)
        counted = tl.load(Bracket + row * 8 + 2).to(tl.int64)
        listed = tl.load(Bracket + row * 8 + 3)
        by_k = tl.load(Bracket + row * 8 + 4) != 0
        weighed = tl.load(Weights + row * 2 + 1)
        cut = end - 1
        if listed <= BLOCK:
            entry = tl.arange(0, BLOCK)
            inside = entry < listed
            token = tl.load(Listed + row * capacity + entry, mask=inside, other=0)
            s = scaled_logits(Row, Allowed, MinP, row, token, inside, largest, inverse, HAS_MASK, HAS_MIN_P)
            w = weight(s)
            if by_k:
                low, high = begin, end
                while high - low > 1:
                    middle = low + (high - low) // 2
                    if counted + _above(s, w, inside, middle, False) < top_k:
                        low = middle
                    else:
                        high = middle
                cut = low
                total = weighed + _above(s, w, inside, cut + 1, True)
            if top_p < 1:
                goal = top_p.to(tl.float64) * total.to(tl.float64)
                low, high = begin, cut + 1
                while high - low > 1:
                    middle = low + (high - low) // 2
                    if (weighed + _above(s, w, inside, middle, True)).to(tl.float64) < goal:
                        low = middle
                    else:
                        high = middle
                cut = low
            kept = inside & (magnitude(s) <= cut)
            total = weighed + tl.sum(tl.where(kept, w, 0), 0)
            new_score, new_winner = best_of(tl.where(kept, s + gumbel(key, token), float("-inf")), token)
        else:
            List = Listed + row * capacity
            by_list = listed <= capacity
            count = tl.where(by_list, listed, vocab)
            if by_k:
                low, high = begin, end
                while high - low > 1:
                    middle = low + (high - low) // 2
                    number = _above_in_memory(Row, Allowed, MinP, List, row, largest, inverse, begin, middle, count,
                                              by_list, HAS_MASK, HAS_MIN_P, False, BLOCK)  # fmt: skip
                    if counted + number < top_k:
                        low = middle
                    else:
                        high = middle
                cut = low
                total = weighed + _above_in_memory(Row, Allowed, MinP, List, row, largest, inverse, begin, cut + 1,
                                                   count, by_list, HAS_MASK, HAS_MIN_P, True, BLOCK)  # fmt: skip
            if top_p < 1:
                goal = top_p.to(tl.float64) * total.to(tl.float64)
                low, high = begin, cut + 1
                while high - low > 1:
                    middle = low + (high - low) // 2
                    number = _above_in_memory(Row, Allowed, MinP, List, row, largest, inverse, begin, middle, count,
                                              by_list, HAS_MASK, HAS_MIN_P, True, BLOCK)  # fmt: skip
                    if (weighed + number).to(tl.float64) < goal:
                        low = middle
                    else:
                        high = middle
                cut = low
            total = weighed
            new_score, new_winner = tl.full([], float("-inf"), tl.float32), tl.full([], NOT_A_TOKEN, tl.int32)
            for start in range(0, count, BLOCK):
                token, valid = _entries(List, start, count, by_list, BLOCK)
                s = scaled_logits(Row, Allowed, MinP, row, token, valid, largest, inverse, HAS_MASK, HAS_MIN_P)
                kept = valid & (magnitude(s) >= begin) & (magnitude(s) <= cut)
                total += tl.sum(tl.where(kept, weight(s), 0), 0)
                block_score, block_winner = best_of(tl.where(kept, s + gumbel(key, token), float("-inf")), token)
                better = (block_score > new_score) | ((block_score == new_score) & (block_winner < new_winner))
                new_winner = tl.where(better, block_winner, new_winner)
                new_score = tl.maximum(block_score, new_score)
        if (new_score > score) | ((new_score == score) & (new_winner < winner)):
            score, winner = new_score, new_winner
    # Not a token only if the logits are NaN; what reads the token next must not fault.
    tl.store(Token + row, tl.minimum(winner, vocab - 1).to(tl.int64))
    tl.store(Largest + row, largest)
    tl.store(Cut + row, cut)
    tl.store(Total + row, total)
