"""The shell around a session: carries out its effects on a real WebSocket and a real engine.

Knows asyncio, Starlette's WebSocket and the service. Knows no event but as bytes to send. When the socket is gone,
every request of it is cancelled in the same tick.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine, Iterable
from typing import Any

import msgspec
from starlette.responses import JSONResponse
from starlette.websockets import WebSocket

from backend.errors import BanyanError, EngineError
from backend.server.effects import Abandon, Close, Effect, Generate, Prepare, Send
from backend.server.errors import body_of, unexpected
from backend.server.events import Error
from backend.server.identity import identity_of
from backend.server.origin import is_same_origin
from backend.server.outbox import Outbox
from backend.server.service import ChatService, MeasuredGeneration
from backend.server.session import Session
from backend.text.conversation import Prompt

SUBPROTOCOL = "banyan.v1"
_INLINE_CHARS = 16_384  # tokenised within a few ms; more goes to a thread so that other streams do not wait
_CLOSE_SECONDS = 1.0

_log = logging.getLogger("banyan.server")
_encode = msgspec.json.Encoder().encode


async def responses_socket(websocket: WebSocket) -> None:
    """``GET /v1/responses`` with an upgrade."""
    if not is_same_origin(websocket.headers):
        error = BanyanError("this origin may not connect", code="origin_not_allowed", status=403)
        body = {"error": msgspec.to_builtins(body_of(error))}
        await websocket.send_denial_response(JSONResponse(body, status_code=403))
        return
    ours = SUBPROTOCOL in websocket.scope.get("subprotocols", [])
    await websocket.accept(SUBPROTOCOL if ours else None)
    await _Shell(websocket, websocket.app.state.service, extensions=ours).run()


class _Shell:
    def __init__(self, websocket: WebSocket, service: ChatService, *, extensions: bool) -> None:
        self._websocket = websocket
        self._service = service
        self._session = Session(
            service.model,
            new_request=service.engine.next_request_id,
            new_id=service.new_id,
            extensions=extensions,
            identity=identity_of(websocket.scope),
        )
        self._outbox = Outbox(service.limits.send_queue_bytes)
        self._generations: dict[int, MeasuredGeneration] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Future[Close] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Until the peer is gone or the session closes the socket."""
        reader, writer = asyncio.create_task(self._read()), asyncio.create_task(self._write())
        try:
            self._apply(self._session.opened())
            await asyncio.wait((reader, writer, self._closing), return_when=asyncio.FIRST_COMPLETED)
            # first free what the socket held, then be polite: saying why may take a second
            self._apply(self._session.closed())
            if self._closing.done():
                await self._close(self._closing.result(), writer)
        finally:
            self._apply(self._session.closed())
            tasks = (reader, writer, *self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self) -> None:
        # always one receive() outstanding: uvicorn reads from the socket, and sees its end, only then
        while (message := await self._websocket.receive())["type"] == "websocket.receive":
            text = message.get("text")
            data = text if text is not None else message.get("bytes") or b""
            try:
                self._apply(self._session.receive(data, self._service.clock(), int(time.time())))
            except Exception:
                _log.exception("a client's message broke the session")
                self._apply([Send(Error(500, body_of(unexpected())))])

    async def _write(self) -> None:
        await self._outbox.run(self._send)

    async def _send(self, message: bytes) -> None:
        await self._websocket.send({"type": "websocket.send", "text": message.decode()})

    async def _close(self, close: Close, writer: asyncio.Task[None]) -> None:
        """Say why, if the peer still listens; a stalled one gets no more than a second."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._outbox.drained()
                writer.cancel()
                await self._websocket.close(close.code, close.reason)

    def _apply(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(event):
                    if not self._closing.done() and not self._outbox.put(_encode(event)):
                        self._closing.set_result(Close(4490, "the client reads too slowly"))
                case Prepare():
                    self._prepare(effect)
                case Generate():
                    self._generate(effect)
                case Abandon(key):
                    if generation := self._generations.pop(key, None):
                        generation.cancel()
                case Close() if not self._closing.done():
                    self._closing.set_result(effect)

    def _prepare(self, effect: Prepare) -> None:
        if effect.size_chars > _INLINE_CHARS:
            self._spawn(self._prepare_in_thread(effect))
            return
        self._apply(self._session.prepared(effect.key, _result(effect), self._service.clock()))

    async def _prepare_in_thread(self, effect: Prepare) -> None:
        result = await asyncio.to_thread(_result, effect)
        self._apply(self._session.prepared(effect.key, result, self._service.clock()))

    def _generate(self, effect: Generate) -> None:
        key = effect.submit.request
        try:
            generation = self._service.generate(effect.submit, self._service.clock())
        except BanyanError as error:
            self._apply(self._session.engine_gone(key, error))
            return
        self._generations[key] = generation
        self._spawn(self._follow(key, generation))

    async def _follow(self, key: int, generation: MeasuredGeneration) -> None:
        try:
            async for event in generation:
                self._apply(self._session.engine_event(key, event, self._service.clock()))
            self._apply(self._session.engine_gone(key, EngineError("the engine ended the request without a word")))
        except Exception:
            _log.exception("a response broke")
            self._apply(self._session.engine_gone(key, unexpected()))
        finally:
            generation.cancel()
            self._generations.pop(key, None)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _result(effect: Prepare) -> Prompt | BanyanError:
    try:
        return effect.work()
    except BanyanError as error:
        return error
    except Exception:
        _log.exception("a prompt could not be made")
        return unexpected()
