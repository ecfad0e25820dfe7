"""Entry point of the ``banyan`` command: finds the sub-command, turns errors into one readable line and an exit code.

Knows the list of sub-commands; what they do is in their own files.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from backend.cli import chat, doctor, serve
from backend.cli.administration import cache, key, prompt, records, tenant
from backend.cli.bench import command as bench
from backend.cli.simulate import command as simulate
from backend.errors import BanyanError
from backend.version import installed_version

INTERRUPTED = 130  # the shell's convention: 128 + SIGINT


def build_parser() -> argparse.ArgumentParser:
    """The whole command line. Each sub-command sets ``run``: from the parsed arguments to the exit code."""
    parser = argparse.ArgumentParser(
        prog="banyan",
        description="Chat with large language models; one radix tree of KV pages for everybody on the same prompt.",
    )
    parser.add_argument("--version", action="version", version=f"banyan {installed_version()}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in (serve, chat, doctor, tenant, key, prompt, records, cache, bench, simulate):
        module.add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. BANYAN_DEBUG=1 shows tracebacks."""
    parsed = build_parser().parse_args(arguments)
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
