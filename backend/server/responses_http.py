"""``POST /v1/responses`` and what was stored of them. Knows HTTP; the responses are the same as the sockets'."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
from starlette.requests import Request
from starlette.responses import Response as HttpResponse
from starlette.types import ASGIApp

from backend.errors import BanyanError, EngineError, RequestError
from backend.server.conductor import Conductor
from backend.server.errors import decoding
from backend.server.events import Completed, Created, Failed, Response, ResponseCreate, ServerEvent, Unfinished
from backend.server.identity import identity_of
from backend.server.json_http import json_response, read_body
from backend.server.openapi import Deleted
from backend.server.responding import Responding
from backend.server.responses import Asker
from backend.server.sse import event_stream, sse_data, whole

_decoder = msgspec.json.Decoder(ResponseCreate)
_encode = msgspec.json.Encoder().encode


async def create_response(request: Request) -> ASGIApp:
    """The route. Raises ``BanyanError``, which the app turns into an answer."""
    identity = identity_of(request.scope)
    identity.require("chat")
    conductor: Conductor = request.app.state.conductor
    now = conductor.now
    body = await read_body(request, conductor.responses.model.limits.message_bytes)
    asked = decoding(lambda: _decoder.decode(body))
    if asked.stream_id is not None:
        raise RequestError("stream_id is for sockets: here each request is a lane of its own", param="stream_id")
    response = conductor.responses.create(asked, Asker(identity, stores=True, whole=True), now, conductor.wall())
    reader = _Reader(conductor, response)
    conductor.responses.begin(response)
    if not asked.stream:
        return whole(reader.whole, reader.release)
    try:
        await reader.begun()  # so that what is refused before anything is computed gets a status of its own
    except BaseException:
        reader.release()
        raise
    return event_stream(reader.stream(), reader.release)


async def get_response(request: Request) -> HttpResponse:
    """A response that was stored. Raises ``RequestError`` (404) for others."""
    identity = identity_of(request.scope)
    identity.require("chat")
    response_id = _id(request)
    store = request.app.state.conductor.responses.store
    turn = await asyncio.to_thread(store.load, identity.tenant, response_id)
    if turn is None:
        raise _unknown(response_id)
    stored: Response = turn.response
    return json_response(stored)


async def delete_response(request: Request) -> HttpResponse:
    """Forget a stored response."""
    identity = identity_of(request.scope)
    identity.require("chat")
    conductor: Conductor = request.app.state.conductor
    response_id = _id(request)
    gone = await asyncio.to_thread(conductor.responses.store.delete, identity.tenant, response_id)
    if not gone:
        raise _unknown(response_id)
    conductor.responses.forget(identity.tenant, response_id)
    return json_response(Deleted(response_id))


class _Reader:
    """Follows one response for an HTTP answer."""

    def __init__(self, conductor: Conductor, response: Responding) -> None:
        self._conductor = conductor
        self._response = response
        self._wake = asyncio.Event()
        self._refusal: BanyanError | None = None
        self._held: list[ServerEvent] = []
        response.follower = self

    def news(self, response: Responding) -> None:
        """There is something to take."""
        self._wake.set()

    def refused(self, response: Responding, error: BanyanError) -> None:
        """It could not begin."""
        self._refusal = error
        self._wake.set()

    def lost(self, response: Responding) -> None:
        """Cannot be: what comes over HTTP cannot be resumed."""

    def release(self) -> None:
        """Free everything at once; idempotent."""
        self._conductor.responses.leave(self._response, self._conductor.now, grace=False)

    async def begun(self) -> None:
        """Wait for what follows ``response.created``. Raises ``BanyanError`` when that is a refusal.

        One that is queued is told so at once.
        """
        async for event in self._events():
            self._held.append(event)
            if not isinstance(event, Created):
                break
        self._raise_failure(self._held[-1])

    async def whole(self) -> HttpResponse:
        """The response as it ended. Raises ``BanyanError`` when it failed."""
        async for event in self._events():
            self._raise_failure(event)
            if isinstance(event, Completed | Unfinished):
                return json_response(event.response)
        raise EngineError("the response ended without an end")

    async def stream(self) -> AsyncIterator[bytes]:
        """All events, as server-sent ones. A failure within is one of them."""
        for event in self._held:
            yield _frame(event)
        if isinstance(self._held[-1], Completed | Unfinished | Failed):
            return
        async for event in self._events():
            yield _frame(event)

    async def _events(self) -> AsyncIterator[ServerEvent]:
        while True:
            while (event := self._response.record.take()) is not None:
                yield event
                if isinstance(event, Completed | Unfinished | Failed):
                    return
            if self._refusal is not None:
                raise self._refusal
            self._wake.clear()
            await self._wake.wait()

    def _raise_failure(self, event: ServerEvent) -> None:
        if isinstance(event, Failed) and self._response.error is not None:
            raise self._response.error


def _frame(event: ServerEvent) -> bytes:
    kind = type(event).__struct_config__.tag
    return f"event: {kind}\n".encode() + sse_data(_encode(event))


def _id(request: Request) -> str:
    response_id = str(request.path_params["response_id"])
    if len(response_id) > request.app.state.conductor.responses.model.limits.id_chars:
        raise _unknown(response_id[:100])
    return response_id


def _unknown(response_id: str) -> RequestError:
    return RequestError(
        f"there is no stored response {response_id!r}", code="response_not_found", status=404, param="response_id"
    )
