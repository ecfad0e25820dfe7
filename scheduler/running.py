"""The running requests: who holds a lease and a row, from being admitted to being let go. Decides nothing.

waiting --enter--> running --release, fall--> (ended, or waiting again by ``preempt``, ``restart``)
"""

from bisect import insort
from collections import deque
from collections.abc import Iterator

from radix.cache import PrefixCache
from radix.lease import Lease
from scheduler.fairness import Tenant
from scheduler.load import Totals
from scheduler.request import Request
from scheduler.slots import Slots
from scheduler.waiting import WaitingRoom


class Running:
    """Requests in order of arrival, each with a lease and a row of ``slots``."""

    def __init__(self, cache: PrefixCache, waiting: WaitingRoom, slots: Slots, totals: Totals) -> None:
        self.slots = slots
        self._cache = cache
        self._waiting = waiting
        self._totals = totals
        self._requests: list[Request] = []

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        """The older first."""
        return iter(self._requests)

    @property
    def oldest(self) -> Request:
        """Who came first; there is one."""
        return self._requests[0]

    @property
    def younger(self) -> list[Request]:
        """All but the oldest."""
        return self._requests[1:]

    def sort(self) -> tuple[list[Request], dict[Tenant, deque[Request]]]:
        """Requests with one token to compute, known or not, and those with more by tenant; the older first."""
        decodes: list[Request] = []
        prefills: dict[Tenant, deque[Request]] = {}
        for request in self._requests:
            if request.cancelled:
                continue
            pending = request.total - request.planned
            if pending == 1 or (pending == 0 and request.unknown and request.output + 1 < request.new.max_tokens):
                decodes.append(request)
            elif pending > 1:
                prefills.setdefault(request.tenant, deque()).append(request)
        return decodes, prefills

    def enter(self, request: Request, lease: Lease, computed: int) -> None:
        """A waiting request starts: ``computed`` of its tokens are in the pages of ``lease`` already. A row is free."""
        self._waiting.remove(request)
        request.lease = lease
        request.computed = request.planned = computed
        request.slot = self.slots.take()
        request.tenant.rows += 1
        insort(self._requests, request, key=_order)

    def release(self, request: Request) -> None:
        """Give back pages and row; what it computed stays in the tree as long as nobody needs the pages."""
        self._cache.release(request.held)
        self._detach(request)

    def preempt(self, request: Request) -> None:
        """Back to the queue."""
        self.release(request)
        self.restart(request)

    def fall(self, request: Request) -> list[Request]:
        """A step failed for the request: what steps in flight write for it is taken back. Returns the other requests
        that stood on it; none of them holds anything any more, and it is for the caller to ``restart`` or end them."""
        leases = set(map(id, self._cache.retract(request.held)))
        fallen = [other for other in self._requests if id(other.lease) in leases]
        for other in [request, *fallen]:
            self._detach(other)
        return fallen

    def restart(self, request: Request) -> None:
        """Queue one that holds nothing any more."""
        request.preempted = True
        request.computed = request.planned = request.unknown = 0
        self._totals.preemptions += 1
        self._waiting.push(request)

    def _detach(self, request: Request) -> None:
        self._requests.remove(request)
        request.tenant.rows -= 1
        request.lease = None
        request.epoch += 1
        request.flights = 0
        self.slots.give(request.slot)
        request.slot = -1


def _order(request: Request) -> int:
    return request.order
