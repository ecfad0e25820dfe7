"""One socket's protocol, sans I/O: the client's messages and the news of its responses in, effects out.

Knows lanes, the histories that can be continued here, deadlines, and how much waits to be sent. Knows no sockets, no
asyncio, no engine; times are arguments. Whatever comes in, nothing is raised for it: a refusal is an ``error`` event.

Events are taken out of a response's record only while less than half of the byte budget waits to be sent; what is not
taken grows there, deltas joined into one. When both together are more than the budget, the socket is closed.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from msgspec import UNSET

from backend.errors import BanyanError, RequestError
from backend.server.codec import JSON, Codec
from backend.server.conversations import Past
from backend.server.effects import Close, Send, SocketEffect, Watch
from backend.server.errors import body_of
from backend.server.events import (
    ClientEvent,
    Completed,
    Error,
    Failed,
    Ping,
    Pong,
    ResponseCancel,
    ResponseCreate,
    Resume,
    SessionLimits,
    SessionOpened,
    StreamId,
    Subscribe,
    Unfinished,
    Unsubscribe,
)
from backend.server.identity import LOCAL, Identity
from backend.server.live_events import LiveEvent
from backend.server.responding import Responding
from backend.server.responses import Asker, Responses

_ENDS = (Completed, Unfinished, Failed)
_SLOW_CLOSE, _MALFORMED_CLOSE, _SILENT_CLOSE, _OLD_CLOSE, _DRAIN_CLOSE = 4490, 4400, 4408, 4499, 1012
_OVERTIME_SECONDS = 120.0  # a socket that is too old and still answers gets no more than this


class Backlog(Protocol):
    """What waits to be sent on the socket."""

    bytes: int


class Session:
    """State of one socket. ``extensions``: send ``x.*`` events that nobody asked for, keep responses for a resume.

    ``act`` carries out effects; ``backlog`` says how much of what was sent still waits.
    """

    __slots__ = (
        "_act",
        "_backlog",
        "_closed",
        "_codec",
        "_extensions",
        "_finished",
        "_heard",
        "_lanes",
        "_limits",
        "_malformed",
        "_opened",
        "_responses",
        "_spoke",
        "_watching",
        "identity",
    )

    def __init__(
        self,
        responses: Responses,
        act: Callable[[SocketEffect], None],
        *,
        backlog: Backlog,
        identity: Identity = LOCAL,
        extensions: bool = False,
        codec: Codec = JSON,
    ) -> None:
        self.identity = identity
        self._responses = responses
        self._limits = responses.model.limits
        self._act = act
        self._backlog = backlog
        self._extensions = extensions
        self._codec = codec
        self._lanes: dict[str, Responding] = {}
        self._finished: OrderedDict[str, Past] = OrderedDict()
        self._malformed = 0
        self._opened = self._heard = 0.0
        self._spoke = False
        self._watching: set[str] = set()
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether a response is in flight here."""
        return bool(self._lanes)

    # ---- what comes in ---------------------------------------------------------------------------

    def opened(self, now: float) -> None:
        """The socket was accepted. ``now``: seconds of a clock that never jumps."""
        self._opened = self._heard = now
        if self._extensions:
            limits, model = self._limits, self._responses.model
            bounds = SessionLimits(
                limits.message_bytes,
                limits.lanes,
                model.max_context,
                limits.idle_seconds,
                limits.age_seconds,
                limits.grace_seconds,
            )
            self._act(Send(SessionOpened(self.identity.tenant, model.name, bounds)))

    def receive(self, message: str | bytes, now: float, wall: int) -> None:
        """A message of the client. ``wall``: Unix time in seconds."""
        if self._closed:
            return
        stream_id: StreamId = UNSET
        self._heard = now
        asks = True  # as far as can be told
        try:
            envelope = self._codec.envelope(message)
            if isinstance(envelope.stream_id, str):
                stream_id = envelope.stream_id[: self._limits.id_chars]
            event = self._codec.event(envelope, message)
            asks = isinstance(event, ResponseCreate)
            self._check_ids(event)
            self._malformed, self._spoke = 0, True
            self._handle(event, now, wall)
        except BanyanError as error:
            self._refuse(error, stream_id)
            self._count_malformed(error)
            if asks:
                self._responses.refused(self.identity, error, now)

    def relieved(self) -> None:
        """Something was sent: there may be room again."""
        if not self._closed:
            for response in list(self._lanes.values()):
                self.news(response)

    def live(self, event: LiveEvent) -> None:
        """Figures for a topic that is watched; dropped when the client reads slowly."""
        if not self._closed and self._has_room():
            self._act(Send(event))

    def tick(self, now: float) -> None:
        """Close the socket when its time is over."""
        limits = self._limits
        if self._closed:
            return
        age, quiet = now - self._opened, now - self._heard
        if self._responses.draining and not self._lanes:
            self._close(_DRAIN_CLOSE, "the server is going down")
        elif not self._spoke and age >= limits.first_message_seconds:
            self._close(_SILENT_CLOSE, "no message came")
        elif age >= limits.age_seconds + (_OVERTIME_SECONDS if self._lanes else 0.0):
            self._close(_OLD_CLOSE, "the socket is too old")
        elif quiet >= limits.idle_seconds and not self._lanes and not self._watching:
            self._close(_OLD_CLOSE, "the socket was idle")

    def closed(self, now: float, *, grace: bool = True) -> None:
        """The socket is gone. Its responses go on for the grace, when they may; idempotent."""
        self._closed = True
        lanes, self._lanes = list(self._lanes.values()), {}
        for response in lanes:
            self._responses.leave(response, now, grace=grace)
        self._finished.clear()
        for topic in self._watching:
            self._act(Watch(topic, 0.0))  # type: ignore[arg-type]
        self._watching.clear()

    # ---- news of responses -----------------------------------------------------------------------

    def news(self, response: Responding) -> None:
        """There is something to take."""
        half, record = self._limits.send_queue_bytes // 2, response.record
        try:
            while self._backlog.bytes < half and not self._closed:
                if (event := record.take()) is None:
                    return
                if isinstance(event, _ENDS):
                    self._ended(response)
                self._act(Send(event))
                if record.exhausted:
                    return
        except RequestError:  # more was dropped than this socket could ever take
            self._close(_SLOW_CLOSE, "the client reads too slowly")
            return
        waiting = sum(lane.record.waiting_bytes for lane in self._lanes.values())
        if self._backlog.bytes + waiting > self._limits.send_queue_bytes:
            self._close(_SLOW_CLOSE, "the client reads too slowly")

    def refused(self, response: Responding, error: BanyanError) -> None:
        """It could not begin."""
        self._lanes.pop(response.id, None)
        self._refuse(error, UNSET if response.lane is None else response.lane)

    def lost(self, response: Responding) -> None:
        """Another socket reads it from now on."""
        self._lanes.pop(response.id, None)

    def _ended(self, response: Responding) -> None:
        self._lanes.pop(response.id, None)
        response.follower = None
        if response.past is not None:
            self._finished[response.id] = response.past
            while len(self._finished) > self._limits.responses_kept:
                self._finished.popitem(last=False)

    def _has_room(self) -> bool:
        return self._backlog.bytes < self._limits.send_queue_bytes // 2

    # ---- client events ---------------------------------------------------------------------------

    def _handle(self, event: ClientEvent, now: float, wall: int) -> None:
        match event:
            case ResponseCreate():
                self._create(event, now, wall)
            case ResponseCancel():
                self._cancel(event, now)
            case Resume():
                self._resume(event)
            case Subscribe():
                self._subscribe(event)
            case Unsubscribe(topics=topics):
                for topic in set(topics or self._watching) & self._watching:
                    self._watching.discard(topic)
                    self._act(Watch(topic, 0.0))  # type: ignore[arg-type]
            case Ping(t=t, stream_id=stream_id):
                self._act(Send(Pong(t, UNSET if stream_id is None else stream_id)))

    def _create(self, event: ResponseCreate, now: float, wall: int) -> None:
        self._check_lane(event.stream_id)
        asker = Asker(self.identity, self._extensions, self._finished)
        response = self._responses.create(event, asker, now, wall)
        self._follow(response)
        self._responses.begin(response)

    def _cancel(self, event: ResponseCancel, now: float) -> None:
        if event.response_id is None and event.stream_id is None:
            raise RequestError("give response_id or stream_id", param="response_id")
        if event.response_id is None:
            for lane in [lane for lane in self._lanes.values() if lane.lane == event.stream_id]:
                self._responses.cancel(lane, now)
            return
        found = self._responses.find(self.identity.tenant, event.response_id)
        if found is not None:
            self._responses.cancel(found, now)
        elif event.response_id not in self._finished:
            raise _not_found(event.response_id)

    def _resume(self, event: Resume) -> None:
        found = self._responses.find(self.identity.tenant, event.response_id)
        if found is None:
            raise _not_found(event.response_id)
        if event.response_id not in self._lanes:
            self._check_lane(found.lane)
        response = self._responses.resume(self.identity, event.response_id, event.after, self)
        self._follow(response)
        self.news(response)
        if response.over and response.record.exhausted:  # its end was seen before: nothing of it will come
            self._lanes.pop(response.id, None)

    def _subscribe(self, event: Subscribe) -> None:
        self.identity.require("chat")
        if not event.topics or len(event.topics) > len(_TOPICS):
            raise RequestError(f"topics: one or more of {', '.join(_TOPICS)}", param="topics")
        if not (math.isfinite(event.max_hz) and _LEAST_HZ <= event.max_hz <= _MOST_HZ):
            raise RequestError(f"max_hz must be between {_LEAST_HZ} and {_MOST_HZ}", param="max_hz")
        for topic in event.topics:
            self._watching.add(topic)
            self._act(Watch(topic, event.max_hz))

    def _follow(self, response: Responding) -> None:
        self._lanes[response.id] = response
        response.follower = self

    def _check_lane(self, name: str | None) -> None:
        limit = self._limits.lanes
        if any(lane.lane == name for lane in self._lanes.values()):
            which = "without a stream_id" if name is None else f"on the lane {name!r}"
            raise RequestError(
                f"a response {which} is still in flight: end it, or use another stream_id", param="stream_id"
            )
        if len(self._lanes) >= limit:
            raise RequestError(
                f"this socket has {limit} responses in flight, the most it may have",
                code="websocket_stream_limit_reached",
                status=429,
            )

    def _check_ids(self, event: ClientEvent) -> None:
        most = self._limits.id_chars
        for param in ("stream_id", "response_id", "previous_response_id"):
            value = getattr(event, param, None)
            if value is not None and not 0 < len(value) <= most:
                raise RequestError(f"{param} has 1 to {most} characters", param=param)

    # ---- going out -------------------------------------------------------------------------------

    def _refuse(self, error: BanyanError, stream_id: StreamId) -> None:
        if not self._closed:
            self._act(Send(Error(error.status, body_of(error), stream_id)))

    def _count_malformed(self, error: BanyanError) -> None:
        if error.code == "invalid_json":
            self._malformed += 1
            if self._malformed > self._limits.malformed_messages:
                self._close(_MALFORMED_CLOSE, "too many malformed messages")

    def _close(self, code: int, reason: str) -> None:
        if not self._closed:
            self._closed = True
            self._act(Close(code, reason))


_TOPICS = ("stats", "tree", "batch")
_LEAST_HZ, _MOST_HZ = 0.1, 10.0


def _not_found(response_id: str) -> RequestError:
    return RequestError(
        f"there is no response {response_id!r}", code="response_not_found", status=404, param="response_id"
    )
