"""Every invariant of the cache, verified from scratch: for tests after each action, and for an idle engine."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from radix.errors import InvariantError
from radix.eviction import EvictionOrder
from radix.hashing import BlockHash, derive_seed
from radix.inflight import Frontiers, Group, Shelf
from radix.lease import Lease
from radix.packing import PACKED_BYTES
from radix.pins import Pins
from radix.pool import PagePool
from radix.public import PUBLIC, ROOT, PublicPrompts
from radix.tree import Node, RadixTree, Root

if TYPE_CHECKING:
    from radix.cache import PrefixCache


def check_cache(cache: "PrefixCache") -> None:
    """Raise ``InvariantError`` for the first invariant that does not hold. O(pages + tokens in the tree)."""
    tree, leases = cache.tree, list(cache.leases.values())
    nodes = list(_nodes(tree))
    _check_pages(tree, cache.pool, nodes, leases)
    _check_edges(tree, nodes)
    _check_digests(tree, nodes, leases, cache.public, cache.keys.block_hash)
    _check_locks(tree, nodes, leases, cache.pins)
    _check_order(cache.order, nodes)
    _check_accounts(cache, nodes, leases)
    for lease in leases:
        _check_lease(tree, lease)
    _check_pending(cache.stats().pending, leases, cache.page_size)
    _check_pins(cache.pins, nodes, tree)
    _check_frontiers(cache.frontiers, leases)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise InvariantError(message)


def _nodes(tree: RadixTree) -> Iterator[Node]:
    """All nodes with pages: edges by the index, tails by the nodes they hang on."""
    for node in list(tree.index.values()):
        yield node
        yield from (node.tails or {}).values()
    for root in tree.roots.values():
        yield from (root.tails or {}).values()


def _check_pages(tree: RadixTree, pool: PagePool, nodes: list[Node], leases: list[Lease]) -> None:
    """free + in the tree + private = total, and no page twice."""
    free = pool.free_pages()
    cached = [page for node in nodes for page in node.pages]
    private = [page for lease in leases for page in lease.private_pages]
    places = Counter(free) + Counter(cached) + Counter(private)
    for page, count in places.items():
        _require(count == 1, f"page {page} is in {count} places")
        _require(0 <= page < pool.total, f"page {page} is not in the pool of {pool.total}")
    total = len(free) + len(cached) + len(private)
    _require(
        total == pool.total, f"{len(free)} free + {len(cached)} cached + {len(private)} private of {pool.total} pages"
    )
    _require(len(cached) == tree.pages, f"the tree counts {tree.pages} pages and has {len(cached)}")


def _check_edges(tree: RadixTree, nodes: list[Node]) -> None:
    """The index is complete, parents lead to a root, children are counted, tails are shorter than a page."""
    for digest, node in tree.index.items():
        _require(len(node.digests) > 0, f"node {node.serial} has an empty edge")
        _require(node.digests[0] == digest, f"node {node.serial} is indexed under {digest}, not its first digest")
    children: Counter[int] = Counter()
    for node in nodes:
        parent = node.parent
        if parent is None:
            raise InvariantError(f"node {node.serial} has pages and no parent")
        found = tree.roots.get(parent.name) if isinstance(parent, Root) else tree.index.get(parent.digests[0])
        _require(found is parent, f"the parent of node {node.serial} is not in the tree")
        _require(node.depth == parent.end, f"node {node.serial} has depth {node.depth}")
        children[parent.serial] += 1
        if node.is_tail:
            _check_tail(tree, node)
            continue
        _require(len(node.pages) == len(node.digests), f"node {node.serial}: {len(node.pages)} pages")
        _require(
            len(node.packed) == len(node.digests) * tree.width, f"node {node.serial}: {len(node.packed)} token bytes"
        )
    for node in [*nodes, *tree.roots.values()]:
        _require(node.children == children[node.serial], f"node {node.serial} counts {node.children} children")
        _require(node.tails is None or len(node.tails) > 0, f"node {node.serial} keeps an empty dict of tails")
    for name, root in tree.roots.items():
        _require(root.name == name, f"the root of {name!r} says {root.name!r}")
        _require(root.parent is None and not root.pages, f"the root of {name!r} has pages or a parent")
        _require(bool(root.children or root.locks), f"the root of {name!r} serves nobody")


def _check_tail(tree: RadixTree, node: Node) -> None:
    _require(len(node.pages) == 1 and not node.children, f"tail {node.serial} has more than a page")
    _require(node.locks == 0 and node.soft == 0, f"tail {node.serial} is locked or pinned")
    size = len(node.packed)
    _require(0 < size < tree.width and size % PACKED_BYTES == 0, f"tail {node.serial} has {size} token bytes")
    siblings = (node.parent.tails if node.parent else None) or {}
    _require(siblings.get(node.label) is node, f"tail {node.serial} is not under its own label")
    _require(node.label.endswith(node.packed), f"the label of tail {node.serial} is not that of its tokens")


def _check_digests(
    tree: RadixTree, nodes: list[Node], leases: list[Lease], public: PublicPrompts, block_hash: BlockHash
) -> None:
    """Digests are those of the tokens: along public edges from the public seed, below from the end of the parent; the
    first digest behind a fence is that of one who knows the tenant's key."""
    for node in nodes:
        parent = node.parent
        if node.is_tail or parent is None:
            continue
        is_public = node.account.name == PUBLIC
        _require(is_public == (not node.owner), f"node {node.serial} belongs to one and is paid for by another")
        at_root = isinstance(parent, Root)
        fenced = not is_public and not at_root and parent.account.name == PUBLIC
        _require(
            not is_public or at_root or parent.account is node.account, f"public node {node.serial} is below a tenant's"
        )
        _require(at_root or fenced or parent.owner == node.owner, f"node {node.serial} is below another tenant's node")
        _require(
            not at_root or (isinstance(parent, Root) and (parent.name == ROOT) == is_public),
            f"node {node.serial} hangs on the wrong root",
        )
        if fenced or (at_root and not is_public):
            digest = node.digests[0]  # its seed is a secret of the tenant's; verified below for those who have a lease
        else:
            seed = public.seed if at_root else parent.digests[-1]
            digest = block_hash(bytes(node.packed[: tree.width]), seed)
        _require(digest == node.digests[0], f"node {node.serial}: digest of block 0 is not that of its tokens")
        for block in range(1, len(node.digests)):
            digest = block_hash(bytes(node.packed[block * tree.width : (block + 1) * tree.width]), digest)
            _require(
                digest == node.digests[block], f"node {node.serial}: digest of block {block} is not that of its tokens"
            )
    for lease in leases:
        _check_fence(lease, tree, block_hash)


def _check_fence(lease: Lease, tree: RadixTree, block_hash: BlockHash) -> None:
    key, at = lease.key, lease.key.public_blocks
    if len(key.digests) <= at:
        return
    seed = derive_seed(key.private_key, key.digests[at - 1] if at else None)
    block = bytes(key.packed[at * tree.width : (at + 1) * tree.width])
    _require(block_hash(block, seed) == key.digests[at], "the first private block is not chained from its tenant's key")


def _check_locks(tree: RadixTree, nodes: list[Node], leases: list[Lease], pins: Pins) -> None:
    """locks = leases and hard pins that end at the node + locked children."""
    locks = Counter(lease.node.serial for lease in leases)
    locks.update(pin.node.serial for pin in pins.pins.values() if pin.hard and pin.node is not None)
    for node in nodes:
        if node.locks and node.parent:
            locks[node.parent.serial] += 1
    for node in [*nodes, *tree.roots.values()]:
        _require(
            node.locks == locks[node.serial], f"node {node.serial} has {node.locks} locks, not {locks[node.serial]}"
        )


def _check_order(order: EvictionOrder, nodes: list[Node]) -> None:
    """The ordered set is the unlocked leaves, soft pins last; the count of evictable pages is exact."""
    leaves = {node.serial for node in nodes if not node.locks and not node.children}
    ordered = {place[3].serial for place in order.leaves}
    _require(ordered == leaves, f"nodes {sorted(ordered ^ leaves)} are wrongly in or not in the eviction order")
    _require(list(order.leaves) == sorted(order.leaves), "the eviction order is not in order")
    for place in order.leaves:
        pinned, _, serial, node = place
        _require(node.serial == serial and node.place is place, f"node {node.serial} does not know its place")
        _require(pinned == bool(node.soft), f"node {serial} is ordered as if pinned {pinned}")
    for node in nodes:
        _require(
            node.place is None or node.serial in ordered, f"node {node.serial} has a place and is not in the order"
        )
    for account, own in order.limited.items():
        _require(account.limit > 0, f"the leaves of {account.name!r} are kept apart without a quota")
        mine = [place for place in order.leaves if place[3].account is account]
        _require(mine == list(own), f"the leaves of {account.name!r} are not its")
    evictable = sum(len(node.pages) for node in nodes if not node.locks)
    _require(order.pages == evictable, f"{order.pages} evictable pages are counted, {evictable} are there")


def _check_accounts(cache: "PrefixCache", nodes: list[Node], leases: list[Lease]) -> None:
    """Every page is on one account, and the counts are exact."""
    cached: Counter[str] = Counter()
    evictable: Counter[str] = Counter()
    private: Counter[str] = Counter()
    for node in nodes:
        name = node.account.name
        _require(
            cache.books.accounts.get(name) is node.account, f"node {node.serial} is on a stale account of {name!r}"
        )
        cached[name] += len(node.pages)
        evictable[name] += 0 if node.locks else len(node.pages)
    for lease in leases:
        name = lease.account.name
        _require(cache.books.accounts.get(name) is lease.account, f"a lease is on a stale account of {name!r}")
        private[name] += len(lease.private_pages)
    for name, account in cache.books.accounts.items():
        counts = (account.cached, account.evictable, account.private)
        there = (cached[name], evictable[name], private[name])
        _require(counts == there, f"{name!r} counts {counts} pages (cached, evictable, private), there are {there}")
        held = sum(1 for lease in leases if lease.account is account)
        _require(account.leases == held, f"{name!r} counts {account.leases} leases, there are {held}")
        _require((account in cache.order.limited) == bool(account.limit), f"{name!r}: quota and order disagree")


def _check_lease(tree: RadixTree, lease: Lease) -> None:
    """A lease's path spells its key, and its pages are those of the path or its own duplicates."""
    width = tree.width
    _require(not lease.released, "a released lease is still held by the cache")
    _require(lease.computed <= len(lease.pages) * (width // PACKED_BYTES), "a lease computed more than its pages hold")
    end = lease.node.end
    _require(end == lease.published, f"a lease published {lease.published} blocks and ends at block {end}")
    duplicates = set(lease.duplicates)
    node: Node | None = lease.node
    while node is not None:
        held = lease.pages[node.depth : node.end]
        for ours, theirs in zip(held, node.pages, strict=True):
            _require(ours == theirs or ours in duplicates, f"a lease uses page {ours} where the tree has {theirs}")
        spelled = lease.key.packed[node.depth * width : node.depth * width + len(node.packed)]
        _require(spelled == node.packed, f"the path of a lease does not spell its key at node {node.serial}")
        if node.parent is not None:
            owners = {lease.key.owner(node.depth), lease.key.owner(node.end - 1)}
            _require(owners == {node.owner}, f"a lease stands on node {node.serial} of somebody else")
        node = node.parent


def _check_pending(pending: int, leases: list[Lease], page_size: int) -> None:
    """Pending runs are inserted, not yet computed, in order and apart."""
    for lease in leases:
        for start, end in lease.pending:
            _require(start < end <= lease.published, f"a lease has blocks {start}..{end} pending and not inserted")
            _require(end * page_size > lease.computed, f"blocks {start}..{end} are computed and still pending")
        runs = [edge for run in lease.pending for edge in run]
        _require(runs == sorted(runs), f"the pending runs {lease.pending} are not in order")
    count = sum(end - start for lease in leases for start, end in lease.pending)
    _require(count == pending, f"{pending} pending pages are counted, {count} are there")


def _check_pins(pins: Pins, nodes: list[Node], tree: RadixTree) -> None:
    """Warm pins end at their node and spell its path; soft marks are those of warm soft pins."""
    soft: Counter[int] = Counter()
    for name, pin in pins.pins.items():
        _require((pin.node is None) == (name in pins.cold), f"pin {name!r} is neither warm nor cold, or both")
        if pin.node is not None:
            _require(pin.node.end == len(pin.key.digests), f"pin {name!r} does not end where its node ends")
            path, edge, _ = tree.walk(pin.key)
            _require(edge is None and bool(path) and path[-1] is pin.node, f"pin {name!r} is not where its key leads")
            soft[pin.node.serial] += not pin.hard
    for node in nodes:
        _require(
            node.soft == soft[node.serial], f"node {node.serial} has {node.soft} soft pins, not {soft[node.serial]}"
        )
    _require(pins.pages <= pins.budget, f"pins ask for {pins.pages} pages of {pins.budget}")


def _check_frontiers(frontiers: Frontiers, leases: list[Lease]) -> None:
    """Producers are open leases at their frontier; every parked or watching ticket is where it says."""
    open_leases = {id(lease) for lease in leases}
    _require(set(frontiers.producers) <= open_leases, "a released lease is still a producer")
    for producer in frontiers.producers.values():
        lease = producer.lease
        _require(lease.published < len(lease.key.digests), "a producer has nothing left to schedule")
        _require(producer.digest == lease.key.digests[lease.published], "a producer's frontier is not its next block")
        _require(producer.digest in frontiers.frontiers, "a producer's frontier cannot be found")
        _check_shelf(producer.parked, lambda ticket, lease=lease: ticket.producer is lease)
    for digest, producer in frontiers.frontiers.items():
        _require(frontiers.producers.get(id(producer.lease)) is producer, "a frontier belongs to nobody")
        _require(producer.digest == digest, "a frontier is filed under another digest")
    _check_shelf(frontiers.watched, lambda ticket: ticket.producer is None)


def _check_shelf(shelf: Shelf, right: Callable[..., bool]) -> None:
    for label, lanes in shelf.items():
        _require(len(lanes) > 0, f"an empty shelf is kept for {label}")
        for lane, group in lanes.items():
            _check_group(group, lane, shelf, label)
            _require(all(right(ticket) for ticket in group.tickets), f"a ticket waits for the wrong thing at {label}")


def _check_group(group: Group, lane: str, shelf: Shelf, label: int) -> None:
    _require(not group.woken and len(group.tickets) > 0, "a woken or empty group still waits")
    _require(group.shelf is shelf and group.label == label, "a group does not know where it lies")
    _require(
        all(ticket.group is group and ticket.lane == lane for ticket in group.tickets), "a ticket is in another group"
    )
