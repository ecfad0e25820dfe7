"""The sampler's kernels behind the bracket: the tokens inside of it, the exact cut, the draw. ``sample`` says what each
is for."""

# A kernel's arguments have no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

from kernels.triton.noise import gumbel, stream_key, weight
from kernels.triton.sample_bracket import (
    EVERYTHING,
    NOT_A_TOKEN,
    best_of,
    few,
    inverse_temperature,
    magnitude,
    row_largest,
    scaled_logits,
    search,
)


@triton.jit
def collect(
    Logits, Bitmask, Temperature, TopK, TopP, MinP, Seed, Position, Best, BestToken, Chosen, Weights, Bracket, Listed,
    capacity, vocab, stride, mask_stride, chunks, groups, HAS_MASK: tl.constexpr, HAS_MIN_P: tl.constexpr,
    CHUNKS: tl.constexpr, BLOCK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    temperature = tl.load(Temperature + row)
    top_k = tl.load(TopK + row)
    by_k = (top_k > 0) & (top_k < vocab)
    by_groups = by_k & few(top_k, vocab, GROUP)
    count = tl.where(by_groups, tl.load(Bracket + row * 8 + 5) * GROUP, vocab)
    if (temperature > 0) & (by_k | (tl.load(TopP + row) < 1)) & (chunk * BLOCK < count):
        begin = tl.load(Bracket + row * 8)
        end = tl.load(Bracket + row * 8 + 1)
        inverse = inverse_temperature(temperature)
        entry = chunk * BLOCK + tl.arange(0, BLOCK)
        group = tl.load(Chosen + row * groups + entry // GROUP, mask=by_groups & (entry < count), other=0)
        token = tl.where(by_groups, group * GROUP + entry % GROUP, entry)
        valid = (entry < count) & (token < vocab)
        largest = row_largest(Best, row, chunks, CHUNKS)
        s = scaled_logits(
            Logits + row * stride, Bitmask + row * mask_stride if HAS_MASK else Bitmask, MinP, row, token, valid,
            largest, inverse, HAS_MASK, HAS_MIN_P,
        )  # fmt: skip
        place = magnitude(s)
        sure = valid & (place < begin)
        maybe = valid & (place >= begin) & (place < end)
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
def _drawn_in_registers(
    Logits, Bitmask, MinP, List, row, largest, inverse, key, begin, end, counted, weighed, total, listed,
    by_k, top_k, top_p, HAS_MASK: tl.constexpr, HAS_MIN_P: tl.constexpr, BLOCK: tl.constexpr, PIVOTS: tl.constexpr,
):  # fmt: skip
    """Cut, total weight, best score and its token, of at most ``BLOCK`` listed tokens. Logits, Bitmask and List point
    at the row."""
    entry = tl.arange(0, BLOCK)
    inside = entry < listed
    token = tl.load(List + entry, mask=inside, other=0)
    s = scaled_logits(Logits, Bitmask, MinP, row, token, inside, largest, inverse, HAS_MASK, HAS_MIN_P)
    m = tl.where(inside, magnitude(s), EVERYTHING)
    w = weight(s)
    cut = end - 1
    if by_k:
        ones = tl.full([BLOCK], 1, tl.int32)
        cut, _ = search(m, ones, counted, top_k.to(tl.float64), begin, end, 1, PIVOTS)
        total = weighed + tl.sum(tl.where(m <= cut, w, 0), 0)
    if top_p < 1:
        goal = top_p.to(tl.float64) * total.to(tl.float64)
        cut, _ = search(m, w, weighed, goal, begin, cut + 1, 1, PIVOTS)
    kept = m <= cut
    total = weighed + tl.sum(tl.where(kept, w, 0), 0)
    score, winner = best_of(tl.where(kept, s + gumbel(key, token), float("-inf")), token)
    return cut, total, score, winner


@triton.jit
def _entries(List, start, count, by_list, BLOCK: tl.constexpr):
    """The next tokens of the list, or of the row, and which of them there are."""
    entry = start + tl.arange(0, BLOCK)
    valid = entry < count
    return tl.where(by_list, tl.load(List + entry, mask=valid & by_list, other=0), entry), valid


@triton.jit
def _below(
    Logits, Bitmask, MinP, List, row, largest, inverse, begin, limit, count, by_list,
    HAS_MASK: tl.constexpr, HAS_MIN_P: tl.constexpr, BY_WEIGHT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Number or weight of ``count`` tokens of the list or of the row whose magnitude is in ``[begin, limit)``."""
    total = tl.zeros([BLOCK], tl.int64)
    for start in range(0, count, BLOCK):
        token, valid = _entries(List, start, count, by_list, BLOCK)
        s = scaled_logits(Logits, Bitmask, MinP, row, token, valid, largest, inverse, HAS_MASK, HAS_MIN_P)
        below = valid & (magnitude(s) >= begin) & (magnitude(s) < limit)
        total += tl.where(below, weight(s), 0) if BY_WEIGHT else below.to(tl.int64)
    return tl.sum(total, 0)


@triton.jit
def _search_in_memory(
    Logits, Bitmask, MinP, List, row, largest, inverse, begin, high, before, goal, count, by_list,
    HAS_MASK: tl.constexpr, HAS_MIN_P: tl.constexpr, BY_WEIGHT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """As ``search`` down to the cut, one limit at a time."""
    low = begin
    while high - low > 1:
        middle = low + (high - low) // 2
        below = _below(Logits, Bitmask, MinP, List, row, largest, inverse, begin, middle, count, by_list,
                       HAS_MASK, HAS_MIN_P, BY_WEIGHT, BLOCK)  # fmt: skip
        if (before + below).to(tl.float64) < goal:
            low = middle
        else:
            high = middle
    return low


@triton.jit
def _drawn_in_memory(
    Logits, Bitmask, MinP, List, row, largest, inverse, key, begin, end, counted, weighed, total, count, by_list,
    by_k, top_k, top_p, HAS_MASK: tl.constexpr, HAS_MIN_P: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """As ``_drawn_in_registers``, of ``count`` tokens of the list or, if there was no room to list them, of the row."""
    cut = end - 1
    if by_k:
        cut = _search_in_memory(Logits, Bitmask, MinP, List, row, largest, inverse, begin, end, counted,
                                top_k.to(tl.float64), count, by_list, HAS_MASK, HAS_MIN_P, False, BLOCK)  # fmt: skip
        total = weighed + _below(Logits, Bitmask, MinP, List, row, largest, inverse, begin, cut + 1, count, by_list,
                                 HAS_MASK, HAS_MIN_P, True, BLOCK)  # fmt: skip
    if top_p < 1:
        goal = top_p.to(tl.float64) * total.to(tl.float64)
        cut = _search_in_memory(Logits, Bitmask, MinP, List, row, largest, inverse, begin, cut + 1, weighed,
                                goal, count, by_list, HAS_MASK, HAS_MIN_P, True, BLOCK)  # fmt: skip
    total = weighed
    score, winner = tl.full([], float("-inf"), tl.float32), tl.full([], NOT_A_TOKEN, tl.int32)
    for start in range(0, count, BLOCK):
        token, valid = _entries(List, start, count, by_list, BLOCK)
        s = scaled_logits(Logits, Bitmask, MinP, row, token, valid, largest, inverse, HAS_MASK, HAS_MIN_P)
        kept = valid & (magnitude(s) >= begin) & (magnitude(s) <= cut)
        total += tl.sum(tl.where(kept, weight(s), 0), 0)
        block_score, block_winner = best_of(tl.where(kept, s + gumbel(key, token), float("-inf")), token)
        better = (block_score > score) | ((block_score == score) & (block_winner < winner))
        winner = tl.where(better, block_winner, winner)
        score = tl.maximum(block_score, score)
    return cut, total, score, winner


@triton.jit
def finish(
    Logits, Bitmask, Temperature, TopK, TopP, MinP, Seed, Position, Best, BestToken, Weights, Bracket, Listed, capacity,
    Token, Largest, Cut, Total, vocab, stride, mask_stride, chunks, HAS_MASK: tl.constexpr, HAS_MIN_P: tl.constexpr,
    CHUNKS: tl.constexpr, FEW: tl.constexpr, FEW_PIVOTS: tl.constexpr, BLOCK: tl.constexpr, PIVOTS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    temperature = tl.load(Temperature + row)
    top_k = tl.load(TopK + row)
    top_p = tl.load(TopP + row)
    largest = row_largest(Best, row, chunks, CHUNKS)
    chunk = tl.arange(0, CHUNKS)
    # Greedy rows take the best logit, others the best score so far.
    place = (row * 2 + tl.where(temperature <= 0, 0, 1)) * chunks + chunk
    score, winner = best_of(
        tl.load(Best + place, mask=chunk < chunks, other=float("-inf")),
        tl.load(BestToken + place, mask=chunk < chunks, other=NOT_A_TOKEN),
    )
    cut = tl.full([], EVERYTHING, tl.int32)
    total = tl.load(Weights + row * 2)
    if (temperature > 0) & (((top_k > 0) & (top_k < vocab)) | (top_p < 1)):
        inverse = inverse_temperature(temperature)
        key = stream_key(tl.load(Seed + row), tl.load(Position + row))
        Row = Logits + row * stride
        Allowed = Bitmask + row * mask_stride if HAS_MASK else Bitmask
        List = Listed + row * capacity
        # The cut is the largest magnitude in [begin, end) with less than the goal below it.
        begin = tl.load(Bracket + row * 8)
        end = tl.load(Bracket + row * 8 + 1)
        counted = tl.load(Bracket + row * 8 + 2)
        listed = tl.load(Bracket + row * 8 + 3)
        by_k = tl.load(Bracket + row * 8 + 4) != 0
        weighed = tl.load(Weights + row * 2 + 1)
        if listed <= FEW:
            cut, total, new_score, new_winner = _drawn_in_registers(
                Row, Allowed, MinP, List, row, largest, inverse, key, begin, end, counted, weighed, total, listed,
                by_k, top_k, top_p, HAS_MASK, HAS_MIN_P, FEW, FEW_PIVOTS,
            )  # fmt: skip
        elif listed <= BLOCK:
            cut, total, new_score, new_winner = _drawn_in_registers(
                Row, Allowed, MinP, List, row, largest, inverse, key, begin, end, counted, weighed, total, listed,
                by_k, top_k, top_p, HAS_MASK, HAS_MIN_P, BLOCK, PIVOTS,
            )  # fmt: skip
        else:
            by_list = listed <= capacity
            cut, total, new_score, new_winner = _drawn_in_memory(
                Row, Allowed, MinP, List, row, largest, inverse, key, begin, end, counted, weighed, total,
                tl.where(by_list, listed, vocab), by_list, by_k, top_k, top_p, HAS_MASK, HAS_MIN_P, BLOCK,
            )  # fmt: skip
        if (new_score > score) | ((new_score == score) & (new_winner < winner)):
            score, winner = new_score, new_winner
    # Not a token only if the logits are NaN; what reads the token next must not fault.
    tl.store(Token + row, tl.minimum(winner, vocab - 1).to(tl.int64))
    tl.store(Largest + row, largest)
    tl.store(Cut + row, cut)
    tl.store(Total + row, total)
