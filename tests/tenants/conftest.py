"""The same suite on SQLite and on PostgreSQL: an empty database of each kind for every test that asks for one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from backend.tenants.database import Database, database_url, open_database
from backend.tenants.schema import HEAD, counters, metadata
from tests.tenants import postgres


class Clock:
    """Unix time that moves when it is told to."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Postgres]:
    try:
        yield from postgres.running()
    except LookupError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def migrated(postgres_server: postgres.Postgres) -> str:
    """The name of a database on it."""
    create_database(postgres_server, "banyan")
    open_database(postgres_server.url("banyan")).close()
    return "banyan"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        opened = open_database(database_url("", tmp_path))
    else:
        server: postgres.Postgres = request.getfixturevalue("postgres_server")
        opened = Database(server.url(request.getfixturevalue("migrated")))
        _empty(opened)
    yield opened
    opened.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(database_url("", tmp_path))
    yield opened
    opened.close()


def create_database(server: postgres.Postgres, name: str) -> None:
    engine = sa.create_engine(server.url("postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()


def _empty(database: Database) -> None:
    """As after the migrations; a database of its own for every test would take seconds to delete."""
    tables = ", ".join(table.name for table in metadata.sorted_tables)
    with database.writing() as connection:
        connection.execute(sa.text(f"TRUNCATE {tables} RESTART IDENTITY"))
        connection.execute(sa.insert(counters), {"name": "version", "value": 1})
        connection.execute(sa.text("UPDATE alembic_version SET version_num = :head"), {"head": HEAD})
