"""Puts a lease's blocks into the tree, block runs as edges, and says which of them steps in flight still write."""

from radix.books import Books
from radix.eviction import EvictionOrder
from radix.inflight import Frontiers
from radix.keys import Keys
from radix.lease import Lease
from radix.tree import RadixTree


class Insertion:
    """``pending``: pages in the tree that steps in flight are writing."""

    def __init__(self, keys: Keys, tree: RadixTree, order: EvictionOrder, books: Books, frontiers: Frontiers) -> None:
        self.pending = 0
        self._keys = keys
        self._tree = tree
        self._order = order
        self._books = books
        self._frontiers = frontiers

    def insert(self, lease: Lease, blocks: int, pending: bool) -> None:
        """The tree gets the lease's first ``blocks`` blocks; one that it has from somebody else stays with the lease as
        a duplicate. ``pending``: a step that is being planned writes them. O(new blocks)."""
        self._keys.digest(lease.key)
        public = lease.key.public_blocks
        while lease.published < blocks:
            fence = blocks if lease.published >= public else min(blocks, public)
            if not self._insert_edge(lease, fence, pending):
                lease.stop_sharing()
                self._frontiers.leave(lease)
                return
        lease.boundary = (lease.published + 1) * self._tree.page_size

    def _insert_edge(self, lease: Lease, blocks: int, pending: bool) -> bool:
        """Insert the lease's blocks up to the end of one edge; False where a digest is taken by other tokens."""
        tree, key, node = self._tree, lease.key, lease.node
        start = lease.published
        child = tree.index.get(key.digests[start])
        if child is None:
            count, missed = self._order.policy.inserted(key.digests[start:blocks])
            blocks = start + count
            pages = lease.pages[start:blocks]
            account = self._books.public if start < key.public_blocks else lease.account
            # In place only where nobody else ends and nothing hangs: a lease ends where its node ends.
            if (
                lease.grows
                and node.account is account
                and node.locks == 1
                and not (node.children or node.soft or missed)
            ):
                tree.append(node, key, blocks, pages)
            else:
                lease.node = tree.attach(node, account, key, blocks, pages)
                lease.node.locks = 1  # the lease's lock on the parent becomes the child's
                lease.node.hits = int(missed)
                lease.grows = not missed
            lease.published = blocks
            lease.account.private -= len(pages)
            account.cached += len(pages)
            if pending:
                lease.pending.append((start, blocks))
                self.pending += len(pages)
            self._frontiers.inserted(key.digests[start])
            return True
        if child.parent is not node or child.owner != key.owner(start):
            return False
        shared = min(tree.match(child, key), blocks - start)
        if shared == 0:
            return False
        if shared < len(child.digests):
            upper = tree.split(child, shared)
            if upper is None:
                return False
            child = upper
        lease.duplicates += lease.pages[start : start + shared]
        lease.published += shared
        lease.node = child
        lease.grows = False
        self._order.lock(child)
        self._order.unlock(node)
        return True

    def settle(self, lease: Lease, blocks: int) -> None:
        """The first ``blocks`` blocks are written: pending ones among them are no longer."""
        while lease.pending and lease.pending[0][0] < blocks:
            start, end = lease.pending.pop(0)
            self.pending -= min(end, blocks) - start
            if end > blocks:
                lease.pending.insert(0, (blocks, end))
                return

    def hang(self, lease: Lease, packed: bytes, page: int) -> bool:
        """Leave a partly filled page for whoever goes on; False when there is one with the same tokens already."""
        tail = self._tree.hang(lease.node, lease.account, lease.key, packed, page)
        if tail is None:
            return False
        lease.account.private -= 1
        lease.account.cached += 1
        lease.account.evictable += 1
        tail.last_use = self._order.now
        self._order.pages += 1
        self._order.add(tail)
        return True
