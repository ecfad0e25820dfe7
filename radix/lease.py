"""What a request holds of the cache. The cache changes it; its owner only reads."""

import sys
from array import array

from radix.accounts import Account
from radix.errors import LeaseError
from radix.hashing import Key
from radix.tree import Node


class Lease:
    """Pages of one running sequence, position by position.

    ::

        pages      [ matched in the tree | inserted by us or duplicates      | private, written | private, empty ]
                   0                  cached//page_size                   published          computed
                                         [ ready | pending: steps in flight ]

    key         the sequence; grows at the end
    account     who pays for its private pages
    pages       page ids (int32), append-only: page i holds positions i*page_size .. (i+1)*page_size-1
    cached      tokens found in the cache when the lease was made; a step in flight may be writing some of them
    computed    tokens whose keys and values are in the pages, as far as ``publish`` was told
    published   blocks that the tree has; ``node`` ends exactly there, and is locked
    pending     runs (first block, end) that we inserted and that steps in flight are writing, in order
    duplicates  pages of ours for blocks that the tree has from somebody else; ours until release
    grows       its node's edge is its own so far: what comes next is appended to it
    boundary    number of tokens at which the next block can be inserted
    """

    __slots__ = (
        "account",
        "boundary",
        "cached",
        "computed",
        "duplicates",
        "grows",
        "key",
        "node",
        "pages",
        "pending",
        "published",
        "released",
    )

    def __init__(
        self, key: Key, account: Account, node: Node, pages: "array[int]", cached: int, published: int, boundary: int
    ) -> None:
        self.key = key
        self.account = account
        self.node = node
        self.pages = pages
        self.cached = cached
        self.computed = cached
        self.published = published
        self.pending: list[tuple[int, int]] = []
        self.duplicates: list[int] = []
        self.grows = False
        self.boundary = boundary
        self.released = False

    @property
    def private_pages(self) -> list[int]:
        """Pages that are not in the tree."""
        return [*self.duplicates, *self.pages[self.published :]]

    @property
    def closed_to_sharing(self) -> bool:
        """After a digest collision: the rest stays private."""
        return self.boundary == sys.maxsize

    def stop_sharing(self) -> None:
        """A digest is taken by other tokens."""
        self.boundary = sys.maxsize

    def close(self) -> None:
        """Mark as released; once only."""
        self.require_open()
        self.released = True

    def require_open(self) -> None:
        """Raise ``LeaseError`` after the release."""
        if self.released:
            raise LeaseError("the lease has been released")
