"""``banyan tenant``: add, list, show, set, remove, and a demo set."""

import argparse
from typing import Any

import msgspec

from backend.cli.administration import demo
from backend.cli.administration.places import actor, add_options, opened
from backend.cli.administration.tables import show
from backend.errors import RequestError
from backend.tenants.limits import TenantLimits
from backend.tenants.tenant_store import Tenant, TenantStore

_NUMBERS = {"weight": float, "page_limit": int, "page_watermark": int}


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-command."""
    parser = commands.add_parser("tenant", help="tenants: add, list, show, set, remove, demo")
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    values = f"weight, page_limit, page_watermark, {', '.join(TenantLimits.__struct_fields__)}"
    for name, run, text in (("add", _add, "a new tenant"), ("set", _set, "change what a tenant may use")):
        action = actions.add_parser(name, help=text, epilog=f"Values that can be set: {values}. 0: no limit.")
        action.add_argument("name", metavar="NAME")
        action.add_argument("values", nargs="*" if name == "add" else "+", metavar="NAME=VALUE")
        _finish(action, run)
    _finish(actions.add_parser("list", help="all tenants"), _list)
    for name, run, text in (("show", _show, "one tenant"), ("remove", _remove, "a tenant, its keys and prompts")):
        action = actions.add_parser(name, help=text)
        action.add_argument("name", metavar="NAME")
        _finish(action, run)
    _finish(actions.add_parser("demo", help="three tenants with long public prompts and a key each"), demo.run)


def _finish(parser: argparse.ArgumentParser, run: Any) -> None:
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    add_options(parser)
    parser.set_defaults(run=run)


def _add(arguments: argparse.Namespace) -> int:
    with opened(arguments) as database:
        tenant = TenantStore(database).add(arguments.name, _values(arguments.values), actor=actor())
    print(f"added the tenant {tenant.name}; a key for it: banyan key add {tenant.name}")
    return 0


def _set(arguments: argparse.Namespace) -> int:
    with opened(arguments) as database:
        tenant = TenantStore(database).change(arguments.name, _values(arguments.values), actor=actor())
    show([_row(tenant)], as_json=arguments.json, empty="")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    with opened(arguments) as database:
        found = TenantStore(database).all()
    show([_row(tenant) for tenant in found], as_json=arguments.json, empty="no tenants: banyan tenant add NAME")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    with opened(arguments) as database:
        tenant = TenantStore(database).get(arguments.name)
    values = msgspec.structs.asdict(tenant) | {"limits": None} | msgspec.structs.asdict(tenant.limits)
    del values["limits"]
    rows = [{"value": name, "is": value} for name, value in values.items()]
    show([values] if arguments.json else rows, as_json=arguments.json, empty="")
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    with opened(arguments) as database:
        TenantStore(database).remove(arguments.name, actor=actor())
    print(f"removed the tenant {arguments.name}, its keys, prompts and stored conversations")
    return 0


def _row(tenant: Tenant) -> dict[str, Any]:
    usual = msgspec.structs.asdict(TenantLimits())
    set_ = {name: value for name, value in msgspec.structs.asdict(tenant.limits).items() if value != usual[name]}
    return {
        "tenant": tenant.name,
        "weight": tenant.weight,
        "pages": tenant.page_limit or "",
        "limits": ", ".join(f"{name}={value}" for name, value in set_.items()),
    }


def _values(written: list[str]) -> dict[str, Any]:
    """``name=value`` pairs. Raises ``RequestError`` naming the one that is wrong."""
    values: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    for pair in written:
        name, sign, text = pair.partition("=")
        name = name.replace("-", "_")
        if not sign:
            raise RequestError(f"{pair!r}: NAME=VALUE is expected", param=name)
        place = values if name in _NUMBERS else limits
        if name == "budget_period":
            place[name] = text
            continue
        kind = _NUMBERS.get(name, float if name == "cached_weight" else int)
        try:
            place[name] = kind(text.replace("_", ""))
        except ValueError:
            raise RequestError(f"{name}: a {'whole ' if kind is int else ''}number is expected, not {text!r}") from None
    return values | ({"limits": limits} if limits else {})
