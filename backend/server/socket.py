"""The shell around a session: carries out its effects on a real WebSocket.

Knows asyncio, Starlette's WebSocket and who conducts responses. Knows no event but as bytes to send.
"""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any

import msgspec
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope
from starlette.types import Send as Sender
from starlette.websockets import WebSocket

from backend.errors import BanyanError
from backend.server.codec import JSON, SUBPROTOCOLS, Codec
from backend.server.conductor import Conductor
from backend.server.effects import Close, Send, SocketEffect, Watch
from backend.server.errors import body_of, unexpected
from backend.server.events import Error
from backend.server.identity import identity_of
from backend.server.live import LiveFeed
from backend.server.outbox import Outbox
from backend.server.session import Session
from backend.server.sockets import OpenSockets
from backend.server.websocket_frames import WRITE, Writer

_CLOSE_SECONDS = 1.0

_log = logging.getLogger("banyan.server")


class ResponsesSocket:
    """``GET /v1/responses`` with an upgrade. Whoever is refused learns it before the upgrade, as an HTTP status.

    An ASGI app and no Starlette endpoint: that would put two layers around every message that is sent.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Sender) -> None:
        """One socket."""
        websocket = WebSocket(scope, receive, send)
        state = websocket.app.state
        identity = identity_of(scope)
        try:
            identity.require("chat")
            if state.conductor.responses.draining:
                raise BanyanError("the server is going down", code="server_draining", status=503)
        except BanyanError as error:
            body = {"error": msgspec.to_builtins(body_of(error))}
            await websocket.send_denial_response(JSONResponse(body, status_code=error.status))
            return
        chosen = next((name for name in scope.get("subprotocols", []) if name in SUBPROTOCOLS), None)
        await websocket.accept(chosen)
        codec = SUBPROTOCOLS.get(chosen or "", JSON)
        await _Shell(websocket, send, state.conductor, state.feed, codec, chosen is not None).run(state.sockets)


class _Shell:
    __slots__ = (
        "_closing",
        "_codec",
        "_conductor",
        "_feed",
        "_outbox",
        "_send_raw",
        "_session",
        "_task",
        "_watches",
        "_websocket",
        "identity",
    )

    def __init__(
        self,
        websocket: WebSocket,
        send: Sender,
        conductor: Conductor,
        feed: LiveFeed,
        codec: Codec,
        extensions: bool,
    ) -> None:
        self.identity = identity_of(websocket.scope)
        self._websocket = websocket
        self._send_raw = send
        self._conductor = conductor
        self._feed = feed
        self._codec = codec
        self._outbox = Outbox(
            writer(binary=codec.binary) if (writer := _writer(websocket.scope)) else _never,
            self._send_binary if codec.binary else self._send_text,
            self._relieved,
            conductor.responses.model.limits.send_queue_bytes // 2,
        )
        self._session = Session(
            conductor.responses,
            self._act,
            backlog=self._outbox,
            identity=self.identity,
            extensions=extensions,
            codec=codec,
        )
        self._task: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._watches: dict[str, asyncio.Task[None]] | None = None

    async def run(self, sockets: OpenSockets) -> None:
        """Until the peer is gone or the session closes the socket."""
        self._task = asyncio.current_task()
        sockets.add(self)
        try:
            self._session.opened(self._conductor.now)
            await self._read()
        except asyncio.CancelledError:
            if self._closing is None:  # the key was revoked: nobody comes back
                self._session.closed(self._conductor.now, grace=False)
                raise
        finally:
            sockets.remove(self)
            self._session.closed(self._conductor.now)
            await self._outbox.close()

    @property
    def busy(self) -> bool:
        """Whether a response is in flight on it, or something waits to be sent."""
        return self._session.busy or self._outbox.bytes > 0

    def tick(self, now: float) -> None:
        """Time has passed."""
        self._session.tick(now)

    def close(self, code: int, reason: str) -> None:
        """End it and all that it has open, without grace."""
        self._session.closed(self._conductor.now, grace=False)
        self._act(Close(code, reason))

    async def _read(self) -> None:
        # always one receive() outstanding: uvicorn reads from the socket, and sees its end, only then
        while (message := await self._websocket.receive())["type"] == "websocket.receive":
            text = message.get("text")
            data = text if text is not None else message.get("bytes") or b""
            try:
                self._session.receive(data, self._conductor.now, self._conductor.wall())
            except Exception:
                _log.exception("a client's message broke the session")
                self._act(Send(Error(500, body_of(unexpected()))))

    def _act(self, effect: SocketEffect) -> None:
        if isinstance(effect, Send):  # before all else: it is what there is most of
            self._outbox.put(self._codec.encode(effect.event))
            return
        match effect:
            case Close() if self._closing is None:
                self._closing = asyncio.create_task(self._close(effect))
            case Watch(topic, hz):
                self._watches = self._watches if self._watches is not None else {}
                if (watching := self._watches.pop(topic, None)) is not None:
                    watching.cancel()
                if hz:
                    watch = self._feed.watch(topic, self.identity, hz, self._session.live)
                    self._watches[topic] = asyncio.create_task(watch)

    def _relieved(self) -> None:
        self._session.relieved()

    def _send_text(self, message: bytes) -> Coroutine[Any, Any, None]:
        return self._send_raw({"type": "websocket.send", "text": message.decode()})  # type: ignore[return-value]

    def _send_binary(self, message: bytes) -> Coroutine[Any, Any, None]:
        return self._send_raw({"type": "websocket.send", "bytes": message})  # type: ignore[return-value]

    async def _close(self, close: Close) -> None:
        """Free what it holds; then say why, if the peer still listens; a stalled one gets no more than a second."""
        self._session.closed(self._conductor.now)
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._outbox.drained()
                await self._websocket.close(close.code, close.reason)
        if self._task is not None:
            self._task.cancel()


def _writer(scope: Scope) -> Writer | None:
    """The server's short way, if it has one."""
    return scope.get("extensions", {}).get(WRITE)  # type: ignore[no-any-return]


def _never(message: bytes) -> bool:
    return False
