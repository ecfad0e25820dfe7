"""The events of one response, waiting to be taken and kept for whoever comes back. Bounded in bytes; no clock.

      first               cursor            given             end
        | kept, was taken    | to be taken     | not numbered yet |
        '--------------------'-- again --------'------------------'

A number belongs to its event from the moment somebody takes it. What nobody has taken yet is not numbered: deltas that
follow one another are one there. So a slow reader gets fewer and longer deltas, and there are never gaps.
"""

from collections import deque
from collections.abc import Callable, Sequence

from backend.errors import RequestError
from backend.server.events import ItemDone, PartDone, ServerEvent, TextDelta, TextDone
from backend.server.logprobs import TokenEntry

_EVENT_BYTES = 512  # of an event beside its text, roughly
_DELTA_BYTES = 64
_LOGPROB_BYTES = 80  # of a token with its log-probability, as JSON


class Record:
    """``make_delta``: the event for a text. ``keep``: whether what was taken stays, up to ``most_bytes``."""

    __slots__ = ("_cursor", "_entries", "_first", "_given", "_keep", "_make_delta", "_most_bytes", "bytes")

    def __init__(self, make_delta: Callable[[str], TextDelta], *, keep: bool, most_bytes: int) -> None:
        self.bytes = 0
        self._make_delta = make_delta
        self._keep = keep
        self._most_bytes = most_bytes
        self._entries: deque[ServerEvent | str] = deque()
        self._first = 0
        self._cursor = 0
        self._given = 0

    @property
    def end(self) -> int:
        """One more than the last number."""
        return self._first + len(self._entries)

    @property
    def exhausted(self) -> bool:
        """Whether there is nothing to take."""
        return self._cursor - self._first >= len(self._entries)

    @property
    def waiting_bytes(self) -> int:
        """About how much is to be taken. O(events to be taken)."""
        waiting = range(self.end - max(self._cursor, self._first))
        return sum(_size(entry) for _, entry in zip(waiting, reversed(self._entries), strict=False))

    def add(self, event: ServerEvent) -> None:
        """One more event."""
        self._entries.append(event)
        self.bytes += _size(event)
        self._shrink()

    def add_text(self, text: str) -> None:
        """One more delta; it joins the one before when nobody has taken that yet."""
        entries = self._entries
        if self._first + len(entries) > self._given and entries and isinstance(last := entries[-1], str):
            entries[-1] = last + text
            self.bytes += len(text)
        else:
            entries.append(text)
            self.bytes += _DELTA_BYTES + len(text)
        if self.bytes > self._most_bytes:
            self._shrink()

    def take(self) -> ServerEvent | None:
        """The next event for the reader, with its number; None when there is none.

        Raises ``RequestError`` (``resume_gap``) when it is not held any more.
        """
        if self._cursor < self._first:
            raise self._gap(self._cursor - 1)
        index = self._cursor - self._first
        if index == len(self._entries):
            return None
        entry = self._entries[index]
        event = self._make_delta(entry) if isinstance(entry, str) else entry
        event.sequence_number = self._cursor  # type: ignore[union-attr]
        self._cursor += 1
        if self._cursor > self._given:
            self._given = self._cursor
        if not self._keep:
            self._drop()
        return event

    def rewind(self, after: int) -> None:
        """Go on behind number ``after``. Raises ``RequestError``: not held any more, or not there yet."""
        if after + 1 < self._first:
            raise self._gap(after)
        if after >= self._given:
            raise RequestError(f"after: the last event that was sent is {self._given - 1}", param="after")
        self._cursor = after + 1

    def _shrink(self) -> None:
        while self.bytes > self._most_bytes and len(self._entries) > 1:
            self._drop()

    def _drop(self) -> None:
        self.bytes -= _size(self._entries.popleft())
        self._first += 1
        self._given = max(self._given, self._first)

    def _gap(self, after: int) -> RequestError:
        return RequestError(
            f"the events after {after} are not held any more; those from {self._first} on are",
            code="resume_gap",
            status=409,
            param="after",
        )


def logprob_bytes(entries: Sequence[TokenEntry]) -> int:
    """About what they take on the wire."""
    return _LOGPROB_BYTES * sum(1 + len(entry.top_logprobs) for entry in entries)


def _size(entry: ServerEvent | str) -> int:
    if isinstance(entry, str):
        return _DELTA_BYTES + len(entry)
    if isinstance(entry, TextDelta):
        return _EVENT_BYTES + len(entry.delta) + logprob_bytes(entry.logprobs)
    if isinstance(entry, TextDone):
        return _EVENT_BYTES + len(entry.text)
    if isinstance(entry, PartDone):
        return _EVENT_BYTES + len(entry.part.text)
    if isinstance(entry, ItemDone):
        return _EVENT_BYTES + sum(len(part.text) for part in entry.item.content)
    response = getattr(entry, "response", None)
    instructions = len(response.instructions or "") if response is not None else 0
    text = sum(len(part.text) for item in response.output for part in item.content) if response is not None else 0
    return _EVENT_BYTES + instructions + text
