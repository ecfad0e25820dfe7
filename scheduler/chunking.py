"""How many tokens a step computes. ``TokenBudget`` counts tokens; a budget of time has the same three methods."""

from typing import Protocol


class StepBudget(Protocol):
    """What is left of a step. ``context``: tokens before the first one computed, for budgets that count reads."""

    def open(self) -> None:
        """A new step begins."""
        ...

    def charge(self, context: int) -> None:
        """A row that computes one token and is in the step in any case (a decode)."""
        ...

    def grant(self, wanted: int, context: int) -> int:
        """Tokens of a chunk that may be computed now, 0..wanted; taken from what is left."""
        ...


class TokenBudget:
    """At most ``tokens`` in a step; the decodes are charged first and leave the rest to prefill chunks."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self._left = tokens

    def open(self) -> None:
        """All tokens are there again."""
        self._left = self._tokens

    def charge(self, context: int) -> None:
        """One token less."""
        self._left -= 1

    def grant(self, wanted: int, context: int) -> int:
        """As many as are left."""
        granted = min(wanted, max(self._left, 0))
        self._left -= granted
        return granted
