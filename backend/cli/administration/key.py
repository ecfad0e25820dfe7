"""``banyan key``: add, list, rotate, revoke. A key is shown once, when it is made."""

import argparse
import time
from typing import Any

from backend.cli.administration.places import actor, add_options, opened
from backend.cli.administration.tables import day, show
from backend.tenants.identity import DEFAULT_SCOPES, SCOPES
from backend.tenants.keys import Key
from backend.tenants.tenant_store import LIVE_KEYS, NewKey, TenantStore

_DAY = 86_400


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-command."""
    parser = commands.add_parser("key", help="keys of tenants: add, list, rotate, revoke")
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    add = actions.add_parser("add", help="a new key; it is shown once")
    add.add_argument("tenant", metavar="TENANT")
    usual = ",".join(sorted(DEFAULT_SCOPES))
    add.add_argument("--scopes", default=usual, help=f"some of {','.join(SCOPES)} (default: {usual})")
    add.add_argument("--label", default="", help="what it is for")
    add.add_argument("--namespace", default="", help="keys with different ones share nothing private in the cache")
    add.add_argument("--expires-days", type=float, metavar="DAYS", help="it opens nothing after that")
    add.add_argument("--more", action="store_true", help=f"allow more than {LIVE_KEYS} live keys")
    _finish(add, _add)
    listed = actions.add_parser("list", help="keys, without what is secret")
    listed.add_argument("tenant", nargs="?", metavar="TENANT")
    _finish(listed, _list)
    rotate = actions.add_parser("rotate", help="a new key in the place of an old one, which goes on for a while")
    rotate.add_argument("key", metavar="KEY_ID")
    rotate.add_argument("--grace-hours", type=float, default=24.0, metavar="HOURS", help="default: 24")
    _finish(rotate, _rotate)
    revoke = actions.add_parser("revoke", help="a key opens nothing from now on, open sockets are closed")
    revoke.add_argument("key", metavar="KEY_ID")
    _finish(revoke, _revoke)


def _finish(parser: argparse.ArgumentParser, run: Any) -> None:
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    add_options(parser)
    parser.set_defaults(run=run)


def _add(arguments: argparse.Namespace) -> int:
    days = arguments.expires_days
    with opened(arguments) as database:
        new = TenantStore(database).add_key(
            arguments.tenant,
            actor=actor(),
            scopes=[scope.strip() for scope in arguments.scopes.split(",")],
            label=arguments.label,
            namespace=arguments.namespace,
            expires=None if days is None else int(time.time() + _DAY * max(0.0, min(days, 1e6))),
            live_keys=10**6 if arguments.more else LIVE_KEYS,
        )
    return _show_once(new, as_json=arguments.json)


def _list(arguments: argparse.Namespace) -> int:
    with opened(arguments) as database:
        found = TenantStore(database).keys(arguments.tenant)
    now = time.time()
    show([_row(key, now) for key in found], as_json=arguments.json, empty="no keys: banyan key add TENANT")
    return 0


def _rotate(arguments: argparse.Namespace) -> int:
    grace = int(3600 * max(-1.0, min(arguments.grace_hours, 1e6)))
    with opened(arguments) as database:
        new = TenantStore(database).rotate_key(arguments.key, actor=actor(), grace_seconds=grace)
    return _show_once(new, as_json=arguments.json)


def _revoke(arguments: argparse.Namespace) -> int:
    with opened(arguments) as database:
        key = TenantStore(database).revoke_key(arguments.key, actor=actor())
    print(f"revoked {key.id} (…{key.last_four}) of {key.tenant}")
    return 0


def _show_once(new: NewKey, *, as_json: bool) -> int:
    row = _row(new.key, 0) | {"key": new.secret}
    if as_json:
        show([row], as_json=True, empty="")
    else:
        print(f"{new.secret}\n  {new.key.id} of {new.key.tenant}, {row['scopes']}; the key is not shown again")
    return 0


def _row(key: Key, now: float) -> dict[str, Any]:
    state = "live" if key.is_live(now) else "revoked" if key.revoked is not None else "expired"
    return {
        "id": key.id,
        "tenant": key.tenant,
        "ends with": key.last_four,
        "state": state,
        "scopes": " ".join(sorted(key.scopes)),
        "label": key.label,
        "created": day(key.created),
        "expires": day(key.expires),
    }
