"""The open requests as data for people: what each is doing now. Changes nothing."""

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from scheduler.request import Request
    from scheduler.scheduler import Scheduler


class Lane(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One request. ``state``: ``running`` (it decodes), ``prefilling``, ``waiting`` or ``preempted``.

    ``done`` of ``total`` tokens (prompt and output so far) are computed; it may come to ``limit``; steps in flight
    compute ``chunk``. What is waiting has nothing done: what it finds in the cache is known when it starts.
    """

    request: int
    tenant: str
    state: str
    done: int
    total: int
    limit: int
    chunk: int


def lanes(scheduler: "Scheduler", tenant: str | None, limit: int) -> list[Lane]:
    """Those of ``tenant``, or of all, at most ``limit``: running ones first, each kind in order of arrival.

    Prompts that are computed for nobody (ids below 0) are not among them. O(requests log requests).
    """
    running = list(scheduler.running)
    waiting = sorted(scheduler.waiting, key=lambda request: request.order)
    wanted = (
        request
        for request in (*running, *waiting)
        if request.new.request >= 0 and not request.cancelled and tenant in (None, request.new.tenant)
    )
    return [_lane(request) for _, request in zip(range(limit), wanted, strict=False)]


def _lane(request: "Request") -> Lane:
    if request.lease is None:
        state = "preempted" if request.preempted else "waiting"
    else:
        state = "prefilling" if request.computed + 1 < request.total else "running"
    return Lane(
        request.new.request,
        request.new.tenant,
        state,
        request.computed,
        request.total,
        request.limit,
        request.planned - request.computed,
    )
