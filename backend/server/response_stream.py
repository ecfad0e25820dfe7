"""The events of one response, in order. Knows the protocol; no engine, no clock, no socket.

They get their numbers when somebody takes them (``record.py``).
"""

from collections.abc import Sequence
from typing import TypedDict

from msgspec import UNSET

from backend.errors import BanyanError
from backend.server.events import (
    Cache,
    CachedBy,
    Completed,
    Created,
    Failed,
    Incomplete,
    InProgress,
    ItemAdded,
    ItemDone,
    OutputMessage,
    OutputText,
    PartAdded,
    PartDone,
    Queued,
    Response,
    ResponseCreate,
    ResponseError,
    ServerEvent,
    Status,
    StreamId,
    TextDelta,
    TextDone,
    Unfinished,
    Usage,
)
from backend.server.logprobs import TokenEntry
from backend.text.conversation import Prompt
from scheduler.plan import Sampling

_REASONS = {"length": "max_output_tokens"}  # the engine's word for an end: the protocol's


class _Address(TypedDict):
    sequence_number: int
    stream_id: StreamId


class _Place(_Address):
    item_id: str
    output_index: int
    content_index: int


class ResponseStream:
    """Keeps to: queued or not, created, started, deltas, then exactly one end. ``stored``: whether it was kept."""

    __slots__ = ("_asked", "_begun", "_created_at", "_item_id", "_model", "_sampling", "_stream_id", "id", "stored")

    def __init__(self, response_id: str, item_id: str, created_at: int, model: str, asked: ResponseCreate) -> None:
        self.id = response_id
        self._item_id = item_id
        self._created_at = created_at
        self._model = model
        self._asked = asked
        self._stream_id: StreamId = UNSET if asked.stream_id is None else asked.stream_id
        self.stored = False
        self._sampling = Sampling()
        self._begun = False

    def queued(self, sampling: Sampling, position: int) -> ServerEvent:
        """The engine is busy; ``position`` as in ``Queued``."""
        self._sampling = sampling
        return Queued(response=self._response("queued"), x_position=position, **self._address())

    def created(self, sampling: Sampling) -> ServerEvent:
        """The request was accepted; it will be drawn with ``sampling``."""
        self._sampling = sampling
        return Created(response=self._response("in_progress"), **self._address())

    def cache(self, prompt: Prompt, cached: int, saved_ms: float | None) -> ServerEvent:
        """Where the prompt's tokens came from, counted from its front."""
        system = min(cached, prompt.system_tokens)
        history = min(cached, max(prompt.history_tokens, system)) - system
        return Cache(
            prompt_tokens=len(prompt.ids),
            cached_tokens=cached,
            by=CachedBy(system, history, cached - system - history),
            est_ttft_saved_ms=saved_ms,
            **self._address(),
        )

    def started(self, *, empty: bool = False) -> list[ServerEvent]:
        """The engine runs it; a message begins, unless there will be none (``empty``)."""
        in_progress = InProgress(response=self._response("in_progress"), **self._address())
        if empty:
            return [in_progress]
        self._begun = True
        return [
            in_progress,
            ItemAdded(output_index=0, item=OutputMessage(self._item_id, "in_progress", []), **self._address()),
            PartAdded(part=OutputText(), **self._place()),
        ]

    def delta_of(self, text: str, logprobs: Sequence[TokenEntry] = ()) -> TextDelta:
        """The event for this text, with the log-probabilities of tokens that begin in it."""
        return TextDelta(
            delta=text,
            logprobs=list(logprobs),
            sequence_number=-1,
            stream_id=self._stream_id,
            item_id=self._item_id,
            output_index=0,
            content_index=0,
        )

    def ended(self, finish: str, text: str, usage: Usage, logprobs: Sequence[TokenEntry] = ()) -> list[ServerEvent]:
        """The end that is no failure: ``finish`` as in ``Reply``; ``logprobs``: of the whole text."""
        response = self.final(finish, text, usage, logprobs)
        events: list[ServerEvent] = []
        for item in response.output:
            events += [
                TextDone(text=text, logprobs=list(logprobs), **self._place()),
                PartDone(part=item.content[0], **self._place()),
                ItemDone(output_index=0, item=item, **self._address()),
            ]
        kind = Completed if finish == "stop" else Unfinished
        return [*events, kind(response=response, **self._address())]

    def final(self, finish: str, text: str, usage: Usage, logprobs: Sequence[TokenEntry] = ()) -> Response:
        """The response as it ends."""
        status: Status = "completed" if finish == "stop" else "incomplete"
        details = None if finish == "stop" else Incomplete(_REASONS.get(finish, finish))
        part = OutputText(text, logprobs=list(logprobs))
        output = [OutputMessage(self._item_id, status, [part])] if self._begun else []
        return self._response(status, output=output, incomplete_details=details, usage=usage)

    def failed(self, error: BanyanError, text: str, usage: Usage) -> ServerEvent:
        """The engine failed or refused this response."""
        output = [OutputMessage(self._item_id, "incomplete", [OutputText(text)])] if self._begun else []
        why = ResponseError(error.code, error.message, round(error.retry_after_s, 3) or UNSET)
        return Failed(response=self._response("failed", output=output, error=why, usage=usage), **self._address())

    def _address(self) -> _Address:
        return {"sequence_number": -1, "stream_id": self._stream_id}

    def _place(self) -> _Place:
        return {**self._address(), "item_id": self._item_id, "output_index": 0, "content_index": 0}

    def _response(
        self,
        status: Status,
        *,
        output: list[OutputMessage] | None = None,
        error: ResponseError | None = None,
        incomplete_details: Incomplete | None = None,
        usage: Usage | None = None,
    ) -> Response:
        asked = self._asked
        return Response(
            id=self.id,
            created_at=self._created_at,
            status=status,
            model=self._model,
            output=output or [],
            error=error,
            incomplete_details=incomplete_details,
            instructions=asked.instructions,
            max_output_tokens=asked.max_output_tokens,
            metadata=asked.metadata or {},
            previous_response_id=asked.previous_response_id,
            store=self.stored,
            temperature=self._sampling.temperature,
            top_p=self._sampling.top_p,
            usage=usage,
        )
