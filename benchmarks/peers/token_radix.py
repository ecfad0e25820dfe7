"""TokenRadixCache: the radix tree over token ids of SGLang and mini-sglang, without digests.

Described by: mini-sglang, python/minisgl/kvcache/radix_cache.py (commit 02b130b) and kernel/csrc/src/radix.cpp; SGLang,
python/sglang/srt/mem_cache/radix_cache.py (commit 006b0e3, which keeps a set of evictable leaves, PR 14339). Where the
two differ, the faster way is taken:

- the rest of a key is a view (mini-sglang), not a copy (SGLang);
- an edge is compared in C: one memcmp where it is equal, else the first difference by numpy (mini-sglang:
  ``std::mismatch``; SGLang: Python loops, later slices of ``array``);
- evictable leaves are a set that is kept up to date (SGLang), so that ``evict`` does not walk the tree (mini-sglang);
  it still makes a heap of all of them at each call;
- leaves are ordered by a counter of calls, as tuples that C compares, not by ``__lt__`` of the nodes.

Left out: host memory, hit counts, priorities and policies, LoRA and bigram keys, events, the allocator (freed pages are
returned). Both peers keep an index of 4 or 8 bytes for every *token*; here it is ``indices_per_page`` for every page.
"""

import heapq

import numpy as np

Ids = np.ndarray[tuple[int], np.dtype[np.signedinteger]]
"""One-dimensional array of token ids or page indices."""


class TokenNode:
    """An edge and its end: ``token_ids`` and ``pages`` of the edge, children by the tuple of their first page's ids.

    locks     sequences in use that end here or below
    last_use  call of the cache that last went along the whole edge
    """

    __slots__ = ("children", "last_use", "locks", "pages", "parent", "token_ids")

    def __init__(self, parent: "TokenNode | None", token_ids: Ids, pages: Ids, last_use: int) -> None:
        self.parent = parent
        self.token_ids = token_ids
        self.pages = pages
        self.last_use = last_use
        self.locks = 0
        self.children: dict[tuple[int, ...], TokenNode] = {}


class TokenRadixCache:
    """Sequences of whole pages, shared by prefix. ``evictable``: pages that no lock holds."""

    def __init__(self, page_size: int, indices_per_page: int = 1) -> None:
        self.page_size = page_size
        self.indices_per_page = indices_per_page
        self.evictable = 0
        self.leaves: set[TokenNode] = set()
        empty = np.empty(0, np.int32)
        self.root = TokenNode(None, empty, empty, 0)
        self._calls = 0

    def match(self, token_ids: Ids) -> tuple[Ids, TokenNode]:
        """Page indices of the longest cached prefix in whole pages, and the node where it ends; may split an edge.

        O(tokens matched + edges on the path).
        """
        found, node, _ = self._walk(token_ids)
        return (np.concatenate(found) if found else self.root.pages), node

    def insert(self, token_ids: Ids, pages: Ids) -> tuple[int, TokenNode]:
        """Cache all whole pages; how many the tree had already (their indices in ``pages`` are not taken), and the end.

        O(tokens).
        """
        _, node, at = self._walk(token_ids)
        had = at // self.page_size
        whole = len(token_ids) // self.page_size
        if had < whole:
            rest = token_ids[at : whole * self.page_size].copy()
            indices = pages[had * self.indices_per_page : whole * self.indices_per_page].copy()
            child = TokenNode(node, rest, indices, self._calls)
            node.children[self._name(rest)] = child
            self.leaves.discard(node)
            self.leaves.add(child)
            self.evictable += whole - had
            node = child
        return had, node

    def lock(self, node: TokenNode) -> None:
        """Keep everything from ``node`` to the root. O(edges to the root)."""
        step = node
        while step.parent is not None:
            if step.locks == 0:
                self.evictable -= len(step.token_ids) // self.page_size
                self.leaves.discard(step)
            step.locks += 1
            step = step.parent

    def unlock(self, node: TokenNode) -> None:
        """Undo one ``lock``. O(edges to the root)."""
        step = node
        while step.parent is not None:
            step.locks -= 1
            if step.locks == 0:
                self.evictable += len(step.token_ids) // self.page_size
                if not step.children:
                    self.leaves.add(step)
            step = step.parent

    def evict(self, pages: int) -> Ids:
        """Indices of at least ``pages`` pages, of all there are if fewer: whole leaves, whoever was used longest ago.

        O(evictable leaves + leaves taken * log leaves).
        """
        # Nodes of one call lie on one path: two leaves never have the same last_use, so nodes are never compared.
        heap = [(leaf.last_use, leaf) for leaf in self.leaves]
        heapq.heapify(heap)
        found: list[Ids] = []
        freed = 0
        while freed < pages and heap:
            _, leaf = heapq.heappop(heap)
            parent = leaf.parent
            assert parent is not None
            del parent.children[self._name(leaf.token_ids)]
            self.leaves.remove(leaf)
            found.append(leaf.pages)
            freed += len(leaf.token_ids) // self.page_size
            if not parent.children and not parent.locks and parent.parent is not None:
                self.leaves.add(parent)
                heapq.heappush(heap, (parent.last_use, parent))
        self.evictable -= freed
        return np.concatenate(found) if found else self.root.pages

    def _name(self, token_ids: Ids) -> tuple[int, ...]:
        """What a child is found by: the ids of its first page."""
        return tuple(token_ids[: self.page_size].tolist())

    def _walk(self, token_ids: Ids) -> tuple[list[Ids], TokenNode, int]:
        """The longest prefix in whole pages: indices edge by edge, the node where it ends, its tokens."""
        self._calls += 1
        found: list[Ids] = []
        node, at = self.root, 0
        end = len(token_ids) // self.page_size * self.page_size
        while at < end:
            child = node.children.get(self._name(token_ids[at:end]))
            if child is None:
                break
            edge = child.token_ids
            part = token_ids[at : min(at + len(edge), end)]
            if part.tobytes() == edge.tobytes():  # one memcmp
                node, same = child, len(edge)
            else:
                same = common_prefix(edge, part) // self.page_size * self.page_size
                node = self._split(child, same)
            at += same
            node.last_use = self._calls
            found.append(node.pages)
            if node is not child:
                break
        return found, node, at

    def _split(self, node: TokenNode, tokens: int) -> TokenNode:
        """Cut an edge; the upper part is returned, ``node`` stays what it was to whoever ends there."""
        parent = node.parent
        assert parent is not None
        indices = tokens // self.page_size * self.indices_per_page
        upper = TokenNode(parent, node.token_ids[:tokens].copy(), node.pages[:indices].copy(), node.last_use)
        upper.locks = node.locks
        parent.children[self._name(upper.token_ids)] = upper
        node.token_ids, node.pages = node.token_ids[tokens:].copy(), node.pages[indices:].copy()
        node.parent = upper
        upper.children[self._name(node.token_ids)] = node
        return upper


def common_prefix(left: Ids, right: Ids) -> int:
    """How many ids agree from the start. O(shorter), compared in C."""
    size = min(len(left), len(right))
    differ = left[:size] != right[:size]
    first = int(differ.argmax())
    return first if differ[first] else size
