"""Where the database is, for commands: the same options as ``banyan serve`` has, and who is at the terminal.

All commands but ``cache`` work on the database itself, whether a server runs on it or not: whoever may write there may
administer. A running server notices within a second.
"""

import argparse
import contextlib
import getpass
from collections.abc import Iterator
from pathlib import Path

from backend import config
from backend.tenants.database import Database, database_url, open_database


def add_options(parser: argparse.ArgumentParser) -> None:
    """``--database``, ``--data-dir`` and ``--config``."""
    for option in (config.DATABASE, config.DATA_DIR):
        parser.add_argument(f"--{option.name}", metavar=option.metavar, help=f"{option.help} (as for serve)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file with these options (as for serve)")


@contextlib.contextmanager
def opened(arguments: argparse.Namespace) -> Iterator[Database]:
    """The database, up to date. Raises ``StartError``."""
    text, data_dir = config.resolve_database(vars(arguments), config_file=arguments.config)
    database = open_database(database_url(text, data_dir))
    try:
        yield database
    finally:
        database.close()


def actor() -> str:
    """Who did it, for audit."""
    try:
        return f"cli:{getpass.getuser()}"[:120]
    except (KeyError, OSError):
        return "cli"
