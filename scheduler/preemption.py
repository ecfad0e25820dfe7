"""Who gives way when pages or rows run short.

The oldest running request (of all; of a tenant, when its quota is what runs short) is never chosen. So it always moves
on to its end, then the next oldest does: a pool that is too small slows down, and nothing waits in a circle.
"""

from collections.abc import Iterable

from scheduler.fairness import Tenant
from scheduler.request import Request


def pages_held(running: Iterable[Request]) -> dict[Tenant, int]:
    """Pages of each tenant's running requests; shared ones are counted for each. O(running)."""
    held: dict[Tenant, int] = {}
    for request in running:
        held[request.tenant] = held.get(request.tenant, 0) + len(request.held.pages)
    return held


def choose_victim(candidates: Iterable[Request], held: dict[Tenant, int]) -> Request | None:
    """The youngest request of the tenant that holds most pages for its weight; None: no candidates. O(candidates)."""
    best: Request | None = None
    best_rank = (0.0, 0)
    for request in candidates:
        rank = (held[request.tenant] / request.tenant.weight, request.order)
        if best is None or rank > best_rank:
            best, best_rank = request, rank
    return best


def below_share(tenant: Tenant, here: Iterable[Tenant], rows: int) -> bool:
    """Whether one more row would still be within a tenant's share of ``rows``. O(tenants here)."""
    return (tenant.rows + 1) * sum(other.weight for other in here) <= rows * tenant.weight


def choose_for_share(
    newcomer: Tenant,
    running: list[Request],
    held: dict[Tenant, int],
    here: Iterable[Tenant],
    rows: int,
    pages: int,
) -> Request | None:
    """Who gives way to a newcomer of a tenant that has less than its share while somebody has more; None: nobody.

    A tenant's share of rows and of pages is its weight's part among those that are here; it counts as having the larger
    of its two parts (dominant resource fairness, NSDI 2011). The newcomer is taken to need as many pages as the running
    ones have on average. The chosen tenant has its share also without the chosen request, so the newcomer cannot be
    displaced in turn. ``held``: ``pages_held(running)``. O(running).
    """
    weights = sum(tenant.weight for tenant in here)

    def dominant(tenant: Tenant, more_rows: int, more_pages: float) -> float:
        part = max((tenant.rows + more_rows) / rows, (held.get(tenant, 0) + more_pages) / pages)
        return part * weights / tenant.weight

    if not running or dominant(newcomer, 1, sum(held.values()) / len(running)) > 1:
        return None
    youngest = {request.tenant: request for request in running[1:] if request.tenant is not newcomer}
    over = {
        tenant: share
        for tenant, request in youngest.items()
        if (share := dominant(tenant, -1, -len(request.held.pages))) >= 1
    }
    return youngest[max(over, key=lambda tenant: over[tenant])] if over else None
