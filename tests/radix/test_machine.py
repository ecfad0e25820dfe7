"""Random actions on the cache against a model that remembers what was written into every page."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from radix.cache import PrefixCache
from radix.lease import Lease
from tests.radix.strategies import BLOCK_HASHES, pack

TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=14)


class CacheMachine(RuleBasedStateMachine):
    """``written``: (page, offset) -> namespace and all tokens up to that position, as KV depends on them."""

    @initialize(pages=st.integers(1, 16), page_size=st.integers(1, 4), block_hash=st.sampled_from(sorted(BLOCK_HASHES)))
    def build(self, pages: int, page_size: int, block_hash: str) -> None:
        self.cache = PrefixCache(pages, page_size, block_hash=BLOCK_HASHES[block_hash])
        self.leases: list[Lease] = []
        self.written: dict[tuple[int, int], tuple[str, bytes]] = {}

    @rule(tokens=TOKENS, namespace=st.sampled_from(["", "a"]))
    def acquire(self, tokens: list[int], namespace: str) -> None:
        key = self.cache.key(pack(tokens), namespace)
        peeked = self.cache.peek(key)
        lease = self.cache.acquire(key)
        assert lease.cached <= peeked <= len(tokens)
        if self.cache.block_hash is BLOCK_HASHES["xxh3"]:
            assert lease.cached == peeked
        self.leases.append(lease)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), pages=st.integers(0, 5))
    def extend(self, data: st.DataObject, pages: int) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        before, available = list(lease.pages), self.cache.available
        assert self.cache.extend(lease, pages) == (pages <= available)
        assert lease.pages[: len(before)] == before
        assert len(lease.pages) == len(before) + (pages if pages <= available else 0)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), count=st.integers(1, 9))
    def compute(self, data: st.DataObject, count: int) -> None:
        """Write some tokens and publish them."""
        lease = data.draw(st.sampled_from(self.leases))
        size = self.cache.page_size
        end = min(lease.computed + count, len(lease.key), len(lease.pages) * size)
        for position in range(lease.computed, end):
            page = lease.pages[position // size]
            for other in self.leases:
                assert other is lease or page not in other.pages, f"page {page} is written by one and held by two"
            prefix = bytes(lease.key.tokens[: 4 * position + 4])
            self.written[page, position % size] = (lease.key.namespace, prefix)
        self.cache.publish(lease, end)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), tokens=TOKENS)
    def grow(self, data: st.DataObject, tokens: list[int]) -> None:
        """The sequence gets more tokens."""
        lease = data.draw(st.sampled_from(self.leases))
        lease.key.tokens += pack(tokens[:3])

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), keep_tail=st.booleans())
    def release(self, data: st.DataObject, keep_tail: bool) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        self.leases.remove(lease)
        whole, private = lease.published, set(lease.private_pages)
        free = self.cache.stats().free
        self.cache.release(lease, keep_tail)
        freed = self.cache.stats().free - free
        assert freed in ({len(private), len(private) - 1} if keep_tail and lease.computed else {len(private)})
        assert lease.published == whole

    @invariant()
    def whole(self) -> None:
        self.cache.check()

    @invariant()
    def right_content(self) -> None:
        """Whatever a lease has computed or found is, cell by cell, what its own tokens would have written."""
        size = self.cache.page_size
        for lease in self.leases:
            for position in range(lease.computed):
                cell = self.written[lease.pages[position // size], position % size]
                assert cell == (lease.key.namespace, bytes(lease.key.tokens[: 4 * position + 4]))

    def teardown(self) -> None:
        for lease in getattr(self, "leases", []):
            self.cache.release(lease)
            self.cache.check()
        if hasattr(self, "cache"):
            stats = self.cache.stats()
            assert stats.private == 0 and stats.evictable == stats.cached
            lease = self.cache.acquire(self.cache.key(pack([9])))
            assert self.cache.extend(lease, stats.total), "everything can be evicted"
            assert self.cache.stats().nodes == 0
            self.cache.check()


TestCache = CacheMachine.TestCase
TestCache.settings = settings(max_examples=250, stateful_step_count=40)
