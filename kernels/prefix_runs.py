"""Which keys of a step several requests share: read off the block tables, so it cannot differ from what is in memory.

Two requests share a key when the same page stands at the same place in their tables. With the items of a step in an
order that keeps equal prefixes together (``tree_order``), the items that share a page are neighbours, and the shared
pages form a tree of runs. Attention may then read a run once for all its items.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(slots=True)
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
    if len(starts) < 2 or block_tables.shape[1] == 0:
        return []
    return _intervals(_common_pages(np.asarray(starts, np.int64) // page_size, block_tables), page_size)


def _common_pages(full: np.ndarray, block_tables: np.ndarray) -> np.ndarray:
    """Leading pages [items - 1] that each item has in common with the next, of the ``full`` [items] whole ones."""
    most = np.minimum(full[1:], full[:-1])
    width = min(block_tables.shape[1], int(most.max()))
    differ = np.empty((len(most), width + 1), np.bool_)
    differ[:, width] = True  # where equal rows end
    np.not_equal(block_tables[1:, :width], block_tables[:-1, :width], out=differ[:, :width])
    common: np.ndarray = np.minimum(differ.argmax(1), most)
    return common


def _intervals(common: np.ndarray, page_size: int) -> list[PrefixRun]:
    """Intervals of the array of common prefixes (Kasai et al. 2001; Abouelhoda et al. 2004): an open interval is a run
    that is shared down to ``depth`` pages and stops at an item. From the last item to the first, so that runs come out
    in the reverse of their order: by first item, then by depth."""
    found: list[PrefixRun] = []
    depths, stops = [0], [0]  # of open intervals, depths rising
    changes = (common[1:] != common[:-1]).nonzero()[0]
    places = [len(common) - 1, *changes[::-1].tolist(), -1]
    values = [*common[places[:-1]].tolist(), 0]
    for place, depth in zip(places, values, strict=True):
        stop = place + 2
        while depths[-1] > depth:
            end, stop = depths.pop(), stops.pop()
            begin = depth if depth > depths[-1] else depths[-1]
            found.append(PrefixRun(place + 1, stop - place - 1, begin * page_size, end * page_size))
        if depth > depths[-1]:
            depths.append(depth)
            stops.append(stop)
    found.reverse()
    return found
