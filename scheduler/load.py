"""Counters of scheduler and cache, as one frozen record."""

import msgspec

from radix.stats import CacheStats, TokenCounts


class Load(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """State after a step; the token counters, preemptions and evicted pages are totals since start.

    ``pages_free`` + ``pages_cached`` + ``pages_private`` is the pool; of the cached ones ``pages_evictable`` are held
    by nobody and ``pages_pending`` are being written. ``pages_pinned``: what pins ask for. ``cached_tokens`` are prompt
    tokens found in the cache when a request first ran, by class in ``hits``, what was not found in ``misses``;
    ``computed_tokens`` counts every token that went through the model, recomputed ones again.
    """

    steps: int = 0
    running: int = 0
    waiting: int = 0
    pages_free: int = 0
    pages_cached: int = 0
    pages_private: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    computed_tokens: int = 0
    output_tokens: int = 0
    preemptions: int = 0
    evicted_pages: int = 0
    pages_evictable: int = 0
    pages_pending: int = 0
    pages_pinned: int = 0
    pages_pinned_hard: int = 0
    evicted_for_quota: int = 0
    refused_for_quota: int = 0
    hits: TokenCounts = TokenCounts()
    misses: TokenCounts = TokenCounts()


class Totals:
    """The counters as they grow."""

    __slots__ = ("cached_tokens", "computed_tokens", "output_tokens", "preemptions", "prompt_tokens", "steps")

    def __init__(self) -> None:
        self.steps = 0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.computed_tokens = 0
        self.output_tokens = 0
        self.preemptions = 0

    def load(self, running: int, waiting: int, pages: CacheStats) -> Load:
        """The record as it stands."""
        return Load(
            steps=self.steps,
            running=running,
            waiting=waiting,
            pages_free=pages.free,
            pages_cached=pages.cached,
            pages_private=pages.private,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            computed_tokens=self.computed_tokens,
            output_tokens=self.output_tokens,
            preemptions=self.preemptions,
            evicted_pages=pages.evicted,
            pages_evictable=pages.evictable,
            pages_pending=pages.pending,
            pages_pinned=pages.pinned,
            pages_pinned_hard=pages.pinned_hard,
            evicted_for_quota=pages.evicted_for_quota,
            refused_for_quota=pages.refused_for_quota,
            hits=pages.hits,
            misses=pages.misses,
        )
