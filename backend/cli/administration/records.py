"""``banyan usage`` and ``banyan audit``: what was used, what was done. ``banyan database``: its tables."""

import argparse
import time
from typing import Any

import msgspec

from backend import config
from backend.cli.administration.places import add_options, opened
from backend.cli.administration.tables import day, show
from backend.tenants import audit
from backend.tenants.database import Database, database_url
from backend.tenants.schema import HEAD
from backend.tenants.usage_store import UsageStore

_DAY = 86_400


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the three sub-commands."""
    usage = commands.add_parser("usage", help="tokens by tenant, or by hour")
    usage.add_argument("tenant", nargs="?", metavar="TENANT")
    usage.add_argument("--days", type=float, default=7.0, help="how far back (default: 7)")
    usage.add_argument("--hours", action="store_true", help="by key and hour")
    _finish(usage, _usage)
    acts = commands.add_parser("audit", help="administrative acts, the newest first")
    acts.add_argument("tenant", nargs="?", metavar="TENANT")
    acts.add_argument("--limit", type=int, default=50, help="how many (default: 50)")
    _finish(acts, _audit)
    database = commands.add_parser("database", help="the database: upgrade")
    actions = database.add_subparsers(title="actions", required=True, metavar="ACTION")
    _finish(actions.add_parser("upgrade", help="bring its tables up to date; serve does so too"), _upgrade)


def _finish(parser: argparse.ArgumentParser, run: Any) -> None:
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    add_options(parser)
    parser.set_defaults(run=run)


def _usage(arguments: argparse.Namespace) -> int:
    now = int(time.time())
    since = now - int(_DAY * max(0.0, min(arguments.days, 1e5)))
    with opened(arguments) as database:
        store = UsageStore(database)
        found = (store.hours if arguments.hours else store.total)(arguments.tenant, since, now + 1)
    rows = [msgspec.structs.asdict(sums) for sums in found]
    for row in rows:
        row["hour"] = day(row["hour"]) if arguments.hours else None
    shown = [
        {name: value for name, value in row.items() if arguments.hours or name not in ("key_id", "hour")}
        for row in rows
    ]
    show(shown, as_json=arguments.json, empty="nothing was used")
    return 0


def _audit(arguments: argparse.Namespace) -> int:
    with opened(arguments) as database:
        found = audit.entries(database, arguments.tenant, None, max(1, min(arguments.limit, 10_000)))
    rows = [msgspec.structs.asdict(entry) | {"at": day(entry.at)} for entry in found]
    show(rows, as_json=arguments.json, empty="nothing was done")
    return 0


def _upgrade(arguments: argparse.Namespace) -> int:
    text, data_dir = config.resolve_database(vars(arguments), config_file=arguments.config)
    shown = Database(database_url(text, data_dir)).shown
    with opened(arguments):
        print(f"{shown} is at {HEAD}")
    return 0
