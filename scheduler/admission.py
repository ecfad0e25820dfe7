"""Who may start: gates, and how many pages are set aside for whom. Counts pages; changes nothing.

``OnDemand`` gives pages as tokens come. A newcomer starts when its known tokens and the output it is expected to have
fit beside what the running ones are still expected to need: so a start is seldom followed by a preemption. With nothing
running everything is available, and whatever was accepted fits.
"""

from collections.abc import Iterable
from typing import Protocol

from scheduler.request import Request

# Running requests end one after another, and each end frees pages: of what all of them together may still ask for,
# about half is asked for at the same time.
_TOGETHER = 0.5
_NEWS = 1 / 32


def pages_for(tokens: int, page_size: int) -> int:
    """Pages that hold ``tokens`` tokens."""
    return -(-tokens // page_size)


class Admission(Protocol):
    """The seam between pages on demand and memory set aside. ``preempts``: whether a running request may be preempted
    for the share of another tenant."""

    preempts: bool

    def opens(self, running: int) -> bool:
        """Whether newcomers may join now."""
        ...

    def upfront(self, request: Request) -> int:
        """Tokens whose pages a newcomer takes at its start, beyond those of its first chunk."""
        ...

    def wanted(self, request: Request, page_size: int) -> int:
        """Pages that a request is expected to have at its end."""
        ...

    def reserved(self, running: Iterable[Request], page_size: int) -> int:
        """Pages to be kept for what the running ones will still ask for. O(running)."""
        ...

    def ended(self, request: Request) -> None:
        """A request has ended by itself: learn from its length."""
        ...


class OnDemand:
    """Pages as tokens come; outputs are expected to be as long as those of the same tenant lately."""

    preempts = True

    def opens(self, running: int) -> bool:
        """Always."""
        return True

    def upfront(self, request: Request) -> int:
        """Nothing."""
        return 0

    def wanted(self, request: Request, page_size: int) -> int:
        """Pages for the tokens known so far and the expected output, never more than the request can ever need."""
        expected = request.tenant.expected_output
        more = max(expected - request.output, 1.0) if expected >= 0 else 1.0
        return pages_for(min(request.total + int(min(more, request.limit)), request.limit), page_size)

    def reserved(self, running: Iterable[Request], page_size: int) -> int:
        """Half of what they are expected to ask for, and at least a page of growth each where they can grow."""
        pages = growth = 0
        for request in running:
            held = len(request.held.pages)
            known = pages_for(min(request.total + 1, request.limit), page_size)
            base = max(known, held)
            most = pages_for(request.limit, page_size)
            pages += base - held
            growth += max(self.wanted(request, page_size) - base, min(1, most - base))
        return pages + int(growth * _TOGETHER + 0.999)

    def ended(self, request: Request) -> None:
        """A moving mean by tenant."""
        tenant = request.tenant
        if tenant.expected_output < 0:
            tenant.expected_output = float(request.output)
        else:
            tenant.expected_output += (request.output - tenant.expected_output) * _NEWS


class WorstCase:
    """Everything that a request could ever need is its own from the start. ``whole_batches``: nobody joins a batch."""

    preempts = False

    def __init__(self, whole_batches: bool = False) -> None:
        self.whole_batches = whole_batches

    def opens(self, running: int) -> bool:
        """Always, or only into a batch that is being put together."""
        return not self.whole_batches or running == 0

    def upfront(self, request: Request) -> int:
        """All it can ever need."""
        return request.limit

    def wanted(self, request: Request, page_size: int) -> int:
        """All it can ever need."""
        return pages_for(request.limit, page_size)

    def reserved(self, running: Iterable[Request], page_size: int) -> int:
        """Nothing: they have it."""
        return 0

    def ended(self, request: Request) -> None:
        """Nothing is learned."""
