"""The one door to the database: SQLite in the data directory, or PostgreSQL by URL.

Knows SQLAlchemy, both dialects' settings and the migrations. Knows no table's meaning. Synchronous: the server calls it
from worker threads. Whatever the database reports leaves as ``DatabaseError``, with the transaction rolled back.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from backend.errors import StartError
from backend.tenants.errors import DatabaseError
from backend.tenants.schema import HEAD

FILE = "banyan.db"
_BUSY_SECONDS = 5
_LOCK = 0x62616E79616E  # of PostgreSQL's advisory locks: who migrates


def database_url(text: str, data_dir: Path) -> URL:
    """Where the data is: ``text`` as written, or a file in ``data_dir`` when it is empty. Raises ``StartError``."""
    if not text:
        return URL.create("sqlite", database=str(data_dir / FILE))
    expected = "--database: a URL such as postgresql://user@host/name or sqlite:////folder/file.db is expected"
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise StartError(expected, code="invalid_option", param="database") from None  # it may hold a password
    kind = url.drivername.partition("+")[0]
    if kind in ("postgres", "postgresql"):
        return url.set(drivername="postgresql+psycopg")
    if kind == "sqlite" and url.database and url.database != ":memory:":
        return url
    raise StartError(expected, code="invalid_option", param="database")


class Database:
    """Connections and transactions. Thread-safe."""

    def __init__(self, url: URL) -> None:
        """Connects to nothing yet."""
        self.shown = url.render_as_string(hide_password=True)
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._url = url
        self.engine = _sqlite_engine(url) if self.is_sqlite else _postgres_engine(url)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads. Raises ``DatabaseError``."""
        with self._transaction(self.engine) as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that changes all or, when anything in it raises, nothing. Raises ``DatabaseError``."""
        with self._transaction(self.engine.execution_options(writes=True)) as connection:
            yield connection

    def upgrade(self) -> str | None:
        """Bring the tables up to date, in one transaction; the version before, None when nothing was to do.

        Raises ``StartError`` naming the database: it cannot be opened or written, is damaged, or is too new.
        """
        try:
            with self.reading() as connection:
                before = _version(connection)
            if before == HEAD:
                return None
            if before > HEAD:
                raise StartError(
                    f"the database {self.shown} was made by a newer version of Banyan (its tables are at {before}, "
                    f"this version knows {HEAD}); install that version, or choose another with --database",
                    code="database_too_new",
                    param="database",
                )
            with self.writing() as connection:
                if not self.is_sqlite:
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
                if _version(connection) != HEAD:  # nobody else was faster
                    _migrate(connection)
            return before
        except DatabaseError as error:
            raise StartError(
                f"cannot use the database {self.shown}: {error.message}", code="database_unavailable", param="database"
            ) from error

    def version(self) -> str:
        """Which migration its tables are at, empty when there are none. Raises ``DatabaseError``."""
        with self.reading() as connection:
            return _version(connection)

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()

    @contextlib.contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        try:
            with engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise DatabaseError(_words(error)) from error
        except sqlite3.Error as error:  # from the hooks, which SQLAlchemy does not translate
            raise DatabaseError(str(error)) from error


def open_database(url: URL) -> Database:
    """A database that is up to date; a missing SQLite file is made. Raises ``StartError``."""
    if url.get_backend_name() == "sqlite" and url.database:
        path = Path(url.database)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():  # prompts and conversations are in it: its owner's alone, and so the log beside it
                path.touch(mode=0o600)
        except OSError as error:
            raise StartError(
                f"cannot make the database {url.database}: {error.strerror}",
                code="database_unavailable",
                param="database",
            ) from error
    database = Database(url)
    try:
        database.upgrade()
    except BaseException:
        database.close()
        raise
    return database


def _sqlite_engine(url: URL) -> Engine:
    engine = sa.create_engine(url, connect_args={"timeout": _BUSY_SECONDS}, pool_timeout=_BUSY_SECONDS)

    @event.listens_for(engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # BEGIN is ours: Python's module would put DDL outside of transactions
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", f"busy_timeout={1000 * _BUSY_SECONDS}"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        # a reader that becomes a writer is refused when another wrote in between; a writer from the start waits
        immediate = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def _postgres_engine(url: URL) -> Engine:
    bounds = f"-c statement_timeout={1000 * _BUSY_SECONDS} -c lock_timeout={1000 * _BUSY_SECONDS}"
    arguments = {"connect_timeout": _BUSY_SECONDS, "application_name": "banyan", "options": bounds}
    return sa.create_engine(url, connect_args=arguments, pool_pre_ping=True, pool_timeout=_BUSY_SECONDS)


def _version(connection: Connection) -> str:
    if not sa.inspect(connection).has_table("alembic_version"):
        return ""
    row = connection.execute(sa.text("SELECT version_num FROM alembic_version")).first()
    return str(row[0]) if row else ""


def _migrate(connection: Connection) -> None:
    from alembic import command  # a start with nothing to do does without: it takes as long to import as our server
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _words(error: SQLAlchemyError) -> str:
    """What the driver said, in one line; never the statement or its values: they may be prompts."""
    original = getattr(error, "orig", None)
    lines = str(original if original is not None else type(error).__name__).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
