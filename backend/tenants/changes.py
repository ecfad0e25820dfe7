"""A counter that moves with every change of tenants, keys and prompts, in its transaction: what servers look at."""

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from backend.tenants.database import Database
from backend.tenants.schema import counters

_NAME = "version"


def changed(connection: Connection) -> None:
    """Something was changed in the transaction of ``connection``."""
    connection.execute(sa.update(counters).where(counters.c.name == _NAME).values(value=counters.c.value + 1))


def read_version(connection: Connection) -> int:
    """The counter."""
    return int(connection.execute(sa.select(counters.c.value).where(counters.c.name == _NAME)).scalar_one())


def version(database: Database) -> int:
    """The counter, in a transaction of its own."""
    with database.reading() as connection:
        return read_version(connection)
