"""Entry point of the ``banyan`` command: finds the sub-command, turns errors into one readable line and an exit code.

Knows the list of sub-commands; what they do is in their own files, and of these only the one that is asked for is
imported: all together they take longer than the server's own part of a start.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from backend.errors import BanyanError

INTERRUPTED = 130  # the shell's convention: 128 + SIGINT

_MODULES = {
    "serve": "serve",
    "chat": "chat",
    "doctor": "doctor",
    "tenant": "administration.tenant",
    "key": "administration.key",
    "prompt": "administration.prompt",
    "usage": "administration.records",
    "audit": "administration.records",
    "database": "administration.records",
    "cache": "administration.cache",
    "bench": "bench.command",
    "simulate": "simulate.command",
}


def build_parser(command: str = "") -> argparse.ArgumentParser:
    """The command line, of one sub-command only where ``command`` is one. Each sets ``run``: from the parsed arguments
    to the exit code."""
    parser = argparse.ArgumentParser(
        prog="banyan",
        description="Chat with large language models; one radix tree of KV pages for everybody on the same prompt.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    wanted = [_MODULES[command]] if command in _MODULES else _MODULES.values()
    for module in dict.fromkeys(wanted):
        importlib.import_module(f"backend.cli.{module}").add_parser(commands)
    return parser


class _Version(argparse.Action):
    """Looked up when somebody asks: reading the metadata of what is installed takes as long as the parser."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from backend.version import installed_version

        print(f"banyan {installed_version()}")
        parser.exit()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. BANYAN_DEBUG=1 shows tracebacks."""
    given = sys.argv[1:] if arguments is None else arguments
    parsed = build_parser(given[0] if given else "").parse_args(given)
    try:
        return int(parsed.run(parsed))
    except BanyanError as error:
        if os.environ.get("BANYAN_DEBUG"):
            raise
        print(f"banyan: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `banyan ... | head`: the reader has left, nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
