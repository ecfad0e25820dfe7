"""Which keys of a step several requests share: read off the block tables, so it cannot differ from what is in memory.

Two requests share a key when the same page stands at the same place in their tables. With the items of a step in an
order that keeps equal prefixes together (``tree_order``), the items that share a page are neighbours, and the shared
pages form a tree of runs. Attention may then read a run once for all its items.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PrefixRun:
    """Keys ``begin <= key < end`` that items ``first <= item < first + count`` have in common, all of them before each
    item's first new token. ``begin`` and ``end`` are multiples of the page size."""

    first: int
    count: int
    begin: int
    end: int


def tree_order(block_tables: np.ndarray) -> np.ndarray:
    """A permutation [items] that brings equal beginnings of tables together. Items are never compared on numbers, only
    on equality of leading pages, so any total order does; this one is by bytes. O(items log items) comparisons.

    block_tables  [items, pages] int32; entries past an item's pages may hold anything
    """
    rows = [row.tobytes() for row in np.ascontiguousarray(block_tables)]
    return np.array(sorted(range(len(rows)), key=rows.__getitem__), np.int64)


def prefix_runs(starts: np.ndarray, block_tables: np.ndarray, page_size: int) -> list[PrefixRun]:
    """The runs that two items or more share, a run before those below it; one item's runs do not overlap.

    Every key of an item before its last run's end is in exactly one of its runs. O(items * pages) in numpy and O(runs)
    in Python.

    starts        [items] int: position of each item's first new token; only whole pages before it can be shared
    block_tables  [items, pages] int32 in ``tree_order``
    """
    items = len(starts)
    if items < 2 or block_tables.shape[1] == 0:
        return []
    equal = block_tables[1:] == block_tables[:-1]
    same = np.where(equal.all(1), block_tables.shape[1], equal.argmin(1))
    full = np.asarray(starts, np.int64) // page_size
    common = np.minimum(same, np.minimum(full[1:], full[:-1]))
    # Intervals of the array of common prefixes (Kasai et al. 2001; Abouelhoda et al. 2004): an open interval is a run
    # that started at ``first`` and is shared down to ``depth`` pages.
    found: list[tuple[int, int, int, int]] = []
    still: list[tuple[int, int]] = [(0, 0)]  # (depth, first), depths rising
    for place, depth in enumerate([*common.tolist(), 0]):
        first = place
        while still[-1][0] > depth:
            below, first = still.pop()
            above = max(depth, still[-1][0])
            found.append((first, place + 1 - first, above, below))
        if depth > still[-1][0]:
            still.append((depth, first))
    found.sort(key=lambda run: (run[0], run[2]))
    return [PrefixRun(first, count, begin * page_size, end * page_size) for first, count, begin, end in found]
