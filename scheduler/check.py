"""Every invariant of the scheduler, verified from scratch: for tests after each action, and for an idle engine."""

from collections import Counter
from typing import TYPE_CHECKING

from radix.cache import PrefixCache
from radix.errors import InvariantError
from scheduler.request import Request
from scheduler.slots import Slots

if TYPE_CHECKING:
    from scheduler.scheduler import Scheduler


def check_scheduler(scheduler: "Scheduler") -> None:
    """Raise ``InvariantError`` for the first invariant that does not hold. O(requests)."""
    requests, running, cache = scheduler.requests, list(scheduler.running), scheduler.cache
    queued = list(scheduler.waiting)
    known = {id(request) for request in requests.values()}
    placed = [id(request) for request in [*queued, *running]]
    _require(len(placed) == len(set(placed)), "a request is both waiting and running, or twice in one of them")
    _require(set(placed) == known, "a request is neither waiting nor running, or has ended and is still queued")
    for key, request in requests.items():
        _require(request.new.request == key, f"request {request.new.request} is filed under {key}")
        _check_tokens(request)
    for request in queued:
        _check_waiting(request)
    for request in running:
        _check_running(request, cache)
    orders = [request.order for request in running]
    _require(orders == sorted(orders), "the running requests are not in order of arrival")
    _check_slots(running, scheduler.slots)
    leases = {id(request.lease) for request in running}
    _require(leases == set(cache.leases), "the cache has leases that no running request holds, or lacks one")
    _check_flights(scheduler)
    _check_tenants(scheduler, queued)
    scheduler.waiting.check()


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise InvariantError(message)


def _check_tokens(request: Request) -> None:
    name = f"request {request.new.request}"
    _require(request.total == request.prompt_tokens + request.output, f"{name} counts {request.output} output tokens")
    _require(request.total == len(request.key), f"{name} counts {request.total} tokens")
    _require(
        request.output < request.new.max_tokens or request.new.max_tokens == 0, f"{name} has all its tokens and goes on"
    )
    _require(request.key.tokens().startswith(request.new.prompt), f"{name} does not begin with its prompt")
    _require(request.charged <= request.prompt_tokens, f"{name} is charged for more than its prompt")


def _check_waiting(request: Request) -> None:
    name = f"waiting request {request.new.request}"
    _require(request.lease is None and request.slot == -1, f"{name} holds a lease or a row")
    _require(request.computed == request.planned == request.unknown == 0, f"{name} has computed tokens")
    _require(not request.cancelled and request.flights == 0, f"{name} is cancelled or in flight")
    _require(request.ticket is not None and request.ticket.owner is request, f"{name} has no ticket")


def _check_running(request: Request, cache: PrefixCache) -> None:
    name = f"running request {request.new.request}"
    lease = request.lease
    if lease is None:
        raise InvariantError(f"{name} has no lease")
    _require(request.ticket is None and request.place is None, f"{name} is still in the queue")
    _require(lease.key is request.key, f"{name} holds a lease for other tokens")
    _require(
        request.computed <= request.planned <= request.total + request.unknown, f"{name}: planned {request.planned}"
    )
    _require(request.computed < request.total or request.cancelled, f"{name} has nothing to compute")
    _require(request.unknown <= request.flights, f"{name} expects a token from no step")
    _require(request.planned <= len(lease.pages) * cache.page_size, f"{name} planned more than its pages hold")
    # After a full hit the last token is computed again although the cache has it, and all of a prompt that is scored.
    ahead = lease.computed - request.computed
    _require(
        ahead in (0, 1) or (request.scored and ahead > 0),
        f"{name} computed {request.computed}, its lease {lease.computed}",
    )


def _check_slots(running: list[Request], slots: Slots) -> None:
    taken = [request.slot for request in running]
    _require(
        sorted(taken + slots.free_slots()) == list(range(slots.count)),
        f"rows {taken} are taken, and the free ones differ",
    )


def _check_flights(scheduler: "Scheduler") -> None:
    """Requests count the steps that they are in; the end of the last one is what they have planned."""
    count: Counter[int] = Counter()
    end: dict[int, int] = {}
    for flight in scheduler.flights:
        for request, epoch, planned in flight.flown:
            if request.epoch == epoch:
                count[id(request)] += 1
                end[id(request)] = planned
    for request in scheduler.running:
        name = f"request {request.new.request}"
        _require(request.flights == count.pop(id(request), 0), f"{name} counts {request.flights} steps in flight")
        _require(request.planned == end.get(id(request), request.computed), f"{name}: planned and in flight disagree")
    _require(not count, "a request of a step in flight is not running")


def _check_tenants(scheduler: "Scheduler", queued: list[Request]) -> None:
    for tenant in scheduler.fairness.tenants.values():
        mine = [request for request in queued if request.tenant is tenant]
        of_all = sum(1 for request in scheduler.requests.values() if request.tenant is tenant)
        _require(tenant.open == of_all, f"tenant {tenant.name!r} counts {tenant.open} requests, there are {of_all}")
        rows = sum(1 for request in scheduler.running if request.tenant is tenant)
        _require(tenant.rows == rows, f"tenant {tenant.name!r} counts {tenant.rows} rows, there are {rows}")
        _require(tenant.waiting == len(mine), f"tenant {tenant.name!r} counts {tenant.waiting} waiting requests")
        _require(tenant.backlog == sum(request.total for request in mine), f"the backlog of {tenant.name!r} is wrong")
    here = {tenant.name for tenant in scheduler.fairness.here}
    _require(here == {t.name for t in scheduler.fairness.tenants.values() if t.open}, "who is here is wrong")
