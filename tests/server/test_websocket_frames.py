"""The short way of sending: the same frames as the long one, whole at every size, and none on a closed connection."""

import asyncio
import socket

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
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


async def test_messages_of_every_size_arrive() -> None:
    app = SayEverything()
    server = uvicorn.Server(uvicorn_config(app, "127.0.0.1", 0, log_level="warning"))
    server.config.lifespan = "off"
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        async with asyncio.timeout(20), connect(f"ws://127.0.0.1:{listener.getsockname()[1]}") as client:
            for size in SIZES:
                assert await client.recv() == "é" * (size // 2) + "x" * (size % 2)
                assert await client.recv() == b"\0" * size
                assert await client.recv() == "é" * (size // 2) + "x" * (size % 2)
                assert await client.recv() == b"\1" * size
            with pytest.raises(ConnectionClosedOK):
                await client.recv()
        server.should_exit = True
        await serving
    assert app.written == (False, True, False)
    assert "after sending 'websocket.close'" in app.refusal
