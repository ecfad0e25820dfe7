"""uvicorn's settings for this server. Knows measured choices, nothing of the app."""

import gc
import socket
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

_MESSAGE_BYTES = 1 << 20
_SEND_BUFFER_BYTES = 64 << 10


def bound_send_buffers(listener: socket.socket) -> None:
    """Let the kernel hold little for a peer that does not read (Linux doubles the number): what it holds cannot be
    merged, and left to itself it takes megabytes. What is accepted inherits it."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)


def spare_collections() -> None:
    """Call once all that the server is made of is there: it is never garbage, and looking through it for some would
    hold up every stream for a tenth of a second."""
    gc.collect()
    gc.freeze()


def uvicorn_config(app: "ASGIApp", host: str, port: int, *, log_level: str = "info") -> "uvicorn.Config":
    """uvicorn's sans-I/O WebSockets with uvloop send twice the frames a second of the other pairs. No deflate: it would
    halve that again, cost 38 KiB a connection, and let the length of a frame tell what is in it."""
    import uvicorn  # late: a socket that listens is wanted long before

    from backend.server.websocket_frames import WebSocketProtocol

    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http="httptools",
        loop="asyncio" if sys.platform == "win32" else "uvloop",
        ws=WebSocketProtocol,
        ws_max_size=_MESSAGE_BYTES,
        ws_ping_interval=20.0,
        ws_ping_timeout=20.0,
        ws_per_message_deflate=False,
        lifespan="on",
        log_level=log_level,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
