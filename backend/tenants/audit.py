"""The record of administrative acts: a row in the transaction of each act, so neither is there without the other.

Holds names and numbers, never the text of a prompt and never a key.
"""

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from backend.tenants.database import Database
from backend.tenants.schema import audit


class AuditEntry(msgspec.Struct, frozen=True):
    """``actor``: ``key:<id>``, ``cli:<user>`` or ``local``; ``target``: what it was done to."""

    id: int
    at: int
    actor: str
    action: str
    tenant: str
    target: str
    detail: str


def record(
    connection: Connection, at: float, actor: str, action: str, tenant: str, target: str, detail: str = ""
) -> None:
    """Write an entry in the transaction of ``connection``."""
    row = {"at": int(at), "actor": actor[:120], "action": action, "tenant": tenant}
    connection.execute(sa.insert(audit), row | {"target": target[:160], "detail": detail[:2000]})


def entries(
    database: Database, tenant: str | None = None, before: int | None = None, limit: int = 100
) -> list[AuditEntry]:
    """The newest first; ``before``: only those with a smaller id."""
    query = sa.select(audit).order_by(audit.c.id.desc()).limit(limit)
    if tenant is not None:
        query = query.where(audit.c.tenant == tenant)
    if before is not None:
        query = query.where(audit.c.id < before)
    with database.reading() as connection:
        return [AuditEntry(**row) for row in connection.execute(query).mappings()]
