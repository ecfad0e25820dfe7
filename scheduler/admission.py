"""Whether a waiting request may start now. Counts pages and compares digests; changes nothing.

A newcomer starts when the pages for all its known tokens and its first output page are there, beside what the running
ones still need for theirs and a page of growth for each: so a start is seldom followed by a preemption. With nothing
running everything is available, and whatever was accepted fits.
"""

from collections.abc import Iterable

from radix.cache import PrefixCache
from radix.lease import Lease
from scheduler.request import Request


def pages_for(tokens: int, page_size: int) -> int:
    """Pages that hold ``tokens`` tokens."""
    return -(-tokens // page_size)


def pages_wanted(request: Request, page_size: int) -> int:
    """Pages for the tokens known so far and the next one, never more than the request can ever need."""
    return pages_for(min(request.total + 1, request.limit), page_size)


def reserved_pages(running: Iterable[Request], page_size: int) -> int:
    """Pages that running requests will ask for soon: for the rest of their known tokens, and one page of growth.

    O(running).
    """
    reserved = 0
    for request in running:
        held = len(request.lease.pages) if request.lease else 0
        most = pages_for(request.limit, page_size)
        reserved += min(max(pages_wanted(request, page_size), held) + 1, most) - held
    return reserved


def fits(request: Request, lease: Lease, cache: PrefixCache, reserved: int) -> bool:
    """Whether ``request``, holding the cached prefix in ``lease``, finds its pages beside the ``reserved`` ones."""
    return pages_wanted(request, cache.page_size) - len(lease.pages) + reserved <= cache.available


def computed_by_another(request: Request, cache: PrefixCache, running: Iterable[Request]) -> bool:
    """Whether a running request is about to compute the very block that ``request`` would begin with.

    Then it pays to wait until that block is in the tree. The wait ends with the running request's passing the block, by
    computing it or by leaving.
    O(path in the tree + running requests with prompt tokens to compute).
    """
    page_size = cache.page_size
    block = cache.peek(request.key) // page_size
    digests = request.key.digests
    if block >= len(digests):
        return False
    end = (block + 1) * page_size
    for other in running:
        theirs = other.key.digests
        if other.computed < end and block < len(theirs) and theirs[block] == digests[block]:
            return True
    return False
