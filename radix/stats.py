"""Counters of the cache as one frozen record: pages by state, tokens by class. Plain numbers; knows no nodes."""

import msgspec


class TokenCounts(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Prompt tokens by class: of the system prompt; of this conversation's earlier turns; all others, which are shared
    when they were found (somebody else's) and new when they were not."""

    system: int = 0
    history: int = 0
    shared: int = 0

    @property
    def total(self) -> int:
        """All classes together."""
        return self.system + self.history + self.shared

    def __add__(self, other: "TokenCounts") -> "TokenCounts":
        return TokenCounts(self.system + other.system, self.history + other.history, self.shared + other.shared)


def classify(tokens: int, system: int, history: int) -> TokenCounts:
    """The first ``tokens`` of a prompt by class, when ``system`` tokens are its system prompt and ``history`` tokens
    (these included) were there in an earlier turn."""
    from_system = min(tokens, system)
    from_history = max(min(tokens, history) - from_system, 0)
    return TokenCounts(from_system, from_history, tokens - from_system - from_history)


class CacheStats(msgspec.Struct, frozen=True, gc=False):
    """Pages by state, and totals since start.

    free + private + cached = total. ``private``: held by leases and not in the tree. ``cached``: in the tree, of which
    ``evictable`` are held by nobody and ``pending`` are being written by steps in flight. ``pinned``, ``pinned_hard``:
    pages that pins ask for (all, hard). ``evicted``: pages; ``evicted_for_quota``: of these, to keep a tenant within
    its quota. ``refused_for_quota``: calls of ``extend`` that a quota refused. ``hits``, ``misses``: prompt tokens.
    """

    total: int
    free: int
    cached: int
    private: int
    evictable: int
    pending: int
    pinned: int
    pinned_hard: int
    evicted: int
    evicted_for_quota: int
    refused_for_quota: int
    nodes: int
    leases: int
    producers: int
    hits: TokenCounts
    misses: TokenCounts


class TenantPages(msgspec.Struct, frozen=True, gc=False):
    """Pages of one tenant (``tenant`` None: public). ``cached`` + ``private`` count against ``limit`` (0: none)."""

    tenant: str | None
    cached: int
    private: int
    evictable: int
    limit: int
    watermark: int
