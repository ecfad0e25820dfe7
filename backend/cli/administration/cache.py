"""``banyan cache``: what a running server's cache holds. Asks the server, with a key that has the scope ``admin``."""

import argparse
import os
from typing import Any

import httpx2 as httpx
import msgspec

from backend.cli.administration.tables import show
from backend.errors import StartError


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-command."""
    parser = commands.add_parser("cache", help="KV pages of a running server: by state, tenant and pin")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the server (default: http://127.0.0.1:8000)")
    parser.add_argument("--json", action="store_true", help="JSON instead of tables")
    parser.epilog = "The key, with the scope admin, is read from the environment variable BANYAN_KEY."
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print it; the exit code."""
    key = os.environ.get("BANYAN_KEY", "")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.get(f"{arguments.url.rstrip('/')}/admin/v1/cache", headers=headers, timeout=10)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise StartError(
            f"cannot ask {arguments.url}: {error}; is `banyan serve` running there?", param="url"
        ) from error
    if answer.status_code != 200:
        raise StartError(f"{arguments.url} refused: HTTP {answer.status_code} {answer.text[:200]}", param="url")
    if arguments.json:
        print(answer.text)
        return 0
    found: dict[str, Any] = msgspec.json.decode(answer.content)
    load = found["load"]
    states = {
        "pages": found["pages"],
        **{name: load[f"pages_{name}"] for name in ("free", "cached", "evictable", "pinned")},
    }
    show([states], as_json=False, empty="")
    show(found["tenants"], as_json=False, empty="no tenant has pages")
    show(found["pins"], as_json=False, empty="nothing is pinned")
    return 0
