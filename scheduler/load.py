"""Counters of scheduler and cache, as one frozen record."""

import msgspec


class Load(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """State after a step; the token counters, preemptions and evicted pages are totals since start.

    ``pages_free`` + ``pages_cached`` + ``pages_private`` is the pool. ``cached_tokens`` are prompt tokens found in
    the cache when a request first ran; ``computed_tokens`` counts every token that went through the model, recomputed
    ones again.
    """

    steps: int
    running: int
    waiting: int
    pages_free: int
    pages_cached: int
    pages_private: int
    prompt_tokens: int
    cached_tokens: int
    computed_tokens: int
    output_tokens: int
    preemptions: int
    evicted_pages: int


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
