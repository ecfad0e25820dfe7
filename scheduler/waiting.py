"""The waiting room: who waits, in which order, and what each knows of the cache. Holds no pages.

One queue a tenant. In it requests stand by (span of arrival, longest cached prefix, fewest tokens to compute): within a
span of time whoever shares most goes first, an earlier span goes before, so nobody waits for more than those who came
in its span or before. A place changes only when the request's match does, and the cache says when that could be:

    entered, woken --match--> in the queue (watching its next block)  --admitted--> runs
                       |          ^ woken: the block was inserted, matched again
                       `--> parked behind the running request that computes its next block
"""

import heapq
from collections.abc import Collection, Container, Iterator

from sortedcontainers import SortedDict

from radix.cache import PrefixCache
from radix.errors import InvariantError
from scheduler.fairness import Tenant
from scheduler.request import Request

Place = tuple[int, int, int, int]
"""(span of arrival, - cached tokens, tokens to compute, order of arrival)."""


class WaitingRoom:
    """All waiting requests. ``ageing_s``: length of a span. One change of a place costs O(log n)."""

    def __init__(self, cache: PrefixCache, ageing_s: float) -> None:
        self._cache = cache
        self._ageing_s = ageing_s
        self._queues: dict[Tenant, SortedDict[Place, Request]] = {}
        self._tenants: dict[str, Tenant] = {}
        self._requests: dict[Request, None] = {}
        self.matches = 0  # how often a match was looked up, for tests and figures

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        """In no order that matters."""
        return iter(self._requests)

    @property
    def tenants(self) -> Collection[Tenant]:
        """Those of whom somebody waits."""
        return self._tenants.values()

    def push(self, request: Request) -> None:
        """Add a request that is not here; its match is not looked up yet. O(1)."""
        tenant = request.tenant
        request.ticket = self._cache.ticket(request.key, request)
        self._requests[request] = None
        self._tenants[tenant.name] = tenant
        tenant.waiting += 1
        tenant.backlog += request.total

    def remove(self, request: Request) -> None:
        """Take a request out that is here."""
        assert request.ticket is not None  # whoever waits has one
        self._cache.frontiers.drop(request.ticket)
        request.ticket = None
        self._unplace(request)
        request.blocked = -1
        del self._requests[request]
        tenant = request.tenant
        tenant.waiting -= 1
        tenant.backlog -= request.total
        if not tenant.waiting:
            del self._tenants[tenant.name]

    def contenders(self, most: int, without: Container[Tenant]) -> list[Tenant]:
        """Tenants of whom somebody may be able to start: up to ``most``, the least served. O(such tenants)."""
        lanes = self._cache.frontiers.lanes()
        woken = {tenant for lane in lanes if (tenant := self._tenants.get(lane)) is not None}
        able = (tenant for tenant in woken | self._queues.keys() if tenant not in without)
        return heapq.nsmallest(most, able, key=lambda tenant: (tenant.served, tenant.name))

    def refresh(self, tenant: Tenant, most: int) -> int:
        """Match up to ``most`` of a tenant's new and woken requests; how many it were. O(most * (edges + log n))."""
        taken = 0
        frontiers = self._cache.frontiers
        while taken < most and (ticket := frontiers.take(tenant.name)) is not None:
            request = ticket.owner
            assert isinstance(request, Request)
            self.match(request)
            taken += 1
        return taken

    def head(self, tenant: Tenant) -> Request | None:
        """The one of a tenant to start next, as its place says. O(log n)."""
        queue = self._queues.get(tenant)
        return queue.peekitem(0)[1] if queue else None

    def match(self, request: Request) -> bool:
        """Look a request's match up; False when it has to wait for a running one."""
        ticket = request.ticket
        assert ticket is not None  # whoever waits has one
        self.matches += 1
        self._cache.match(ticket)
        if ticket.producer is not None:
            self._unplace(request)
            return False
        span = int(request.arrival / self._ageing_s) if self._ageing_s else request.order
        place = (span, -ticket.cached, request.total - ticket.cached, request.order)
        if place != request.place:
            self._unplace(request)
            request.place = place
            self._queues.setdefault(request.tenant, SortedDict())[place] = request
        return True

    def _unplace(self, request: Request) -> None:
        if request.place is None:
            return
        queue = self._queues[request.tenant]
        del queue[request.place]
        if not queue:
            del self._queues[request.tenant]
        request.place = None

    def check(self) -> None:
        """Verify the queues; ``InvariantError`` names what is broken. O(requests)."""
        placed = {id(request) for queue in self._queues.values() for request in queue.values()}
        for tenant, queue in self._queues.items():
            for place, request in queue.items():
                if request.place != place or request.tenant is not tenant or request not in self._requests:
                    raise InvariantError(f"request {request.new.request} is not where its place says")
            if not queue:
                raise InvariantError(f"an empty queue is kept for tenant {tenant.name!r}")
        for request in self._requests:
            ticket = request.ticket
            if ticket is None:
                raise InvariantError(f"waiting request {request.new.request} has no ticket")
            parked = ticket.matched and ticket.producer is not None
            if parked and id(request) in placed:
                raise InvariantError(f"request {request.new.request} is parked and in the queue")
            if ticket.matched and not parked and id(request) not in placed:
                raise InvariantError(f"request {request.new.request} is neither parked nor in the queue")
            if ticket.group is None and len(ticket.key.digests) > ticket.cached // self._cache.page_size:
                raise InvariantError(f"nothing would wake request {request.new.request}")
        names = {request.tenant.name for request in self._requests}
        if names != set(self._tenants):
            raise InvariantError(f"tenants {names ^ set(self._tenants)} wait, or do not")
