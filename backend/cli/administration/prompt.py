"""``banyan prompt``: publish, list, versions, show, diff, rollback, remove."""

import argparse
import sys
from pathlib import Path
from typing import Any

from backend.cli.administration.places import actor, add_options, opened
from backend.cli.administration.tables import day, show
from backend.errors import StartError
from backend.tenants.prompt_store import PromptStore


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-command."""
    parser = commands.add_parser("prompt", help="system prompts: publish, list, versions, show, diff, rollback, remove")
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    publish = _action(actions, "publish", _publish, "a new version, which becomes the latest")
    publish.add_argument("--file", metavar="FILE", help="where the text is; default: standard input")
    publish.add_argument("--public", action="store_true", help="every tenant may use it and shares its KV pages")
    publish.add_argument("--locked", action="store_true", help="the tenant's callers may bring no other system prompt")
    publish.add_argument("--pin", choices=("none", "soft", "hard"), default="soft", help="stay in the cache (soft)")
    publish.add_argument("--name", help="for people")
    publish.add_argument("--description", help="for people")
    listed = actions.add_parser("list", help="a tenant's prompts")
    listed.add_argument("tenant", metavar="TENANT")
    _finish(listed, _list)
    _action(actions, "versions", _versions, "all versions of a prompt")
    _action(actions, "show", _show, "the text").add_argument("--version", type=int, metavar="N")
    diff = _action(actions, "diff", _diff, "what changed between two versions")
    diff.add_argument("old", type=int, metavar="OLD")
    diff.add_argument("new", type=int, metavar="NEW")
    _action(actions, "rollback", _rollback, "make another version the latest").add_argument(
        "version", type=int, metavar="VERSION"
    )
    _action(actions, "remove", _remove, "a prompt with all of its versions")


def _action(actions: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text)
    parser.add_argument("tenant", metavar="TENANT")
    parser.add_argument("prompt", metavar="PROMPT")
    _finish(parser, run)
    return parser


def _finish(parser: argparse.ArgumentParser, run: Any) -> None:
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    add_options(parser)
    parser.set_defaults(run=run)


def _publish(arguments: argparse.Namespace) -> int:
    text = _text(arguments.file)
    with opened(arguments) as database:
        new = PromptStore(database).publish(
            arguments.tenant,
            arguments.prompt,
            text,
            actor=actor(),
            public=arguments.public,
            locked=arguments.locked,
            pin=arguments.pin,
            name=arguments.name,
            description=arguments.description,
        )
    print(f"published {new.id} version {new.version}, {len(text)} characters")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    with opened(arguments) as database:
        found = PromptStore(database).prompts(arguments.tenant)
    rows = [{"id": p.id, "name": p.name, "latest": p.latest, "created": day(p.created)} for p in found]
    show(rows, as_json=arguments.json, empty=f"no prompts: banyan prompt publish {arguments.tenant} ID --file FILE")
    return 0


def _versions(arguments: argparse.Namespace) -> int:
    with opened(arguments) as database:
        store = PromptStore(database)
        latest = store.get(arguments.tenant, arguments.prompt).version
        found = store.versions(arguments.tenant, arguments.prompt)
    rows = [
        {
            "version": v.version,
            "latest": "*" if v.version == latest else "",
            "characters": len(v.text),
            "public": v.public,
            "locked": v.locked,
            "pin": v.pin,
            "created": day(v.created),
        }
        for v in found
    ]
    show(rows, as_json=arguments.json, empty="")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    with opened(arguments) as database:
        print(PromptStore(database).get(arguments.tenant, arguments.prompt, arguments.version).text)
    return 0


def _diff(arguments: argparse.Namespace) -> int:
    with opened(arguments) as database:
        print(PromptStore(database).diff(arguments.tenant, arguments.prompt, arguments.old, arguments.new))
    return 0


def _rollback(arguments: argparse.Namespace) -> int:
    with opened(arguments) as database:
        store = PromptStore(database)
        found = store.rollback(arguments.tenant, arguments.prompt, arguments.version, actor=actor())
    print(f"the latest version of {found.id} is {found.version}")
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    with opened(arguments) as database:
        PromptStore(database).remove(arguments.tenant, arguments.prompt, actor=actor())
    print(f"removed {arguments.prompt}")
    return 0


def _text(file: str | None) -> str:
    try:
        return sys.stdin.read() if file is None else Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise StartError(f"--file: cannot read {file}: {error.strerror}", param="file") from error
    except UnicodeDecodeError as error:
        raise StartError(f"--file: {file or 'standard input'} is not UTF-8: {error}", param="file") from error
