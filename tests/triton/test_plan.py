"""Work items cover what each token may see, exactly once; sharing is chosen only where it is predicted to pay."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.prefix_runs import PrefixRun, prefix_runs
from kernels.triton.plan import (
    OPEN_END,
    SHARED_RANGE,
    SHARING_ROWS,
    Heads,
    Machine,
    WorkItems,
    plan_items,
)
from tests.triton.forests import forests

HEADS = Heads(group=4, kv_heads=8, head_dim=128)
# Splits and shares wherever it can.
EAGER = Machine(sms=64, launch_us=0.0, copy_bytes_per_s=1e15, l2_bytes_per_s=1e12, matmul_flop_per_s=1e15)


def seen_keys(work: WorkItems, counts, starts, tables, page_size) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """(page, offset) of every key that each token reads, by (token, slot)."""
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for table in (work.wide, work.narrow):
        for token0, tokens, request, begin, end, offset, slot, flags in table.tolist():
            if not flags & SHARED_RANGE:
                end = min(end, starts[request] + offset + tokens)
            assert end > begin
            for t in range(tokens):
                last = end - 1 if flags & SHARED_RANGE else min(end - 1, starts[request] + offset + t)
                keys = [(int(tables[request, key // page_size]), key % page_size) for key in range(begin, last + 1)]
                place = (token0 + t, slot + t if slot >= 0 else -1)
                assert place not in found, "two items write one place"
                found[place] = keys
    return found


def check(work: WorkItems, counts, starts, tables, page_size, group) -> None:
    """Coverage, tile sizes, slots and merge rows."""
    for rows, table in ((work.wide_rows, work.wide), (work.narrow_rows, work.narrow)):
        assert table.dtype == np.int32
        assert (table[:, 1] > 0).all() and (table[:, 1] * group <= rows).all()
        assert (table[:, 3] % page_size == 0).all()
        ends = np.where(table[:, 4] == OPEN_END, (starts + counts)[table[:, 2]], table[:, 4])
        lengths = np.minimum(
            ends, np.where(table[:, 7] & SHARED_RANGE, ends, starts[table[:, 2]] + table[:, 5] + table[:, 1])
        )
        assert (np.diff((table[:, 3] - lengths) // 64) >= 0).all(), "longest first"
    found = seen_keys(work, counts, starts, tables, page_size)
    slots_of = {
        int(token): work.merge_slots[begin:end].tolist()
        for token, begin, end in zip(work.merge_tokens, work.merge_begin[:-1], work.merge_begin[1:], strict=True)
    }
    assert work.merge_begin[0] == 0 and work.merge_begin[-1] == work.slots
    assert sorted(work.merge_slots.tolist()) == list(range(work.slots))
    assert sum(slot >= 0 for _, slot in found) == work.slots
    token = 0
    for request, (count, start) in enumerate(zip(counts.tolist(), starts.tolist(), strict=True)):
        for position in range(start, start + count):
            places = [(token, slot) for slot in slots_of.get(token, [-1])]
            if token in slots_of:
                assert len(places) >= 2
                assert (token, -1) not in found
            keys = sorted(key for place in places for key in found.pop(place))
            pages = tables[request].tolist()
            assert keys == sorted((pages[key // page_size], key % page_size) for key in range(position + 1))
            token += 1
    assert not found


@given(forests(), st.sampled_from([1, 2, 3, 4, 7, 8]), st.sampled_from([EAGER, Machine(), Machine(sms=1)]))
def test_every_key_once(forest, group, machine) -> None:
    counts, starts, tables, page_size = forest
    heads = replace(HEADS, group=group, kv_heads=2)
    for runs in ([], prefix_runs(starts, tables, page_size)):
        check(plan_items(counts, starts, runs, heads, machine), counts, starts, tables, page_size, group)


def keys_read(work: WorkItems, counts, starts) -> int:
    """Keys read from memory per KV head: those of a shared range once, though several tiles of rows need them."""
    total, shared = 0, set()
    for table in (work.wide, work.narrow):
        for _, tokens, request, begin, end, offset, _, flags in table.tolist():
            if flags & SHARED_RANGE:
                shared.add((request, begin, end))
            else:
                total += min(end, starts[request] + offset + tokens) - begin
    return total + sum(end - begin for _, begin, end in shared)


@st.composite
def deep_forests(draw):
    """Decodes and drafts over a tree of long runs: counts, starts, runs."""
    runs: list[PrefixRun] = []
    starts: list[int] = []

    def grow(begin: int, levels: int) -> None:
        children = draw(st.integers(1, 4)) if levels else 0
        if not children:
            starts.append(begin + draw(st.integers(0, 700)))
            return
        end = begin + 64 * draw(st.sampled_from([1, 2, 8, 40, 128]))
        place, first = len(runs), len(starts)
        for _ in range(children):
            grow(end, levels - 1)
        if len(starts) - first > 1:
            runs.insert(place, PrefixRun(first, len(starts) - first, begin, end))

    grow(0, draw(st.integers(1, 4)))
    counts = draw(st.lists(st.sampled_from([1, 1, 1, 4, 30]), min_size=len(starts), max_size=len(starts)))
    return np.array(counts), np.array(starts), runs


@given(deep_forests(), st.sampled_from([1, 4, 8]))
def test_sharing_saves_more_than_a_launch(forest, group) -> None:
    """What is not read again is worth more, at the rate of memory, than the launch of the merge."""
    counts, starts, runs = forest
    heads, machine = replace(HEADS, group=group), Machine()
    plain = plan_items(counts, starts, [], heads, machine)
    shared = plan_items(counts, starts, runs, heads, machine)
    spared = keys_read(plain, counts, starts) - keys_read(shared, counts, starts)
    tables = np.concatenate([shared.wide, shared.narrow])
    if (tables[:, 7] & SHARED_RANGE).any():
        assert spared * heads.bytes_per_key / machine.copy_bytes_per_s * 1e6 > machine.launch_us
    else:
        assert spared == 0


def deep(requests, shared, own, page_size=64):
    """``requests`` decodes with ``shared`` keys in common."""
    counts = np.ones(requests, int)
    starts = np.full(requests, shared + own - 1)
    runs = [PrefixRun(0, requests, 0, shared)] if shared else []
    return counts, starts, runs


def test_a_shared_prompt_is_read_once() -> None:
    counts, starts, runs = deep(64, 8192, 256)
    work = plan_items(counts, starts, runs, HEADS)
    shared = work.wide[work.wide[:, 7] & SHARED_RANGE != 0]
    assert len(shared) == len(work.wide)
    # 256 rows are four tiles; the splits fill the chip about once, with two programs on each SM
    assert 0.8 <= len(shared) * HEADS.kv_heads / 264 <= 1.2
    assert (work.narrow[:, 3] == 8192).all() and len(work.narrow) == 64
    assert len(work.merge_tokens) == 64


def test_two_levels() -> None:
    counts, starts = np.ones(32, int), np.full(32, 6500)
    groups = [PrefixRun(first, 4, 4096, 6144) for first in range(0, 32, 4)]
    runs = [PrefixRun(0, 32, 0, 4096), *groups]
    work = plan_items(counts, starts, runs, HEADS)
    tables = np.concatenate([work.wide, work.narrow])
    shared = tables[tables[:, 7] & SHARED_RANGE != 0]
    # 128 rows are two tiles
    assert set(map(tuple, shared[:, [0, 1]].tolist())) == {(0, 16), (16, 16), *((run.first, 4) for run in groups)}
    assert (tables[tables[:, 7] & SHARED_RANGE == 0][:, 3] == 6144).all()


@pytest.mark.parametrize(("requests", "shared"), [(2, 64), (3, 128), (2, 512)])
def test_little_work_is_not_shared(requests, shared) -> None:
    counts, starts, runs = deep(requests, shared, 100)
    work = plan_items(counts, starts, runs, HEADS)
    assert len(work.wide) == 0 and not (work.narrow[:, 7] & SHARED_RANGE).any()
    assert set(work.narrow[:, 2].tolist()) == set(range(requests))


def test_a_short_level_is_folded_into_the_next() -> None:
    """32 keys between two long levels are not worth results of their own: they are read with what is below."""
    counts, starts = np.ones(64, int), np.full(64, 9000)
    halves = [PrefixRun(first, 32, 64, 8192) for first in (0, 32)]
    work = plan_items(counts, starts, [PrefixRun(0, 64, 0, 64), *halves], HEADS)
    tables = np.concatenate([work.wide, work.narrow])
    shared = tables[tables[:, 7] & SHARED_RANGE != 0]
    assert set(shared[:, 1].tolist()) == {16}, "tiles of half a range's 128 rows"
    assert shared[:, 3].min() == 0


def test_chunks_read_for_themselves() -> None:
    """A chunk between two decodes takes no part, and the shared range falls into the parts on its two sides."""
    group = HEADS.group
    counts = np.array([1] * 8 + [SHARING_ROWS // group + 1] + [1] * 8)
    starts = np.full(17, 8192 + 64)
    work = plan_items(counts, starts, [PrefixRun(0, 17, 0, 8192)], HEADS)
    tables = np.concatenate([work.wide, work.narrow])
    shared = tables[tables[:, 7] & SHARED_RANGE != 0]
    assert set(map(tuple, shared[:, :3].tolist())) == {(0, 8, 0), (25, 8, 9)}
    own = tables[(tables[:, 2] == 8) & (tables[:, 7] & SHARED_RANGE == 0)]
    assert own[:, 3].min() == 0


def test_chunks_at_the_ends_of_a_shared_range() -> None:
    """Chunks first, last and side by side leave no empty parts, and a request without tokens belongs to its part."""
    chunk = SHARING_ROWS // HEADS.group + 1
    counts = np.array([chunk, 1, 0, 1, 1, 1, chunk, chunk, 1, 1, 1, 1, chunk])
    starts = np.full(13, 32768 + 64)
    work = plan_items(counts, starts, [PrefixRun(0, 13, 0, 32768)], HEADS)
    tables = np.concatenate([work.wide, work.narrow])
    shared = tables[tables[:, 7] & SHARED_RANGE != 0]
    assert set(map(tuple, shared[:, :3].tolist())) == {(chunk, 4, 1), (3 * chunk + 4, 4, 8)}
    left = tables[(tables[:, 7] & SHARED_RANGE == 0) & (tables[:, 3] == 32768)]
    assert sorted(left[:, 2].tolist()) == [1, 3, 4, 5, 8, 9, 10, 11]
    # A range too short to be cut into parts.
    work = plan_items(counts, np.full(13, 192), [PrefixRun(0, 13, 0, 128)], HEADS, EAGER)
    tables = np.concatenate([work.wide, work.narrow])
    shared = tables[tables[:, 7] & SHARED_RANGE != 0]
    assert set(map(tuple, shared[:, :3].tolist())) == {(chunk, 4, 1), (3 * chunk + 4, 4, 8)}


def test_a_run_of_one_request_that_takes_part_is_not_shared() -> None:
    """Beside chunks, one decode has nobody to share with: it reads all of its keys itself."""
    chunk = SHARING_ROWS // HEADS.group + 1
    counts, starts = np.array([chunk, 1, chunk, 0]), np.full(4, 32768 + 64)
    work = plan_items(counts, starts, [PrefixRun(0, 4, 0, 32768)], HEADS)
    tables = np.concatenate([work.wide, work.narrow])
    assert not (tables[:, 7] & SHARED_RANGE).any()


def test_a_large_batch_over_one_prefix() -> None:
    """Sums over thousands of requests stay apart from each other."""
    requests = 3000
    counts, starts, runs = deep(requests, 4096, 64)
    work = plan_items(counts, starts, runs, HEADS)
    shared = work.wide[work.wide[:, 7] & SHARED_RANGE != 0]
    tiles = set(map(tuple, shared[:, :2].tolist()))
    assert sum(tokens for _, tokens in tiles) == requests
    assert (work.narrow[:, 3] == 4096).all()


def test_one_long_request_fills_the_chip() -> None:
    counts, starts, _ = deep(1, 0, 16384)
    work = plan_items(counts, starts, [], HEADS)
    assert 0.8 * 132 <= len(work.narrow) * HEADS.kv_heads <= 1.1 * 132
    assert len(work.merge_tokens) == 1


def test_many_equal_requests_are_not_split() -> None:
    counts, starts, _ = deep(64, 0, 4096)
    work = plan_items(counts, starts, [], HEADS)
    assert len(work.narrow) == 64 and work.slots == 0


def test_a_chunk_is_cut_into_tiles() -> None:
    work = plan_items(np.array([2048]), np.array([0]), [], HEADS)
    assert len(work.wide) == 2048 * 4 // 64 and work.slots == 0 and work.wide_rows == 64
    assert work.wide[0, 5] >= 2048 - 64, "the last tiles have most keys"


def test_a_short_chunk_over_a_long_prefix_is_split() -> None:
    work = plan_items(np.array([64]), np.array([16384]), [], HEADS)
    assert len(work.wide) * HEADS.kv_heads >= 120
    assert len(work.merge_tokens) == 64


def test_nothing_to_do() -> None:
    for counts in (np.zeros(0, int), np.zeros(3, int)):
        work = plan_items(counts, counts, [], HEADS)
        assert len(work.wide) == len(work.narrow) == work.slots == len(work.merge_tokens) == 0


def test_wrong_group() -> None:
    with pytest.raises(ValueError, match="query heads"):
        plan_items(np.ones(1, int), np.zeros(1, int), [], replace(HEADS, group=129))
