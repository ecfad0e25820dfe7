"""What a request holds of the cache. The cache changes it; its owner only reads."""

import sys

from radix.errors import LeaseError
from radix.hashing import Key
from radix.tree import Node


class Lease:
    """Pages of one running sequence, position by position.

    ::

        pages      [ matched in the tree | published by us or duplicates | private, written | private, empty ]
                   0                  cached//page_size               published          computed

    key         the sequence; grows at the end
    pages       page ids, append-only: page i holds positions i*page_size .. (i+1)*page_size-1
    cached      tokens found in the cache when the lease was made
    computed    tokens whose keys and values are in the pages
    published   blocks that the tree has; ``node`` ends exactly there, and is locked
    duplicates  pages of ours for blocks that the tree has from somebody else; ours until release
    boundary    ``computed`` at which the next block can be published
    """

    __slots__ = ("boundary", "cached", "computed", "duplicates", "key", "node", "pages", "published", "released")

    def __init__(self, key: Key, node: Node, pages: list[int], cached: int, published: int, boundary: int) -> None:
        self.key = key
        self.node = node
        self.pages = pages
        self.cached = cached
        self.computed = cached
        self.published = published
        self.duplicates: list[int] = []
        self.boundary = boundary
        self.released = False

    @property
    def private_pages(self) -> list[int]:
        """Pages that are not in the tree."""
        return self.duplicates + self.pages[self.published :]

    def stop_publishing(self) -> None:
        """After a digest collision: the rest stays private."""
        self.boundary = sys.maxsize

    def close(self) -> None:
        """Mark as released; once only."""
        self.require_open()
        self.released = True

    def require_open(self) -> None:
        """Raise ``LeaseError`` after the release."""
        if self.released:
            raise LeaseError("the lease has been released")
