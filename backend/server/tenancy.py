"""The tenants' side of the server: database, directory, limits, usage, and what keeps them up to date.

Knows threads and the event loop. Knows no route and no engine: who wants to hear of changes says so. With no database
there is one local tenant, and nothing is recorded.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from backend.server.auth import OpenConnections
from backend.server.gate import Gate
from backend.server.prompts import PromptRegistry
from backend.server.tenant_prompts import TenantPrompts
from backend.server.tickets import TicketOffice
from backend.tenants.conversation_store import ConversationStore
from backend.tenants.database import Database
from backend.tenants.directory import Directory
from backend.tenants.errors import DatabaseError
from backend.tenants.limiter import Limiter, period_begin
from backend.tenants.limits import TenantLimits
from backend.tenants.prompt_store import PromptStore
from backend.tenants.tenant_store import TenantStore
from backend.tenants.usage_store import UsageRecord, UsageStore
from backend.tenants.usage_writer import UsageWriter

LOOK_SECONDS = 0.3
"""Between two looks for changes: a revoked key's sockets are closed within a second."""
_EXPIRE_SECONDS = 3600.0
_MOST_LABELS = 100  # tenants with figures of their own in /metrics; the others are summed up

_log = logging.getLogger("banyan.tenants")


class Tenancy(Collector):
    """``changed`` is called in the event loop after each change of tenants or prompts that was noticed."""

    def __init__(
        self,
        database: Database | None,
        bundled: PromptRegistry | None = None,
        *,
        local: bool = True,
        local_limits: TenantLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """``local``, ``local_limits``: as in ``Directory``. ``bundled``: prompts of the local tenant. Raises
        ``DatabaseError``."""
        self.database = database
        self.clock = clock
        self.wall = wall
        self.directory = Directory(database, wall, local=local, local_limits=local_limits)
        self.limiter = Limiter(self.directory.limits)
        self.prompts = TenantPrompts(self.directory, bundled)
        self.tickets = TicketOffice()
        self.connections = OpenConnections()
        self.changed: list[Callable[[], None]] = []
        self.refusals: dict[int, int] = {}
        self._writer: UsageWriter | None = None
        self._looking: asyncio.Task[None] | None = None
        self._tokens: dict[tuple[str, str], int] = {}
        self._labels: set[str] = set()
        if database is not None:
            self.tenants = TenantStore(database, wall)
            self.registry = PromptStore(database, wall)
            self.usage = UsageStore(database)
            self.conversations = ConversationStore(database, wall)
            self._writer = UsageWriter(self.usage.write)
        self.gate = Gate(self.directory, self.limiter, self.prompts, self._record, clock=clock, wall=wall)

    async def start(self) -> None:
        """Begin to look for changes and to write usage."""
        if self.database is None or self._writer is None:
            return
        self._writer.start()
        await asyncio.to_thread(self._load_budgets)
        self._looking = asyncio.create_task(self._look_for_ever())

    async def close(self) -> None:
        """Write what waits, and end."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        if self._writer is not None:
            await asyncio.to_thread(self._writer.close)
        if self.database is not None:
            self.database.close()

    async def look(self) -> None:
        """Take over what has changed in the database, and end what is no longer allowed."""
        if await asyncio.to_thread(self._refresh):
            for callback in self.changed:
                callback()
        self.connections.end(self.directory.still)

    def require_database(self) -> Database:
        """Raises ``DatabaseError`` when this server has none."""
        if self.database is None:
            raise DatabaseError("this server runs without a database")
        return self.database

    def refused(self, status: int) -> None:
        """A request was refused before it reached a route."""
        self.refusals[status] = self.refusals.get(status, 0) + 1

    def collect(self) -> Iterator[Metric]:
        """For /metrics."""
        up = self.database is not None and self.directory.reachable
        yield GaugeMetricFamily("banyan:database_up", "1 while the database answers", value=float(up))
        waiting, lost = (self._writer.waiting, self._writer.lost) if self._writer is not None else (0, 0)
        yield GaugeMetricFamily("banyan:usage_records_waiting", "Usage not in the database yet", value=waiting)
        yield CounterMetricFamily("banyan:usage_records_lost", "Usage that is nowhere", value=lost)
        refused = CounterMetricFamily(
            "banyan:refused_requests", "Refused before any route, by status", labels=["status"]
        )
        for status, count in sorted(self.refusals.items()):
            refused.add_metric([str(status)], count)
        yield refused
        tokens = CounterMetricFamily("banyan:tenant_tokens", "Tokens by tenant", labels=["tenant", "kind"])
        for (tenant, kind), count in sorted(self._tokens.items()):
            tokens.add_metric([tenant, kind], count)
        yield tokens

    def _record(self, record: UsageRecord) -> None:
        if self._writer is not None:
            self._writer.put(record)
        if len(self._labels) < _MOST_LABELS:
            self._labels.add(record.tenant)
        label = record.tenant if record.tenant in self._labels else "other"
        for kind, count in (
            ("input", record.input_tokens),
            ("cached", record.cached_tokens),
            ("output", record.output_tokens),
        ):
            self._tokens[label, kind] = self._tokens.get((label, kind), 0) + count

    def _refresh(self) -> bool:
        changed = self.directory.refresh()
        self._load_budgets()
        return changed

    def _load_budgets(self) -> None:
        """What tenants had used before this process counted: read when a tenant is first seen or its period changes."""
        for name, tenant in self.directory.content.tenants.items():
            limits = tenant.limits
            begins = period_begin(limits.budget_period, self.wall())
            if not (limits.soft_budget_tokens or limits.hard_budget_tokens) or self.limiter.is_loaded(name, begins):
                continue
            with contextlib.suppress(DatabaseError):  # tried again at the next look
                self.limiter.load(name, begins, self.usage.charged(name, begins))

    async def _look_for_ever(self) -> None:
        expired = self.clock()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
                if self.clock() - expired > _EXPIRE_SECONDS:
                    expired = self.clock()
                    await asyncio.to_thread(self.conversations.expire)
            except DatabaseError as error:
                _log.warning("expired conversations could not be deleted: %s", error.message)
            except Exception:
                _log.exception("looking for changes of tenants broke")
