"""Service counters: who is served next among tenants. Knows tokens and weights, no requests and no pages.

Virtual token counter (arXiv 2401.00588): a tenant is charged for each *uncached* prompt token and, weighted, for each
output token, divided by its weight; the tenant with the least service goes first. Tenants whose counters lie within a
quantum of the least are equals, which leaves room for an order by cached prefixes (deficit longest prefix match,
arXiv 2501.14312). Whoever comes back from idle is lifted to the least counter of those who are there: being away earns
no credit. Debts stay.
"""

from collections.abc import Collection, Iterable

# Idle tenants without debt are forgotten when so many have gathered.
_SWEEP = 4096


class Tenant:
    """``served``: service so far per unit of weight. ``open``: requests that have not ended; of these ``waiting`` are
    in the queue and ``rows`` run; ``backlog``: prompt tokens of the waiting ones, cached or not. ``expected_output``:
    tokens, -1: unknown."""

    __slots__ = ("backlog", "expected_output", "name", "open", "rows", "served", "waiting", "weight")

    def __init__(self, name: str, weight: float, served: float) -> None:
        self.name = name
        self.weight = weight
        self.served = served
        self.open = 0
        self.waiting = 0
        self.rows = 0
        self.backlog = 0
        self.expected_output = -1.0


class Fairness:
    """All tenants that are here, and those with debts or weights of their own."""

    def __init__(self) -> None:
        self.tenants: dict[str, Tenant] = {}
        self._weights: dict[str, float] = {}
        self._floor = 0.0
        self._here: dict[str, Tenant] = {}

    def set_weight(self, name: str, weight: float) -> None:
        """``weight`` > 0; 1 is everybody's. Raises ``ValueError``."""
        if not 0 < weight < float("inf"):
            raise ValueError(f"the weight of tenant {name!r} must be a finite number above 0, got {weight}")
        self._weights[name] = weight
        if name in self.tenants:
            self.tenants[name].weight = weight

    def arrive(self, name: str) -> Tenant:
        """One more request of ``name``. O(1), or O(tenants here) for one that was idle."""
        tenant = self.tenants.get(name)
        if tenant is None:
            tenant = self.tenants[name] = Tenant(name, self._weights.get(name, 1.0), self._floor)
        if not tenant.open:
            tenant.served = max(tenant.served, self.least(self._here.values()))
            self._here[name] = tenant
        tenant.open += 1
        return tenant

    def leave(self, tenant: Tenant) -> None:
        """One request less."""
        tenant.open -= 1
        if tenant.open:
            return
        self._floor = max(self._floor, self.least(self._here.values()))
        del self._here[tenant.name]
        if len(self.tenants) - len(self._here) >= _SWEEP:
            self._sweep()

    def charge(self, tenant: Tenant, tokens: float) -> None:
        """``tokens`` of service."""
        tenant.served += tokens / tenant.weight

    def least(self, tenants: Iterable[Tenant]) -> float:
        """The least service among ``tenants``; the last known floor when there are none."""
        return min((tenant.served for tenant in tenants), default=self._floor)

    @property
    def here(self) -> Collection[Tenant]:
        """Tenants with requests that have not ended."""
        return self._here.values()

    def _sweep(self) -> None:
        for name, tenant in list(self.tenants.items()):
            if not tenant.open and tenant.served <= self._floor:
                del self.tenants[name]
