"""Every invariant of the scheduler, verified from scratch: for tests after each action, and for an idle engine."""

from radix.cache import PrefixCache
from radix.errors import InvariantError
from scheduler.request import Request
from scheduler.slots import Slots
from scheduler.waiting import WaitingQueue


def check_scheduler(
    requests: dict[int, Request],
    waiting: WaitingQueue,
    running: list[Request],
    slots: Slots,
    in_flight: list[Request],
    cache: PrefixCache,
) -> None:
    """Raise ``InvariantError`` for the first invariant that does not hold. O(requests)."""
    queued = list(waiting)
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
    _check_order([request.order for request in queued], "waiting")
    _check_order([request.order for request in running], "running")
    _check_slots(running, slots)
    leases = {id(request.lease) for request in running}
    _require(leases == set(cache.leases), "the cache has leases that no running request holds, or lacks one")
    flying = {id(request) for request in in_flight}
    _require(flying <= {id(request) for request in running}, "a request of the step in flight is not running")
    for request in running:
        pending = request.planned > request.computed
        _require(pending == (id(request) in flying), f"request {request.new.request}: planned and in flight disagree")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise InvariantError(message)


def _check_tokens(request: Request) -> None:
    name = f"request {request.new.request}"
    _require(
        request.total == len(request.new.prompt) // 4 + request.output, f"{name} counts {request.output} output tokens"
    )
    _require(request.output < request.new.max_tokens, f"{name} has all its tokens and has not ended")
    _require(bytes(request.key.tokens).startswith(request.new.prompt), f"{name} does not begin with its prompt")


def _check_waiting(request: Request) -> None:
    name = f"waiting request {request.new.request}"
    _require(request.lease is None and request.slot == -1, f"{name} holds a lease or a row")
    _require(request.computed == request.planned == 0, f"{name} has computed tokens")
    _require(not request.cancelled, f"{name} is cancelled")


def _check_running(request: Request, cache: PrefixCache) -> None:
    name = f"running request {request.new.request}"
    lease = request.lease
    if lease is None:
        raise InvariantError(f"{name} has no lease")
    _require(lease.key is request.key, f"{name} holds a lease for other tokens")
    _require(request.computed < request.total, f"{name} has nothing to compute")
    _require(request.computed <= request.planned <= request.total, f"{name}: planned {request.planned} tokens")
    _require(request.planned <= len(lease.pages) * cache.page_size, f"{name} planned more than its pages hold")
    # After a full hit the last token is computed again although the cache has it.
    _require(
        lease.computed - request.computed in (0, 1), f"{name} computed {request.computed}, its lease {lease.computed}"
    )


def _check_order(orders: list[int], what: str) -> None:
    _require(orders == sorted(orders), f"the {what} requests are not in order of arrival")


def _check_slots(running: list[Request], slots: Slots) -> None:
    taken = [request.slot for request in running]
    _require(
        sorted(taken + slots.free_slots()) == list(range(slots.count)),
        f"rows {taken} are taken, and the free ones differ",
    )
