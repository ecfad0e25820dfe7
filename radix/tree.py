"""RadixTree of hashed token blocks with compressed edges: walk, split, attach, detach. Knows no leases, no free pages.

A node is a run of blocks (its edge) below its parent. Digests are chained, so the first digest of an edge is unique
in the whole forest, and one dict ``first digest -> node`` finds every child. Digests find, tokens decide: an edge
matches only as far as its token bytes equal the key's *and* its parent is the node where the walk stands. Two
different edges with one first digest cannot both be in the tree; the second is refused, and its owner keeps its pages
to itself.
"""

from array import array

from radix.errors import InvariantError
from radix.hashing import TOKEN_BYTES, Key


class Node:
    """An edge and its end.

    digests   one per block (uint64); empty for a root and for a tail
    pages     one page id per block; a tail has one page, filled in part
    tokens    little-endian uint32, page_size per block; a tail has 1..page_size-1 tokens
    depth     blocks from the root to the start of the edge
    children  number of nodes below, tails included
    tails     tokens -> partly filled page at the end of this edge
    locks     leases that end here + children that are locked
    last_use  the cache's count of releases when this node was last unlocked
    serial    order of creation, unique
    """

    __slots__ = (
        "children",
        "depth",
        "digests",
        "last_use",
        "locks",
        "namespace",
        "pages",
        "parent",
        "serial",
        "tails",
        "tokens",
    )

    def __init__(self, parent: "Node | None", namespace: str, depth: int, serial: int) -> None:
        self.parent = parent
        self.namespace = namespace
        self.depth = depth
        self.serial = serial
        self.digests: array[int] = array("Q")
        self.pages: list[int] = []
        self.tokens = bytearray()
        self.children = 0
        self.tails: dict[bytes, Node] = {}
        self.locks = 0
        self.last_use = 0

    @property
    def is_tail(self) -> bool:
        """Whether this is a partly filled page."""
        return bool(self.pages) and not self.digests


class RadixTree:
    """The forest: one root per namespace.

    ``pages``: pages in the tree, tails included. ``version`` moves when a match could have become longer or shorter.
    """

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.width = page_size * TOKEN_BYTES
        self.pages = 0
        self.version = 0
        self.roots: dict[str, Node] = {}
        self.index: dict[int, Node] = {}
        self._serial = 0

    def root(self, namespace: str) -> Node:
        """The namespace's root, made when it is not there."""
        node = self.roots.get(namespace)
        if node is None:
            node = self.roots[namespace] = self._node(None, namespace, 0)
        return node

    def walk(self, key: Key) -> tuple[list[Node], Node | None, int]:
        """The longest verified match: nodes matched whole (no root), then the edge matched in part and how far.

        O(edges on the path + log of the last edge) and one comparison of the tokens of each edge.
        """
        path: list[Node] = []
        node = self.roots.get(key.namespace)
        at = 0
        while node is not None and at < len(key.digests):
            child = self.index.get(key.digests[at])
            if child is None or child.parent is not node:
                break
            blocks = self.match(child, key)
            if blocks < len(child.digests):
                return path, (child if blocks else None), blocks
            path.append(child)
            at += blocks
            node = child
        return path, None, 0

    def match(self, node: Node, key: Key) -> int:
        """Blocks of ``node``'s edge that ``key`` goes along, tokens verified.

        Where a digest is right and its tokens are not, nothing of the edge matches: sharing less is the price of a
        collision.
        """
        ours, theirs, at = node.digests, key.digests, node.depth
        low, high = 0, min(len(ours), len(theirs) - at)
        if high == len(ours) and ours[-1] == theirs[at + high - 1]:
            return high if key.tokens.startswith(node.tokens, at * self.width) else 0
        while low < high:  # largest count whose last digests agree; chained digests agree from the start or not at all
            middle = (low + high + 1) // 2
            if ours[middle - 1] == theirs[at + middle - 1]:
                low = middle
            else:
                high = middle - 1
        same = key.tokens.startswith(node.tokens[: low * self.width], at * self.width)
        return low if same else 0

    def tail(self, node: Node, key: Key) -> Node | None:
        """The longest tail at the end of ``node`` that ``key`` continues. O(page_size) where tails hang, else O(1)."""
        if not node.tails:
            return None
        start = (node.depth + len(node.digests)) * self.width
        rest = bytes(key.tokens[start : start + self.width - TOKEN_BYTES])
        for size in range(len(rest), 0, -TOKEN_BYTES):
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
        upper = self._node(node.parent, node.namespace, node.depth)
        upper.digests, node.digests = node.digests[:blocks], node.digests[blocks:]
        upper.pages, node.pages = node.pages[:blocks], node.pages[blocks:]
        upper.tokens = node.tokens[: blocks * self.width]
        node.tokens = node.tokens[blocks * self.width :]
        upper.children = 1
        upper.locks = 1 if node.locks else 0
        upper.last_use = node.last_use
        node.parent = upper
        node.depth += blocks
        self.index[upper.digests[0]] = upper
        self.index[node.digests[0]] = node
        return upper

    def attach(self, parent: Node, key: Key, blocks: int, pages: list[int]) -> Node:
        """A new child: the blocks of ``key`` from the end of ``parent`` to ``blocks``; the first digest is free."""
        node = self._node(parent, parent.namespace, parent.depth + len(parent.digests))
        parent.children += 1
        self.index[key.digests[node.depth]] = node
        self.append(node, key, blocks, pages)
        return node

    def append(self, node: Node, key: Key, blocks: int, pages: list[int]) -> None:
        """Lengthen an edge without children to ``blocks`` blocks from the root. Amortized O(new tokens)."""
        start = node.depth + len(node.digests)
        node.digests += key.digests[start:blocks]
        node.tokens += key.tokens[start * self.width : blocks * self.width]
        node.pages += pages
        self.pages += len(pages)
        self.version += 1

    def hang(self, parent: Node, tokens: bytes, page: int) -> Node:
        """A partly filled page below the end of ``parent``; ``tokens`` is not among its tails."""
        node = self._node(parent, parent.namespace, parent.depth + len(parent.digests))
        node.tokens += tokens
        node.pages.append(page)
        parent.tails[tokens] = node
        parent.children += 1
        self.pages += 1
        self.version += 1
        return node

    def cut(self, node: Node, pages: int) -> list[int]:
        """Take the last ``pages`` pages off a leaf's edge, which keeps at least one. O(pages)."""
        keep = len(node.pages) - pages
        gone = node.pages[keep:]
        del node.pages[keep:]
        del node.digests[keep:]
        del node.tokens[keep * self.width :]
        self.pages -= pages
        self.version += 1
        return gone

    def detach(self, node: Node) -> Node:
        """Take a leaf out, its pages with it; returns its parent."""
        parent = node.parent
        if parent is None or node.children:
            raise InvariantError(f"node {node.serial} is not a leaf and cannot be taken out")
        if node.is_tail:
            del parent.tails[bytes(node.tokens)]
        else:
            del self.index[node.digests[0]]
        parent.children -= 1
        node.parent = None
        self.pages -= len(node.pages)
        self.version += 1
        return parent

    def prune(self, node: Node) -> None:
        """Forget a root that nobody uses."""
        if node.parent is None and not node.children and not node.locks and self.roots.get(node.namespace) is node:
            del self.roots[node.namespace]

    def _node(self, parent: Node | None, namespace: str, depth: int) -> Node:
        self._serial += 1
        return Node(parent, namespace, depth, self._serial)
