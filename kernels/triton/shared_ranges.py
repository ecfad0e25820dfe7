"""Which keys that several requests have in common are read once for all of them: the cost model of sharing.

Plain Python over runs, of which a step has few dozen, and numpy over requests: an operation on arrays costs as much as
one run. Knows numbers, no tensors.
"""

from bisect import bisect_left
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from kernels.prefix_runs import PrefixRun

if TYPE_CHECKING:
    from kernels.triton.plan import Heads, Machine

Item: TypeAlias = tuple[int, int, int, int, int, int, int, int]
"""A row of an item table; see ``kernels.triton.plan.ITEM_FIELDS``."""
SHARED_RANGE = 1
"""Flag of an item whose rows all see all of its keys."""
SHARING_ROWS = 64
"""Requests of at most this many rows take part in shared ranges."""
LEAST_WIDE_SPLIT = 512
"""Keys, the fewest that a range of many rows is split into."""


def choose_ranges(
    counts: np.ndarray, first: np.ndarray, runs: list[PrefixRun], heads: "Heads", machine: "Machine"
) -> tuple[list[Item], np.ndarray | None]:
    """Decide for each run whether it is read once for all its rows, or again below it by each run and request.

    Parents before children: a run that is not read on its own is put in front of the ranges of its children, which are
    then decided with it. The time of a range is the larger of reading its keys and multiplying its (padded) rows; keys
    that are read again by others come from L2 where the range fits. Sharing costs a partial result per token and split.
    All of it must save more than the launch of the merge, or nothing is shared: the prediction is never worse than that
    of no sharing.

    Returns the items of what is shared, and [requests] the first key that each request reads itself.
    """
    loads = _request_loads(heads.group).take(counts, mode="clip")
    before = [0, *loads.cumsum().tolist()]
    own, below, parents = _run_loads(runs, before, heads.group)
    rates = _Rates(heads, machine)
    most_cached = machine.l2_bytes / heads.bytes_per_key
    first_token = [*first.tolist(), int(counts.sum())]

    left = np.zeros(len(counts), np.int64)
    chosen: list[Item] = []
    stops: list[int] = []
    # Seen from a run's children: where the range below it begins, and whether its requests have a partial result. At
    # the end, where -1 leads, what is above the roots.
    carried, merged = [0] * (len(runs) + 1), [True] * len(runs) + [False]
    saved = 0.0
    for index, (run, parent, load) in enumerate(zip(runs, parents, zip(own, below, strict=True), strict=True)):
        begin, end = carried[parent], run.end
        keys = end - begin
        cached, uncached, tokens, per_partial, partials = rates[load]
        if keys <= partials * LEAST_WIDE_SPLIT:
            partials = -(-keys // LEAST_WIDE_SPLIT)
        if not merged[parent]:
            partials += 1
        gain = (cached if keys <= most_cached else uncached) * keys - per_partial * partials
        if gain <= 0:
            carried[index], merged[index] = begin, merged[parent]
            continue
        saved += gain
        carried[index] = end
        start, stop = run.first, run.first + run.count
        chosen.append((first_token[start], tokens, start, begin, end, 0, 0, SHARED_RANGE))
        stops.append(stop)
        left[start:stop] = end
    if saved <= machine.launch_us:
        return [], None
    if _requests(before[-1]) < len(counts):
        left[loads == 0] = 0
        apart = ((loads == 0) & (counts > 0)).nonzero()[0].tolist()
        pieces = [_stretches(item, stop, apart, first_token) for item, stop in zip(chosen, stops, strict=True)]
        chosen = list(chain.from_iterable(pieces))
    return chosen, left


# The load of some requests on a range of keys, in one number, so that loads are added, subtracted and looked up as one:
# (padded) rows, tokens and requests, of 21 bits each.


def _load(rows: int, tokens: int, requests: int) -> int:
    return rows << 42 | tokens << 21 | requests


def _rows(load: int) -> int:
    return load >> 42


def _tokens(load: int) -> int:
    return load >> 21 & 0x1FFFFF


def _requests(load: int) -> int:
    return load & 0x1FFFFF


def _tile_rows(tokens: int, group: int) -> int:
    """Rows of the tiles that hold so many tokens."""
    rows = tokens * group
    return (rows + 63) & -64 if rows > 32 else (rows + 15) & -16


def _as_one(load: int, group: int) -> int:
    """The load of requests that are read for together."""
    if _requests(load) < 2:
        return load
    return _load(_tile_rows(_tokens(load), group), _tokens(load), 1)


@cache
def _request_loads(group: int) -> np.ndarray:
    """The load of a request by its number of tokens: nothing from the last on, which take no part in sharing."""
    most = SHARING_ROWS // group
    return np.array([0, *(_load(_tile_rows(tokens, group), tokens, 1) for tokens in range(1, most + 1)), 0])


def _run_loads(runs: list[PrefixRun], before: list[int], group: int) -> tuple[list[int], list[int], list[int]]:
    """Of each run: the load of its requests; the load where its keys are read again below it, by its child runs and by
    the requests in none of them; and the run above it, or -1. ``before``: the load of the requests before each one.

    The run above is the last before it that ends where it begins: runs of one item do not overlap and leave no gaps.
    """
    own: list[int] = []
    below: list[int] = []
    parents: list[int] = []
    together: dict[int, int] = {}
    ending = {0: -1}
    for index, run in enumerate(runs):
        load = before[run.first + run.count] - before[run.first]
        parent = ending[run.begin]
        ending[run.end] = index
        own.append(load)
        below.append(load)
        parents.append(parent)
        if parent >= 0:
            if load not in together:
                together[load] = _as_one(load, group)
            below[parent] += together[load] - load
    return own, below, parents


class _Rates(dict[tuple[int, int], tuple[float, float, int, float, int]]):
    """By a run's own load and that below it: us that reading it once spares per key, where its keys would stay in L2
    and where not; its tokens; us per partial result of them all; and the most parts that it is split into. Runs of
    one level are often alike, so each pair is worked out once."""

    def __init__(self, heads: "Heads", machine: "Machine") -> None:
        self.group = heads.group
        self.from_memory = heads.bytes_per_key / machine.copy_bytes_per_s * 1e6
        self.from_l2 = heads.bytes_per_key / machine.l2_bytes_per_s * 1e6
        self.per_row = 4 * heads.head_dim * heads.kv_heads / machine.matmul_flop_per_s * 1e6
        self.per_partial = heads.merge_bytes_per_token / machine.copy_bytes_per_s * 1e6
        self.programs = 2 * machine.sms // heads.kv_heads

    def __missing__(self, loads: tuple[int, int]) -> tuple[float, float, int, float, int]:
        own, below = loads
        if _requests(own) < 2:
            rates = (-1.0, -1.0, 0, 0.0, 1)
        else:
            rows, again, readers = (
                _tile_rows(_tokens(own), self.group),
                _rows(below) * self.per_row,
                _requests(below) - 1,
            )
            once = max(self.from_memory, rows * self.per_row)
            rates = (
                max(self.from_memory + readers * self.from_l2, again) - once,
                max(self.from_memory + readers * self.from_memory, again) - once,
                _tokens(own),
                _tokens(own) * self.per_partial,
                max(1, self.programs // -(-rows // 128)),
            )
        self[loads] = rates
        return rates


def _stretches(item: Item, stop: int, apart: list[int], first_token: list[int]) -> list[Item]:
    """The parts of a shared range of requests up to ``stop`` between the requests ``apart``, which take no part: only
    within these are tokens neighbours."""
    low, high = bisect_left(apart, item[2]), bisect_left(apart, stop)
    if low == high:
        return [item]
    parts: list[Item] = []
    begin = item[2]
    for edge in (*apart[low:high], stop):
        tokens = first_token[edge] - first_token[begin]
        if tokens:
            parts.append((first_token[begin], tokens, begin, *item[3:]))
        begin = edge + 1
    return parts
