"""PrefixCache: which KV page holds which tokens. The only entrance; copies nothing, knows no requests, no time.

Every page is at any moment in exactly one place::

    free  --extend-->  private to a lease  --schedule, publish-->  in the tree  --evict (inside extend)-->  free
                              |                                       |    ^
                              `------release--> free                  `----+  acquire locks, release unlocks
                              `------release--> tail in the tree (partly filled) --acquire--> private to one lease

Steps run in the order in which they are planned. So a block may be inserted as soon as a step that writes it is
planned (``schedule``), and whoever acquires it after that reads what was written before: in the same step or a later
one. Should that step fail, ``retract`` takes back what it was to write and everybody who built on it.
"""

from array import array
from collections.abc import Iterator
from itertools import chain

from radix.accounts import Quota
from radix.books import Books
from radix.check import check_cache
from radix.errors import CacheError, LeaseError, PinError
from radix.eviction import EvictionOrder
from radix.hashing import BlockHash, Key, xxh3
from radix.inflight import Frontiers, Ticket
from radix.insertion import Insertion
from radix.keys import Keys
from radix.lease import Lease
from radix.packing import PACKED_BYTES
from radix.pins import Pin, Pins, PinState
from radix.policies import DEFAULT, POLICIES
from radix.pool import PagePool
from radix.public import PUBLIC
from radix.reclaim import Reclaim
from radix.snapshot import Snapshot, Viewer, take_snapshot
from radix.stats import CacheStats, TenantPages, TokenCounts, classify
from radix.tree import Node, RadixTree

PIN_SHARE = 0.2
"""Default budget of pins as a share of all pages."""


class PrefixCache:
    """Pages 0..pages-1 of ``page_size`` tokens, shared by prefix.

    ``secret`` (0-64 random bytes) keys the digests, so that nobody outside can make two prompts collide;
    ``pin_pages``: budget of pins; ``policy``: a name in ``radix.policies``; ``block_hash`` is a seam for tests.
    Not thread-safe.
    """

    def __init__(
        self,
        pages: int,
        page_size: int,
        *,
        secret: bytes = b"",
        pin_pages: int | None = None,
        block_hash: BlockHash = xxh3,
        policy: str = DEFAULT,
    ) -> None:
        if page_size < 1:
            raise CacheError(f"page_size must be at least 1 token, got {page_size}")
        self.page_size = page_size
        self.pool = PagePool(pages)
        self.tree = RadixTree(page_size)
        self.order = EvictionOrder(POLICIES[policy](pages))
        self.frontiers = Frontiers()
        self.keys = Keys(page_size, secret, block_hash)
        self.public = self.keys.public
        self.pins = Pins(int(pages * PIN_SHARE) if pin_pages is None else pin_pages)
        self.leases: dict[int, Lease] = {}
        self.books = Books(self.pool)
        self.reclaim = Reclaim(self.tree, self.order, self.pool, self.books, self.pins)
        self.insertion = Insertion(self.keys, self.tree, self.order, self.books, self.frontiers)
        self._refused_for_quota = 0
        self._hits = self._misses = TokenCounts()

    # ------------------------------------------------------------------ asking

    @property
    def available(self) -> int:
        """Pages that ``extend`` can hand out now to a tenant without a quota: free and evictable."""
        return self.pool.free + self.order.pages

    def room(self, tenant: str) -> int:
        """Pages that ``extend`` can hand out now to ``tenant``."""
        return self.books.room(tenant, self.available)

    def quota(self, tenant: str) -> int:
        """Most pages that ``tenant`` can ever have."""
        return self.books.most(tenant)

    def key(self, tokens: bytes, tenant: str = "", namespace: str = "") -> Key:
        """A key for ``tokens`` (little-endian uint32), digests included. O(tokens). Raises ``CacheError``
        for half an id and for one above 2**24 - 1.

        Sequences share pages within one tenant and namespace, and with everybody as far as they begin like a registered
        public prompt.
        """
        return self.keys.make(tokens, tenant, namespace)

    def peek(self, key: Key) -> int:
        """Tokens of ``key`` that are cached now; changes nothing. O(edges on the path)."""
        path, edge, blocks = self.tree.walk(key)
        if edge is not None:
            return (edge.depth + blocks) * self.page_size
        node = path[-1] if path else self.tree.roots.get(key.root)
        if node is None:
            return 0
        tail = self.tree.tail(node, key)
        return node.end * self.page_size + (len(tail.packed) // PACKED_BYTES if tail else 0)

    def ticket(self, key: Key, owner: object = None) -> Ticket:
        """A standing for a sequence that waits; it is among the unmatched of its tenant until ``match``."""
        ticket = Ticket(key, key.tenant, owner)
        self.frontiers.enter(ticket)
        return ticket

    def match(self, ticket: Ticket) -> None:
        """Look the ticket's sequence up, and see whether a running one computes what comes next. O(edges + log)."""
        self.keys.digest(ticket.key)
        ticket.cached = self.peek(ticket.key)
        self.frontiers.place(ticket, ticket.cached // self.page_size)

    # ------------------------------------------------------------------ leases

    def acquire(self, key: Key) -> Lease:
        """Lock the longest cached prefix of ``key`` (as ``Cache.key`` makes it) and lease its pages.

        ``lease.cached`` may be the whole key; the caller then recomputes its last token without writing it. A tail
        that the key continues becomes private to this lease: it may write behind the cached tokens. O(edges + matched
        pages).
        """
        path, edge, blocks = self.tree.walk(key)
        if edge is not None:
            upper = self.tree.split(edge, blocks)
            if upper is not None:
                path.append(upper)
        pages = array("i")
        for step in path:
            step.hits += 1
            pages.extend(step.pages)
        node = path[-1] if path else self.tree.root(key.root)
        published = len(pages)
        cached = published * self.page_size
        self.order.policy.matched(published)
        self.order.lock(node)
        account = self.books.account(key.tenant)
        account.leases += 1
        tail = self.tree.tail(node, key)
        if tail is not None:
            cached += len(tail.packed) // PACKED_BYTES
            pages.extend(tail.pages)
            self.reclaim.remove(tail)
            account.private += 1
        lease = Lease(key, account, node, pages, cached, published, (published + 1) * self.page_size)
        self.leases[id(lease)] = lease
        return lease

    def extend(self, lease: Lease, pages: int) -> bool:
        """Append ``pages`` empty pages, evicting as needed; False, and nothing changed, when there are not as many or
        the tenant's quota does not allow them.

        O(pages + leaves touched * log leaves).
        """
        lease.require_open()
        if not pages:
            return True  # also for who is above a quota that was lowered
        if pages > self.available:
            return False
        account, pool = lease.account, self.pool
        if account.limit and not self.reclaim.make_quota_room(account, pages):
            self._refused_for_quota += 1
            return False
        if pages > (free := pool.free):
            self.reclaim.make_room(pages - free)
        lease.pages.extend(pool.take(pages))
        account.private += pages
        if account.limit:
            self.books.watch(account)
        return True

    def schedule(self, lease: Lease, planned: int) -> None:
        """A step that is being planned computes the lease's tokens up to ``planned``, all of them known: insert the
        full blocks as pending, so that whoever is planned from now on shares them. O(new tokens)."""
        lease.require_open()
        self._check_count(lease, planned)
        if planned >= lease.boundary:
            self.insertion.insert(lease, planned // self.page_size, pending=True)
        self.frontiers.advance(lease)

    def publish(self, lease: Lease, computed: int) -> None:
        """The first ``computed`` tokens of the lease's key are now in its pages: share the full ones. O(new tokens).

        A block that the tree has already stays with the lease as a duplicate (page tables are append-only).
        """
        # Asked for each row of each step, and most rows do not fill a page: that much first, in 0.2 us.
        if (
            lease.computed <= computed < lease.boundary
            and computed * PACKED_BYTES <= len(lease.key.packed)
            and not lease.pending
            and not lease.released
        ):
            lease.computed = computed
            return
        lease.require_open()
        self._check_count(lease, computed)
        lease.computed = computed
        if lease.pending:
            self.insertion.settle(lease, computed // self.page_size)
        if computed >= lease.boundary:
            self.insertion.insert(lease, computed // self.page_size, pending=False)
            self.frontiers.advance(lease)
        if self.pins.cold:
            self._warm_pins(lease)

    def release(self, lease: Lease, keep_tail: bool = True) -> None:
        """Give everything back. What is published stays in the tree, evictable once nobody else holds it.

        The partly filled last page is kept as a tail for the one who continues the sequence; not with
        ``keep_tail=False``, for when its content is in doubt. No step in flight may be writing for the lease, unless
        it runs before everything that is planned from now on. O(private pages).
        """
        if lease.pending:
            raise LeaseError("the lease is released while steps in flight write blocks that are in the tree")
        lease.close()
        self._forget(lease)
        node, private = lease.node, lease.pages[lease.published :]
        if lease.grows and not node.children and node.locks == 1:
            node.trim()
        whole, rest = divmod(lease.computed, self.page_size)
        if keep_tail and rest and whole == lease.published:
            start = whole * self.tree.width
            if self.insertion.hang(lease, bytes(lease.key.packed[start : start + rest * PACKED_BYTES]), private[0]):
                del private[0]
        self._free_private(lease, private)
        self.order.unlock(node)
        self.tree.prune(node)
        self._close_account(lease)

    def retract(self, lease: Lease) -> list[Lease]:
        """The steps that were writing for the lease have failed: release it, take its pending blocks out of the tree,
        and release every lease that stands on one of them. Returns those others; none of them can go on.

        O(1) without pending blocks, else O(leases * depth).
        """
        if not lease.pending:
            self.release(lease, keep_tail=False)
            return []
        first = lease.pending[0][0]
        bad = self._node_of(lease, first)
        if bad.depth < first:
            self.tree.split(bad, first - bad.depth)  # after a digest collision it stays whole, and falls whole
        fallen = [other for other in self.leases.values() if bad in self._path(other.node)]
        nodes = {node.serial: node for other in fallen for node in self._path_below(other.node, bad)}
        parent = bad.parent
        assert parent is not None  # a root has no blocks
        for other in fallen:
            other.close()
            self.insertion.pending -= sum(end - start for start, end in other.pending)
            other.pending.clear()
            self._forget(other)
            self._free_private(other, other.pages[other.published :])
        for node in nodes.values():
            self.reclaim.take_out(node)
        parent.children -= 1
        self.order.unlock(parent)
        self.tree.prune(parent)
        for other in fallen:
            self._close_account(other)
        return [other for other in fallen if other is not lease]

    def count(self, tokens: int, cached: int, system: int = 0, history: int = 0) -> None:
        """Count a request of ``tokens`` prompt tokens, ``cached`` of them found, in hits and misses by class."""
        self._hits += (hits := classify(cached, system, history))
        whole = classify(tokens, system, history)
        self._misses += TokenCounts(
            whole.system - hits.system, whole.history - hits.history, whole.shared - hits.shared
        )

    # ------------------------------------------------------------------ tenants, public prompts, pins

    def set_quota(self, tenant: str, quota: Quota) -> None:
        """Give a tenant a quota, or take it away (limit 0). O(leaves) the first time."""
        account = self.books.set_quota(tenant, quota)
        self.order.limit(account)
        self.books.close(account)

    def register(self, tokens: bytes) -> Key:
        """Make a prompt public: from now on everybody shares its whole blocks. Returns their key. Raises
        ``CacheError`` for less than a page."""
        return self.public.register(tokens)

    def unregister(self, tokens: bytes) -> bool:
        """New sequences no longer share the prompt; False when it was not registered."""
        return self.public.unregister(tokens)

    def pin(self, name: str, key: Key, hard: bool = False) -> PinState:
        """Keep the whole blocks of ``key`` once they are there. Raises ``PinError`` beyond the budget or the quota."""
        pages = len(key.digests)
        if pages > self.quota(key.tenant):
            raise PinError(f"pin {name!r} needs {pages} pages, the tenant's quota is {self.quota(key.tenant)}")
        pin = self.pins.add(name, key, hard)
        self._warm_pin(pin)
        return PinState(name, hard, pages, pin.node is not None)

    def unpin(self, name: str) -> None:
        """The pages may go like any others. Raises ``PinError`` for an unknown name."""
        pin = self.pins.remove(name)
        if pin.node is None:
            return
        if pin.hard:
            self.order.unlock(pin.node)
        else:
            pin.node.soft -= 1
            self.order.renew(pin.node)

    # ------------------------------------------------------------------ for people and tests

    def stats(self) -> CacheStats:
        """Counts as they stand. O(1)."""
        free, cached = self.pool.free, self.tree.pages
        return CacheStats(
            total=self.pool.total,
            free=free,
            cached=cached,
            private=self.pool.total - free - cached,
            evictable=self.order.pages,
            pending=self.insertion.pending,
            pinned=self.pins.pages,
            pinned_hard=self.pins.hard_pages,
            evicted=self.reclaim.evicted,
            evicted_for_quota=self.reclaim.for_quota,
            refused_for_quota=self._refused_for_quota,
            nodes=len(self.tree.index),
            leases=len(self.leases),
            producers=len(self.frontiers.producers),
            hits=self._hits,
            misses=self._misses,
        )

    def tenants(self) -> list[TenantPages]:
        """Pages by tenant, public ones first. O(tenants)."""
        return self.books.tenants()

    def snapshot(self, viewer: Viewer, limit: int = 200) -> Snapshot:
        """The livest part of the tree, at most ``limit`` nodes. O(limit * depth)."""
        held = (lease.node for lease in self.leases.values())
        pinned = {pin.node.serial: pin for pin in self.pins.pins.values() if pin.node is not None}
        kept = (pin.node for pin in pinned.values() if pin.node is not None)
        evictable = (place[3] for place in reversed(self.order.leaves))
        public = self.books.public.cached
        own = self.books.accounts.get(viewer.tenant)
        visible = self.tree.pages if viewer.everything else public + (own.cached if own else 0)
        return take_snapshot(
            chain(held, kept, evictable),
            viewer,
            limit,
            self.order.now,
            self.page_size,
            PUBLIC,
            {serial: "hard" if pin.hard else "soft" for serial, pin in pinned.items()},
            visible,
            self.tree.pages - public - (own.cached if own else 0) if viewer.everything else 0,
        )

    def check(self) -> None:
        """Verify every invariant; raises ``InvariantError`` naming what is broken. O(everything)."""
        check_cache(self)

    def _close_account(self, lease: Lease) -> None:
        lease.account.leases -= 1
        self.books.close(lease.account)

    # ------------------------------------------------------------------ inserting

    def _check_count(self, lease: Lease, tokens: int) -> None:
        if not lease.computed <= tokens <= min(len(lease.key), len(lease.pages) * self.page_size):
            raise LeaseError(
                f"{tokens} tokens: before there were {lease.computed}, the sequence has {len(lease.key)} "
                f"and its pages hold {len(lease.pages) * self.page_size}"
            )

    # ------------------------------------------------------------------ giving back

    def _forget(self, lease: Lease) -> None:
        del self.leases[id(lease)]
        self.frontiers.leave(lease)
        self.order.now += 1

    def _free_private(self, lease: Lease, private: "array[int]") -> None:
        lease.account.private -= len(lease.duplicates) + len(private)
        self.pool.give(lease.duplicates)
        self.pool.give(private)

    # ------------------------------------------------------------------ walking

    def _path(self, node: Node) -> Iterator[Node]:
        step: Node | None = node
        while step is not None:
            yield step
            step = step.parent

    def _path_below(self, node: Node, top: Node) -> Iterator[Node]:
        """From ``node`` up to ``top``, both included."""
        for step in self._path(node):
            yield step
            if step is top:
                return

    def _node_of(self, lease: Lease, block: int) -> Node:
        return next(node for node in self._path(lease.node) if node.depth <= block)

    # ------------------------------------------------------------------ pins

    def _warm_pins(self, lease: Lease) -> None:
        digests = lease.key.digests
        for pin in list(self.pins.cold.values()):
            blocks = len(pin.key.digests)
            if lease.published >= blocks and digests[blocks - 1] == pin.key.digests[-1]:
                self._warm_pin(pin)

    def _warm_pin(self, pin: Pin) -> None:
        """Take hold of the pin's blocks if they are all in the tree, written and not just scheduled."""
        blocks = len(pin.key.digests)
        path, edge, matched = self.tree.walk(pin.key)
        node = path[-1] if path else None
        if edge is not None and edge.depth + matched == blocks:
            node = self.tree.split(edge, matched)
        if node is None or node.end != blocks:
            return
        if pin.hard:
            self.order.lock(node)
        else:
            node.soft += 1
            self.order.renew(node)
        self.pins.warm(pin, node)
