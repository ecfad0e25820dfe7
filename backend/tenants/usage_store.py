"""What was used: one record a request that only grows, and sums by hour written in the same transaction."""

from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from backend.tenants.database import Database
from backend.tenants.schema import usage, usage_hours

HOUR_SECONDS = 3600
_SUMS = ("requests", "input_tokens", "cached_tokens", "output_tokens", "charged_tokens")


class UsageRecord(msgspec.Struct, frozen=True):
    """One request. ``id`` makes writing twice harmless; ``prompt``: ``id@version`` of a registered prompt, or empty;
    ``charged_tokens``: what it cost of the budget; ``reason``: how it ended."""

    id: str
    at: int
    tenant: str
    key_id: str
    prompt: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    charged_tokens: int
    ttft_ms: float | None
    reason: str


class UsageSums(msgspec.Struct, frozen=True):
    """An hour (Unix seconds of its beginning; 0: all of them) of a key (empty: all of them)."""

    tenant: str
    key_id: str = ""
    hour: int = 0
    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    charged_tokens: int = 0


class UsageStore:
    """Every method raises ``DatabaseError``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def write(self, records: list[UsageRecord]) -> None:
        """All of them or, when it raises, none. Records that are there already are passed over: whoever does not know
        whether a commit was done may try again."""
        with self._database.writing() as connection:
            ids = [record.id for record in records]
            known = set(connection.execute(sa.select(usage.c.id).where(usage.c.id.in_(ids))).scalars())
            new = [record for record in records if record.id not in known]
            if new:
                connection.execute(sa.insert(usage), [msgspec.structs.asdict(record) for record in new])
                self._add_to_hours(connection, new)

    def hours(self, tenant: str | None, since: int, until: int, limit: int = 1000) -> list[UsageSums]:
        """Sums by tenant, key and hour, the newest hour first; ``since`` and ``until`` are Unix seconds."""
        query = _between(sa.select(usage_hours), tenant, since, until)
        order = (usage_hours.c.hour.desc(), usage_hours.c.tenant, usage_hours.c.key_id)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(*order).limit(limit)).mappings()
            return [UsageSums(**row) for row in rows]

    def total(self, tenant: str | None, since: int, until: int) -> list[UsageSums]:
        """One sum a tenant, over whole hours."""
        sums = [sa.func.coalesce(sa.func.sum(usage_hours.c[name]), 0).label(name) for name in _SUMS]
        query = _between(sa.select(usage_hours.c.tenant, *sums), tenant, since, until).group_by(usage_hours.c.tenant)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(usage_hours.c.tenant)).mappings()
            return [UsageSums(row["tenant"], "", 0, *(int(row[name]) for name in _SUMS)) for row in rows]

    def charged(self, tenant: str, since: int) -> int:
        """Charged tokens since the hour of ``since``."""
        return sum(row.charged_tokens for row in self.total(tenant, since, 2**53))

    def records(self, tenant: str, limit: int = 100) -> list[UsageRecord]:
        """The newest first."""
        query = sa.select(usage).where(usage.c.tenant == tenant).order_by(usage.c.at.desc(), usage.c.id).limit(limit)
        with self._database.reading() as connection:
            return [UsageRecord(**row) for row in connection.execute(query).mappings()]

    def _add_to_hours(self, connection: Connection, records: list[UsageRecord]) -> None:
        sums: dict[tuple[str, str, int], dict[str, int]] = {}
        for record in records:
            key = (record.tenant, record.key_id, record.at // HOUR_SECONDS * HOUR_SECONDS)
            row = sums.setdefault(key, dict.fromkeys(_SUMS, 0))
            row["requests"] += 1
            for name in _SUMS[1:]:
                row[name] += getattr(record, name)
        dialect = sqlite if self._database.is_sqlite else postgresql
        # in one order everywhere, so that two writers do not wait for each other's rows
        for (tenant, key_id, hour), row in sorted(sums.items()):
            insert = dialect.insert(usage_hours).values(tenant=tenant, key_id=key_id, hour=hour, **row)
            added = {name: usage_hours.c[name] + insert.excluded[name] for name in _SUMS}
            connection.execute(insert.on_conflict_do_update(index_elements=["tenant", "key_id", "hour"], set_=added))


def _between(query: "sa.Select[Any]", tenant: str | None, since: int, until: int) -> "sa.Select[Any]":
    query = query.where(usage_hours.c.hour >= since // HOUR_SECONDS * HOUR_SECONDS, usage_hours.c.hour < until)
    return query if tenant is None else query.where(usage_hours.c.tenant == tenant)
