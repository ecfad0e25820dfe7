"""What may be evicted, and in which order: locks, the count of evictable pages, the ordered set of unlocked leaves.

A node is locked while a lease or a hard pin ends at it or below it. Only 0 <-> 1 changes travel upwards, so locking
stops at the first ancestor that is locked already. Every node below an unlocked node is unlocked: all unlocked pages
can be had, leaf by leaf.

Who goes first: leaves of a tenant above its watermark; then everybody's in the policy's order; soft pins last.
"""

from sortedcontainers import SortedList

from radix.accounts import Account
from radix.policies import EvictionPolicy
from radix.tree import Node, Place


class EvictionOrder:
    """Unlocked leaves in order. ``pages`` counts all pages in unlocked nodes, leaves or not; ``now`` counts releases.

    One change of the set costs O(log leaves); leaves of tenants with a quota are in a set of their own besides.
    """

    def __init__(self, policy: EvictionPolicy) -> None:
        self.policy = policy
        self.pages = self.now = 0
        self.leaves: SortedList[Place] = SortedList()
        self.limited: dict[Account, SortedList[Place]] = {}

    def lock(self, node: Node) -> None:
        """One more lease ends at ``node``. O(nodes that become locked)."""
        step: Node | None = node
        while step is not None:
            step.locks += 1
            if step.locks > 1:
                return
            count = len(step.pages)
            self.pages -= count
            step.account.evictable -= count
            if step.place is not None:
                self.discard(step)
            step = step.parent

    def unlock(self, node: Node) -> None:
        """One lease less ends at ``node``; what becomes unlocked was last used now. O(nodes unlocked)."""
        step: Node | None = node
        while step is not None:
            step.locks -= 1
            if step.locks:
                return
            step.last_use = self.now
            count = len(step.pages)
            self.pages += count
            step.account.evictable += count
            self.add(step)
            step = step.parent

    def add(self, node: Node) -> None:
        """Put a node in if it is an unlocked leaf (a root never is)."""
        if node.children or node.locks or node.parent is None:
            return
        place = node.place = (1 if node.soft else 0, self.policy.rank(node), node.serial, node)
        self.leaves.add(place)
        if self.limited and (own := self.limited.get(node.account)) is not None:
            own.add(place)

    def discard(self, node: Node) -> None:
        """Take a node out if it is in."""
        place = node.place
        if place is None:
            return
        node.place = None
        # Eviction takes the first, which needs no search.
        if self.leaves[0] is place:
            self.leaves.pop(0)
        else:
            self.leaves.remove(place)
        if self.limited and (own := self.limited.get(node.account)) is not None:
            own.remove(place)

    def renew(self, node: Node) -> None:
        """The node's standing has changed (a soft pin came or went): rank it anew if it is in."""
        if node.place is not None:
            self.discard(node)
            self.add(node)

    def limit(self, account: Account) -> None:
        """Keep, or stop keeping, the account's leaves in a set of their own; after its quota changed. O(leaves)."""
        if not account.limit:
            self.limited.pop(account, None)
        elif account not in self.limited:
            self.limited[account] = SortedList(place for place in self.leaves if place[3].account is account)

    def first(self, account: Account | None = None) -> Node:
        """The leaf to evict next, of all or of one account with a quota; there is one whenever pages are evictable."""
        leaves = self.leaves if account is None else self.limited[account]
        first: Place = leaves[0]
        return first[3]
