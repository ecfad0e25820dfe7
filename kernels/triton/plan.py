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
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import TypeVar

import numpy as np

from kernels.prefix_runs import PrefixRun
from kernels.triton.shared_ranges import LEAST_WIDE_SPLIT, Item, choose_ranges
from kernels.triton.shared_ranges import SHARED_RANGE as SHARED_RANGE
from kernels.triton.shared_ranges import SHARING_ROWS as SHARING_ROWS

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
INNER_PART = 2
OPEN_END = 2**31 - 1

NARROW_ROWS = 32
"""Items of at most this many rows are narrow: bound by reading keys, whatever the tile."""
SPLIT_KEYS = 64
"""Splits are multiples of this many keys, a tile of the kernels."""
LEAST_NARROW_SPLIT = 128
_CUTS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


_TOKENS = itemgetter(1)
Lengths = TypeVar("Lengths", int, np.ndarray)


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


_H200 = Machine()


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
    machine = machine or _H200
    group = heads.group
    if not 1 <= group <= machine.most_wide_rows:
        raise ValueError(f"{group} query heads per KV head")
    counts = np.asarray(counts, np.int64)
    first = counts.cumsum() - counts
    shared, left = choose_ranges(counts, first, runs, heads, machine) if runs else ([], None)
    own = _own_items(counts, np.asarray(starts, np.int64), first, left)

    most_own = _most(own[:, 1])
    most_rows = max(most_own, *map(_TOKENS, shared), 0) * group
    wide_rows = min(64, machine.most_wide_rows) if most_rows <= 64 else machine.most_wide_rows
    per_tile, narrow_tokens = wide_rows // group, NARROW_ROWS // group
    own_wide, own_narrow = own[:0], own
    if most_own > narrow_tokens:
        is_wide = own[:, 1] > narrow_tokens
        own_wide, own_narrow = _tiles(own[is_wide], per_tile), own[~is_wide]
    wide_ranges = [item for item in shared if item[1] > narrow_tokens]
    narrow_ranges = [item for item in shared if item[1] <= narrow_tokens]
    wide = _cut(wide_ranges, own_wide, per_tile, lambda length: _wide_split(length, wide_rows, heads, machine))
    narrow = _cut(narrow_ranges, own_narrow, per_tile, lambda length: _narrow_split(length, heads, machine))
    most_narrow = max(_most(own_narrow[:, 1]), *map(_TOKENS, narrow_ranges), 0)
    items = np.concatenate([wide, narrow]) if len(wide) else narrow
    merge_tokens, merge_begin, merge_slots = _take_slots(items)
    items = _longest_first(items, len(wide))
    return WorkItems(
        wide=items[: len(wide)],
        narrow=items[len(wide) :],
        wide_rows=wide_rows,
        narrow_rows=16 if most_narrow * group <= 16 else NARROW_ROWS,
        merge_tokens=merge_tokens,
        merge_begin=merge_begin,
        merge_slots=merge_slots,
    )


def _own_items(counts: np.ndarray, starts: np.ndarray, first: np.ndarray, left: np.ndarray | None) -> np.ndarray:
    """An item for each request with tokens, of the keys from ``left`` [requests] on."""
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
    return own


def _most(numbers: np.ndarray) -> int:
    """The largest, 0 of none."""
    return int(np.maximum.reduce(numbers, initial=0))


def _expand(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of each repetition's original, and its place among the repetitions of that."""
    at = np.arange(len(times)).repeat(times)
    return at, np.arange(len(at)) - (times.cumsum() - times).take(at)


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


def _cut(shared: list[Item], own: np.ndarray, per_tile: int, most_keys: Callable[[np.ndarray], int]) -> np.ndarray:
    """Items of one kernel: shared ranges, cut into tiles of tokens, and requests' own ranges, all of them cut into
    parts of at most so many keys as ``most_keys`` says of their lengths."""
    length = own[:, 4] - own[:, 3]
    if shared:
        tiles = [item[4] - item[3] for item in shared for _ in range(0, item[1], per_tile)]
        length = np.concatenate([np.array(tiles, np.int32), length])
    if len(length) == 0:
        return own
    chunk = most_keys(length)
    parts = _split(own, chunk)
    if shared:
        fields = chain.from_iterable(_shared_parts(shared, per_tile, chunk))
        parts = np.concatenate([np.fromiter(fields, np.int32).reshape(-1, 8), parts])
    return parts


def _equal_parts(less: Lengths, chunk: int) -> tuple[Lengths, Lengths]:
    """Into how many parts of how many keys a range is cut: equal ones, rather than full ones and a rest. ``less`` is
    its length below zero, since floor division then rounds lengths up."""
    pieces = -(less // chunk)
    piece = less // (pieces * SPLIT_KEYS) * -SPLIT_KEYS
    return -(less // piece), piece


def _shared_parts(shared: list[Item], per_tile: int, chunk: int) -> list[Item]:
    """Cut shared ranges into tiles of tokens, and these into parts of keys."""
    parts: list[Item] = []
    for item in shared:
        token0, tokens, request, begin, end = item[:5]
        if tokens <= per_tile and end - begin <= chunk:
            parts.append(item)
            continue
        _, piece = _equal_parts(begin - end, chunk)
        keys = [
            (at, min(at + piece, end), SHARED_RANGE | INNER_PART * (at + piece < end))
            for at in range(begin, end, piece)
        ]
        parts += [
            (token0 + at, min(per_tile, tokens - at), request, first, last, 0, 0, flags)
            for at in range(0, tokens, per_tile)
            for first, last, flags in keys
        ]
    return parts


def _split(own: np.ndarray, chunk: int) -> np.ndarray:
    """Cut requests' own ranges into parts of keys; parts get a slot (a number that is not -1)."""
    less = own[:, 3] - own[:, 4]
    if len(own) == 0 or int(np.minimum.reduce(less)) >= -chunk:
        return own
    pieces, piece = _equal_parts(less, chunk)
    at, place = _expand(pieces)
    parts = own.take(at, 0)
    pieces, piece = pieces.take(at), piece.take(at)
    parts[:, 3] += place * piece
    np.minimum(parts[:, 4], parts[:, 3] + piece, out=parts[:, 4])
    parts[pieces > 1, 6] = 0
    parts[place < pieces - 1, 7] |= INNER_PART
    return parts


def _take_slots(items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number the slots of all items that have some, in place, and return the merge's compressed rows: tokens, where
    each one's slots begin, slots."""
    having = (items[:, 6] >= 0).nonzero()[0]
    if len(having) == 0:
        return np.zeros(0, np.int32), np.zeros(1, np.int32), np.zeros(0, np.int32)
    tokens = items[:, 1].take(having)
    first = tokens.cumsum(dtype=np.int32)
    first -= tokens
    items[:, 6][having] = first
    token = (items[:, 0].take(having) - first).repeat(tokens)
    token += np.arange(len(token), dtype=np.int32)
    per_token = np.bincount(token)
    rows = per_token.nonzero()[0]
    begins = np.zeros(len(rows) + 1, np.int32)
    per_token.take(rows).cumsum(out=begins[1:])
    order = (token.astype(np.uint16) if len(per_token) <= 65536 else token).argsort(kind="stable")
    return rows.astype(np.int32), begins, order.astype(np.int32)


def _longest_first(items: np.ndarray, wide: int) -> np.ndarray:
    """The wide items and then the narrow ones, each sorted by length; the last parts of causal items become
    open-ended."""
    # 16-bit keys are sorted by radix; 2^21 keys and more count as equally long. Wide items are below the range of the
    # narrow ones, and both wrap around to one range.
    tiles = np.maximum((items[:, 3] - items[:, 4]) // SPLIT_KEYS, -32768)
    tiles[:wide] -= 32768
    items = items.take(tiles.astype(np.uint16).argsort(kind="stable"), 0)
    np.putmask(items[:, 4], items[:, 7] == 0, OPEN_END)
    return items


def _narrow_split(length: np.ndarray, heads: Heads, machine: Machine) -> int:
    """Keys per item so that items of about equal length fill the chip. Reading is bound by memory, not by the number
    of programs, so a last wave that is not full costs little, one program on each SM keeps the memory busy, and the
    mean is enough."""
    mean = int(np.add.reduce(length, dtype=np.int64)) * heads.kv_heads / machine.sms
    chunk = max(LEAST_NARROW_SPLIT, -(-int(mean) // SPLIT_KEYS) * SPLIT_KEYS)
    longest = _most(length)
    # Not where the longest item would be done before a merge could have been started.
    spared_us = (longest - chunk) * heads.bytes_per_key / heads.kv_heads / machine.program_bytes_per_s * 1e6
    return chunk if spared_us > machine.launch_us else longest


def _wide_split(length: np.ndarray, wide_rows: int, heads: Heads, machine: Machine) -> int:
    """Keys per item for tiles that are bound by matrix multiplication: of a few candidates the one with the shortest
    predicted time. Waves are counted: a last wave that is not full takes as long as a full one."""
    # As many share an SM as registers and shared memory allow.
    programs = machine.sms * (2 if heads.head_dim <= 64 or wide_rows == 64 else 1)
    items, longest = len(length), _most(length)
    mean = int(np.add.reduce(length, dtype=np.int64)) * heads.kv_heads / programs
    us_per_key = wide_rows * 4 * heads.head_dim * programs / machine.matmul_flop_per_s * 1e6  # of one program
    us_per_part = wide_rows / heads.group * heads.merge_bytes_per_token / machine.copy_bytes_per_s * 1e6
    most_cuts = longest / max(LEAST_WIDE_SPLIT, mean / 4)
    cuts = [1, *(cut for cut in _CUTS if cut <= most_cuts)]
    chunks = [-(-longest // (cut * SPLIT_KEYS)) * SPLIT_KEYS for cut in cuts]
    all_parts = np.add.reduce(-(-length[:, None] // np.array(chunks)), 0).tolist()
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
