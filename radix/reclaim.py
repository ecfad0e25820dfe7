"""Takes pages out of the tree: to make room, and leaf by leaf. Asks the order who goes; knows no leases."""

from radix.accounts import Account
from radix.books import Books
from radix.eviction import EvictionOrder
from radix.pins import Pins
from radix.pool import PagePool
from radix.tree import Node, RadixTree


class Reclaim:
    """``evicted``, ``for_quota``: pages so far, and those of them that a tenant's own quota asked for."""

    def __init__(self, tree: RadixTree, order: EvictionOrder, pool: PagePool, books: Books, pins: Pins) -> None:
        self.evicted = self.for_quota = 0
        self._tree = tree
        self._order = order
        self._pool = pool
        self._books = books
        self._pins = pins

    def make_room(self, pages: int) -> None:
        """Evict ``pages`` pages: of tenants above their watermark, then of everybody. So many are evictable."""
        over = self._books.over
        for account in list(over):
            count = min(account.excess, account.evictable, pages)
            if count > 0:
                self._evict(count, account)
                pages -= count
            if account.excess <= 0:
                del over[account]
            if pages == 0:
                return
        self._evict(pages, None)

    def make_quota_room(self, account: Account, pages: int) -> bool:
        """See to it that ``pages`` more pages are within the account's quota: evict its own, down to its watermark when
        its limit is reached. False, and nothing changed, when too few of its own are evictable."""
        over = account.used + pages - account.limit
        if over > account.evictable:
            return False
        if over > 0:
            count = min(over + account.limit - account.watermark, account.evictable)
            self.for_quota += count
            self._evict(count, account)
        return True

    def remove(self, leaf: Node) -> None:
        """Take an unlocked leaf out of tree and order; its pages are the caller's."""
        count = len(leaf.pages)
        self._order.discard(leaf)
        self._order.pages -= count
        account = leaf.account
        account.cached -= count
        account.evictable -= count
        self._books.close(account)
        parent = self._tree.detach(leaf)
        self._order.add(parent)
        self._tree.prune(parent)

    def take_out(self, node: Node) -> None:
        """A locked node whose leases are all gone leaves the tree, its pages are free."""
        self._pins.lost(node)
        del self._tree.index[node.digests[0]]
        self._tree.pages -= len(node.pages)
        node.account.cached -= len(node.pages)
        self._pool.give(node.pages)

    def _evict(self, pages: int, account: Account | None) -> None:
        """Free exactly ``pages`` unlocked pages, of all or of one account, leaf by leaf, each cut from its end."""
        self.evicted += pages
        order = self._order
        while pages:
            leaf = order.first(account)
            assert leaf.place is not None  # it is in the order
            order.policy.evicted(leaf, min(pages, len(leaf.digests)), leaf.place[1])
            if leaf.soft:
                leaf.soft = 0
                self._pins.lost(leaf)
                order.renew(leaf)
            if len(leaf.pages) > pages:
                order.pages -= pages
                leaf.account.cached -= pages
                leaf.account.evictable -= pages
                self._pool.give(self._tree.cut(leaf, pages))
                return
            pages -= len(leaf.pages)
            self._pool.give(leaf.pages)
            self.remove(leaf)
