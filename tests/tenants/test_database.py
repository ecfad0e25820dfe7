"""Opening, migrating, and what happens when that cannot be; on both databases where it can."""

import sqlite3
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import backend.tenants
from backend.errors import StartError
from backend.tenants import schema
from backend.tenants.database import Database, database_url, open_database
from backend.tenants.errors import DatabaseError
from backend.tenants.tenant_store import TenantStore
from tests.tenants.conftest import create_database
from tests.tenants.postgres import Postgres


def test_migrations_make_what_the_code_expects(database: Database) -> None:
    with database.reading() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), schema.metadata)
    assert differences == []


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(backend.tenants.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.HEAD]


def test_an_upgrade_is_done_once(tmp_path: Path) -> None:
    database = Database(database_url("", tmp_path))
    assert database.upgrade() == ""
    assert database.upgrade() is None
    database.close()


def test_two_upgrades_at_once_on_sqlite(tmp_path: Path) -> None:
    upgrade_at_once([Database(database_url("", tmp_path)) for _ in range(4)])


def test_two_upgrades_at_once_on_postgresql(postgres_server: Postgres) -> None:
    create_database(postgres_server, "at_once")
    upgrade_at_once([Database(postgres_server.url("at_once")) for _ in range(4)])


def upgrade_at_once(databases: list[Database]) -> None:
    failures: list[BaseException] = []

    def upgrade(database: Database) -> None:
        try:
            database.upgrade()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=upgrade, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert databases[0].upgrade() is None
    for database in databases:
        database.close()


def test_a_failed_upgrade_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise sa.exc.DatabaseError("x", {}, Exception("boom"))

    monkeypatch.setattr("alembic.op.create_index", fail)
    database = Database(database_url("", tmp_path))
    with pytest.raises(StartError, match="boom"):
        database.upgrade()
    with database.reading() as connection:
        assert sa.inspect(connection).get_table_names() == []
    monkeypatch.undo()
    assert database.upgrade() == ""
    database.close()


def test_a_newer_database_is_refused(database: Database) -> None:
    with database.writing() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StartError, match=r"newer version of Banyan .*9999") as caught:
        database.upgrade()
    assert caught.value.code == "database_too_new"


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "banyan.db"
    path.write_bytes(b"this is no database " * 100)
    with pytest.raises(StartError) as caught:
        open_database(database_url("", tmp_path))
    assert str(path) in caught.value.message and "not a database" in caught.value.message


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="cannot make the database"):
        open_database(database_url("", tmp_path / "file" / "deeper"))


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(StartError) as caught:
        open_database(database_url("postgresql://eve:secret-word@127.0.0.1:1/banyan", Path()))
    assert "127.0.0.1:1" in caught.value.message and "secret-word" not in caught.value.message


@pytest.mark.parametrize("text", ["mysql://x/y", "not a url:secret", "sqlite://", "sqlite:///:memory:", "http://a"])
def test_other_urls_are_refused(text: str) -> None:
    with pytest.raises(StartError, match="--database") as caught:
        database_url(text, Path())
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("text", ["postgres://a@b/c", "postgresql://a@b/c", "postgresql+psycopg://a@b/c"])
def test_urls_of_postgresql(text: str) -> None:
    assert database_url(text, Path()).drivername == "postgresql+psycopg"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'me'",
        "DELETE FROM audit",
        "UPDATE prompt_versions SET text = 'other'",
        "UPDATE usage SET output_tokens = 0",
    ],
)
def test_what_only_grows_is_held_by_the_database(database: Database, statement: str) -> None:
    from backend.tenants.prompt_store import PromptStore
    from backend.tenants.usage_store import UsageStore
    from tests.tenants.test_usage import record

    TenantStore(database).add("a", actor="t")
    PromptStore(database).publish("a", "p", "text", actor="t")
    UsageStore(database).write([record()])
    with pytest.raises(DatabaseError, match="only grows"), database.writing() as connection:
        connection.execute(sa.text(statement))


def test_a_transaction_that_fails_changes_nothing(database: Database) -> None:
    store = TenantStore(database)
    with pytest.raises(ZeroDivisionError), database.writing() as connection:
        connection.execute(sa.insert(schema.counters), {"name": "other", "value": 1})
        raise ZeroDivisionError
    with database.reading() as connection:
        names = list(connection.execute(sa.select(schema.counters.c.name)).scalars())
    assert names == ["version"] and store.all() == []


def test_errors_do_not_repeat_what_was_written(database: Database) -> None:
    with pytest.raises(DatabaseError) as caught, database.writing() as connection:
        for _ in range(2):
            connection.execute(sa.insert(schema.counters), {"name": "sk-secret-text", "value": 1})
    assert "sk-secret" not in caught.value.message


def test_a_full_disk_on_sqlite(sqlite: Database) -> None:
    """All of a change or nothing; and it goes on when there is room again."""
    store = TenantStore(sqlite)
    store.add("before", actor="t")
    with sqlite.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    bounded = sa.event.listens_for(sqlite.engine, "begin")

    def bound(connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {limit[0]}")

    limit = [pages]
    bounded(bound)
    with pytest.raises(DatabaseError, match="full"):
        for number in range(2000):
            store.add(f"t{number}", actor="t")
    limit[0] = 10**6
    names = {tenant.name for tenant in store.all()}
    with sqlite.reading() as connection:
        audited = set(connection.execute(sa.select(schema.audit.c.target)).scalars())
    assert names == audited and "before" in names
    store.add("after", actor="t")


def test_a_locked_database_is_waited_for_and_then_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.tenants.database._BUSY_SECONDS", 0.2)
    database = open_database(database_url("", tmp_path))
    other = sqlite3.connect(tmp_path / "banyan.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseError, match="locked"):
        TenantStore(database).add("a", actor="t")
    other.execute("ROLLBACK")
    assert TenantStore(database).add("a", actor="t").name == "a"
    other.close()
    database.close()
