"""How many tokens a step computes: a bound on tokens, and one on time while somebody waits for the next token."""

from typing import Protocol

from scheduler.cost import CostModel, attended_of, read_of

# The shortest step, in steps that compute nothing.
_LEAST_STEPS = 2.0


class StepBudget(Protocol):
    """What is left of a step. ``context``: tokens before the first one computed."""

    def open(self, model: CostModel, ready: bool) -> None:
        """A new step begins; ``model`` predicts what it takes, and can be trusted when ``ready``."""
        ...

    def charge(self, rows: int, read: int) -> None:
        """Rows that compute one token each and are in the step in any case (decodes); together they read the keys and
        values of ``read`` tokens."""
        ...

    def grant(self, wanted: int, context: int) -> int:
        """Tokens of a chunk that may be computed now, 0..wanted; nothing is taken yet."""
        ...

    def take(self, count: int, context: int) -> None:
        """A chunk of ``count`` tokens is in the step."""
        ...

    def narrow(self, seconds: float) -> None:
        """What is granted from now on is for tenants that are held back: only as long as the step is predicted to take
        no more than ``seconds``."""
        ...

    @property
    def spent(self) -> bool:
        """Whether nothing more will be granted."""
        ...


class TokenBudget:
    """At most ``tokens`` in a step; the decodes are charged first and leave the rest to prefill chunks."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self._left = tokens

    def open(self, model: CostModel, ready: bool) -> None:
        """All tokens are there again."""
        self._left = self._tokens

    def charge(self, rows: int, read: int) -> None:
        """So many tokens less."""
        self._left -= rows

    def grant(self, wanted: int, context: int) -> int:
        """As many as are left."""
        return min(wanted, max(self._left, 0))

    def take(self, count: int, context: int) -> None:
        """So many less."""
        self._left -= count

    def narrow(self, seconds: float) -> None:
        """Nothing is known of time."""

    @property
    def spent(self) -> bool:
        """No token is left."""
        return self._left <= 0


class WholePrompts(TokenBudget):
    """Every prompt in one piece, until a step has ``tokens`` or more: what there was before prefill was chunked."""

    def grant(self, wanted: int, context: int) -> int:
        """Everything."""
        return wanted


class TimeBudget:
    """At most ``tokens`` in a step, and, when a decode is in it, chunks only as long as the step is predicted to take
    no more than ``seconds``. Of what does not fit, the first chunk gets ``least`` tokens all the same: prompts go on
    slowly rather than not at all. While nothing is known about the time, an eighth of ``tokens`` is the bound. No step
    is made so short that more than half of it would be what a step costs in any case."""

    def __init__(self, tokens: int, seconds: float, least: int) -> None:
        self._tokens = tokens
        self._aim = self._seconds = seconds
        self._least = least
        self._model = CostModel()
        self._left = tokens
        self._decodes = 0
        self._read = 0
        self._chunk_seconds = 0.0
        self._chunks = 0
        self._ready = False
        self._tight = False
        self._narrow = False

    def open(self, model: CostModel, ready: bool) -> None:
        """All tokens and all of the time are there again."""
        self._model, self._ready = model, ready
        self._left = self._tokens
        self._seconds = self._aim
        self._decodes = self._read = self._chunks = 0
        self._chunk_seconds = 0.0
        self._tight = self._narrow = False

    def narrow(self, seconds: float) -> None:
        """Less time, whether somebody decodes or not; the next chunk is a first one again."""
        self._seconds = min(self._aim, max(seconds, _LEAST_STEPS * self._model.a))
        self._chunks = 0
        self._tight, self._narrow = False, True

    def charge(self, rows: int, read: int) -> None:
        """The decodes come first, they are not bounded."""
        self._left -= rows
        self._decodes += rows
        self._read += read

    def grant(self, wanted: int, context: int) -> int:
        """As many as there are tokens and time for."""
        count = min(wanted, max(self._left, 0))
        if count == 0 or not (self._decodes or self._narrow):
            return count
        least = min(self._least, count) if not self._chunks else 0
        if not self._ready:
            bound = max(self._tokens // 8, self._least) - (self._tokens - self._decodes - self._left)
        else:
            model = self._model
            left = self._seconds - model.seconds(self._decodes, self._read) - self._chunk_seconds
            bound = model.largest_chunk(left, context)
        if bound < count:
            self._tight = True
        return max(min(count, bound), least)

    def take(self, count: int, context: int) -> None:
        """Its tokens and its predicted time are gone."""
        self._left -= count
        self._chunks += 1
        model = self._model
        self._chunk_seconds += model.seconds(count, read_of(context, count), attended_of(context, count)) - model.a

    @property
    def spent(self) -> bool:
        """No token is left, or a chunk was cut for lack of time."""
        return self._left <= 0 or (self._tight and self._chunks > 0)
