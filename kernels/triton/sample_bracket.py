"""The sampler's kernels up to the bracket of the cut, and what they share with those behind it (``sample_cut``).

``sample`` says what each is for."""

# A kernel's arguments have no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

from kernels.reference import sample as reference
from kernels.triton.noise import gumbel, log, stream_key, weight

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
def few(top_k, vocab, GROUP: tl.constexpr):
    """Whether top_k cuts, and is so small that the groups' largest bracket it well."""
    return (top_k > 0) & (top_k <= vocab // (2 * GROUP))


@triton.jit
def search(m, w, before, goal, low, high, apart, PIVOTS: tl.constexpr):
    """Narrows ``low < high`` to at most ``apart`` between them, around the limit from which on ``before`` and the w [n]
    of all magnitudes m [n] below the limit reach ``goal`` (float64): they do not at ``low``, and do at ``high`` if that
    came closer. Bisection, but with ``PIVOTS`` limits at a time: a step costs a reduction over the program, which for
    few numbers takes longer than the sums."""
    pivot = tl.arange(0, PIVOTS) + 1
    while high - low > apart:
        step = (high - low + PIVOTS) // (PIVOTS + 1)
        limit = tl.minimum(low + pivot * step, high)
        reached = before + tl.sum(tl.where(m[:, None] < limit[None, :], w[:, None], 0), 0)
        short = tl.sum(((reached.to(tl.float64) < goal) & (limit < high)).to(tl.int32), 0)
        high = tl.minimum(low + (short + 1) * step, high)
        low = low + short * step
    return low, high


@triton.jit
def row_largest(Best, row, chunks, CHUNKS: tl.constexpr):
    chunk = tl.arange(0, CHUNKS)
    return tl.max(tl.load(Best + row * 2 * chunks + chunk, mask=chunk < chunks, other=float("-inf")), 0)


@triton.jit
def largest_of_chunks(
    Logits, Bitmask, Best, BestToken, Groups, Histogram, Weights, Bracket, vocab, stride, mask_stride, chunks,
    HAS_MASK: tl.constexpr, BLOCK: tl.constexpr, GROUP: tl.constexpr,
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
    tl.store(Best + (row * 2 + 1) * chunks + chunk, float("-inf"))  # no draw yet
    tl.store(BestToken + (row * 2 + 1) * chunks + chunk, NOT_A_TOKEN)
    if chunk == 0:
        tl.store(Histogram + row * BINS + tl.arange(0, BINS), tl.zeros([BINS], tl.int32))
        tl.store(Weights + row * 2 + tl.arange(0, 2), tl.zeros([2], tl.int64))
        tl.store(Bracket + row * 8 + tl.arange(0, 8), tl.zeros([8], tl.int32))


@triton.jit
def measure(
    Logits, Bitmask, Temperature, TopK, TopP, MinP, Seed, Position, Best, BestToken, Histogram, Weights,
    vocab, stride, mask_stride, chunks, HAS_MASK: tl.constexpr, HAS_MIN_P: tl.constexpr,
    WITH_TOTALS: tl.constexpr, CHUNKS: tl.constexpr, BLOCK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    temperature = tl.load(Temperature + row)
    top_k = tl.load(TopK + row)
    # For a small top_k the bracket comes from the groups, and totals from what is listed.
    if (temperature > 0) & (few(top_k, vocab, GROUP) == 0):
        inverse = inverse_temperature(temperature)
        token = chunk * BLOCK + tl.arange(0, BLOCK)
        valid = token < vocab
        largest = row_largest(Best, row, chunks, CHUNKS)
        s = scaled_logits(
            Logits + row * stride, Bitmask + row * mask_stride if HAS_MASK else Bitmask, MinP, row, token, valid,
            largest, inverse, HAS_MASK, HAS_MIN_P,
        )  # fmt: skip
        by_p = tl.load(TopP + row) < 1
        by_k = (top_k > 0) & (top_k < vocab)
        if by_p | by_k:
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
def bracket(
    Temperature, TopK, TopP, Best, Groups, Chosen, Histogram, Weights, Bracket, vocab, chunks, groups,
    CHUNKS: tl.constexpr, GROUPS: tl.constexpr, GROUP: tl.constexpr, PIVOTS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    temperature = tl.load(Temperature + row)
    top_k = tl.load(TopK + row)
    top_p = tl.load(TopP + row)
    by_k = (top_k > 0) & (top_k < vocab)
    begin = tl.full([], 0, tl.int32)
    end = tl.full([], WEIGHTLESS, tl.int32)
    before = tl.full([], 0, tl.int32)
    if (temperature > 0) & by_k & few(top_k, vocab, GROUP):
        # At least k tokens are as large as the k-th largest of the groups' largest. A bound is enough, so the search
        # stops at a relative precision of 2**-12. Groups whose largest is beyond it need not be looked at again.
        group = tl.arange(0, GROUPS)
        x = tl.load(Groups + row * groups + group, mask=group < groups, other=float("-inf"))
        m = magnitude((x - row_largest(Best, row, chunks, CHUNKS)) * inverse_temperature(temperature))
        ones = tl.full([GROUPS], 1, tl.int32)
        _, end = search(m, ones, 0, top_k.to(tl.float64), tl.full([], -1, tl.int32), end, 2048, PIVOTS)
        chosen = (m < end).to(tl.int32)
        tl.store(Chosen + row * groups + tl.cumsum(chosen, 0) - 1, group, mask=chosen > 0)
        tl.store(Bracket + row * 8 + 5, tl.sum(chosen, 0))
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
