"""uvicorn's WebSocket with a short way for what is sent most: whole text and binary messages on an open connection.

Knows RFC 6455's frame header. All else (handshake, pings, closing, what comes in) is uvicorn's and websockets'.
"""

from typing import TYPE_CHECKING, Protocol

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request
from websockets.protocol import State

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

_TEXT, _BINARY = 0x81, 0x82  # opcode of a message that is one frame
WRITE = "banyan.write"
"""Name in a scope's ``extensions`` of a ``Write``."""


class Write(Protocol):
    """Writes a message without the layers of an application around ``send``."""

    def __call__(self, message: bytes, binary: bool) -> bool:
        """Send ``message`` now; false, and nothing is done, where that would mean to wait or the socket is not open."""
        ...


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """Writes a message as one frame, and offers that to the application: through the layers between them a token cost
    the server half as much again.

    No extension is negotiated (``run.py``), so a frame is its header and the message.
    """

    def handle_connect(self, event: Request) -> None:
        """See uvicorn; the scope is read later, by a task that this starts."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            self.scope["extensions"][WRITE] = self.write  # type: ignore[assignment]

    def write(self, message: bytes, binary: bool) -> bool:
        """See ``Write``."""
        if self.conn.state is not State.OPEN or self.disconnected or not self.writable.is_set():
            return False
        self.transport.write(frame_header(_BINARY if binary else _TEXT, len(message)) + message)
        return True

    async def send(self, message: "ASGISendEvent") -> None:
        """See ASGI."""
        if message["type"] == "websocket.send":
            text = message.get("text")
            body = (message.get("bytes") or b"") if text is None else text.encode()
            if self.write(body, text is None):
                return
        await super().send(message)


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
