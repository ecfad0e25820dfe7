"""uvicorn's WebSocket with a short way for what is sent most: whole text and binary messages on an open connection.

Knows RFC 6455's frame header. All else (handshake, pings, closing, what comes in) is uvicorn's and websockets'.
"""

from typing import TYPE_CHECKING

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import State

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

_TEXT, _BINARY = 0x81, 0x82  # opcode of a message that is one frame


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """Writes a message as one frame: through the layers below that took a third of what a token costs the server.

    No extension is negotiated (``run.py``), so a frame is its header and the message.
    """

    async def send(self, message: "ASGISendEvent") -> None:
        """See ASGI."""
        if (
            message["type"] == "websocket.send"
            and self.conn.state is State.OPEN
            and self.writable.is_set()
            and not self.disconnected
        ):
            text = message.get("text")
            if text is not None:
                body = text.encode()
                self.transport.write(frame_header(_TEXT, len(body)) + body)
            else:
                body = message.get("bytes") or b""
                self.transport.write(frame_header(_BINARY, len(body)) + body)
        else:
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
