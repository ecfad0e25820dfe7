"""``check`` notices every kind of damage. Each case breaks one thing that was whole."""

from collections.abc import Callable

import pytest

from radix.accounts import Account
from radix.cache import PrefixCache
from radix.errors import InvariantError
from radix.inflight import Ticket
from radix.lease import Lease
from radix.tree import Node
from tests.radix.strategies import pack


def build() -> PrefixCache:
    """A locked node with an unlocked child, an unlocked leaf beside it, a tail, and private pages."""
    cache = PrefixCache(16, 2, pin_pages=4)
    for tokens in ([1, 1, 2, 2, 3, 3], [1, 1, 4, 4, 5]):
        lease = cache.acquire(cache.key(pack(tokens)))
        cache.extend(lease, (len(tokens) + 1) // 2 - len(lease.pages))
        cache.publish(lease, len(tokens))
        cache.release(lease)
    lease = cache.acquire(cache.key(pack([1, 1, 9])))
    cache.extend(lease, 1)
    cache.pin("cold", cache.key(pack([6, 6, 6])))
    cache.match(cache.ticket(cache.key(pack([1, 1, 8, 8]))))
    cache.check()
    return cache


def producer(cache: PrefixCache) -> Lease:
    """A lease with a block that it has not scheduled."""
    lease = cache.acquire(cache.key(pack([5, 5, 5, 5])))
    cache.frontiers.advance(lease)
    return lease


def waiting(cache: PrefixCache) -> Ticket:
    ((group,),) = (lanes.values() for lanes in cache.frontiers.watched.values())
    return next(iter(group.tickets))


def top(cache: PrefixCache) -> Node:
    return next(node for node in cache.tree.index.values() if node.depth == 0)


def leaf(cache: PrefixCache) -> Node:
    return next(place[3] for place in cache.order.leaves if not place[3].is_tail)


def tail(cache: PrefixCache) -> Node:
    return next(place[3] for place in cache.order.leaves if place[3].is_tail)


def lease_page(cache: PrefixCache, value: int) -> None:
    next(iter(cache.leases.values())).pages[0] = value


DAMAGE: list[tuple[str, Callable[[PrefixCache], object]]] = [
    ("is in 2 places", lambda c: c.pool._free.append(leaf(c).pages[0])),
    ("of 16 pages", lambda c: c.pool._free.pop()),
    ("is not in the pool", lambda c: c.pool._free.append(99)),
    ("the tree counts", lambda c: setattr(c.tree, "pages", 1)),
    ("not its first digest", lambda c: c.tree.index.update({1: c.tree.index.pop(leaf(c).digests[0])})),
    ("is not in the tree", lambda c: c.tree.roots.clear()),
    ("has depth", lambda c: setattr(leaf(c), "depth", 9)),
    ("stale account|below another tenant", lambda c: setattr(leaf(c), "account", Account("x"))),
    ("counts .* pages .cached, evictable", lambda c: setattr(c.books.accounts[""], "private", 9)),
    ("leases, there are", lambda c: setattr(c.books.accounts[""], "leases", 9)),
    ("digest of block 0 is not that of its tokens", lambda c: leaf(c).packed.__setitem__(0, 77)),
    ("token bytes", lambda c: leaf(c).packed.append(0)),
    ("children", lambda c: setattr(top(c), "children", 5)),
    ("serves nobody", lambda c: c.tree.root("empty")),
    ("is not that of its tokens", lambda c: tail(c).packed.__setitem__(0, 77)),
    ("is not under its own label", lambda c: setattr(tail(c), "label", b"x")),
    ("locks, not", lambda c: setattr(top(c), "locks", 4)),
    ("eviction order", lambda c: c.order.discard(leaf(c))),
    ("ordered as if pinned", lambda c: setattr(leaf(c), "soft", 1)),
    ("evictable pages are counted", lambda c: setattr(c.order, "pages", 1)),
    ("where the tree has", lambda c: lease_page(c, 15)),
    ("pending pages are counted", lambda c: setattr(c.insertion, "pending", 3)),
    ("chained from its tenant's key", lambda c: setattr(next(iter(c.leases.values())).key, "private_key", b"x")),
    ("neither warm nor cold", lambda c: c.pins.cold.clear()),
    ("a frontier belongs to nobody", lambda c: c.frontiers.producers.pop(id(producer(c)))),
    ("waits for the wrong thing", lambda c: setattr(waiting(c), "producer", producer(c))),
    ("a woken or empty group", lambda c: setattr(waiting(c).group, "woken", True)),
    (
        "does not spell its key|chained from its tenant",
        lambda c: next(iter(c.leases.values())).key.packed.__setitem__(0, 77),
    ),
]


@pytest.mark.parametrize(("message", "damage"), DAMAGE, ids=[message for message, _ in DAMAGE])
def test_damage_is_named(message: str, damage: Callable[[PrefixCache], object]) -> None:
    cache = build()
    damage(cache)
    with pytest.raises(InvariantError, match=message):
        cache.check()
