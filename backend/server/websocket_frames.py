"""uvicorn's WebSocket with a short way for what is sent most: whole text and binary messages on an open connection.

Knows RFC 6455's frame header. All else (handshake, pings, closing, what comes in) is uvicorn's and websockets'.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Protocol

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

_TEXT, _BINARY = 0x81, 0x82  # opcode of a message that is one frame
WRITE = "banyan.write"
"""Name in a scope's ``extensions`` of a ``Writer``."""

Write = Callable[[bytes], bool]
"""Sends a message now; false, and nothing is done, where that would mean to wait or the socket is not open."""


class Writer(Protocol):
    """Makes a ``Write`` without the layers of an application around ``send``."""

    def __call__(self, *, binary: bool) -> Write: ...


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """Writes a message as one frame, and offers that to the application: through the layers between them a token cost
    the server half as much again.

    No extension is negotiated (``run.py``), so a frame is its header and the message.
    """

    _paused = False

    def handle_connect(self, event: Request) -> None:
        """See uvicorn; the scope is read later, by a task that this starts."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            self.scope["extensions"][WRITE] = self.writer  # type: ignore[assignment]

    def writer(self, *, binary: bool) -> Write:
        """See ``Writer``."""
        return partial(self._write, _BINARY if binary else _TEXT)

    def _write(self, opcode: int, message: bytes) -> bool:
        if self._paused or self.close_sent or not self.handshake_complete or self.transport.is_closing():
            return False
        self.transport.write(frame_header(opcode, len(message)) + message)
        return True

    def pause_writing(self) -> None:
        """See ``asyncio.Protocol``."""
        self._paused = True
        super().pause_writing()

    def resume_writing(self) -> None:
        """See ``asyncio.Protocol``."""
        self._paused = False
        super().resume_writing()

    async def send(self, message: "ASGISendEvent") -> None:
        """See ASGI."""
        if message["type"] == "websocket.send":
            text = message.get("text")
            body = (message.get("bytes") or b"") if text is None else text.encode()
            if self._write(_BINARY if text is None else _TEXT, body):
                return
        await super().send(message)


@lru_cache(maxsize=1024)  # most messages are of a few sizes
def frame_header(first: int, size: int) -> bytes:
    """The header of a server's frame, which is never masked, of ``size`` bytes.

    >>> frame_header(0x81, 5).hex(), frame_header(0x81, 300).hex()
    ('8105', '817e012c')
    """
    if size < 126:
        return bytes((first, size))
    if size < 1 << 16:
        return bytes((first, 126, size >> 8, size & 0xFF))
    return bytes((first, 127)) + size.to_bytes(8, "big")
