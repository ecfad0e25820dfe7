"""When a newcomer's first token would come. An estimate from the work ahead of it; knows no pages and no clock.

Work ahead is what the tenant itself has waiting, and of all others at most as much again for each unit of weight
(fair shares: nobody waits for more), at the measured rate of prompt tokens, plus the time until a row becomes free.
"""

from collections.abc import Iterable

from scheduler.cost import CostModel
from scheduler.fairness import Tenant

_NEWS = 1 / 64


class Forecast:
    """Rates as they were lately: how much of prompts was cached, and how often a row became free."""

    def __init__(self, max_running: int, max_step_tokens: int) -> None:
        self._rows = max_running
        self._step_tokens = max_step_tokens
        self._uncached = 1.0
        self._held_s = 0.0

    @property
    def next_row_s(self) -> float:
        """Seconds until some row becomes free, when all are taken; no end in sight before the first has."""
        return self._held_s / self._rows if self._held_s else float("inf")

    def started(self, prompt: int, cached: int) -> None:
        """A request started with ``cached`` of its ``prompt`` tokens found."""
        self._uncached += (1 - cached / prompt - self._uncached) * _NEWS

    def ended(self, seconds: float) -> None:
        """A request gave its row back after ``seconds``."""
        self._held_s += (seconds - self._held_s) * (_NEWS if self._held_s else 1.0)

    def seconds(self, tenant: Tenant, here: Iterable[Tenant], prompt: int, free_rows: int, model: CostModel) -> float:
        """From being handed in to the first token of a request of ``prompt`` tokens. O(tenants here)."""
        own = (tenant.backlog + prompt) / tenant.weight
        ahead = waiting = 0.0
        for other in here:
            ahead += min(other.backlog / other.weight, own) * other.weight if other is not tenant else other.backlog
            waiting += min(other.waiting, (tenant.waiting + 1) * other.weight / tenant.weight)
        tokens = ahead * self._uncached + prompt * self._uncached
        steps = max(tokens / self._step_tokens, 1.0)
        rows = max(waiting + 1 - free_rows, 0.0) * self._held_s / self._rows
        return max(steps * model.a + tokens * model.b, rows)
