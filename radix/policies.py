"""Eviction policies by name: each ranks leaves; the order around the rank is ``eviction.py``'s.

Hit rates of all of them on request traces: ``python -m benchmarks.eviction``; the default is the one that lost to plain
LRU nowhere where it matters (docs/design.md).
"""

from array import array
from collections.abc import Callable, Sequence
from typing import Protocol

from radix.tree import Node


class EvictionPolicy(Protocol):
    """The one seam of the policy. Lowest rank goes first; it is asked for when a leaf becomes evictable, and the answer
    stands while it stays so."""

    def rank(self, node: Node) -> float:
        """Of a leaf that nobody holds."""
        ...

    def matched(self, blocks: int) -> None:
        """A lease found ``blocks`` blocks in the tree."""
        ...

    def inserted(self, digests: Sequence[int]) -> tuple[int, bool]:
        """Blocks are new in the tree: how many of them, from the first on, are alike, and whether these have been here
        before and were missed. The rest is asked for again."""
        ...

    def evicted(self, node: Node, blocks: int, rank: float) -> None:
        """The last ``blocks`` blocks (a tail: 0) of a leaf that was given ``rank`` are about to go."""
        ...


class LeastRecentlyUsed:
    """Whoever was let go longest ago goes first."""

    def rank(self, node: Node) -> float:
        """``last_use`` itself."""
        return node.last_use

    def matched(self, blocks: int) -> None:
        """Nothing is learned."""

    def inserted(self, digests: Sequence[int]) -> tuple[int, bool]:
        """All alike."""
        return len(digests), False

    def evicted(self, node: Node, blocks: int, rank: float) -> None:
        """Nothing is learned."""


class FrequencyWithAgeing(LeastRecentlyUsed):
    """LFU with dynamic ageing (Arlitt et al., 2000): hits, plus the rank of what was evicted last."""

    def __init__(self) -> None:
        self._age = 0.0

    def rank(self, node: Node) -> float:
        """Hits above the age."""
        return self._age + 1 + node.hits

    def evicted(self, node: Node, blocks: int, rank: float) -> None:
        """The age is the rank of what went last."""
        self._age = max(self._age, rank)


class CostWithAgeing(FrequencyWithAgeing):
    """GreedyDual-Size-Frequency (Cherkasova, 1998): hits times what a block costs to compute again, plus the age. All
    blocks are of one size, and one is the dearer the more tokens it attends to."""

    _ATTENTION = 0.02  # of a block's other work, for each block before it

    def rank(self, node: Node) -> float:
        """Hits and depth above the age."""
        return self._age + (1 + node.hits) * (1 + self._ATTENTION * node.end)


class SecondLife:
    """LRU, with one more lifetime for whatever was used again or came back after it had been evicted.

    ``rank = last_use + bonus`` for proven blocks, ``last_use`` for others. The bonus is the idle time after which
    blocks are evicted lately, as long as evictions are regretted: it fades with the share of matches that are blocks
    coming back, so that a large cache is plain LRU. What was evicted is remembered by half of its digest in a table of
    4 bytes a page, in which a newer one simply takes an older one's place.
    """

    _SMOOTH = 0.01
    _REGRET = 4.0

    def __init__(self, pages: int) -> None:
        self._pages = pages
        self._ghosts: array[int] = array("I", bytes(4 * pages))
        self._clock = 0
        self._idle = 0.0
        self._returned = 0.0
        self._matched = 1.0

    def rank(self, node: Node) -> float:
        """Last use, later for what is proven."""
        self._clock = max(self._clock, node.last_use)
        if not node.hits:
            return node.last_use
        return node.last_use + self._idle * min(1.0, self._REGRET * self._returned / self._matched)

    def matched(self, blocks: int) -> None:
        """Count; half of everything is forgotten when as many blocks were matched as there are pages."""
        self._matched += blocks
        if self._matched > self._pages:
            self._matched /= 2
            self._returned /= 2

    def inserted(self, digests: Sequence[int]) -> tuple[int, bool]:
        """A run of blocks that were all remembered, or all not."""
        ghosts, size = self._ghosts, self._pages
        first = ghosts[digests[0] % size] == digests[0] >> 32
        count = 0
        for digest in digests:
            place = digest % size
            if (ghosts[place] == digest >> 32) != first:
                break
            if first:
                ghosts[place] = 0
            count += 1
        if first:
            self._returned += count
        return count, first

    def evicted(self, node: Node, blocks: int, rank: float) -> None:
        """Remember the digests, and how long they had been idle."""
        ghosts, size = self._ghosts, self._pages
        for digest in node.digests[len(node.digests) - blocks :]:
            ghosts[digest % size] = digest >> 32
        keep = (1 - self._SMOOTH) ** blocks
        self._idle = self._idle * keep + (self._clock - node.last_use) * (1 - keep)


DEFAULT = "second-life"

POLICIES: dict[str, Callable[[int], EvictionPolicy]] = {
    "lru": lambda pages: LeastRecentlyUsed(),
    "lfu-ageing": lambda pages: FrequencyWithAgeing(),
    "cost-ageing": lambda pages: CostWithAgeing(),
    DEFAULT: SecondLife,
}
"""By name; a policy is told the number of pages."""
