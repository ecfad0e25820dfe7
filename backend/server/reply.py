"""One answer as it comes out of the engine: tokens in, text out, with its counts and times.

Knows decoding and stop strings. Knows no events and no transport; time is an argument, in seconds.
"""

from backend.engine.messages import Output, Started, TokenLogprobs
from backend.server.events import InputTokensDetails, OutputTokensDetails, Timing, Usage
from backend.server.logprobs import ShownToken
from backend.text.detokenize import LibraryStream, TextStream
from backend.text.stop import StopStrings


class Reply:
    """``finish``: empty while the answer goes on, then ``stop``, ``length``, ``deadline`` or ``cancelled``."""

    __slots__ = (
        "_began",
        "_decoded",
        "_first",
        "_last",
        "_pieces",
        "_queue_ms",
        "_shown",
        "_stops",
        "_stream",
        "_withheld",
        "cached",
        "finish",
        "logprobs",
        "prompt_logprobs",
        "prompt_tokens",
        "tokens",
    )

    def __init__(
        self, prompt_tokens: int, stream: TextStream | LibraryStream, stops: StopStrings, began: float
    ) -> None:
        self.prompt_tokens = prompt_tokens
        self.tokens: list[int] = []
        self.cached = 0
        self.finish = ""
        self.logprobs: list[ShownToken] = []  # of the tokens that begin in the text shown so far
        self.prompt_logprobs: tuple[TokenLogprobs, ...] = ()  # of each token of the prompt but its first, if asked for
        self._withheld: list[ShownToken] = []
        self._decoded = self._shown = 0  # characters; decoded ones are counted for log-probabilities only
        self._stream = stream
        self._stops = stops
        self._pieces: list[str] = []
        self._began = began
        self._queue_ms: float | None = None
        self._first: float | None = None
        self._last: float | None = None

    @property
    def text(self) -> str:
        """All that was shown so far."""
        return "".join(self._pieces)

    @property
    def cut(self) -> bool:
        """Whether a stop string ended it: ``tokens`` then hold more than ``text``."""
        return self._stops.matched is not None

    def started(self, event: Started) -> None:
        """The engine runs it."""
        self.cached = event.cached
        self._queue_ms = event.queue_ms

    def first_token(self, now: float) -> None:
        """The prompt is computed, and that was all that was wanted."""
        self._first = self._last = now

    def output(self, event: Output, now: float) -> str:
        """The text to show for new tokens; sets ``finish`` at the end."""
        if event.tokens:
            self._first = now if self._first is None else self._first
            self._last = now
            self.tokens += event.tokens
            if event.prompt_logprobs:
                self.prompt_logprobs = event.prompt_logprobs
        decoded = self._decode_scored(event) if event.logprobs else self._stream.push(event.tokens)
        shown = self._stops.push(decoded)
        if self._stops.matched is not None:
            self.finish = "stop"
        elif event.finish:
            self.finish = event.finish
            shown += self._stops.flush()
        return self._show(shown)

    def end(self, finish: str) -> str:
        """Ended from outside. Returns text that was held back."""
        self.finish = finish
        return self._show(self._stops.flush())

    def usage(self) -> Usage:
        """Counts and times so far."""
        return Usage(
            input_tokens=self.prompt_tokens,
            input_tokens_details=InputTokensDetails(self.cached),
            output_tokens=len(self.tokens),
            output_tokens_details=OutputTokensDetails(),
            total_tokens=self.prompt_tokens + len(self.tokens),
            x_timing=self._timing(),
        )

    def _timing(self) -> Timing:
        queue = self._queue_ms
        ttft = None if self._first is None else 1000 * (self._first - self._began)
        prefill = None if ttft is None or queue is None else max(0.0, ttft - queue)
        decode = None if self._first is None or self._last is None else 1000 * (self._last - self._first)
        more = len(self.tokens) - 1
        speed = 1000 * more / decode if decode and more > 0 else None
        return Timing(*(None if value is None else round(value, 3) for value in (queue, prefill, ttft, decode, speed)))

    def _decode_scored(self, event: Output) -> str:
        """The text that is certain now. Tokens with log-probabilities go one by one: each begins at a character."""
        pieces = []
        for token, logprobs in zip(event.tokens, event.logprobs, strict=True):
            self._withheld.append(ShownToken(token, logprobs, self._decoded))
            pieces.append(self._stream.push((token,)))
            self._decoded += len(pieces[-1])
        return "".join(pieces)

    def _show(self, text: str) -> str:
        if text:
            self._pieces.append(text)
            self._shown += len(text)
            if self._withheld:
                self._release_logprobs()
        return text

    def _release_logprobs(self) -> None:
        """A token is shown with the first of its characters; so what ends an answer, and what a stop string or an
        incomplete character takes away, is not."""
        count = sum(token.begin < self._shown for token in self._withheld)
        self.logprobs += self._withheld[:count]
        del self._withheld[:count]
