"""A cache that shares nothing, with the interface of ``PrefixCache``: for engines to compare with.

Every sequence computes all of its tokens into pages of its own, and its end frees them.
"""

from radix.cache import PrefixCache
from radix.hashing import Key
from radix.inflight import Ticket
from radix.lease import Lease


class UnsharedCache(PrefixCache):
    """Nothing is ever inserted into the tree, so nothing is found, waited for or evicted."""

    def key(self, tokens: bytes, tenant: str = "", namespace: str = "") -> Key:
        """A key without digests: they would find nothing. O(tokens)."""
        return self.keys.undigested(tokens, tenant, namespace)

    def match(self, ticket: Ticket) -> None:
        """There is nothing to be found."""
        self.frontiers.place(ticket, 0)

    def schedule(self, lease: Lease, planned: int) -> None:
        """Nobody else may read what the step writes."""
        lease.require_open()
        self._check_count(lease, planned)

    def publish(self, lease: Lease, computed: int) -> None:
        """Only remembers how far the lease is."""
        lease.require_open()
        self._check_count(lease, computed)
        lease.computed = computed

    def release(self, lease: Lease, keep_tail: bool = False) -> None:
        """All pages are free again, the partly filled one too."""
        super().release(lease, keep_tail=False)
