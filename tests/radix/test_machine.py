"""Random actions on the cache against a model that remembers what was written into every page, and by whom.

Steps run in the order in which they are planned: ``schedule`` writes at once in the model, ``publish`` says later that
it went well, ``retract`` that it did not.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from radix.accounts import Quota
from radix.cache import PrefixCache
from radix.errors import CacheError, PinError
from radix.inflight import Ticket
from radix.lease import Lease
from radix.policies import POLICIES
from radix.snapshot import Viewer
from tests.radix.strategies import BLOCK_HASHES, pack

TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=14)
TENANTS = st.sampled_from(["", "a", "b"])


class CacheMachine(RuleBasedStateMachine):
    """``written``: (page, offset) -> tenant, namespace and all tokens up to that position, as KV depends on them."""

    @initialize(
        pages=st.integers(1, 16),
        page_size=st.integers(1, 4),
        pin_pages=st.integers(0, 6),
        block_hash=st.sampled_from(sorted(BLOCK_HASHES)),
        policy=st.sampled_from(sorted(POLICIES)),
    )
    def build(self, pages: int, page_size: int, pin_pages: int, block_hash: str, policy: str) -> None:
        self.cache = PrefixCache(
            pages, page_size, block_hash=BLOCK_HASHES[block_hash], pin_pages=pin_pages, policy=policy
        )
        self.exact = block_hash == "xxh3"
        self.leases: list[Lease] = []
        self.names: dict[int, str] = {}
        self.planned: dict[int, int] = {}
        self.flights: dict[int, list[int]] = {}  # ends of the steps in flight, by lease
        self.tickets: list[Ticket] = []
        self.written: dict[tuple[int, int], tuple[str, str, bytes]] = {}
        self.prompts: set[bytes] = set()
        self.pin_names: list[str] = []

    # ------------------------------------------------------------------ leases

    @rule(tokens=TOKENS, tenant=TENANTS, namespace=st.sampled_from(["", "n"]))
    def acquire(self, tokens: list[int], tenant: str, namespace: str) -> None:
        key = self.cache.key(pack(tokens), tenant, namespace)
        peeked = self.cache.peek(key)
        lease = self.cache.acquire(key)
        assert lease.cached <= peeked <= len(tokens)
        if self.exact:
            assert lease.cached == peeked
        self.leases.append(lease)
        self.names[id(lease)] = namespace
        self.planned[id(lease)] = lease.cached
        self.flights[id(lease)] = []
        for block in range(lease.cached // self.cache.page_size):
            self._may_read(lease, block)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), pages=st.integers(0, 5))
    def extend(self, data: st.DataObject, pages: int) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        before, room = list(lease.pages), self.cache.room(lease.key.tenant)
        expected = pages <= room and pages <= self.cache.available
        assert self.cache.extend(lease, pages) == (expected or pages == 0)
        assert list(lease.pages[: len(before)]) == before
        assert len(lease.pages) == len(before) + (pages if expected else 0)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), count=st.integers(1, 9))
    def compute(self, data: st.DataObject, count: int) -> None:
        """Write some tokens and publish them."""
        lease = data.draw(st.sampled_from(self.leases))
        if not self.flights[id(lease)]:
            self.cache.publish(lease, self._write(lease, count))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), count=st.integers(1, 9))
    def schedule(self, data: st.DataObject, count: int) -> None:
        """A step is planned that writes some tokens."""
        lease = data.draw(st.sampled_from(self.leases))
        end = self._write(lease, count)
        self.cache.schedule(lease, end)
        self.flights[id(lease)].append(end)

    @precondition(lambda self: any(self.flights.values()))
    @rule(data=st.data())
    def step_done(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from([lease for lease in self.leases if self.flights[id(lease)]]))
        self.cache.publish(lease, self.flights[id(lease)].pop(0))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def step_failed(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        fallen = self.cache.retract(lease)
        assert lease not in fallen
        for gone in [lease, *fallen]:
            assert gone.released
            self._drop(gone)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), tokens=TOKENS)
    def grow(self, data: st.DataObject, tokens: list[int]) -> None:
        """The sequence gets more tokens."""
        lease = data.draw(st.sampled_from(self.leases))
        lease.key.extend(pack(tokens[:3]))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), keep_tail=st.booleans())
    def release(self, data: st.DataObject, keep_tail: bool) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        if lease.pending:
            return
        whole, private = lease.published, set(lease.private_pages)
        free = self.cache.stats().free
        self.cache.release(lease, keep_tail)
        self._drop(lease)
        freed = self.cache.stats().free - free
        assert freed in ({len(private), len(private) - 1} if keep_tail and lease.computed else {len(private)})
        assert lease.published == whole

    # ------------------------------------------------------------------ waiting

    @rule(tokens=TOKENS, tenant=TENANTS)
    def wait(self, tokens: list[int], tenant: str) -> None:
        self.tickets.append(self.cache.ticket(self.cache.key(pack(tokens), tenant)))

    @rule(tenant=TENANTS)
    def match_one(self, tenant: str) -> None:
        ticket = self.cache.frontiers.take(tenant)
        if ticket is not None:
            assert ticket in self.tickets and ticket.lane == tenant
            self.cache.match(ticket)
            assert ticket.matched and ticket.cached == self.cache.peek(ticket.key)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def forget_ticket(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.tickets))
        self.tickets.remove(ticket)
        self.cache.frontiers.drop(ticket)

    # ------------------------------------------------------------------ tenants, prompts, pins

    @rule(tenant=TENANTS, limit=st.integers(0, 10), gap=st.integers(0, 3))
    def set_quota(self, tenant: str, limit: int, gap: int) -> None:
        self.cache.set_quota(tenant, Quota(limit, max(limit - gap, 0)))

    @rule(tokens=TOKENS)
    def register(self, tokens: list[int]) -> None:
        try:
            self.cache.register(pack(tokens))
            self.prompts.add(pack(tokens))
        except CacheError:
            assert len(tokens) < self.cache.page_size

    @precondition(lambda self: self.prompts)
    @rule(data=st.data())
    def unregister(self, data: st.DataObject) -> None:
        prompt = data.draw(st.sampled_from(sorted(self.prompts)))
        assert self.cache.unregister(prompt)
        assert not self.cache.unregister(prompt)
        self.prompts.remove(prompt)

    @rule(tokens=TOKENS, tenant=TENANTS, hard=st.booleans())
    def pin(self, tokens: list[int], tenant: str, hard: bool) -> None:
        name = f"pin {len(self.pin_names)} {len(self.cache.pins.pins)} {self.cache.stats().leases}"
        try:
            self.cache.pin(name, self.cache.key(pack(tokens), tenant), hard)
            self.pin_names.append(name)
        except PinError:
            pass

    @precondition(lambda self: self.pin_names)
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.pin_names))
        self.pin_names.remove(name)
        self.cache.unpin(name)

    @rule(tenant=TENANTS, everything=st.booleans(), limit=st.integers(0, 5))
    def look(self, tenant: str, everything: bool, limit: int) -> None:
        view = self.cache.snapshot(Viewer(tenant, everything), limit)
        assert len(view.nodes) <= limit
        seen = set()
        for node in view.nodes:
            assert node.parent == 0 or node.parent in seen, "a child comes before its parent"
            seen.add(node.id)
            assert everything or node.tenant in (None, tenant)
            assert not node.preview or node.tenant in (None, tenant)
        assert everything or view.other_pages == 0

    # ------------------------------------------------------------------ what must hold

    @invariant()
    def whole(self) -> None:
        self.cache.check()

    @invariant()
    def right_content(self) -> None:
        """Whatever a lease has computed or found is, cell by cell, what its own tokens would have written."""
        size = self.cache.page_size
        for lease in self.leases:
            for position in range(self.planned[id(lease)]):
                cell = self.written[lease.pages[position // size], position % size]
                assert cell[2] == lease.key.tokens(0, position + 1)

    @invariant()
    def nobody_waits_for_what_is_there(self) -> None:
        """A matched ticket's next block is not in the tree (with a good hash): else it would have been woken."""
        if not self.exact:
            return
        for ticket in self.tickets:
            if ticket.matched and ticket.group is not None:
                assert self.cache.peek(ticket.key) // self.cache.page_size <= max(
                    ticket.cached // self.cache.page_size,
                    ticket.producer.published if ticket.producer is not None else 0,
                )

    def teardown(self) -> None:
        if not hasattr(self, "cache"):
            return
        for lease in list(self.leases):
            if lease.released:
                continue
            for end in self.flights[id(lease)]:
                self.cache.publish(lease, end)
            self.cache.release(lease)
            self.cache.check()
        for name in self.pin_names:
            self.cache.unpin(name)
        for tenant in ("", "a", "b"):
            self.cache.set_quota(tenant, Quota())
        for ticket in self.tickets:
            self.cache.frontiers.drop(ticket)
        for tenant in ("", "a", "b"):
            assert self.cache.frontiers.take(tenant) is None
        self.cache.check()
        stats = self.cache.stats()
        assert stats.private == stats.pending == stats.producers == stats.pinned == 0
        assert stats.evictable == stats.cached
        assert not self.cache.frontiers.watched and not self.cache.frontiers.frontiers
        lease = self.cache.acquire(self.cache.key(pack([9])))
        assert self.cache.extend(lease, stats.total), "everything can be evicted"
        assert self.cache.stats().nodes == 0
        self.cache.check()
        self.cache.release(lease)
        assert set(self.cache.books.accounts) == {"\0public"} and not self.cache.tree.roots

    # ------------------------------------------------------------------

    def _write(self, lease: Lease, count: int) -> int:
        size = self.cache.page_size
        planned = self.planned[id(lease)]
        end = min(planned + count, len(lease.key), len(lease.pages) * size)
        for position in range(planned, end):
            page = lease.pages[position // size]
            for other in self.leases:
                assert other is lease or page not in other.pages, f"page {page} is written by one and held by two"
            prefix = lease.key.tokens(0, position + 1)
            self.written[page, position % size] = (lease.key.tenant, self.names[id(lease)], prefix)
        end = max(end, planned)
        self.planned[id(lease)] = end
        return end

    def _may_read(self, lease: Lease, block: int) -> None:
        """What was found is public text, or was written within the same tenant and namespace."""
        size = self.cache.page_size
        tenant, namespace, _ = self.written[lease.pages[block], size - 1]
        mine = (tenant, namespace) == (lease.key.tenant, self.names[id(lease)])
        assert mine or block < lease.key.public_blocks
        if block < lease.key.public_blocks:
            text = lease.key.tokens(0, (block + 1) * size)
            assert any(prompt.startswith(text) for prompt in self.prompts), "private text is shared as if public"

    def _drop(self, lease: Lease) -> None:
        self.leases.remove(lease)
        del self.names[id(lease)], self.planned[id(lease)], self.flights[id(lease)]


TestCache = CacheMachine.TestCase
TestCache.settings = settings(max_examples=300, stateful_step_count=50)
