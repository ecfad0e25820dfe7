"""What the load generator drives: something that holds dialogues. Knows no protocol; each protocol has its own file."""

from typing import Protocol

from backend.cli.bench.statistics import Observation
from backend.cli.bench.workload import Turn


class Dialogue(Protocol):
    """One conversation with a server, turn after turn."""

    async def say(self, turn: Turn, seen: Observation) -> None:
        """Send a turn and take the whole answer; writes times and usage into ``seen``. Raises what went wrong."""
        ...

    async def close(self) -> None:
        """Leave; idempotent."""
        ...


class Target(Protocol):
    """A server under load."""

    async def open(self, system: str) -> Dialogue:
        """A new conversation under a system prompt. Raises when the server cannot be reached."""
        ...

    async def close(self) -> None:
        """Give back what is shared by the dialogues."""
        ...


class AnswerFailed(Exception):
    """The server said that it failed; the message is what the report counts."""
