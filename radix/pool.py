"""Which page ids are free. Knows nothing of what is in a page or who holds it."""

from array import array
from collections.abc import Sequence

from radix.errors import CacheError, InvariantError


class PagePool:
    """Ids 0..pages-1, each free or taken; 5 bytes a page. ``take`` and ``give`` cost O(pages moved)."""

    def __init__(self, pages: int) -> None:
        if pages < 1:
            raise CacheError(f"a page pool needs at least 1 page, got {pages}")
        self.total = pages
        # Last in, first out: a page that was just freed is the likeliest to be warm in some cache of the machine.
        self._free: array[int] = array("i", range(pages - 1, -1, -1))
        self._taken = bytearray(pages)

    @property
    def free(self) -> int:
        """Number of free pages."""
        return len(self._free)

    def take(self, count: int) -> list[int]:
        """``count`` free pages; the caller has made sure that there are as many."""
        free = self._free
        if not 0 <= count <= len(free):
            raise InvariantError(f"{count} pages wanted of {len(free)} free ones")
        if count == 0:
            return []
        pages = free[-count:].tolist()
        del free[-count:]
        taken = self._taken
        for page in pages:
            taken[page] = 1
        return pages

    def give(self, pages: Sequence[int]) -> None:
        """Take pages back. A page that is free already is a broken invariant, and is named at once."""
        taken = self._taken
        for page in pages:
            if not taken[page]:
                raise InvariantError(f"page {page} is freed twice")
            taken[page] = 0
        self._free.extend(pages)

    def free_pages(self) -> list[int]:
        """The free ids, for ``check``."""
        return self._free.tolist()
