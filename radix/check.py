"""Every invariant of the cache, verified from scratch: for tests after each action, and for an idle engine."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from radix.errors import InvariantError
from radix.eviction import EvictionOrder
from radix.hashing import TOKEN_BYTES, BlockHash
from radix.lease import Lease
from radix.pool import PagePool
from radix.tree import Node, RadixTree


def check_cache(
    tree: RadixTree,
    pool: PagePool,
    order: EvictionOrder,
    leases: Iterable[Lease],
    seed: Callable[[str], int],
    block_hash: BlockHash,
) -> None:
    """Raise ``InvariantError`` for the first invariant that does not hold. O(pages + tokens in the tree)."""
    open_leases = list(leases)
    nodes = list(_nodes(tree))
    _check_pages(tree, pool, nodes, open_leases)
    _check_edges(tree, nodes, seed, block_hash)
    _check_locks(tree, nodes, open_leases)
    _check_order(order, nodes)
    for lease in open_leases:
        _check_lease(tree, lease)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise InvariantError(message)


def _nodes(tree: RadixTree) -> Iterator[Node]:
    """All nodes with pages: edges by the index, tails by the nodes they hang on."""
    for node in list(tree.index.values()):
        yield node
        yield from node.tails.values()
    for root in tree.roots.values():
        yield from root.tails.values()


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


def _check_edges(tree: RadixTree, nodes: list[Node], seed: Callable[[str], int], block_hash: BlockHash) -> None:
    """The index is complete, parents lead to a root, digests are those of the tokens, tails are shorter than a page."""
    for digest, node in tree.index.items():
        _require(len(node.digests) > 0, f"node {node.serial} has an empty edge")
        _require(node.digests[0] == digest, f"node {node.serial} is indexed under {digest}, not its first digest")
    children: Counter[int] = Counter()
    for node in nodes:
        parent = node.parent
        if parent is None:
            raise InvariantError(f"node {node.serial} has pages and no parent")
        root = parent.parent is None
        found = tree.roots.get(parent.namespace) if root else tree.index.get(parent.digests[0])
        _require(found is parent, f"the parent of node {node.serial} is not in the tree")
        _require(node.namespace == parent.namespace, f"node {node.serial} is in another namespace than its parent")
        _require(node.depth == parent.depth + len(parent.digests), f"node {node.serial} has depth {node.depth}")
        children[parent.serial] += 1
        if node.is_tail:
            _check_tail(tree, node)
            continue
        _require(len(node.pages) == len(node.digests), f"node {node.serial}: {len(node.pages)} pages")
        _require(
            len(node.tokens) == len(node.digests) * tree.width, f"node {node.serial}: {len(node.tokens)} token bytes"
        )
        digest = seed(node.namespace) if root else parent.digests[-1]
        for block, expected in enumerate(node.digests):
            digest = block_hash(bytes(node.tokens[block * tree.width : (block + 1) * tree.width]), digest)
            _require(digest == expected, f"node {node.serial}: digest of block {block} is not that of its tokens")
    for node in [*nodes, *tree.roots.values()]:
        _require(node.children == children[node.serial], f"node {node.serial} counts {node.children} children")
    for namespace, root_node in tree.roots.items():
        _require(root_node.namespace == namespace, f"the root of {namespace!r} says {root_node.namespace!r}")
        _require(root_node.parent is None and not root_node.pages, f"the root of {namespace!r} has pages or a parent")
        _require(bool(root_node.children or root_node.locks), f"the root of {namespace!r} serves nobody")


def _check_tail(tree: RadixTree, node: Node) -> None:
    _require(len(node.pages) == 1 and not node.children, f"tail {node.serial} has more than a page")
    _require(node.locks == 0, f"tail {node.serial} is locked")
    size = len(node.tokens)
    _require(0 < size < tree.width and size % TOKEN_BYTES == 0, f"tail {node.serial} has {size} token bytes")
    siblings = node.parent.tails if node.parent else {}
    _require(siblings.get(bytes(node.tokens)) is node, f"tail {node.serial} is not under its own tokens")


def _check_locks(tree: RadixTree, nodes: list[Node], leases: list[Lease]) -> None:
    """locks = leases that end at the node + locked children."""
    locks = Counter(lease.node.serial for lease in leases)
    for node in nodes:
        if node.locks and node.parent:
            locks[node.parent.serial] += 1
    for node in [*nodes, *tree.roots.values()]:
        _require(
            node.locks == locks[node.serial], f"node {node.serial} has {node.locks} locks, not {locks[node.serial]}"
        )


def _check_order(order: EvictionOrder, nodes: list[Node]) -> None:
    """The ordered set is the unlocked leaves, ranked by the policy; the count of evictable pages is exact."""
    leaves = {node.serial for node in nodes if not node.locks and not node.children}
    ordered = {node.serial for node in order.leaves.values()}
    _require(ordered == leaves, f"nodes {sorted(ordered ^ leaves)} are wrongly in or not in the eviction order")
    for (rank, serial), node in order.leaves.items():
        _require(node.serial == serial, f"node {node.serial} is in the eviction order as {serial}")
        _require(rank == order.policy.rank(node), f"node {serial} has rank {rank} in the eviction order")
    evictable = sum(len(node.pages) for node in nodes if not node.locks)
    _require(order.pages == evictable, f"{order.pages} evictable pages are counted, {evictable} are there")


def _check_lease(tree: RadixTree, lease: Lease) -> None:
    """A lease's path spells its key, and its pages are those of the path or its own duplicates."""
    width = tree.width
    _require(not lease.released, "a released lease is still held by the cache")
    _require(lease.computed <= len(lease.pages) * (width // TOKEN_BYTES), "a lease computed more than its pages hold")
    end = lease.node.depth + len(lease.node.digests)
    _require(end == lease.published, f"a lease published {lease.published} blocks and ends at block {end}")
    duplicates = set(lease.duplicates)
    node: Node | None = lease.node
    while node is not None:
        held = lease.pages[node.depth : node.depth + len(node.digests)]
        for ours, theirs in zip(held, node.pages, strict=True):
            _require(ours == theirs or ours in duplicates, f"a lease uses page {ours} where the tree has {theirs}")
        spelled = lease.key.tokens[node.depth * width : node.depth * width + len(node.tokens)]
        _require(spelled == node.tokens, f"the path of a lease does not spell its key at node {node.serial}")
        node = node.parent
