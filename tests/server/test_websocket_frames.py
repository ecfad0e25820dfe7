"""The short way of sending: the same frames as the long one, whole at every size, and none on a closed connection."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedOK
from websockets.frames import Frame, Opcode

from backend.server.run import uvicorn_config
from backend.server.websocket_frames import WRITE, frame_header

SIZES = [0, 1, 125, 126, 127, 65_535, 65_536, 70_000]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
def test_a_frame_is_what_the_library_makes(opcode: Opcode, size: int) -> None:
    body = b"x" * size
    assert frame_header(0x80 | opcode, size) + body == Frame(opcode, body).serialize(mask=False)


class SayEverything:
    """Each size as text and as bytes, once through ``send`` and once through the short way, then the end, and one
    message too many in both."""

    refusal = ""
    written: tuple[bool, bool, bool] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        writer = scope["extensions"][WRITE]
        write_text, write_binary = writer(binary=False), writer(binary=True)
        early = write_text(b"too early")
        await send({"type": "websocket.accept"})
        taken = True
        for size in SIZES:
            text = "é" * (size // 2) + "x" * (size % 2)
            await send({"type": "websocket.send", "text": text})
            await send({"type": "websocket.send", "bytes": b"\0" * size})
            taken = taken and write_text(text.encode()) and write_binary(b"\1" * size)
        await send({"type": "websocket.close", "code": 1000})
        self.written = (early, taken, write_text(b"late"))
        try:
            await send({"type": "websocket.send", "text": "late"})
        except RuntimeError as error:
            self.refusal = str(error)


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[str]:
    """The URL of a server with ``app``."""
    server = uvicorn.Server(uvicorn_config(app, "127.0.0.1", 0, log_level="warning"))
    server.config.lifespan = "off"
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        task = asyncio.create_task(server.serve(sockets=[listener]))
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await task


async def test_messages_of_every_size_arrive() -> None:
    app = SayEverything()
    async with serving(app) as url, asyncio.timeout(20), connect(url) as client:
        for size in SIZES:
            assert await client.recv() == "é" * (size // 2) + "x" * (size % 2)
            assert await client.recv() == b"\0" * size
            assert await client.recv() == "é" * (size // 2) + "x" * (size % 2)
            assert await client.recv() == b"\1" * size
        with pytest.raises(ConnectionClosedOK):
            await client.recv()
    assert app.written == (False, True, False)
    assert "after sending 'websocket.close'" in app.refusal


MANY = 1000  # pieces of 64 KiB: far more than is between two sockets


class WriteUntilFull:
    """Writes until that would mean to wait, then waits once; notes what the short way said when there was room again,
    and when the client had gone."""

    def __init__(self) -> None:
        self.full = asyncio.Event()
        self.written = 0
        self.again = self.after_the_end = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        write = scope["extensions"][WRITE](binary=True)
        await send({"type": "websocket.accept"})
        while self.written < MANY and write(bytes(1 << 16)):
            self.written += 1
        self.full.set()
        await send({"type": "websocket.send", "bytes": b"waited"})
        self.again = write(b"last")
        while (await receive())["type"] != "websocket.disconnect":
            pass
        self.after_the_end = write(b"late")


async def test_nothing_is_written_to_a_peer_that_does_not_read_or_is_gone() -> None:
    app = WriteUntilFull()
    async with serving(app) as url, asyncio.timeout(20), connect(url, max_queue=1) as client:
        await app.full.wait()
        assert app.written < MANY
        while await client.recv() != b"waited":
            pass
        assert await client.recv() == b"last"
        await client.close()
        while app.after_the_end is None:
            await asyncio.sleep(0.01)
    assert (app.again, app.after_the_end) == (True, False)
