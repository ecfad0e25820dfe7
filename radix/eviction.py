"""What may be evicted, and in which order: locks, the count of evictable pages, the ordered set of unlocked leaves.

A node is locked while a lease ends at it or below it. Only 0 <-> 1 changes travel upwards, so locking stops at the
first ancestor that is locked already. Every node below an unlocked node is unlocked: all unlocked pages can be had,
leaf by leaf.
"""

from typing import Protocol

from sortedcontainers import SortedDict

from radix.tree import Node


class EvictionPolicy(Protocol):
    """The one seam of the policy: asked when a leaf becomes evictable; must not change while it stays so."""

    def rank(self, node: Node) -> float:
        """Lowest goes first."""
        ...


class LeastRecentlyUsed:
    """Whoever was let go longest ago goes first."""

    def rank(self, node: Node) -> float:
        """``last_use`` itself."""
        return node.last_use


class EvictionOrder:
    """Unlocked leaves in the policy's order. ``pages`` counts all pages in unlocked nodes, leaves or not.

    One change of the set costs O(log leaves).
    """

    def __init__(self, policy: EvictionPolicy) -> None:
        self.policy = policy
        self.pages = 0
        self.leaves: SortedDict[tuple[float, int], Node] = SortedDict()
        self._ranks: dict[int, float] = {}

    def lock(self, node: Node) -> None:
        """One more lease ends at ``node``. O(nodes that become locked)."""
        step: Node | None = node
        while step is not None:
            step.locks += 1
            if step.locks > 1:
                return
            self.pages -= len(step.pages)
            if not step.children and step.parent is not None:
                self.discard(step)
            step = step.parent

    def unlock(self, node: Node, now: int) -> None:
        """One lease less ends at ``node``; what becomes unlocked was last used ``now``. O(nodes unlocked)."""
        step: Node | None = node
        while step is not None:
            step.locks -= 1
            if step.locks:
                return
            step.last_use = now
            self.pages += len(step.pages)
            self.add(step)
            step = step.parent

    def add(self, node: Node) -> None:
        """Put a node in if it is an unlocked leaf (a root never is)."""
        if node.children or node.locks or node.parent is None:
            return
        rank = self._ranks[node.serial] = self.policy.rank(node)
        self.leaves[rank, node.serial] = node

    def discard(self, node: Node) -> None:
        """Take a node out if it is in."""
        rank = self._ranks.pop(node.serial, None)
        if rank is not None:
            del self.leaves[rank, node.serial]

    def first(self) -> Node:
        """The leaf to evict next; there is one whenever ``pages`` > 0."""
        first: Node = self.leaves.peekitem(0)[1]
        return first
