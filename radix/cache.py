"""PrefixCache: which KV page holds which tokens. The only entrance; copies nothing, knows no requests, no time.

Every page is at any moment in exactly one place::

    free  --extend-->  private to a lease  --publish-->  in the tree  --evict (inside extend)-->  free
                              |                             |    ^
                              `------release--> free        `----+  acquire locks, release unlocks
                              `------release--> tail in the tree (partly filled) --acquire--> private to one lease
"""

import msgspec

from radix.check import check_cache
from radix.errors import CacheError, LeaseError
from radix.eviction import EvictionOrder, EvictionPolicy, LeastRecentlyUsed
from radix.hashing import BlockHash, Key, digest_blocks, namespace_seed, xxh3
from radix.lease import Lease
from radix.pool import PagePool
from radix.tree import Node, RadixTree


class CacheStats(msgspec.Struct, frozen=True, gc=False):
    """free + cached + private = total pages; ``evictable``: the unlocked part of it; ``evicted``: since start."""

    total: int
    free: int
    cached: int
    private: int
    evictable: int
    evicted: int
    nodes: int
    leases: int


class PrefixCache:
    """Pages 0..pages-1 of ``page_size`` tokens, shared by prefix.

    ``secret`` (0-64 random bytes) keys the digests, so that nobody outside can make two prompts collide;
    ``block_hash`` and ``policy`` are the seams for tests and for other eviction orders. Not thread-safe.
    """

    def __init__(
        self,
        pages: int,
        page_size: int,
        *,
        secret: bytes = b"",
        block_hash: BlockHash = xxh3,
        policy: EvictionPolicy | None = None,
    ) -> None:
        if page_size < 1:
            raise CacheError(f"page_size must be at least 1 token, got {page_size}")
        self.page_size = page_size
        self.pool = PagePool(pages)
        self.tree = RadixTree(page_size)
        self.order = EvictionOrder(policy or LeastRecentlyUsed())
        self.leases: dict[int, Lease] = {}
        self.block_hash = block_hash
        self._secret = secret
        self._releases = 0
        self._evicted = 0

    @property
    def available(self) -> int:
        """Pages that ``extend`` can hand out now: free and evictable."""
        return self.pool.free + self.order.pages

    @property
    def version(self) -> int:
        """Moves when ``peek`` could answer differently."""
        return self.tree.version

    def seed(self, namespace: str) -> int:
        """Seed of the namespace's first block."""
        return namespace_seed(namespace, self._secret)

    def key(self, tokens: bytes, namespace: str = "") -> Key:
        """A key for ``tokens`` (little-endian uint32), digests included. O(tokens)."""
        key = Key(tokens, namespace, self.seed(namespace))
        digest_blocks(key, self.page_size, self.block_hash)
        return key

    def peek(self, key: Key) -> int:
        """Tokens of ``key`` that are cached now; changes nothing. O(edges on the path)."""
        path, edge, blocks = self.tree.walk(key)
        if edge is not None:
            return (edge.depth + blocks) * self.page_size
        node = path[-1] if path else self.tree.roots.get(key.namespace)
        if node is None:
            return 0
        tail = self.tree.tail(node, key)
        return (node.depth + len(node.digests)) * self.page_size + (len(tail.tokens) // 4 if tail else 0)

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
        pages: list[int] = []
        for step in path:
            pages += step.pages
        node = path[-1] if path else self.tree.root(key.namespace)
        published = len(pages)
        cached = published * self.page_size
        self.order.lock(node)
        tail = self.tree.tail(node, key)
        if tail is not None:
            cached += len(tail.tokens) // 4
            pages += tail.pages
            self._remove(tail)
        lease = Lease(key, node, pages, cached, published, (published + 1) * self.page_size)
        self.leases[id(lease)] = lease
        return lease

    def extend(self, lease: Lease, pages: int) -> bool:
        """Append ``pages`` empty pages, evicting as needed; False, and nothing changed, when there are not as many.

        O(pages + leaves touched * log leaves).
        """
        lease.require_open()
        if pages > self.available:
            return False
        if pages > self.pool.free:
            self._evict(pages - self.pool.free)
        lease.pages += self.pool.take(pages)
        return True

    def publish(self, lease: Lease, computed: int) -> None:
        """The first ``computed`` tokens of the lease's key are now in its pages: share the full ones. O(new tokens).

        A block that the tree has already stays with the lease as a duplicate (page tables are append-only).
        """
        lease.require_open()
        if not lease.computed <= computed <= min(len(lease.key), len(lease.pages) * self.page_size):
            raise LeaseError(
                f"{computed} computed tokens: before there were {lease.computed}, the sequence has {len(lease.key)} "
                f"and its pages hold {len(lease.pages) * self.page_size}"
            )
        lease.computed = computed
        if computed < lease.boundary:
            return
        digest_blocks(lease.key, self.page_size, self.block_hash)
        blocks = computed // self.page_size
        while lease.published < blocks:
            if not self._publish_edge(lease, blocks):
                lease.stop_publishing()
                return
        lease.boundary = (lease.published + 1) * self.page_size

    def release(self, lease: Lease, keep_tail: bool = True) -> None:
        """Give everything back. What is published stays in the tree, evictable once nobody else holds it.

        The partly filled last page is kept as a tail for the one who continues the sequence; not with
        ``keep_tail=False``, for when its content is in doubt. O(private pages).
        """
        lease.close()
        del self.leases[id(lease)]
        self._releases += 1
        private = lease.pages[lease.published :]
        whole, rest = divmod(lease.computed, self.page_size)
        if keep_tail and rest and whole == lease.published:
            start = whole * self.tree.width
            tokens = bytes(lease.key.tokens[start : start + rest * 4])
            if tokens not in lease.node.tails:
                tail = self.tree.hang(lease.node, tokens, private.pop(0))
                tail.last_use = self._releases
                self.order.pages += 1
                self.order.add(tail)
        self.pool.give(lease.duplicates)
        self.pool.give(private)
        self.order.unlock(lease.node, self._releases)
        self._prune(lease.node)

    def stats(self) -> CacheStats:
        """Counts as they stand. O(1)."""
        free, cached = self.pool.free, self.tree.pages
        return CacheStats(
            total=self.pool.total,
            free=free,
            cached=cached,
            private=self.pool.total - free - cached,
            evictable=self.order.pages,
            evicted=self._evicted,
            nodes=len(self.tree.index),
            leases=len(self.leases),
        )

    def check(self) -> None:
        """Verify every invariant; raises ``InvariantError`` naming what is broken. O(everything)."""
        check_cache(self.tree, self.pool, self.order, self.leases.values(), self.seed, self.block_hash)

    def _publish_edge(self, lease: Lease, blocks: int) -> bool:
        """Publish the lease's blocks up to the end of one edge; False where a digest is taken by other tokens."""
        tree, key, node = self.tree, lease.key, lease.node
        child = tree.index.get(key.digests[lease.published])
        if child is None:
            pages = lease.pages[lease.published : blocks]
            # In place only where nobody else ends and nothing hangs: a lease ends where its node ends.
            if node.parent is not None and not node.children and node.locks == 1:
                tree.append(node, key, blocks, pages)
            else:
                lease.node = tree.attach(node, key, blocks, pages)
                lease.node.locks = 1  # the lease's lock on the parent becomes the child's
            lease.published = blocks
            return True
        if child.parent is not node:
            return False
        shared = min(tree.match(child, key), blocks - lease.published)
        if shared == 0:
            return False
        if shared < len(child.digests):
            upper = tree.split(child, shared)
            if upper is None:
                return False
            child = upper
        lease.duplicates += lease.pages[lease.published : lease.published + shared]
        lease.published += shared
        lease.node = child
        self.order.lock(child)
        self.order.unlock(node, self._releases)
        return True

    def _evict(self, pages: int) -> None:
        """Free exactly ``pages`` unlocked pages, leaf by leaf, each cut from its end."""
        self._evicted += pages
        while pages:
            leaf = self.order.first()
            if len(leaf.pages) > pages:
                self.order.pages -= pages
                self.pool.give(self.tree.cut(leaf, pages))
                return
            pages -= len(leaf.pages)
            self.pool.give(leaf.pages)
            self._remove(leaf)

    def _remove(self, leaf: Node) -> None:
        """Take an unlocked leaf out of tree and order; its pages are the caller's."""
        self.order.discard(leaf)
        self.order.pages -= len(leaf.pages)
        parent = self.tree.detach(leaf)
        self.order.add(parent)
        self._prune(parent)

    def _prune(self, node: Node) -> None:
        self.tree.prune(node)
