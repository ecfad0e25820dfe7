"""Which tiles of queries meet which ranges of keys: the work items of one step's attention. Knows numbers, no tensors.

A step is cut three ways:

* **shared ranges**: keys that several requests have in common are read once for all of them, where the cost model
  says that this pays (the decision of FastTree, Pan et al. 2025, taken in microseconds);
* **query tiles**: requests with many new tokens, and shared ranges with many rows, are cut into tiles of ``wide_rows``
  rows; a row is one query head of a group at one token;
* **key splits**: ranges are cut further until the chip is full (Flash-Decoding, Dao et al. 2023).

A token with more than one item gets a partial result (a slot) from each, and a row of the merge; a token with one item
gets its result directly. Tokens of a shared range must be neighbours, so requests come in tree order, and requests with
many rows of their own (prefill chunks, more than ``SHARING_ROWS``) take no part in sharing: they are bound by matrix
multiplication, which sharing does not save, and their partial results would be large.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from kernels.prefix_runs import PrefixRun

ITEM_FIELDS = ("token0", "tokens", "request", "begin", "end", "offset", "slot", "flags")
"""Columns of an item table, int32:

token0, tokens  the tile's tokens, as rows of q
request         whose block table holds the pages; for a shared range the first of its requests
begin, end      keys begin <= key < end; causal items also end at their last token's key, so ``OPEN_END`` stays right
                while the request grows
offset          token0 less the request's first token (0 for shared ranges)
slot            first of the item's partial results, one per token; -1: it writes the output
flags           SHARED_RANGE: all rows see all keys of the range; INNER_PART: other parts of the same range follow
"""
SHARED_RANGE = 1
INNER_PART = 2
OPEN_END = 2**31 - 1

NARROW_ROWS = 32
"""Items of at most this many rows are narrow: bound by reading keys, whatever the tile."""
SHARING_ROWS = 64
"""Requests of at most this many rows take part in shared ranges."""
SPLIT_KEYS = 64
"""Splits are multiples of this many keys, a tile of the kernels."""
LEAST_NARROW_SPLIT = 128
LEAST_WIDE_SPLIT = 512
_TILE_ROWS = np.array([-(-rows // 16) * 16 if rows <= 32 else -(-rows // 64) * 64 for rows in range(SHARING_ROWS + 1)])
"""Rows of the tiles that hold so many rows of one request."""
_CUTS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


@dataclass(frozen=True)
class Machine:
    """What the plan has to know of a GPU. The default is an H200; rates are those attention reaches, not peaks."""

    sms: int = 132
    copy_bytes_per_s: float = 4.3e12
    l2_bytes_per_s: float = 7.0e12
    l2_bytes: float = 30e6
    matmul_flop_per_s: float = 4.0e14
    launch_us: float = 2.5
    program_bytes_per_s: float = 3.0e10
    """What one program gets from memory when few run: its bytes in flight over the latency."""
    most_wide_rows: int = 64
    """Two programs of 64 rows on an SM, of which one multiplies while the other takes exponents, are no slower than one
    of 128 rows, though keys are read from L2 twice as often; a step's last wave and a short chunk are done sooner."""


@dataclass(frozen=True)
class Heads:
    """Shape of one layer's attention. ``kv_bytes`` is bytes per element of the pool."""

    group: int
    kv_heads: int
    head_dim: int
    kv_bytes: int = 2

    @property
    def bytes_per_key(self) -> int:
        """K and V of one key, all heads."""
        return 2 * self.kv_heads * self.head_dim * self.kv_bytes

    @property
    def merge_bytes_per_token(self) -> int:
        """One token's partial result, written and read again."""
        return 2 * self.group * self.kv_heads * (self.head_dim + 1) * 4


@dataclass(frozen=True)
class WorkItems:
    """The tables of one step. ``wide`` and ``narrow`` [items, 8] int32 as in ``ITEM_FIELDS``, longest first.

    merge_tokens  [merged] int32: tokens with several partial results
    merge_begin   [merged + 1] int32: where each one's part of ``merge_slots`` begins
    merge_slots   [slots] int32, in the order in which they are merged
    """

    wide: np.ndarray
    narrow: np.ndarray
    wide_rows: int
    narrow_rows: int
    merge_tokens: np.ndarray
    merge_begin: np.ndarray
    merge_slots: np.ndarray

    @property
    def slots(self) -> int:
        """Partial results per head."""
        return len(self.merge_slots)


def plan_items(
    counts: np.ndarray,
    starts: np.ndarray,
    runs: list[PrefixRun],
    heads: Heads,
    machine: Machine | None = None,
) -> WorkItems:
    """The work items of one step. O(requests + runs + items + slots) on the host.

    counts, starts  [requests] int: new tokens of each request and the position of the first; 0 tokens is allowed
    runs            the keys that requests share (``kernels.prefix_runs.prefix_runs``), or none
    """
    machine = machine or Machine()
    group = heads.group
    if not 1 <= group <= machine.most_wide_rows:
        raise ValueError(f"{group} query heads per KV head")
    counts = np.asarray(counts, np.int64)
    starts = np.asarray(starts, np.int64)
    first = counts.cumsum() - counts
    shared, left = _choose_ranges(counts, first, runs, heads, machine) if runs else ([], None)

    live = counts.nonzero()[0]
    if len(live) < len(counts):
        first, counts, starts = first[live], counts[live], starts[live]
        left = None if left is None else left[live]
    own = np.zeros((len(live), 8), np.int32)
    own[:, 0] = first
    own[:, 1] = counts
    own[:, 2] = live
    own[:, 4] = starts + counts
    own[:, 6] = -1
    if left is not None:
        own[:, 3] = left
        # A token that is in a shared range has a partial result whether or not its own range is split.
        own[:, 6] += left > 0

    most_own = int(counts.max(initial=0))
    most_rows = max([most_own, *(node[1] for node in shared)]) * group
    wide_rows = min(64, machine.most_wide_rows) if most_rows <= 64 else machine.most_wide_rows
    per_tile = wide_rows // group
    if most_own * group <= NARROW_ROWS:
        wide, narrow = own[:0], own
    else:
        is_wide = counts * group > NARROW_ROWS
        wide, narrow = _tiles(own[is_wide], per_tile), own[~is_wide]
    if shared:
        wide_nodes = [
            (token0 + at, min(per_tile, tokens - at), *rest)
            for token0, tokens, *rest in shared
            if tokens * group > NARROW_ROWS
            for at in range(0, tokens, per_tile)
        ]
        narrow_nodes = [node for node in shared if node[1] * group <= NARROW_ROWS]
        wide = np.concatenate([np.array(wide_nodes, np.int32).reshape(-1, 8), wide])
        narrow = np.concatenate([np.array(narrow_nodes, np.int32).reshape(-1, 8), narrow])
    narrow_rows = 16 if int(narrow[:, 1].max(initial=0)) * group <= 16 else NARROW_ROWS

    if len(wide):
        wide = _split(wide, _wide_split(wide[:, 4] - wide[:, 3], wide_rows, heads, machine))
    if len(narrow):
        narrow = _split(narrow, _narrow_split(narrow[:, 4] - narrow[:, 3], heads, machine))
    merge_tokens, merge_begin, merge_slots = _take_slots(wide, narrow)
    return WorkItems(
        wide=_longest_first(wide),
        narrow=_longest_first(narrow),
        wide_rows=wide_rows,
        narrow_rows=narrow_rows,
        merge_tokens=merge_tokens,
        merge_begin=merge_begin,
        merge_slots=merge_slots,
    )


def _expand(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of each repetition's original, and its place among the repetitions of that."""
    at = np.arange(len(times)).repeat(times)
    return at, np.arange(len(at)) - (times.cumsum() - times)[at]


def _tiles(own: np.ndarray, per_tile: int) -> np.ndarray:
    """Cut causal items into tiles of tokens; each ends at its own last token's key."""
    count = own[:, 1]
    at, place = _expand(-(-count // per_tile))
    tiles = own.take(at, 0)
    offset = place * per_tile
    tokens = np.minimum(per_tile, count[at] - offset)
    tiles[:, 0] += offset
    tiles[:, 4] += offset + tokens - tiles[:, 1]
    tiles[:, 1] = tokens
    tiles[:, 5] = offset
    return tiles


def _split(items: np.ndarray, chunk: int) -> np.ndarray:
    """Cut items of more than ``chunk`` keys into equal parts; parts get a slot (a number that is not -1)."""
    length = items[:, 4] - items[:, 3]
    if int(length.max()) <= chunk:
        return items
    pieces = -(-length // chunk)
    # Equal parts rather than full ones and a rest.
    piece = -(-length // (pieces * SPLIT_KEYS)) * SPLIT_KEYS
    pieces = -(-length // piece)
    at, place = _expand(pieces)
    parts = items.take(at, 0)
    piece = piece[at]
    parts[:, 3] += place * piece
    np.minimum(parts[:, 4], parts[:, 3] + piece, out=parts[:, 4])
    pieces = pieces[at]
    parts[pieces > 1, 6] = 0
    parts[place < pieces - 1, 7] |= INNER_PART
    return parts


def _take_slots(wide: np.ndarray, narrow: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number the slots of all items that have some, in place, and return the merge's compressed rows: tokens, where
    each one's slots begin, slots."""
    in_wide, in_narrow = (wide[:, 6] >= 0).nonzero()[0], (narrow[:, 6] >= 0).nonzero()[0]
    if len(in_wide) + len(in_narrow) == 0:
        return np.zeros(0, np.int32), np.zeros(1, np.int32), np.zeros(0, np.int32)
    tokens = np.concatenate([wide[in_wide, 1], narrow[in_narrow, 1]])
    first = tokens.cumsum(dtype=np.int32) - tokens
    slots = int(tokens.sum())
    wide[in_wide, 6] = first[: len(in_wide)]
    narrow[in_narrow, 6] = first[len(in_wide) :]
    token0 = np.concatenate([wide[in_wide, 0], narrow[in_narrow, 0]])
    token = (token0 - first).repeat(tokens) + np.arange(slots)
    per_token = np.bincount(token)
    rows = per_token.nonzero()[0]
    begins = np.zeros(len(rows) + 1, np.int32)
    per_token[rows].cumsum(out=begins[1:])
    order = (token.astype(np.uint16) if len(per_token) <= 65536 else token).argsort(kind="stable")
    return rows.astype(np.int32), begins, order.astype(np.int32)


def _longest_first(items: np.ndarray) -> np.ndarray:
    """Sorted by length; the last parts of causal items become open-ended."""
    if len(items) == 0:
        return items
    # 16-bit keys are sorted by radix; 2^21 keys and more count as equally long.
    tiles = np.maximum((items[:, 3] - items[:, 4]) // SPLIT_KEYS, -32768).astype(np.int16)
    items = items.take(tiles.argsort(kind="stable"), 0)
    items[items[:, 7] == 0, 4] = OPEN_END
    return items


def _narrow_split(length: np.ndarray, heads: Heads, machine: Machine) -> int:
    """Keys per item so that items of about equal length fill the chip. Reading is bound by memory, not by the number
    of programs, so a last wave that is not full costs little, one program on each SM keeps the memory busy, and the
    mean is enough."""
    mean = int(length.sum()) * heads.kv_heads / machine.sms
    chunk = max(LEAST_NARROW_SPLIT, -(-int(mean) // SPLIT_KEYS) * SPLIT_KEYS)
    longest = int(length.max())
    # Not where the longest item would be done before a merge could have been started.
    spared_us = (longest - chunk) * heads.bytes_per_key / heads.kv_heads / machine.program_bytes_per_s * 1e6
    return chunk if spared_us > machine.launch_us else longest


def _wide_split(length: np.ndarray, wide_rows: int, heads: Heads, machine: Machine) -> int:
    """Keys per item for tiles that are bound by matrix multiplication: of a few candidates the one with the shortest
    predicted time. Waves are counted: a last wave that is not full takes as long as a full one."""
    # As many share an SM as registers and shared memory allow.
    programs = machine.sms * (2 if heads.head_dim <= 64 or wide_rows == 64 else 1)
    items, longest = len(length), int(length.max())
    mean = int(length.sum()) * heads.kv_heads / programs
    us_per_key = wide_rows * 4 * heads.head_dim * programs / machine.matmul_flop_per_s * 1e6  # of one program
    us_per_part = wide_rows / heads.group * heads.merge_bytes_per_token / machine.copy_bytes_per_s * 1e6
    most_cuts = longest / max(LEAST_WIDE_SPLIT, mean / 4)
    cuts = [1, *(cut for cut in _CUTS if cut <= most_cuts)]
    chunks = [-(-longest // (cut * SPLIT_KEYS)) * SPLIT_KEYS for cut in cuts]
    all_parts = (-(-length[:, None] // np.array(chunks))).sum(0).tolist()
    best, best_cost = longest, math.inf
    for chunk, parts in zip(chunks, all_parts, strict=True):
        launched = parts * heads.kv_heads / programs
        # Keys that a program goes through: its even share, and the part of the last wave that is idle. Items start
        # longest first, so what ends last is short where lengths differ: the mean length of a part stands for it.
        idle = (math.ceil(launched) - launched) * mean / launched
        cost = max(mean + idle, min(chunk, longest)) * us_per_key
        if parts > items:
            cost += parts * us_per_part + machine.launch_us
        if cost < best_cost:
            best, best_cost = chunk, cost
    return best


def _choose_ranges(
    counts: np.ndarray, first: np.ndarray, runs: list[PrefixRun], heads: Heads, machine: Machine
) -> tuple[list[tuple[int, ...]], np.ndarray | None]:
    """Decide for each run whether it is read once for all its rows, or again below it by each run and request.

    Parents before children: a run that is not read on its own is put in front of the ranges of its children, which are
    then decided with it. The time of a range is the larger of reading its keys and multiplying its (padded) rows; keys
    that are read again by others come from L2 where the range fits. Sharing costs a partial result per token and split.
    All of it must save more than the launch of the merge, or nothing is shared: the prediction is never worse than that
    of no sharing.

    Returns the items of what is shared, and [requests] the first key that each request reads itself.
    """
    group = heads.group
    small = (counts > 0) & (counts * group <= SHARING_ROWS)
    taking = counts * small
    # Of each run, in one go: tokens, requests and (padded) rows of the requests that take part, and all live requests.
    before = np.zeros((4, len(counts) + 1), np.int64)
    np.stack([taking, small, _TILE_ROWS[taking * group], counts > 0]).cumsum(1, out=before[:, 1:])
    edges = [(run.first, run.first + run.count, run.begin, run.end) for run in runs]
    firsts, stops = np.array(edges).T[:2]
    tokens, requests, item_rows, live = (before[:, stops] - before[:, firsts]).tolist()

    def tile_rows(tokens: int) -> int:
        rows = tokens * group
        return (rows + 63) & -64 if rows > 32 else (rows + 15) & -16

    # What reading a key of a run again costs below it: rows and readers, of its child runs and of the requests that are
    # in none of them.
    rows = [tile_rows(own) for own in tokens]
    rows_below, readers = item_rows.copy(), requests.copy()
    parents: list[int] = []
    above: list[int] = []
    for index, (_, stop, begin, _) in enumerate(edges):
        while above and (edges[above[-1]][3] != begin or edges[above[-1]][1] < stop):
            above.pop()
        parents.append(above[-1] if above else -1)
        if above and requests[index] > 1:
            rows_below[above[-1]] += rows[index] - item_rows[index]
            readers[above[-1]] += 1 - requests[index]
        above.append(index)

    from_memory = heads.bytes_per_key / machine.copy_bytes_per_s * 1e6
    from_l2 = heads.bytes_per_key / machine.l2_bytes_per_s * 1e6
    per_row = 4 * heads.head_dim * heads.kv_heads / machine.matmul_flop_per_s * 1e6
    merge_us = heads.merge_bytes_per_token / machine.copy_bytes_per_s * 1e6
    programs = 2 * machine.sms
    most_keys_in_l2 = machine.l2_bytes / heads.bytes_per_key
    chosen: list[tuple[int, ...]] = []
    left = np.zeros(len(counts), np.int64)
    carried: list[int] = []  # where the range below a run begins, seen from its children
    merged: list[bool] = []  # whether a run's requests have a partial result already
    saved = 0.0
    for index, (start, stop, begin, end) in enumerate(edges):
        parent = parents[index]
        has_partial = False
        if parent >= 0:
            begin, has_partial = carried[parent], merged[parent]
        gain = 0.0
        if requests[index] > 1:
            keys = end - begin
            again = from_l2 if keys <= most_keys_in_l2 else from_memory
            below = max(from_memory + (readers[index] - 1) * again, rows_below[index] * per_row)
            once = max(from_memory, rows[index] * per_row)
            splits = programs // (-(-rows[index] // 128) * heads.kv_heads)
            partials = max(1, min(splits, -(-keys // LEAST_WIDE_SPLIT))) + (not has_partial)
            gain = (below - once) * keys - tokens[index] * merge_us * partials
        if gain <= 0:
            carried.append(begin)
            merged.append(has_partial)
            left[start:stop] = begin
            continue
        saved += gain
        carried.append(end)
        merged.append(True)
        left[start:stop] = end
        if live[index] == requests[index]:
            chosen.append((int(first[start]), tokens[index], start, begin, end, 0, 0, SHARED_RANGE))
            continue
        for begin_item, end_item in _stretches(small, counts, start, stop):
            taken = int(counts[begin_item:end_item].sum())
            chosen.append((int(first[begin_item]), taken, begin_item, begin, end, 0, 0, SHARED_RANGE))
    if saved <= machine.launch_us:
        return [], None
    if not small.all():
        left[~small] = 0
    return chosen, left


def _stretches(small: np.ndarray, counts: np.ndarray, begin: int, end: int) -> list[tuple[int, int]]:
    """Ranges of requests between those that take no part: only within these are tokens neighbours."""
    edges = [begin - 1, *(begin + np.flatnonzero(~small[begin:end] & (counts[begin:end] > 0))).tolist(), end]
    return [
        (before + 1, edge) for before, edge in pairwise(edges) if edge > before + 1 and counts[before + 1 : edge].any()
    ]
