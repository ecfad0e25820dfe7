"""Rows for people, or as JSON for programs. Knows the terminal."""

import datetime
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table


def show(rows: Sequence[dict[str, Any]], *, as_json: bool, empty: str) -> None:
    """A table of ``rows``, which have the same keys; ``empty``: what is said when there is none."""
    if as_json:
        print(msgspec.json.encode(rows).decode())
        return
    if not rows:
        print(empty)
        return
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    console = Console(markup=False, highlight=False)
    if not sys.stdout.isatty():
        console.width = 200
    console.print(table)


def day(seconds: int | None) -> str:
    """A time for people."""
    if seconds is None:
        return ""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M")
