"""Who pays for which pages: one account a tenant, with a quota; one for everything public. Knows no nodes and no order.

    used = cached (in the tree, under the tenant's namespaces) + private (held by the tenant's leases, not in the tree)

A quota has two marks. Up to ``watermark`` a tenant's cached pages are everybody's equals in eviction. Above it they
are the first to go whenever anybody needs pages. Above ``limit`` the tenant gets no page at all: its own cached pages
are evicted first, down to the watermark, and where none is left to evict it is refused.
"""

import msgspec

from radix.errors import CacheError


class Quota(msgspec.Struct, frozen=True):
    """Pages. ``limit`` 0: none. ``watermark`` 0: nine tenths of the limit."""

    limit: int = 0
    watermark: int = 0

    def __post_init__(self) -> None:
        if self.limit < 0 or not 0 <= self.watermark <= self.limit:
            raise CacheError(f"a quota of {self.limit} pages cannot have its watermark at {self.watermark}")


class Account:
    """Pages of one tenant as they stand. ``evictable`` is the part of ``cached`` that nobody holds."""

    __slots__ = ("cached", "evictable", "leases", "limit", "name", "private", "watermark")

    def __init__(self, name: str, quota: Quota | None = None) -> None:
        self.name = name
        self.cached = 0
        self.private = 0
        self.evictable = 0
        self.leases = 0
        self.limit = 0
        self.watermark = 0
        self.set(quota or Quota())

    def set(self, quota: Quota) -> None:
        """Change the quota; what is over it is not taken away at once, it goes first."""
        self.limit = quota.limit
        self.watermark = quota.watermark or quota.limit * 9 // 10

    @property
    def used(self) -> int:
        """Pages that count against the quota."""
        return self.cached + self.private

    @property
    def excess(self) -> int:
        """Pages above the watermark."""
        return self.cached + self.private - self.watermark if self.limit else 0

    @property
    def idle(self) -> bool:
        """Nothing would be lost by forgetting it."""
        return not (self.cached or self.private or self.leases or self.limit)
