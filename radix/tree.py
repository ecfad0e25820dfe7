"""RadixTree of hashed token blocks with compressed edges: walk, split, attach, detach. Knows no leases, no free pages.

A node is a run of blocks (its edge) below its parent. Digests are chained, so the first digest of an edge is unique
in the whole forest, and one dict ``first digest -> node`` finds every child. Digests find, tokens decide: an edge
matches only as far as its token bytes equal the key's *and* its parent is the node where the walk stands *and* its
owner is the key's: a collision never leads over a tenant's wall. Two
different edges with one first digest cannot both be in the tree; the second is refused, and its owner keeps its pages
to itself.
"""

from array import array

from radix.accounts import Account
from radix.errors import InvariantError
from radix.hashing import Key, common_blocks
from radix.packing import PACKED_BYTES


class Node:
    """An edge and its end.

    digests   one per block (uint64); empty for a root and for a tail
    pages     one page id (int32) per block; a tail has one page, filled in part
    packed    token ids as in ``Key``, page_size per block; a tail has 1..page_size-1 tokens
    account   who pays for the pages; an edge is wholly public or wholly one tenant's
    owner     private key of the tenant and namespace that may use it, empty: public
    depth     blocks from the root to the start of the edge
    children  number of nodes below, tails included
    tails     private key + packed ids -> partly filled page at the end of this edge; None: none
    label     of a tail: its key among its parent's tails
    locks     leases and hard pins that end here + children that are locked
    soft      soft pins that end here
    hits      leases that were made through this node
    last_use  the cache's count of releases when this node was last unlocked
    serial    order of creation, unique
    place     in the order of eviction; None: not in it
    """

    __slots__ = (
        "account",
        "children",
        "depth",
        "digests",
        "hits",
        "label",
        "last_use",
        "locks",
        "owner",
        "packed",
        "pages",
        "parent",
        "place",
        "serial",
        "soft",
        "tails",
    )

    def __init__(self, parent: "Node | None", account: Account, owner: bytes, depth: int, serial: int) -> None:
        self.parent = parent
        self.account = account
        self.owner = owner
        self.depth = depth
        self.serial = serial
        self.digests: array[int] = array("Q")
        self.pages: array[int] = array("i")
        self.packed = bytearray()
        self.children = 0
        self.tails: dict[bytes, Node] | None = None
        self.locks = 0
        self.soft = 0
        self.hits = 0
        self.label = b""
        self.last_use = 0
        self.place: tuple[int, float, int, Node] | None = None  # a ``Place``

    @property
    def is_tail(self) -> bool:
        """Whether this is a partly filled page."""
        return bool(self.pages) and not self.digests

    @property
    def end(self) -> int:
        """Blocks from the root to the end of the edge."""
        return self.depth + len(self.digests)

    def trim(self) -> None:
        """Give back what arrays keep in reserve for growing. O(edge)."""
        self.digests = self.digests[:]
        self.pages = self.pages[:]
        self.packed = self.packed[:]


Place = tuple[int, float, int, Node]
"""Of a leaf in the order of eviction: (1 for a soft pin, rank by the policy, serial, the leaf)."""


class Root(Node):
    """Where the first blocks hang; has no pages, so its account stays empty."""

    __slots__ = ("name",)

    def __init__(self, name: str, serial: int) -> None:
        super().__init__(None, Account(name), b"", 0, serial)
        self.name = name


class RadixTree:
    """The forest: one root for everything public, one per tenant and namespace.

    ``pages``: pages in the tree, tails included.
    """

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.width = page_size * PACKED_BYTES
        self.pages = 0
        self.roots: dict[str, Root] = {}
        self.index: dict[int, Node] = {}
        self._serial = 0

    def root(self, name: str) -> Root:
        """The root called ``name``, made when it is not there."""
        node = self.roots.get(name)
        if node is None:
            self._serial += 1
            node = self.roots[name] = Root(name, self._serial)
        return node

    def walk(self, key: Key) -> tuple[list[Node], Node | None, int]:
        """The longest verified match: nodes matched whole (no root), then the edge matched in part and how far.

        O(edges on the path + log of the last edge) and one comparison of the tokens of each edge.
        """
        path: list[Node] = []
        node: Node | None = self.roots.get(key.root)
        digests, packed, public = key.digests, key.packed, key.public_blocks
        index, width, blocks = self.index, self.width, len(key.digests)
        at = 0
        # About 0.6 us an edge: no calls but one comparison of tokens where the whole edge matches.
        while node is not None and at < blocks:
            child = index.get(digests[at])
            if child is None or child.parent is not node or child.owner != (b"" if at < public else key.private_key):
                break
            ours = child.digests
            end = at + len(ours)
            if end > blocks or ours[-1] != digests[end - 1] or not packed.startswith(child.packed, at * width):
                count = self.match(child, key)
                return path, (child if count else None), count
            path.append(child)
            at = end
            node = child
        return path, None, 0

    def match(self, node: Node, key: Key) -> int:
        """Blocks of ``node``'s edge that ``key`` goes along, tokens verified.

        Where a digest is right and its tokens are not, nothing of the edge matches: sharing less is the price of a
        collision.
        """
        ours, theirs, at = node.digests, key.digests, node.depth
        count = min(len(ours), len(theirs) - at)
        if count == len(ours) and ours[-1] == theirs[at + count - 1]:
            return count if key.packed.startswith(node.packed, at * self.width) else 0
        count = common_blocks(ours, theirs[at : at + count])
        return count if key.packed.startswith(node.packed[: count * self.width], at * self.width) else 0

    def tail(self, node: Node, key: Key) -> Node | None:
        """The longest tail at the end of ``node`` that ``key`` continues. O(page_size) where tails hang, else O(1).

        Tails are filed under the private key of who left them: at the end of public blocks hang many tenants'.
        """
        if node.tails is None:
            return None
        start = node.end * self.width
        rest = key.private_key + key.packed[start : start + self.width - PACKED_BYTES]
        for size in range(len(rest), len(key.private_key), -PACKED_BYTES):
            found = node.tails.get(rest[:size])
            if found is not None:
                return found
        return None

    def split(self, node: Node, blocks: int) -> Node | None:
        """Cut an edge after ``blocks``; the upper part is returned, ``node`` stays what it was to whoever ends there.

        None when the first digest of the lower part is taken by another node (a collision): then nothing has changed.
        """
        if not 0 < blocks < len(node.digests):
            raise InvariantError(f"an edge of {len(node.digests)} blocks cannot be split after {blocks}")
        if node.digests[blocks] in self.index:
            return None
        parent = node.parent
        assert parent is not None  # a root has no edge to split
        upper = self._node(parent, node.account, node.owner, node.depth)
        upper.digests, node.digests = node.digests[:blocks], node.digests[blocks:]
        upper.pages, node.pages = node.pages[:blocks], node.pages[blocks:]
        upper.packed = node.packed[: blocks * self.width]
        node.packed = node.packed[blocks * self.width :]
        upper.children = 1
        upper.locks = 1 if node.locks else 0
        upper.hits = node.hits
        upper.last_use = node.last_use
        node.parent = upper
        node.depth += blocks
        self.index[upper.digests[0]] = upper
        self.index[node.digests[0]] = node
        return upper

    def attach(self, parent: Node, account: Account, key: Key, blocks: int, pages: "array[int]") -> Node:
        """A new child: the blocks of ``key`` from the end of ``parent`` to ``blocks``; the first digest is free."""
        node = self._node(parent, account, key.owner(parent.end), parent.end)
        parent.children += 1
        self.index[key.digests[node.depth]] = node
        self.append(node, key, blocks, pages)
        return node

    def append(self, node: Node, key: Key, blocks: int, pages: "array[int]") -> None:
        """Lengthen an edge without children to ``blocks`` blocks from the root. Amortized O(new tokens)."""
        start = node.end
        node.digests += key.digests[start:blocks]
        node.packed += key.packed[start * self.width : blocks * self.width]
        node.pages.extend(pages)
        self.pages += len(pages)

    def hang(self, parent: Node, account: Account, key: Key, packed: bytes, page: int) -> Node | None:
        """A partly filled page with the ids ``packed`` below the end of ``parent``; None when it is there already."""
        label = key.private_key + packed
        if parent.tails is not None and label in parent.tails:
            return None
        node = self._node(parent, account, key.private_key, parent.end)
        node.packed += packed
        node.pages.append(page)
        if parent.tails is None:
            parent.tails = {}
        parent.tails[label] = node
        node.label = label
        parent.children += 1
        self.pages += 1
        return node

    def cut(self, node: Node, pages: int) -> list[int]:
        """Take the last ``pages`` pages off a leaf's edge, which keeps at least one. O(pages)."""
        keep = len(node.pages) - pages
        gone = node.pages[keep:].tolist()
        del node.pages[keep:]
        del node.digests[keep:]
        del node.packed[keep * self.width :]
        self.pages -= pages
        return gone

    def detach(self, node: Node) -> Node:
        """Take a leaf out, its pages with it; returns its parent."""
        parent = node.parent
        if parent is None or node.children:
            raise InvariantError(f"node {node.serial} is not a leaf and cannot be taken out")
        if node.digests:
            del self.index[node.digests[0]]
        else:
            assert parent.tails is not None  # a tail, it hangs there
            del parent.tails[node.label]
            if not parent.tails:
                parent.tails = None
        parent.children -= 1
        node.parent = None
        self.pages -= len(node.pages)
        return parent

    def prune(self, node: Node) -> None:
        """Forget a root that nobody uses; any other node is left alone."""
        if isinstance(node, Root) and not node.children and not node.locks:
            self.roots.pop(node.name, None)

    def _node(self, parent: Node, account: Account, owner: bytes, depth: int) -> Node:
        self._serial += 1
        return Node(parent, account, owner, depth, self._serial)
