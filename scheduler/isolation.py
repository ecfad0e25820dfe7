"""Whose work is held back so that others are served at once. Knows tenants, their service and time; no pages, no steps.

A *loud* tenant uses more than three fifths of the engine, and more than its weight's part. Whoever else is active
without a backlog (no step passes its requests over) asks for less than its share and gets it; what it feels of the loud
one is how long steps are: it waits for the end of one, and for the one that it is in. So meanwhile prompts of the loud
tenant may only make short steps, which in the end bounds how many of its requests run. With one tenant alone, with
tenants that use about as much as each other, and when all have a backlog, nobody is held back.
"""

from collections import defaultdict
from collections.abc import Iterable, Set

from scheduler.fairness import Tenant

PART_OF_AIM = 0.25
"""Of the aim for the time between tokens, the longest step for a loud tenant beside quiet ones, if nobody says
otherwise: docs/design.md has what other parts would cost."""

_LOUD = 0.6
# A tenant is active for so long after its last request came.
_ACTIVE_S = 10.0
# Service counts for at least so long, and at most twice as long.
_WINDOW_S = 30.0
# How often it is looked up who is loud.
_EVERY_S = 0.25


class Isolation:
    """``enabled``: else nobody is ever held back. A call costs O(1), ``held_back`` at most O(active tenants)."""

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled
        self._arrivals: dict[Tenant, float] = {}  # of each active tenant the last one, in order
        self._served: defaultdict[Tenant, float] = defaultdict(float)  # in this window
        self._before: defaultdict[Tenant, float] = defaultdict(float)  # in the one before
        self._window = self._looked = float("-inf")
        self._loud: Tenant | None = None
        self._backlogged: Set[Tenant] = frozenset()

    def arrived(self, tenant: Tenant, now: float) -> None:
        """A request of ``tenant`` came."""
        if self._enabled:
            self._arrivals.pop(tenant, None)
            self._arrivals[tenant] = now

    def served(self, tenant: Tenant, tokens: float) -> None:
        """``tokens`` of service, as they are charged."""
        if self._enabled:
            self._served[tenant] += tokens

    def planned(self, passed_over: Iterable[Tenant]) -> None:
        """A step is planned, and requests of these tenants wait for another. O(tenants)."""
        if self._enabled:
            self._backlogged = frozenset(passed_over)

    def held_back(self, now: float) -> Tenant | None:
        """The tenant whose work may only make short steps now."""
        if not self._enabled:
            return None
        if now - self._looked >= _EVERY_S:
            self._look(now)
        if self._loud is None or all(tenant in self._backlogged for tenant in self._arrivals if tenant != self._loud):
            return None
        return self._loud

    def hurries(self, waiting: Iterable[Tenant]) -> bool:
        """With somebody held back: whether one of the tenants that wait is another, and was not passed over before."""
        return any(tenant is not self._loud and tenant not in self._backlogged for tenant in waiting)

    def _look(self, now: float) -> None:
        self._looked = now
        if now - self._window >= _WINDOW_S:
            self._window = now
            self._served, self._before = defaultdict(float), self._served
        while self._arrivals and self._arrivals[first := next(iter(self._arrivals))] < now - _ACTIVE_S:
            del self._arrivals[first]
        used = {tenant: self._served[tenant] + self._before[tenant] for tenant in self._arrivals}
        most = max(used, key=lambda tenant: used[tenant], default=None)
        self._loud = None
        if most is not None:
            part = max(_LOUD, most.weight / sum(tenant.weight for tenant in used))
            self._loud = most if used[most] > part * sum(used.values()) else None
