"""One socket's protocol, sans I/O: messages and engine events in, effects out.

Knows lanes, responses and the conversations that can be continued. Knows no sockets, no asyncio, no engine; ids and
times are arguments. Whatever comes in, nothing is raised for it: a refusal is an ``error`` event.

    lane:  create -> Prepare -> (prepared) -> created, Generate -> (engine events) -> cache, started, deltas, one end
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import msgspec
from msgspec import UNSET

from backend.engine.messages import Output, Started
from backend.errors import BanyanError, RequestError
from backend.server.asked import (
    check_metadata,
    instructions_of,
    messages_of,
    refuse_unsupported,
    sampling_of,
)
from backend.server.chat_model import ChatModel
from backend.server.effects import Abandon, Close, Effect, Generate, Prepare, Send
from backend.server.errors import body_of, decoding, failure
from backend.server.events import (
    CLIENT_EVENTS,
    ClientEvent,
    Envelope,
    Error,
    Ping,
    Pong,
    ResponseCancel,
    ResponseCreate,
    SessionLimits,
    SessionOpened,
    StreamId,
)
from backend.server.identity import LOCAL, Identity
from backend.server.messages import with_system
from backend.server.reply import Reply
from backend.server.response_stream import ResponseStream
from backend.server.sampling import Options
from backend.text.conversation import Conversation, Prompt
from backend.text.template import Message

_ENVELOPE = msgspec.json.Decoder(Envelope)
_DECODERS = {name: msgspec.json.Decoder(kind) for name, kind in CLIENT_EVENTS.items()}


class _Lane(msgspec.Struct):
    """A response in flight. ``prompt`` and ``reply`` are there once it was prepared."""

    key: int
    name: str | None
    options: Options
    stream: ResponseStream
    began: float
    prompt: Prompt | None = None
    reply: Reply | None = None


class Session:
    """State of one socket. ``extensions``: send ``x.*`` events that nobody asked for."""

    def __init__(
        self,
        model: ChatModel,
        *,
        new_request: Callable[[], int],
        new_id: Callable[[], str],
        extensions: bool = False,
        identity: Identity = LOCAL,
    ) -> None:
        """``new_request``: ids for the engine; ``new_id``: unguessable text, unique in this server."""
        self._model = model
        self._new_request = new_request
        self._new_id = new_id
        self._extensions = extensions
        self._identity = identity
        self._lanes: dict[int, _Lane] = {}
        self._finished: OrderedDict[str, Conversation] = OrderedDict()
        self._malformed = 0

    # ---- what comes in ---------------------------------------------------------------------------

    def opened(self) -> list[Effect]:
        """The socket was accepted."""
        if not self._extensions:
            return []
        limits = self._model.limits
        bounds = SessionLimits(limits.message_bytes, limits.lanes, self._model.max_context)
        return [Send(SessionOpened(self._identity.tenant, self._model.name, bounds))]

    def receive(self, message: str | bytes, now: float, wall: int) -> list[Effect]:
        """A message of the client. ``now``: seconds of a clock that never jumps; ``wall``: Unix time in seconds."""
        stream_id: StreamId = UNSET
        try:
            envelope = decoding(lambda: _ENVELOPE.decode(message))
            if isinstance(envelope.stream_id, str):
                stream_id = envelope.stream_id[: self._model.limits.id_chars]
            event = self._decode(envelope, message)
            self._malformed = 0
            return self._handle(event, now, wall)
        except RequestError as error:
            return [_refusal(error, stream_id), *self._count_malformed(error)]

    def prepared(self, key: int, result: Prompt | BanyanError, now: float) -> list[Effect]:
        """The prompt of ``Prepare(key)`` is made, or could not be."""
        lane = self._lanes.get(key)
        if lane is None:
            return []
        try:
            if isinstance(result, BanyanError):
                raise result
            submit = self._model.submit(key, result, lane.options, identity=self._identity)
        except BanyanError as error:
            del self._lanes[key]
            return [_refusal(error, UNSET if lane.name is None else lane.name)]
        lane.prompt = result
        lane.reply = self._model.reply(len(result.ids), lane.options, lane.began)
        return [Send(lane.stream.created(lane.options.sampling)), Generate(submit)]

    def engine_event(self, key: int, event: Started | Output, now: float) -> list[Effect]:
        """What the engine says of a request. Unknown keys (cancelled in the meantime) are ignored."""
        lane = self._lanes.get(key)
        if lane is None or lane.prompt is None or lane.reply is None:
            return []
        if isinstance(event, Started):
            return self._started(lane, lane.prompt, lane.reply, event)
        if event.finish == "error":
            return self._fail(lane, lane.reply, failure(event))
        known = len(lane.reply.logprobs)
        text = lane.reply.output(event, now)
        fresh = lane.reply.logprobs[known:]
        logprobs = self._model.logprobs(fresh) if fresh else ()
        effects: list[Effect] = [Send(e) for e in lane.stream.delta(text, logprobs)]
        if lane.reply.finish:
            effects += self._end(lane, lane.prompt, lane.reply)
        if lane.reply.finish and not event.finish:  # a stop string: the engine does not know it is over
            effects.append(Abandon(key))
        return effects

    def engine_gone(self, key: int, error: BanyanError) -> list[Effect]:
        """A request ended without an end, or was not taken."""
        lane = self._lanes.get(key)
        if lane is None or lane.reply is None:
            return []
        return self._fail(lane, lane.reply, error)

    def closed(self) -> list[Effect]:
        """The socket is gone: nothing of it stays."""
        keys = [key for key, lane in self._lanes.items() if lane.prompt is not None]
        self._lanes.clear()
        self._finished.clear()
        return [Abandon(key) for key in keys]

    # ---- client events ---------------------------------------------------------------------------

    def _decode(self, envelope: Envelope, message: str | bytes) -> ClientEvent:
        if envelope.type is UNSET:
            raise RequestError("type is missing", param="type")
        decoder = _DECODERS.get(str(envelope.type))
        if decoder is None:
            name = str(envelope.type)[:100]
            raise RequestError(f"there is no event {name!r}", code="unknown_event", param="type")
        event = decoding(lambda: decoder.decode(message))
        for param in ("stream_id", "response_id", "previous_response_id"):
            value = getattr(event, param, None)
            if value is not None and not 0 < len(value) <= self._model.limits.id_chars:
                raise RequestError(f"{param} has 1 to {self._model.limits.id_chars} characters", param=param)
        return event

    def _handle(self, event: ClientEvent, now: float, wall: int) -> list[Effect]:
        if isinstance(event, ResponseCreate):
            return self._create(event, now, wall)
        if isinstance(event, ResponseCancel):
            return self._cancel(event)
        return [Send(_pong(event))]

    def _create(self, event: ResponseCreate, now: float, wall: int) -> list[Effect]:
        self._check_lane(event.stream_id)
        self._model.check_name(event.model)
        refuse_unsupported(event)
        check_metadata(event.metadata, self._model.limits)
        options = self._model.check_options(sampling_of(event))
        instructions = instructions_of(event, self._model.prompts, self._identity.tenant)
        messages = messages_of(event, self._model.limits)
        work = self._work(self._past(event.previous_response_id), instructions, messages)
        key = self._new_request()
        stream = ResponseStream(f"resp_{self._new_id()}", f"msg_{self._new_id()}", wall, self._model.name, event)
        self._lanes[key] = _Lane(key, event.stream_id, options, stream, now)
        return [Prepare(key, work, len(instructions or "") + sum(len(m["content"]) for m in messages))]

    def _cancel(self, event: ResponseCancel) -> list[Effect]:
        if event.response_id is None and event.stream_id is None:
            raise RequestError("give response_id or stream_id", param="response_id")
        for lane in list(self._lanes.values()):
            if event.response_id == lane.stream.id or (event.response_id is None and event.stream_id == lane.name):
                return self._end_cancelled(lane)
        if event.response_id is not None and event.response_id not in self._finished:
            raise RequestError(
                f"there is no response {event.response_id!r} on this socket",
                code="response_not_found",
                status=404,
                param="response_id",
            )
        return []

    def _check_lane(self, name: str | None) -> None:
        limit = self._model.limits.lanes
        if any(lane.name == name for lane in self._lanes.values()):
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

    def _past(self, response_id: str | None) -> Conversation | None:
        if response_id is None:
            return None
        past = self._finished.get(response_id)
        if past is None:
            raise RequestError(
                f"there is no finished response {response_id!r} on this socket",
                code="previous_response_not_found",
                param="previous_response_id",
            )
        return past

    def _work(
        self, past: Conversation | None, instructions: str | None, messages: Sequence[Message]
    ) -> Callable[[], Prompt]:
        """How the prompt is made. The system prompt carries over; a different one means that all is rendered anew."""
        encoder = self._model.encoder
        if past is None:
            return lambda: encoder.begin(with_system(instructions, messages))
        system = past.messages[0]["content"] if past.messages[0]["role"] == "system" else None
        if instructions is None or instructions == system:
            return lambda: encoder.extend(past, messages)
        rest = past.messages if system is None else past.messages[1:]
        return lambda: encoder.begin(with_system(instructions, [*rest, *messages]))

    # ---- a response's life -----------------------------------------------------------------------

    def _started(self, lane: _Lane, prompt: Prompt, reply: Reply, event: Started) -> list[Effect]:
        reply.started(event)
        effects: list[Effect] = []
        if self._extensions:
            saved = self._model.prefill_rate.saved_ms(event.cached)
            effects.append(Send(lane.stream.cache(prompt, event.cached, saved)))
        return effects + [Send(e) for e in lane.stream.started()]

    def _end(self, lane: _Lane, prompt: Prompt, reply: Reply) -> list[Effect]:
        del self._lanes[lane.key]
        text = reply.text
        self._finished[lane.stream.id] = self._model.encoder.finish(prompt, reply.tokens, text, reply.cut)
        while len(self._finished) > self._model.limits.responses_kept:
            self._finished.popitem(last=False)
        logprobs = self._model.logprobs(reply.logprobs)
        return [Send(e) for e in lane.stream.ended(reply.finish, text, reply.usage(), logprobs)]

    def _end_cancelled(self, lane: _Lane) -> list[Effect]:
        if lane.prompt is None or lane.reply is None:  # not prepared yet: it begins and ends at once, with nothing
            del self._lanes[lane.key]
            usage = self._model.reply(0, lane.options, lane.began).usage()
            created = lane.stream.created(lane.options.sampling)
            return [Send(created), *(Send(e) for e in lane.stream.ended("cancelled", "", usage))]
        effects: list[Effect] = [Abandon(lane.key)]
        effects += [Send(e) for e in lane.stream.delta(lane.reply.end("cancelled"))]
        return effects + self._end(lane, lane.prompt, lane.reply)

    def _fail(self, lane: _Lane, reply: Reply, error: BanyanError) -> list[Effect]:
        del self._lanes[lane.key]
        return [Send(lane.stream.failed(error, reply.text, reply.usage()))]

    def _count_malformed(self, error: RequestError) -> list[Effect]:
        if error.code != "invalid_json":
            return []
        self._malformed += 1
        return (
            [Close(4400, "too many malformed messages")]
            if self._malformed > self._model.limits.malformed_messages
            else []
        )


def _refusal(error: BanyanError, stream_id: StreamId) -> Send:
    return Send(Error(error.status, body_of(error), stream_id))


def _pong(event: Ping) -> Pong:
    return Pong(event.t, UNSET if event.stream_id is None else event.stream_id)
